"""RMS normalisation, the SwiGLU product and cross-entropy by the compiled kernels."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from scratchpad_rag.kernels.build import cpu_kernels

_LANES = 16


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        x = x.contiguous()
        size = x.shape[-1]
        rows = x.numel() // size
        y, inverse = torch.empty_like(x), torch.empty(rows, dtype=torch.float32)
        _call(
            "rms_norm_forward",
            x,
            weight,
            y,
            inverse,
            ctypes.c_int64(rows),
            ctypes.c_int64(size),
            ctypes.c_float(epsilon),
        )
        ctx.save_for_backward(x, weight, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        dx = torch.empty_like(x)
        counts = ctypes.c_int64(len(inverse)), ctypes.c_int64(x.shape[-1])
        gradient = gradients[0].contiguous()
        _call("rms_norm_backward", gradient, x, weight, inverse, dx, *counts)
        return dx, None, None


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        y = torch.empty_like(gate)
        _call("swiglu_forward", gate, up, y, ctypes.c_int64(gate.numel()))
        ctx.save_for_backward(gate, up)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gate, up = ctx.saved_tensors
        dgate, dup = torch.empty_like(gate), torch.empty_like(up)
        gradient = gradients[0].contiguous()
        _call("swiglu_backward", gradient, gate, up, dgate, dup, ctypes.c_int64(gate.numel()))
        return dgate, dup


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """`weight * x / rms(x)` over the last dimension (Zhang and Sennrich 2019), weight frozen.

    `x` is (..., size) in bfloat16 with a size that is a multiple of 16.
    """
    y: torch.Tensor = _RmsNorm.apply(x, weight, epsilon)  # type: ignore[no-untyped-call]
    return y


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """`silu(gate) * up` (Shazeer 2020) of two bfloat16 tensors of one shape."""
    y: torch.Tensor = _SwiGlu.apply(gate, up)  # type: ignore[no-untyped-call]
    return y


def cross_entropy_(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log p(target) of each row, float32; `logits` become the gradient of their sum.

    `logits` are (rows, vocabulary) in bfloat16 without gaps, `targets` (rows,) int64. Raises
    IndexError for a target outside the vocabulary, which would be written there.
    """
    rows, size = logits.shape
    if rows and not 0 <= int(targets.min()) <= int(targets.max()) < size:
        raise IndexError(f"a target is outside the vocabulary of {size}")
    losses = torch.empty(rows, dtype=torch.float32)
    counts = ctypes.c_int64(rows), ctypes.c_int64(size)
    _call("cross_entropy", logits, targets.contiguous(), losses, *counts)
    return losses


def serves(*tensors: torch.Tensor, lanes: int = _LANES) -> bool:
    """Whether the kernels take tensors of this kind, in rows of whole vectors.

    Cross-entropy takes rows of any size: `lanes` of 1.
    """
    return (
        all(
            tensor.device.type == "cpu"
            and tensor.dtype is torch.bfloat16
            and tensor.shape[-1] % lanes == 0
            for tensor in tensors
        )
        and cpu_kernels() is not None
    )


def _call(name: str, *arguments: Any) -> None:
    pointers = [
        ctypes.c_void_p(argument.data_ptr()) if isinstance(argument, torch.Tensor) else argument
        for argument in arguments
    ]
    getattr(cpu_kernels(), name)(*pointers)
