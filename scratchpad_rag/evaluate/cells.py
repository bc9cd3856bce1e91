"""The cells of a grid: which scores belong together, and methods compared cell by cell."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from scratchpad_rag.evaluate.statistics import PairedDifference
from scratchpad_rag.records import Score

CONTEXT_FREE = ("closed_book", "gold_only")  # one score a question, whatever the cell
INSERTED, NO_GOLD, RETRIEVED = "inserted", "none", "retrieved"  # of Cell.gold


@dataclass(frozen=True, slots=True)
class Cell:
    """A place in the grid. Cells sort by data set, order, documents, then gold and position.

    `gold`: "inserted" at `position` (from 0, of the first gold passage), "none", or "retrieved":
    where the retriever put it, if anywhere. `position` is None but for gold that was inserted, and
    is None there too where every passage kept its own place (passage order "given").
    """

    dataset: str
    passage_order: str
    num_documents: int
    gold: str
    position: int | None = None

    def __lt__(self, other: Cell) -> bool:
        return self._sort_key < other._sort_key

    @property
    def _sort_key(self) -> tuple[str, str, int, str, int]:
        at = -1 if self.position is None else self.position
        return (self.dataset, self.passage_order, self.num_documents, self.gold, at)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`method` minus `baseline` in subspan exact match: in one cell, or pooled (`cell` None) over
    all cells of `dataset`, with the questions as clusters.

    `difference.p_value` is the exact McNemar test in a cell, the sign-flip test pooled;
    `mcnemar_p` is None pooled, where it does not apply. `adjusted_p` is `difference.p_value` after
    Holm's correction over everything compared in the same call. `detectable` is the smallest
    difference (0..1) that the sample would have shown with a power of 0.8 at a level of 0.05,
    uncorrected; `math.inf` if none.
    """

    dataset: str
    cell: Cell | None
    method: str
    baseline: str
    difference: PairedDifference
    mcnemar_p: float | None
    bootstrap_p: float
    adjusted_p: float
    detectable: float
    questions: int


def cell_of(score: Score) -> Cell | None:
    """The cell of a score; None for a context-free method, whose score belongs to all cells."""
    raise NotImplementedError


def by_cell(scores: Sequence[Score], method: str) -> dict[Cell, dict[str, Score]]:
    """A method's scores by cell and question, cells sorted.

    A context-free method's one score a question stands in every cell of its data set in which
    another method of `scores` answered that question.
    """
    raise NotImplementedError


def compare_grid(
    scores: Sequence[Score],
    pairs: Sequence[tuple[str, str]],
    *,
    gold: Collection[str] = (INSERTED, RETRIEVED),
    resamples: int = 2000,
    seed: int = 0,
) -> list[Comparison]:
    """Every (method, baseline) of `pairs` in every cell where both answered, cells in order.

    Cells without gold are left out unless `gold` names them, since abstaining is right there.
    Holm's correction is over all comparisons returned. Pairs without a common question are absent.
    """
    raise NotImplementedError


def compare_pooled(
    scores: Sequence[Score],
    pairs: Sequence[tuple[str, str]],
    *,
    gold: Collection[str] = (INSERTED,),
    resamples: int = 2000,
    seed: int = 0,
) -> list[Comparison]:
    """The same once a data set, over all of its cells together; Holm's correction over these."""
    raise NotImplementedError
