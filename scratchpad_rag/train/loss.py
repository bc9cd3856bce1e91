"""Next-token cross-entropy over the chosen region only."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  its usual name

from scratchpad_rag.tokens.encode import IGNORED


class RegionLoss(NamedTuple):
    """Summed loss, and each scored token's loss with the number of its region."""

    total: torch.Tensor  # scalar, float32
    token_losses: torch.Tensor  # (tokens,)
    regions: torch.Tensor  # (tokens,)


def region_loss(
    model: Any, inputs: dict[str, torch.Tensor], labels: torch.Tensor, regions: torch.Tensor
) -> RegionLoss:
    """Sum of -log p(token) over the tokens whose label is not -100.

    `labels` and `regions` are (batch, length), at the place of their token; the shift happens
    here. The vocabulary is only reached by positions that some row of the batch scores.
    """
    targets = labels[:, 1:]  # (batch, length - 1): what each position has to predict
    scored = targets != IGNORED
    columns = scored.any(dim=0).nonzero().squeeze(-1)  # (positions,)
    logits = model(**inputs, logits_to_keep=columns, use_cache=False).logits
    kept = scored[:, columns]  # (batch, positions)
    token_losses = F.cross_entropy(
        logits[kept].float(), targets[:, columns][kept], reduction="none"
    )
    return RegionLoss(token_losses.sum(), token_losses.detach(), regions[:, 1:][:, columns][kept])
