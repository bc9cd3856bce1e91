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
# Tokens of the scratchpad that choose what is quoted are counted apart.
CHOICE = len(REGIONS)


class Collator:
    """Pads samples on the right, or packs them into one row.

    Makes input_ids, labels and regions of shape (batch, length), the regions as numbers into
    `REGIONS`, or `CHOICE`. There is no attention mask: padding stands behind a sample, where causal
    attention never looks. A packed row has position_ids, which begin anew with each sample;
    attention keeps the samples apart by them. Labels of first tokens are -100: nothing predicts
    them.
    """

    def __init__(self, pad_token_id: int, *, packed: bool = False) -> None:
        self.pad_token_id = pad_token_id
        self.packed = packed

    def __call__(self, samples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        return self._pack(samples) if self.packed else self._pad(samples)

    def _pad(self, samples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        import torch

        length = max(len(sample) for sample in samples)
        batch = {
            "input_ids": torch.full((len(samples), length), self.pad_token_id),
            "labels": torch.full((len(samples), length), IGNORED),
            "regions": torch.full((len(samples), length), _REGION_NUMBER[Region.SCAFFOLD]),
        }
        for row, sample in enumerate(samples):
            for key, values in _columns(sample).items():
                batch[key][row, : len(sample)] = torch.tensor(values)
        return batch

    def _pack(self, samples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        import torch

        columns = [_columns(sample) for sample in samples]
        row = {
            key: torch.tensor([[value for column in columns for value in column[key]]])
            for key in columns[0]
        }
        row["position_ids"] = torch.cat([torch.arange(len(sample)) for sample in samples])[None]
        return row


def _columns(sample: Encoded) -> dict[str, list[int]]:
    regions = [_REGION_NUMBER[region] for region in sample.regions]
    for token in sample.choices:
        regions[token] = CHOICE
    return {
        "input_ids": list(sample.input_ids),
        "labels": [IGNORED, *sample.labels[1:]],
        "regions": regions,
    }
