"""Encoded samples -> the tensors of one micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scratchpad_rag.records import Encoded, Region
from scratchpad_rag.tokens.encode import IGNORED

if TYPE_CHECKING:
    import torch

REGIONS = tuple(Region)
_REGION_NUMBER = {region: number for number, region in enumerate(REGIONS)}
# Tokens of the scratchpad that choose what is quoted are counted apart.
CHOICE = len(REGIONS)


@dataclass(frozen=True)
class Weights:
    """What a scored token counts in the loss: those that choose, those of the answer; others 1.

    A token chooses where a scratchpad parts from what else could be quoted, begins, goes on to a
    further quote, or ends. A passage's hundred copied tokens are soon learnt, and would drown them.
    """

    choice: float = 1.0
    answer: float = 1.0

    @property
    def alike(self) -> bool:
        """Whether all tokens count the same."""
        return self.choice == self.answer == 1.0

    def of(self, sample: Encoded) -> list[float]:
        """A weight for each token of a sample; those of its scored tokens have a mean of 1.

        >>> answer, copied = (Region.ANSWER,) * 2, (Region.SCRATCHPAD,) * 2
        >>> Weights(choice=4).of(Encoded((1, 2, 3, 4), (-100, 2, 3, 4), copied + answer, 1, (1,)))
        [0.5, 2.0, 0.5, 0.5]
        """
        choosing = {*sample.choices, *sample.turns}
        weights = [
            self.choice if token in choosing else self.answer if region is Region.ANSWER else 1.0
            for token, region in enumerate(sample.regions)
        ]
        scored = [w for w, label in zip(weights, sample.labels, strict=True) if label != IGNORED]
        mean = sum(scored) / len(scored) if sum(scored) else 1.0
        return [weight / mean for weight in weights]


class Collator:
    """Pads samples on the right, or packs them into one row.

    Makes input_ids, labels and regions of shape (batch, length), the regions as numbers into
    `REGIONS`, or `CHOICE`. There is no attention mask: padding stands behind a sample, where causal
    attention never looks. A packed row has position_ids, which begin anew with each sample;
    attention keeps the samples apart by them. Labels of first tokens are -100: nothing predicts
    them. Unless all tokens count alike, `weights` has what each does.
    """

    def __init__(
        self, pad_token_id: int, *, packed: bool = False, weights: Weights | None = None
    ) -> None:
        self.pad_token_id = pad_token_id
        self.packed = packed
        self.weights = None if weights is None or weights.alike else weights

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
        if self.weights is not None:
            batch["weights"] = torch.zeros(len(samples), length)
        for row, sample in enumerate(samples):
            for key, values in self._columns(sample).items():
                batch[key][row, : len(sample)] = torch.tensor(values)
        return batch

    def _pack(self, samples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        import torch

        columns = [self._columns(sample) for sample in samples]
        row = {
            key: torch.tensor([[value for column in columns for value in column[key]]])
            for key in columns[0]
        }
        row["position_ids"] = torch.cat([torch.arange(len(sample)) for sample in samples])[None]
        return row

    def _columns(self, sample: Encoded) -> dict[str, list[Any]]:
        regions = [_REGION_NUMBER[region] for region in sample.regions]
        for token in sample.choices:
            regions[token] = CHOICE
        columns: dict[str, list[Any]] = {
            "input_ids": list(sample.input_ids),
            "labels": [IGNORED, *sample.labels[1:]],
            "regions": regions,
        }
        if self.weights is not None:
            columns["weights"] = self.weights.of(sample)
        return columns
