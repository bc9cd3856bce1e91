"""What the scratchpad's points cost in tokens and seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scratchpad_rag.evaluate.statistics import Interval
from scratchpad_rag.records import Score


@dataclass(frozen=True, slots=True)
class Cost:
    """`method` against `baseline` in one data set, on the samples that both answered.

    `accuracy`, `tokens` (new ones) and `seconds` are mean paired differences of one answer;
    `per_token` and `per_second` are their ratios: accuracy (0..1) bought per extra token and per
    extra second. A ratio is None where its denominator's interval holds 0: then it is not known
    whether the method costs more at all, and no ratio means anything.
    """

    method: str
    baseline: str
    dataset: str
    accuracy: Interval
    tokens: Interval
    seconds: Interval
    per_token: Interval | None
    per_second: Interval | None
    questions: int


def cost(
    scores: Sequence[Score],
    *,
    method: str = "scratchpad",
    baselines: Sequence[str] = ("sft", "zero_shot"),
    resamples: int = 2000,
    seed: int = 0,
) -> list[Cost]:
    """One Cost a data set and baseline that has samples in common with `method`."""
    raise NotImplementedError
