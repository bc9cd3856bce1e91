"""Normalisation, the SwiGLU product and cross-entropy against float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  its usual name

from scratchpad_rag.kernels.build import cpu_kernels
from scratchpad_rag.kernels.pointwise import cross_entropy_, rms_norm, serves, swiglu

pytestmark = pytest.mark.skipif(cpu_kernels() is None, reason="needs AVX512-bf16 and a compiler")


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * scale).bfloat16()


def with_gradients(
    function: Callable[..., torch.Tensor], gradient: torch.Tensor, *inputs: torch.Tensor
) -> list[torch.Tensor]:
    """What a function gives, and the gradients of its inputs, in float64."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    output = function(*leaves)
    output.backward(gradient.to(output.dtype))
    return [output.detach().double(), *(leaf.grad.double() for leaf in leaves)]  # type: ignore[union-attr]


def exact_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    return weight.double() * x * (x.pow(2).mean(-1, keepdim=True) + epsilon).rsqrt()


@pytest.mark.parametrize("size", [16, 48, 576])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("epsilon", [1e-6, 1e-2])
def test_rms_norm(size: int, scale: float, epsilon: float) -> None:
    x, gradient = draw(2, 5, size, scale=scale), draw(2, 5, size, seed=1)
    weight = draw(size, seed=2) + 2
    mine = with_gradients(lambda x: rms_norm(x, weight, epsilon), gradient, x)
    exact = with_gradients(lambda x: exact_norm(x, weight, epsilon), gradient.double(), x.double())
    # The normalised value is rounded, and its product with the weight.
    assert ((mine[0] - exact[0]).abs() <= 2**-7 * exact[0].abs()).all()
    assert (mine[1] - exact[1]).abs().max() <= 2**-8 * exact[1].abs().max()


def test_rms_norm_rounds_where_transformers_does() -> None:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    norm = LlamaRMSNorm(64, eps=1e-5).bfloat16().requires_grad_(False)
    norm.weight.copy_(draw(64, seed=3))
    x = draw(7, 64, scale=3.0)
    # Not quite always the same: the sum of squares is added up in another order.
    differ = rms_norm(x, norm.weight, 1e-5) != norm(x)
    assert differ.float().mean() < 0.02


def test_rows_of_zeros_stay_zero() -> None:
    found, slope = with_gradients(
        lambda x: rms_norm(x, draw(32), 1e-6), draw(3, 32), torch.zeros(3, 32).bfloat16()
    )
    assert not found.any()
    assert torch.isfinite(slope).all()


def test_rms_norm_of_rows_with_gaps() -> None:
    wide, weight = draw(6, 64), draw(32, seed=1)
    assert torch.equal(
        rms_norm(wide[:, ::2], weight, 1e-6), rms_norm(wide[:, ::2].contiguous(), weight, 1e-6)
    )


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_swiglu(scale: float) -> None:
    gate, up, gradient = draw(3, 7, 48, scale=scale), draw(3, 7, 48, seed=1), draw(3, 7, 48, seed=2)
    mine = with_gradients(swiglu, gradient, gate, up)
    exact = with_gradients(
        lambda gate, up: F.silu(gate) * up, gradient.double(), gate.double(), up.double()
    )
    for found, wanted in zip(mine, exact, strict=True):
        # Around silu's minimum its slope is nought, which no relative error can be held to.
        assert ((found - wanted).abs() <= 2**-7 * wanted.abs() + 1e-5 * wanted.abs().max()).all()


def test_swiglu_far_out() -> None:
    gate = torch.tensor([-200.0, -80.0, -1.0, 0.0, 1.0, 80.0, 200.0, 3e38]).repeat(2).bfloat16()
    one = torch.ones(16).bfloat16()
    output, dgate, dup = with_gradients(swiglu, one, gate, one)
    wide = gate.double()
    expected = wide * torch.sigmoid(wide)
    torch.testing.assert_close(output, expected, rtol=2**-7, atol=1e-30)
    torch.testing.assert_close(dup, expected, rtol=2**-7, atol=1e-30)
    assert dgate[[0, 1, 3, 5, 6, 7]].tolist() == pytest.approx([0, 0, 0.5, 1, 1, 1], abs=1e-30)


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 31, 101, 1000, 4096])
@pytest.mark.parametrize("scale", [0.5, 5.0])
def test_cross_entropy(size: int, scale: float) -> None:
    logits = draw(9, size, scale=scale)
    targets = torch.randint(0, size, (9,), generator=torch.Generator().manual_seed(1))
    targets[0], targets[-1] = 0, size - 1
    wide = logits.double().requires_grad_()
    expected = F.cross_entropy(wide, targets, reduction="none")
    expected.sum().backward()
    losses = cross_entropy_(logits, targets)
    assert losses.dtype is torch.float32
    torch.testing.assert_close(losses.double(), expected.detach(), atol=2e-5, rtol=1e-5)
    assert wide.grad is not None
    # The gradient replaces the logits, each value rounded once.
    torch.testing.assert_close(logits.double(), wide.grad, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("size", [20, 64])
def test_extreme_logits(size: int) -> None:
    logits = torch.zeros(6, size).bfloat16()
    logits[0, 0], logits[1, 0] = 80, -80
    logits[2], logits[2, 5] = -80, 80
    logits[3], logits[3, size - 1] = -3e38, 0
    logits[4], logits[4, 7] = -math.inf, 2
    logits[5] = 80
    targets = torch.tensor([0, 0, 6, size - 1, 7, 3])
    wide = logits.double().requires_grad_()
    expected = F.cross_entropy(wide, targets, reduction="none")
    expected.sum().backward()
    losses = cross_entropy_(logits, targets)
    torch.testing.assert_close(losses.double(), expected.detach(), atol=2e-5, rtol=1e-5)
    assert wide.grad is not None
    torch.testing.assert_close(logits.double(), wide.grad, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("size", [20, 64])
@pytest.mark.parametrize("at", [0, 17])
def test_what_is_not_a_number_stays_so(size: int, at: int) -> None:
    logits = draw(2, size)
    logits[0, at] = math.nan
    losses = cross_entropy_(logits, torch.tensor([3, 3]))
    assert losses[0].isnan()
    assert losses[1].isfinite()
    x = draw(2, 32)
    x[0, 5] = math.nan
    normed = rms_norm(x, draw(32), 1e-6)
    assert normed[0].isnan().all()
    assert normed[1].isfinite().all()
    assert swiglu(x, draw(2, 32))[0, 5].isnan()
    assert swiglu(draw(2, 32), x)[0, 5].isnan()


def test_targets_outside_the_vocabulary_are_refused() -> None:
    for target in (-100, -1, 20):
        with pytest.raises(IndexError, match="outside the vocabulary of 20"):
            cross_entropy_(draw(2, 20), torch.tensor([3, target]))


@pytest.mark.parametrize("count", [2, 3])
def test_several_threads_find_the_same(count: int) -> None:
    def everything() -> list[torch.Tensor]:
        logits = draw(40, 1000, seed=3)
        losses = cross_entropy_(logits, torch.arange(40))
        return [
            *with_gradients(lambda x: rms_norm(x, draw(64), 1e-6), draw(33, 64), draw(33, 64)),
            *with_gradients(swiglu, draw(33, 64), draw(33, 64, seed=1), draw(33, 64, seed=2)),
            losses,
            logits,
        ]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = everything()
        torch.set_num_threads(count)
        together = everything()
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_what_the_kernels_take() -> None:
    assert serves(draw(2, 32))
    assert serves(draw(2, 101), lanes=1)
    assert not serves(draw(2, 101))
    assert not serves(draw(2, 32), draw(2, 32).float())
    assert not serves(draw(2, 32).half())


def test_a_vocabulary_of_any_size_is_met_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    from scratchpad_rag.train.loss import linear_cross_entropy

    calls: list[Any] = []
    real = cross_entropy_

    def counted(*arguments: Any) -> torch.Tensor:
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr("scratchpad_rag.kernels.pointwise.cross_entropy_", counted)
    head = torch.nn.Linear(32, 101, bias=False).bfloat16().requires_grad_(False)
    linear_cross_entropy(draw(4, 32), head, torch.arange(4))
    assert len(calls) == 1
