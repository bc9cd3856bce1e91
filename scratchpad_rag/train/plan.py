"""Which samples meet in which step: a pure function of their lengths, the seed and the epoch.

A run that goes on counts the steps behind it and takes up the plan there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from scratchpad_rag.tokens.pack import best_fit_decreasing
from scratchpad_rag.tokens.samples import EpochSamples


class Visit(NamedTuple):
    """A sample in a micro-batch. A silent one is computed and not counted: it fills up a step that
    all processes have to take."""

    epoch: int
    sample: int  # its index
    silent: bool = False


@dataclass(frozen=True)
class PlanShape:
    """How samples are put together."""

    batch_size: int  # samples a micro-batch, or rows' worth of tokens where they are packed
    packed: bool
    seed: int
    epochs: float


def plan_epoch(lengths: Sequence[int], shape: PlanShape, epoch: int) -> list[tuple[int, ...]]:
    """The micro-batches of one epoch, as indices of samples; each sample is in one of them.

    Packed, a micro-batch holds as many tokens as `batch_size` of the longest sample, and the order
    of the micro-batches is drawn.
    """
    generator = random.Random(f"{shape.seed}/{epoch}/order")
    order = list(range(len(lengths)))
    generator.shuffle(order)
    if not shape.packed:
        size = shape.batch_size
        return [tuple(order[begin : begin + size]) for begin in range(0, len(order), size)]
    capacity = shape.batch_size * max(lengths)
    rows = best_fit_decreasing([lengths[index] for index in order], capacity)
    generator.shuffle(rows)
    return [tuple(order[index] for index in row) for row in rows]


def plan_run(samples: EpochSamples, shape: PlanShape) -> list[tuple[Visit, ...]]:
    """The micro-batches of all epochs in a row; of a last part of an epoch, its first ones."""
    batches: list[tuple[Visit, ...]] = []
    for epoch in range(ceil(shape.epochs)):
        planned = plan_epoch(samples.lengths(epoch), shape, epoch)
        share = min(1.0, shape.epochs - epoch)
        kept = planned[: max(1, round(share * len(planned)))]
        batches += [tuple(Visit(epoch, index) for index in batch) for batch in kept]
    return batches


class Stream:
    """The micro-batches of one of `processes`: every n-th of the run's.

    The last ones are filled up with silent copies, so that all processes take as many steps.
    """

    def __init__(self, batches: Sequence[tuple[Visit, ...]], process: int, processes: int) -> None:
        filled = list(batches)
        while len(filled) % processes:
            filled.append(tuple(visit._replace(silent=True) for visit in batches[-1]))
        self.batches = filled[process::processes]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Visit]]:
        return iter([list(batch) for batch in self.batches])
