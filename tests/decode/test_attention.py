"""Attention against the textbook formula in float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from scratchpad_rag.decode import attention
from scratchpad_rag.decode.attention import blocked_attention, grouped_attention


def textbook(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor
) -> torch.Tensor:
    """softmax(q k / sqrt(d)) v in float64, head by head; `seen` (batch, queries, keys)."""
    batch, heads, queries, size = query.shape
    groups = heads // key.shape[1]
    output = torch.zeros(batch, queries, heads, size, dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            k, v = key[b, h // groups].double(), value[b, h // groups].double()
            scores = query[b, h].double() @ k.T / size**0.5
            scores[~seen[b]] = float("-inf")
            output[b, :, h] = scores.softmax(-1) @ v
    return output


def draw(queries: int, keys: int, batch: int = 1, heads: int = 6, key_heads: int = 2) -> Any:
    generator = torch.Generator().manual_seed(queries * 1000 + keys)
    shapes = [(batch, heads, queries, 8), (batch, key_heads, keys, 8), (batch, key_heads, keys, 8)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def causal(queries: int, keys: int, batch: int = 1) -> torch.Tensor:
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries).expand(batch, -1, -1)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    module: Any = SimpleNamespace(num_key_value_groups=query.shape[1] // key.shape[1])
    return grouped_attention(module, query, key, value, mask, scaling=query.shape[3] ** -0.5)[0]


SIZES = [(1, 1), (1, 40), (3, 40), (16, 16), (17, 130), (64, 64), (130, 131), (300, 310)]


@pytest.mark.parametrize(("queries", "keys"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [(6, 2), (4, 4), (3, 1)])
def test_plainly_causal(
    queries: int, keys: int, dtype: torch.dtype, heads: tuple[int, int]
) -> None:
    query, key, value = (
        tensor.to(dtype) for tensor in draw(queries, keys, heads=heads[0], key_heads=heads[1])
    )
    expected = textbook(query, key, value, causal(queries, keys))
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.03}[dtype]
    assert torch.allclose(attend(query, key, value, None).double(), expected, atol=tolerance)


@pytest.mark.parametrize(("queries", "keys"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_in_blocks(queries: int, keys: int, dtype: torch.dtype) -> None:
    query, key, value = (tensor.to(dtype) for tensor in draw(queries, keys, batch=2))
    expected = textbook(query, key, value, causal(queries, keys, 2))
    found = blocked_attention(query, key, value, 8**-0.5)
    tolerance = 1e-12 if dtype == torch.float64 else 0.03
    assert torch.allclose(found.double(), expected, atol=tolerance)


@pytest.mark.parametrize("boolean", [True, False])
def test_rows_of_different_lengths(boolean: bool) -> None:
    query, key, value = (tensor.double() for tensor in draw(3, 40, batch=2))
    lengths = torch.tensor([[20, 21, 22], [35, 36, 37]])
    seen = torch.arange(40) <= lengths[:, :, None]
    mask = seen[:, None]
    if not boolean:
        mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, float("-inf"))
    expected = textbook(query, key, value, seen)
    for _ in range(2):  # the second takes the mask folded before
        assert torch.allclose(attend(query, key, value, mask), expected, atol=1e-12)


def test_a_mask_folded_for_one_model_is_folded_anew_for_another() -> None:
    mask = torch.ones(1, 1, 3, 40, dtype=torch.bool).tril(37)
    for heads in ((6, 2), (8, 2)):
        query, key, value = (
            tensor.double() for tensor in draw(3, 40, heads=heads[0], key_heads=heads[1])
        )
        expected = textbook(query, key, value, mask[:, 0])
        assert torch.allclose(attend(query, key, value, mask), expected, atol=1e-12)


def test_models_that_cap_their_scores_attend_in_their_own_way() -> None:
    for capping, inside in ((None, "scratchpad_rag_grouped"), (50.0, "eager")):
        text = SimpleNamespace(attn_logit_softcapping=capping)
        config = SimpleNamespace(
            _attn_implementation="flash_attention_2", get_text_config=lambda text=text: text
        )
        with attention.grouped_attention_in(config):
            assert config._attn_implementation == inside
        assert config._attn_implementation == "flash_attention_2"


def test_blocks_are_for_bfloat16_without_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    features = {"avx512_bf16": True, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    decide = attention._blocks_pay.__wrapped__
    cpu = torch.device("cpu")
    assert decide(cpu, torch.bfloat16)
    assert not decide(cpu, torch.float32)
    assert not decide(torch.device("cuda"), torch.bfloat16)
    features["amx_bf16"] = True
    assert not decide(cpu, torch.bfloat16)
