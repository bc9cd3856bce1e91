"""The cells of a grid: which scores belong together, and methods compared cell by cell."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scratchpad_rag.evaluate.significance import (
    detectable_difference,
    detectable_mean_difference,
    holm,
    paired_bootstrap_p,
)
from scratchpad_rag.evaluate.statistics import (
    PairedDifference,
    by_cluster,
    mcnemar_p,
    paired_difference,
)
from scratchpad_rag.records import Score

CONTEXT_FREE = ("closed_book", "gold_only")  # one score a question, whatever the cell
INSERTED, NO_GOLD, RETRIEVED = "inserted", "none", "retrieved"  # of Cell.gold
_OWN_PLACES = ("given", "retrieved")  # passage orders in which gold is put nowhere

Sample = tuple[str, "Cell"]  # a question in a cell
Right = dict[Sample, float]


@dataclass(frozen=True, slots=True)
class Cell:
    """A place in the grid. Cells sort by data set, order, documents, then gold and position.

    `gold`: "inserted" at `position` (from 0, of the first gold passage), "none", or "retrieved":
    where the retriever put it, if anywhere. `position` is None but for gold that was inserted, and
    is None there too where every passage kept its own place (passage order "given") or every
    question has its gold at another one.
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
    """The cell of a score by itself; None for a context-free method, whose score belongs to all.

    See `cells_of` for questions with several gold passages.
    """
    if score.method in CONTEXT_FREE or score.num_documents == 0:
        return None
    gold = INSERTED if score.gold_positions else NO_GOLD
    if score.passage_order == "retrieved":
        gold = RETRIEVED
    position = None if score.passage_order in _OWN_PLACES else score.cell_position
    return Cell(score.dataset, score.passage_order, score.num_documents, gold, position)


def cells_of(scores: Sequence[Score]) -> list[Cell | None]:
    """The cell of every score, where questions with more gold passages share cells with the rest.

    "Last" is 19 for one gold passage among twenty and 18 for two. Where the questions with each
    number of gold passages were asked at as many positions, the first, second, ... of them are the
    same place, with the name that it has for most questions. Where every question was asked at one
    position, and not all at the same, the position has no cells: it is None.
    """
    cells = [cell_of(score) for score in scores]
    groups: dict[tuple[str, str, int, str], list[tuple[Score, int]]] = {}
    for score, cell in zip(scores, cells, strict=True):
        if cell is not None and cell.position is not None:
            groups.setdefault(_group(cell), []).append((score, cell.position))
    places = {
        (group, *place): Cell(*group, name)
        for group, placed in groups.items()
        for place, name in _place_names(placed).items()
    }
    return [
        places[_group(cell), _hops(score), cell.position]
        if cell is not None and cell.position is not None
        else cell
        for score, cell in zip(scores, cells, strict=True)
    ]


def by_cell(scores: Sequence[Score], method: str) -> dict[Cell, dict[str, Score]]:
    """A method's scores by cell (see `cells_of`) and question, cells sorted.

    A context-free method's one score a question stands in every cell of its data set in which
    another method of `scores` answered that question.
    """
    return by_cells(scores, [method])[method]


def by_cells(
    scores: Sequence[Score], methods: Collection[str]
) -> dict[str, dict[Cell, dict[str, Score]]]:
    """`by_cell` of several methods, with the cells of the scores found once."""
    placed = [*zip(scores, cells_of(scores), strict=True)]
    return {method: _by_cell(placed, method) for method in methods}


def _by_cell(
    placed: Sequence[tuple[Score, Cell | None]], method: str
) -> dict[Cell, dict[str, Score]]:
    cells: dict[Cell, dict[str, Score]] = {}
    everywhere: dict[tuple[str, str], Score] = {}
    for score, cell in placed:
        if score.method == method and cell is None:
            everywhere[score.dataset, score.example_id] = score
        elif score.method == method and cell is not None:
            cells.setdefault(cell, {})[score.example_id] = score
    for score, cell in placed if everywhere else ():
        own = everywhere.get((score.dataset, score.example_id))
        if cell is not None and own is not None:
            cells.setdefault(cell, {}).setdefault(score.example_id, own)
    return {cell: cells[cell] for cell in sorted(cells)}


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
    found = []
    for cell, method, baseline, ours, theirs in _matched(scores, pairs, gold):
        found.append(
            _compare(cell.dataset, cell, (method, baseline), (ours, theirs), resamples, seed)
        )
    return _corrected(sorted(found, key=lambda c: c.cell or Cell("", "", 0, "")))


def compare_pooled(
    scores: Sequence[Score],
    pairs: Sequence[tuple[str, str]],
    *,
    gold: Collection[str] = (INSERTED,),
    resamples: int = 2000,
    seed: int = 0,
) -> list[Comparison]:
    """The same once a data set, over all of its cells together; Holm's correction over these."""
    pooled: dict[tuple[str, str, str], tuple[Right, Right]] = {}
    for cell, method, baseline, ours, theirs in _matched(scores, pairs, gold):
        both = pooled.setdefault((cell.dataset, method, baseline), ({}, {}))
        both[0].update(ours)
        both[1].update(theirs)
    return _corrected(
        [
            _compare(dataset, None, (method, baseline), both, resamples, seed)
            for (dataset, method, baseline), both in sorted(
                pooled.items(), key=lambda item: item[0][0]
            )
        ]
    )


def _group(cell: Cell) -> tuple[str, str, int, str]:
    """The cells that differ from this one in position alone."""
    return (cell.dataset, cell.passage_order, cell.num_documents, cell.gold)


def _hops(score: Score) -> int:
    return len(score.gold_positions)


def _place_names(placed: Sequence[tuple[Score, int]]) -> dict[tuple[int, int], int | None]:
    """(number of gold passages, position) -> the position that names the place."""
    asked: dict[int, set[int]] = {}
    questions: dict[int, set[str]] = {}
    positions: dict[str, set[int]] = {}
    for score, at in placed:
        asked.setdefault(_hops(score), set()).add(at)
        questions.setdefault(_hops(score), set()).add(score.example_id)
        positions.setdefault(score.example_id, set()).add(at)
    ranked = {hops: sorted(found) for hops, found in asked.items()}
    own = {(hops, at): at for hops, found in ranked.items() for at in found}
    commonest = ranked[max(questions, key=lambda hops: (len(questions[hops]), -hops))]
    if all(len(found) == len(commonest) for found in ranked.values()):
        own = {
            (hops, at): name
            for hops, found in ranked.items()
            for at, name in zip(found, commonest, strict=True)
        }
    if all(len(found) == 1 for found in positions.values()) and len({*own.values()}) > 1:
        return dict.fromkeys(own)
    return dict(own)


def _matched(
    scores: Sequence[Score], pairs: Sequence[tuple[str, str]], gold: Collection[str]
) -> list[tuple[Cell, str, str, Right, Right]]:
    """What both of a pair answered, by cell."""
    grids = by_cells(scores, {method for pair in pairs for method in pair})
    matched = []
    for method, baseline in pairs:
        for cell, ours in grids[method].items():
            theirs = grids[baseline].get(cell, {})
            if cell.gold in gold and ours.keys() & theirs.keys():
                matched.append((cell, method, baseline, _right(cell, ours), _right(cell, theirs)))
    return matched


def _right(cell: Cell, scores: Mapping[str, Score]) -> Right:
    return {(question, cell): score.subspan_exact_match for question, score in scores.items()}


def _compare(
    dataset: str,
    cell: Cell | None,
    names: tuple[str, str],
    both: tuple[Right, Right],
    resamples: int,
    seed: int,
) -> Comparison:
    ours, theirs = both
    difference = paired_difference(ours, theirs, resamples=resamples, seed=seed)
    shared = [key for key in ours if key in theirs]
    sums, counts = by_cluster(
        [ours[key] - theirs[key] for key in shared], [key[0] for key in shared]
    )
    questions, discordant = len(sums), difference.wins + difference.losses
    return Comparison(
        dataset=dataset,
        cell=cell,
        method=names[0],
        baseline=names[1],
        difference=difference,
        mcnemar_p=mcnemar_p(difference.wins, difference.losses) if cell else None,
        bootstrap_p=paired_bootstrap_p(ours, theirs, resamples=resamples, seed=seed),
        adjusted_p=difference.p_value,
        detectable=detectable_difference(questions, discordant)
        if cell
        else detectable_mean_difference(_deviation(sums / counts), questions),
        questions=questions,
    )


def _deviation(means: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return float(means.std(ddof=1)) if len(means) > 1 else 0.0


def _corrected(comparisons: list[Comparison]) -> list[Comparison]:
    adjusted = holm([comparison.difference.p_value for comparison in comparisons])
    return [replace(c, adjusted_p=p) for c, p in zip(comparisons, adjusted, strict=True)]
