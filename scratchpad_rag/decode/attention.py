"""Attention for the passes of the decoder: a whole prompt, or a few queries over many keys.

transformers' own repeats keys and values for every query head as soon as there is a mask, which
for a few queries costs more than the rest; and PyTorch's kernel for the CPU does without the
processor's bfloat16 products where they are not those of AMX.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from threading import RLock
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from scratchpad_rag.kernels.attention import NAME as TRAINING
from scratchpad_rag.kernels.attention import mask_unless_causal

_NAME = "scratchpad_rag_grouped"
_ONE_AT_A_TIME = RLock()
_REPLACED = ("sdpa", TRAINING, "flash_attention_2", "flash_attention_3", "flash_attention_4")
# Queries a block, and the fewest for which blocks pay: measured on AVX512-bf16.
_BLOCK = 128
_FEWEST = 16


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal scaled dot-product attention; the last query is at the last key.

    `query`: (batch, heads, queries, size); `key`, `value`: (batch, key heads, keys, size);
    returns (batch, queries, heads, size). Without a mask it is plainly causal.
    """
    queries, keys = query.shape[2], key.shape[2]
    if attention_mask is None and queries >= _FEWEST and _blocks_pay(query.device, query.dtype):
        return blocked_attention(query, key, value, scaling or query.shape[3] ** -0.5), None
    if attention_mask is None and 1 < queries < keys:
        attention_mask = _causal_mask(queries, keys, query.device)
    groups = query.shape[1] // key.shape[1]
    whole = queries > 1 and 2 * queries >= keys
    if whole or groups == 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
    # The query heads of a group are more queries of one head.
    batch, heads, _, size = query.shape
    folded = query.reshape(batch, key.shape[1], groups * queries, size)
    mask = None if attention_mask is None else _folded_mask(attention_mask, groups, query.dtype)
    output = torch.nn.functional.scaled_dot_product_attention(
        folded, key, value, mask, scale=scaling
    )
    output = output.reshape(batch, heads, queries, value.shape[3])
    return output.transpose(1, 2).contiguous(), None


def blocked_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Causal attention as matrix products, a block of queries over the keys before its end.

    Scores are rounded to the dtype between product and softmax, as in transformers' eager
    attention; the softmax itself is computed in float32. Shapes as in `grouped_attention`.
    """
    batch, heads, queries, size = query.shape
    key_heads, before = key.shape[1], key.shape[2] - queries
    groups, count = heads // key_heads, batch * key_heads
    output = query.new_empty(batch, queries, heads, value.shape[3])
    # All blocks write their scores to one buffer, which stays in the processor's cache.
    buffer = query.new_empty(count * groups * min(_BLOCK, queries) * key.shape[2])
    for start in range(0, queries, _BLOCK):
        stop = min(start + _BLOCK, queries)
        width, end = stop - start, before + stop
        folded = query[:, :, start:stop].reshape(count, groups * width, size)
        keys = key[:, :, :end].reshape(count, end, size)
        values = value[:, :, :end].reshape(count, end, value.shape[3])
        scores = buffer[: count * groups * width * end].view(count, groups * width, end)
        torch.baddbmm(
            buffer[:1].view(1, 1, 1),
            folded,
            keys.transpose(1, 2),
            beta=0,
            alpha=scaling,
            out=scores,
        )
        later = scores.view(-1, groups, width, end)[..., before + start :]
        later.add_(_later_keys(width, query.dtype, query.device))
        block = torch.bmm(torch.softmax(scores, -1, out=scores), values)
        output[:, start:stop] = block.view(batch, heads, width, -1).transpose(1, 2)
    return output


@cache
def _blocks_pay(device: torch.device, dtype: torch.dtype) -> bool:
    """Where the CPU multiplies bfloat16 by AVX512; with AMX PyTorch's own kernel uses it."""
    features = torch.cpu.get_capabilities()
    return (
        device.type == "cpu"
        and dtype == torch.bfloat16
        and bool(features.get("avx512_bf16"))
        and not features.get("amx_bf16")
    )


@lru_cache(maxsize=_BLOCK)
def _later_keys(width: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.full((width, width), float("-inf"), dtype=dtype, device=device).triu_(1)


@lru_cache(maxsize=1)  # for all layers of a pass
def _causal_mask(queries: int, keys: int, device: torch.device) -> torch.Tensor:
    mask = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return mask.tril_(keys - queries)[None, None]


def _folded_mask(mask: torch.Tensor, groups: int, dtype: torch.dtype) -> torch.Tensor:
    """The mask for each group's queries in a row, additive; made once a pass, not once a layer."""
    known = getattr(mask, "_folded", None)
    if known is not None and known.dtype == dtype and known.shape[2] == groups * mask.shape[2]:
        return known  # type: ignore[no-any-return]
    if mask.dtype == torch.bool:
        additive = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        additive.masked_fill_(~mask, float("-inf"))
    else:
        additive = mask.to(dtype)
    folded = additive.repeat(1, 1, groups, 1)
    mask._folded = folded  # type: ignore[attr-defined]
    return folded


@contextmanager
def grouped_attention_in(config: Any) -> Iterator[None]:
    """Let the models of a config attend so within a block, where they use PyTorch's attention.

    Flash attention takes no masks of single positions, which rows of different lengths need, and
    PyTorch's attention caps no scores, as Gemma 2 does. One thread at a time is within a block.
    """
    with _ONE_AT_A_TIME:
        before = config._attn_implementation
        if before in _REPLACED:
            config._attn_implementation = "eager" if _caps_scores(config) else _NAME
        try:
            yield
        finally:
            config._attn_implementation = before
            _causal_mask.cache_clear()


def _caps_scores(config: Any) -> bool:
    return getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None


AttentionInterface.register(_NAME, grouped_attention)
AttentionMaskInterface.register(_NAME, mask_unless_causal)
