"""What the layers of a model may see of a row: masks by kind of layer."""

from __future__ import annotations

from typing import Any

import torch


def masks_by_layer(
    config: Any, mask: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor
) -> Any:
    """The mask for full and for sliding-window layers. Booleans (rows, 1, width, slots)."""
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None)
    kinds = set(getattr(text, "layer_types", None) or [])
    if not kinds:
        kinds = {"sliding_attention" if window else "full_attention"}
    sliding = mask
    if window is not None:
        sliding = mask & (slots > positions[:, :, None] - window)[:, None]
    masks = {"full_attention": mask, "sliding_attention": sliding}
    if len(kinds) == 1:
        return masks[next(iter(kinds))]
    return {kind: masks[kind] for kind in kinds}


def additive(masks: Any, dtype: torch.dtype) -> Any:
    """Boolean masks as numbers to add to scores: 0 where seen, the least there is where not."""
    if isinstance(masks, dict):
        return {kind: additive(mask, dtype) for kind, mask in masks.items()}
    return torch.zeros(masks.shape, dtype=dtype, device=masks.device).masked_fill_(
        ~masks, torch.finfo(dtype).min
    )
