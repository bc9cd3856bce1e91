"""Causal attention for training on a CPU, by the compiled kernels where they serve."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

from scratchpad_rag.kernels.build import cpu_kernels

NAME = "scratchpad_rag_causal"  # in transformers' table of attentions
_BLOCK = 64  # the kernels' own


class _Shape(ctypes.Structure):
    _fields_ = (
        ("batch", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("key_heads", ctypes.c_int32),
        ("length", ctypes.c_int32),
        ("size", ctypes.c_int32),
        ("scale", ctypes.c_float),
    )


class _Strides(ctypes.Structure):
    _fields_ = (("batch", ctypes.c_int64), ("head", ctypes.c_int64), ("row", ctypes.c_int64))


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        query, key, value = (_with_whole_rows(tensor) for tensor in (query, key, value))
        batch, heads, length, size = query.shape
        output = query.new_empty(batch, length, heads, size).transpose(1, 2)
        padded = -(-length // _BLOCK) * _BLOCK
        lse = torch.empty(batch, heads, padded, dtype=torch.float32)
        _call("attention_forward", _shape(query, key, scale), query, key, value, output, lse)
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, output, lse = ctx.saved_tensors
        found = [_like_rows(tensor) for tensor in (query, key, value)]
        gradient = _with_whole_rows(gradients[0])
        shape = _shape(query, key, ctx.scale)
        _call("attention_backward", shape, query, key, value, output, lse, gradient, *found)
        return (*found, None)


def causal_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """Causal scaled dot-product attention, with gradients, by the compiled kernels.

    `query` is (batch, heads, length, size) in bfloat16; `key` and `value` may have fewer heads,
    which groups of query heads share. Returns the shape of `query`.
    """
    output: torch.Tensor = _CausalAttention.apply(query, key, value, scale)  # type: ignore[no-untyped-call]
    return output


def serves(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether the kernels take these tensors."""
    return (
        query.device.type == "cpu"
        and query.dtype is key.dtype is value.dtype is torch.bfloat16
        and query.shape[2] == key.shape[2]
        and query.shape[3] == value.shape[3]
        and query.shape[3] % 32 == 0
        and query.shape[1] % key.shape[1] == 0
        and cpu_kernels() is not None
    )


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    if attention_mask is None and query.shape[2] != key.shape[2]:
        attention_mask = _last_queries(query.shape[2], key.shape[2], query.device)
    if attention_mask is None and dropout == 0.0 and serves(query, key, value):
        output = causal_attention(query, key, value, scaling or query.shape[3] ** -0.5)
        return output.transpose(1, 2), None
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout, scaling, **kwargs
    )


def _last_queries(queries: int, keys: int, device: torch.device) -> torch.Tensor:
    """The mask of queries at the end of more keys, as with a cache; True is seen."""
    mask = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return mask.tril_(keys - queries)[None, None]


def mask_unless_causal(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Any = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    **options: Any,
) -> torch.Tensor | None:
    """No mask where attention is plainly causal; else the one that PyTorch's attention takes.

    For transformers' table of masks, in its own signature.
    """
    if mask_function is causal_mask_function and attention_mask is None:
        return None
    found: torch.Tensor | None = sdpa_mask(
        batch_size,
        q_length,
        kv_length,
        q_offset,
        kv_offset,
        mask_function,
        attention_mask,
        **options,
    )
    return found


@contextmanager
def causal_attention_in(config: Any) -> Iterator[None]:
    """Let the models of a config attend by the kernels within a block.

    Only where they would use PyTorch's attention and the kernels can be had; scores that are
    capped, as in Gemma 2, are left to transformers.
    """
    before = config._attn_implementation
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    if before == "sdpa" and not capped and cpu_kernels() is not None:
        config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _shape(query: torch.Tensor, key: torch.Tensor, scale: float) -> _Shape:
    batch, heads, length, size = query.shape
    return _Shape(batch, heads, key.shape[1], length, size, scale)


def _with_whole_rows(tensor: torch.Tensor) -> torch.Tensor:
    """The kernels take any strides, but the last dimension without gaps."""
    return tensor if tensor.stride(3) == 1 else tensor.contiguous()


def _like_rows(tensor: torch.Tensor) -> torch.Tensor:
    """Empty, and laid out so that the heads of a position stand together, as projections want."""
    batch, heads, length, size = tensor.shape
    return tensor.new_empty(batch, length, heads, size).transpose(1, 2)


def _call(name: str, shape: _Shape, *tensors: torch.Tensor) -> None:
    arguments: list[Any] = [ctypes.byref(shape)]
    for tensor in tensors:
        arguments.append(ctypes.c_void_p(tensor.data_ptr()))
        if tensor.dtype is torch.bfloat16:
            arguments.append(ctypes.byref(_Strides(*tensor.stride()[:3])))
    getattr(cpu_kernels(), name)(*arguments)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, mask_unless_causal)
