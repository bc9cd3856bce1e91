"""Whether a reader keeps silent where nothing shown supports an answer, and only there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scratchpad_rag.evaluate.statistics import Interval
from scratchpad_rag.records import Score


@dataclass(frozen=True, slots=True)
class Abstention:
    """Rates (0..1) of one method in one data set at one number of documents.

    `false_quotes`: samples without gold in which anything is quoted (None: no quotes in this
    method). `abstained`: samples without gold in which it abstains. `false_abstained`: samples with
    gold shown in which it abstains. None where there is no such sample.
    """

    method: str
    dataset: str
    num_documents: int
    false_quotes: Interval | None
    abstained: Interval | None
    false_abstained: Interval | None


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """One point of the trade-off: a method in one data set at one number of documents.

    `coverage` is the share of samples answered, `risk` the share of wrong ones among those
    answered (None: nothing answered), over cells with and without gold together where `gold` is
    "all", or one kind of cell ("inserted", "none", "retrieved").
    """

    method: str
    dataset: str
    num_documents: int
    gold: str
    coverage: Interval
    risk: Interval | None


def abstentions(scores: Sequence[Score]) -> list[Abstention]:
    """One Abstention a method, data set and number of documents (at least 1), sorted by the last
    two, methods in order of appearance."""
    raise NotImplementedError


def risk_coverage(scores: Sequence[Score]) -> list[RiskCoverage]:
    """The points of the trade-off between answering and erring, in the same order."""
    raise NotImplementedError
