"""Encoded samples -> the tensors of one micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scratchpad_rag.records import Encoded, Region
from scratchpad_rag.tokens.encode import IGNORED

if TYPE_CHECKING:
    import torch

REGIONS = tuple(Region)
_REGION_NUMBER = {region: number for number, region in enumerate(REGIONS)}


class Collator:
    """Pads a batch on the right; a single sample is not padded and gets no mask.

    Makes input_ids, labels and regions of shape (batch, length), the regions as numbers into
    `REGIONS`, and attention_mask where there is padding.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, samples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        import torch

        length = max(len(sample) for sample in samples)
        batch = {
            "input_ids": torch.full((len(samples), length), self.pad_token_id),
            "labels": torch.full((len(samples), length), IGNORED),
            "regions": torch.full((len(samples), length), _REGION_NUMBER[Region.SCAFFOLD]),
        }
        for row, sample in enumerate(samples):
            batch["input_ids"][row, : len(sample)] = torch.tensor(sample.input_ids)
            batch["labels"][row, : len(sample)] = torch.tensor(sample.labels)
            numbers = [_REGION_NUMBER[region] for region in sample.regions]
            batch["regions"][row, : len(sample)] = torch.tensor(numbers)
        batch["labels"][:, 0] = IGNORED  # nothing predicts the first token
        if any(len(sample) < length for sample in samples):
            lengths = torch.tensor([len(sample) for sample in samples])
            batch["attention_mask"] = (torch.arange(length) < lengths[:, None]).long()
        return batch
