"""One number for how much a reader loses as the gold passage moves, one as the context grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scratchpad_rag.evaluate.significance import CochranQ
from scratchpad_rag.evaluate.statistics import Interval
from scratchpad_rag.records import Score


@dataclass(frozen=True, slots=True)
class PositionRobustness:
    """Accuracy by gold position (on the same questions at each), and what the worst one costs.

    `drop` is best minus worst (0..1) where the two positions are picked on one half of the
    questions and measured on the other: about 0 for a perfectly robust reader, unlike
    `naive_drop`, the largest minus the smallest point of the curve. `best` and `worst` are the
    positions of the whole curve's extremes.
    """

    dataset: str
    passage_order: str
    num_documents: int
    curve: tuple[tuple[int, Interval], ...]
    drop: Interval
    naive_drop: float
    best: int
    worst: int
    cochran: CochranQ
    questions: int


@dataclass(frozen=True, slots=True)
class LengthRobustness:
    """Accuracy by number of documents (on the same questions at each), and the slope.

    `slope` is the change in accuracy (0..1; times 100: points) for each doubling of the documents.
    """

    dataset: str
    passage_order: str
    curve: tuple[tuple[int, Interval], ...]
    slope: Interval
    questions: int


def position_robustness(
    scores: Sequence[Score],
    *,
    dataset: str = "",
    documents: int,
    order: str = "ranked",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> PositionRobustness | None:
    """Position robustness of one method's scores in one data set at one number of documents.

    Other data sets, numbers and orders among the scores are passed over, cells without gold too.
    None where fewer than two positions or fewer than four complete questions are left. Raises
    ValueError on scores of several methods.
    """
    raise NotImplementedError


def length_robustness(
    scores: Sequence[Score],
    *,
    dataset: str = "",
    order: str = "ranked",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> LengthRobustness | None:
    """Length robustness of one method's scores in one data set, over all gold positions.

    A question counts at a number of documents with its mean over the positions there. None where
    fewer than two numbers of documents or no complete question are left. Raises ValueError on
    scores of several methods.
    """
    raise NotImplementedError
