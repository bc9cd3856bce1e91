"""The attention kernels against float64, and against PyTorch's own in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from scratchpad_rag.kernels.attention import NAME, causal_attention, causal_attention_in, serves
from scratchpad_rag.kernels.build import cpu_kernels
from tests.train.tiny import tiny_lm

pytestmark = pytest.mark.skipif(cpu_kernels() is None, reason="needs AVX512-bf16 and a compiler")

Tensors = tuple[torch.Tensor, ...]
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def draw(batch: int, heads: int, key_heads: int, length: int, size: int, seed: int = 0) -> Tensors:
    """Queries, keys, values and a gradient of the output, in bfloat16."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(batch, count, length, size, generator=generator).bfloat16()
        for count in (heads, key_heads, key_heads, heads)
    )


def plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


def ours(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return causal_attention(query, key, value, query.shape[3] ** -0.5)


def all_four(attend: Attention, tensors: Tensors, dtype: torch.dtype) -> Tensors:
    """The output and the gradients of queries, keys and values."""
    *inputs, gradient = (tensor.to(dtype) for tensor in tensors)
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    output = attend(*inputs)
    output.backward(gradient)
    return (output.detach(), *(tensor.grad for tensor in inputs))  # type: ignore[return-value]


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


SHAPES = [
    *((1, 4, 4, length, 64) for length in (1, 2, 5, 63, 64, 65, 127, 130, 333)),
    *((1, 4, 2, length, 32) for length in (1, 65, 200)),
    *((2, 9, 3, length, 64) for length in (5, 130)),
    *((2, 6, 2, length, 96) for length in (63, 130)),
    *((1, 8, 1, length, 128) for length in (64, 333)),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_as_near_to_float64_as_pytorchs(
    shape: tuple[int, int, int, int, int],
) -> None:
    tensors = draw(*shape)
    exact = all_four(plain, tensors, torch.float64)
    peer = all_four(plain, tensors, torch.bfloat16)
    mine = all_four(ours, tensors, torch.bfloat16)
    for name, wanted, theirs, found in zip("oqkv", exact, peer, mine, strict=True):
        assert found.dtype is torch.bfloat16
        assert found.shape == wanted.shape
        error = (found.double() - wanted).norm()
        allowed = (theirs.double() - wanted).norm()
        # Where PyTorch happens to be exact, one rounding of the values is allowed, and of nought
        # that of a sum in float32.
        rounding = (wanted.bfloat16().double() - wanted).norm()
        assert error <= 1.5 * torch.maximum(allowed, rounding) + 1e-5, name


def test_scores_that_grow_from_block_to_block_keep_their_sums() -> None:
    """Each block of keys has a new largest score, and what was summed before shrinks."""
    query, key, value, gradient = draw(1, 2, 2, 300, 64)
    key = (key * torch.linspace(0.1, 12, 300)[:, None]).bfloat16()
    tensors = (query, key, value, gradient)
    exact = all_four(plain, tensors, torch.float64)
    peer = all_four(plain, tensors, torch.bfloat16)
    mine = all_four(ours, tensors, torch.bfloat16)
    for wanted, theirs, found in zip(exact, peer, mine, strict=True):
        error = (found.double() - wanted).norm()
        assert error <= 1.5 * (theirs.double() - wanted).norm()


def test_another_scale() -> None:
    tensors = draw(1, 2, 2, 70, 64)
    exact = all_four(
        lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
        tensors,
        torch.float64,
    )
    mine = all_four(lambda q, k, v: causal_attention(q, k, v, 0.3), tensors, torch.bfloat16)
    for wanted, found in zip(exact, mine, strict=True):
        assert (found.double() - wanted).norm() < 0.01 * wanted.norm()


def test_tensors_with_gaps_are_read_as_they_lie() -> None:
    """As projections leave them: heads of a position together, and rows of a fused matrix."""
    query, key, value, gradient = draw(2, 4, 2, 77, 64)
    expected = all_four(ours, (query, key, value, gradient), torch.bfloat16)
    together = torch.cat([query, key, value], dim=1).transpose(1, 2).contiguous().transpose(1, 2)
    parts = together.split([4, 2, 2], dim=1)
    assert not any(part.is_contiguous() for part in parts)
    laid = gradient.transpose(2, 3).contiguous().transpose(2, 3)
    assert laid.stride(3) != 1
    found = all_four(ours, (*parts, laid), torch.bfloat16)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    one = torch.ones(1, 1, 1, 1, dtype=torch.bfloat16).expand(2, 4, 77, 64)
    whole = (query, key, value, one.contiguous())
    spread = all_four(ours, (query, key, value, one), torch.bfloat16)
    expected = all_four(ours, whole, torch.bfloat16)
    assert all(torch.equal(a, b) for a, b in zip(spread, expected, strict=True))


@pytest.mark.parametrize("at", [0, 1, 40, 63, 64, 65, 128, 199])
def test_a_later_token_changes_nothing_before_it(at: int) -> None:
    query, key, value, gradient = draw(1, 4, 2, 200, 64)
    changed = [tensor.clone() for tensor in (query, key, value)]
    for tensor, other in zip(changed, draw(1, 4, 2, 200, 64, seed=1), strict=False):
        tensor[:, :, at:] = other[:, :, at:]
    # Nothing is asked of the changed tokens, so no gradient comes from them either.
    gradient[:, :, at:] = 0
    before = all_four(ours, (query, key, value, gradient), torch.bfloat16)
    after = all_four(ours, (*changed, gradient), torch.bfloat16)
    for first, second in zip(before, after, strict=True):
        assert torch.equal(first[:, :, :at], second[:, :, :at])
    for gradients in before[1:]:
        assert not gradients[:, :, at:].any()


def test_what_is_not_a_number_stays_so() -> None:
    for place in range(3):
        tensors = draw(1, 2, 2, 150, 64)
        tensors[place][0, 1, 70, 3] = float("nan")
        output, *_ = all_four(ours, tensors, torch.bfloat16)
        assert torch.isfinite(output[:, 0]).all()  # another head
        assert torch.isfinite(output[0, 1, :64]).all()  # earlier blocks
        assert output[0, 1, 70].isnan().any()
        if place > 0:  # a key or a value is seen by all that follow
            assert output[0, 1, 70:].isnan().any(-1).all()


@pytest.mark.parametrize("count", [2, 3])
def test_several_threads_find_the_same(count: int) -> None:
    tensors = draw(2, 3, 3, 333, 64)
    with threads(1):
        alone = all_four(ours, tensors, torch.bfloat16)
    with threads(count):
        together = all_four(ours, tensors, torch.bfloat16)
        again = all_four(ours, tensors, torch.bfloat16)
    assert all(torch.equal(a, b) for a, b in zip(together, again, strict=True))
    # Queries' gradients are summed in other parts, and differ by a rounding here and there.
    assert torch.equal(together[0], alone[0])
    assert torch.equal(together[2], alone[2])
    assert torch.equal(together[3], alone[3])
    torch.testing.assert_close(together[1], alone[1], atol=1e-3, rtol=1e-2)


def test_what_the_kernels_take() -> None:
    query, key, value, _ = draw(1, 4, 2, 8, 64)
    assert serves(query, key, value)
    assert not serves(query.float(), key.float(), value.float())
    assert not serves(query[:, :, :4], key, value)  # fewer queries than keys, as with a cache
    assert not serves(query, key, value[..., :32])
    assert not serves(query[..., :48], key[..., :48], value[..., :48])
    assert not serves(query[:, :3], key, value)


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "Mistral"])
def test_a_model_attends_by_them_within_the_block_only(
    monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    model = tiny_lm(family, torch.bfloat16)
    ids = torch.arange(3, 80)[None]
    expected = model.double()(ids).logits
    model.bfloat16()
    peer = model(ids).logits
    calls: list[Any] = []
    real = causal_attention

    def counted(*arguments: Any) -> torch.Tensor:
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr("scratchpad_rag.kernels.attention.causal_attention", counted)
    with causal_attention_in(model.config):
        assert model.config._attn_implementation == NAME
        mine = model(ids).logits
    assert len(calls) == 2  # layers
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(model(ids).logits, peer)
    error, allowed = ((found.double() - expected).norm() for found in (mine, peer))
    assert error <= 1.5 * allowed


def test_with_a_cache_the_last_queries_see_all_before_them() -> None:
    model = tiny_lm(dtype=torch.bfloat16)
    ids = torch.arange(3, 40)[None]
    whole = model(ids).logits
    with causal_attention_in(model.config), torch.no_grad():
        first = model(ids[:, :30], use_cache=True)
        rest = model(ids[:, 30:], past_key_values=first.past_key_values, use_cache=True)
    found = torch.cat([first.logits, rest.logits], dim=1).double()
    torch.testing.assert_close(found, whole.double(), atol=0.1, rtol=0.05)


def test_padding_and_packing_have_masks() -> None:
    """Where attention is not plainly causal, PyTorch's own is given the mask that is due."""
    model = tiny_lm(dtype=torch.bfloat16)
    ids = torch.arange(3, 19)[None]
    positions = torch.arange(8).repeat(2)[None]
    mask = torch.ones(1, 16, dtype=torch.long)
    mask[0, :3] = 0
    for options in ({"position_ids": positions}, {"attention_mask": mask}):
        with torch.no_grad():
            expected = model(ids, use_cache=False, **options).logits
            assert not torch.equal(expected, model(ids, use_cache=False).logits)
            with causal_attention_in(model.config):
                assert torch.equal(model(ids, use_cache=False, **options).logits, expected)


def test_capped_scores_are_left_to_transformers() -> None:
    model = tiny_lm("Gemma2", torch.bfloat16)
    before = model.config._attn_implementation
    with causal_attention_in(model.config):
        assert model.config._attn_implementation == before
