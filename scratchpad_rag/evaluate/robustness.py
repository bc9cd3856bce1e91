"""One number for how much a reader loses as the gold passage moves, one as the context grows.

The largest minus the smallest point of a curve is never zero by chance: picking the extremes and
measuring them on the same questions takes the noise for a loss. Here they are picked on one half
of the questions and measured on the other, both ways, as in sample splitting (Cox, 1975) and
cross-fitting; the mean over many splits depends less on any one of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from scratchpad_rag.evaluate.cells import INSERTED, Cell, cells_of
from scratchpad_rag.evaluate.significance import CochranQ, cochran_q
from scratchpad_rag.evaluate.statistics import (
    Floats,
    Interval,
    bootstrap_rate,
    limits,
    resampled_counts,
    resampled_ratios,
)
from scratchpad_rag.records import Score

_SPLITS = 100  # over which the drop is averaged
_RESAMPLED_SPLITS = 16  # the same in every resample, where more cost time and change little
_FEWEST = 4  # questions, two in each half


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

    Other data sets, numbers and orders among the scores are passed over, cells without gold too;
    so are positions that fewer than half of the questions have, and then questions that miss one of
    the others.
    None where fewer than two positions or fewer than four complete questions are left. Raises
    ValueError on scores of several methods.
    """
    placed = [
        (cell.position, score)
        for cell, score in _inserted(scores, dataset, order)
        if cell.num_documents == documents and cell.position is not None
    ]
    positions, table = _complete([(at, s.example_id, s.subspan_exact_match) for at, s in placed])
    if len(positions) < 2 or len(table) < _FEWEST:
        return None
    means = table.mean(axis=0)
    return PositionRobustness(
        dataset=dataset,
        passage_order=order,
        num_documents=documents,
        curve=_curve(positions, table, level, resamples, seed),
        drop=split_drop(table, level=level, resamples=resamples, seed=seed),
        naive_drop=float(np.ptp(means)),
        best=positions[int(means.argmax())],
        worst=positions[int(means.argmin())],
        cochran=cochran_q(table.tolist(), seed=seed),
        questions=len(table),
    )


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

    A question counts at a number of documents with its mean over the positions there; numbers that
    fewer than half of the questions have are passed over, then questions that miss one. None where
    fewer than two numbers of documents or no complete question are left. Raises ValueError on
    scores of several methods.
    """
    at_length: dict[tuple[int, str], list[float]] = {}
    for cell, score in _inserted(scores, dataset, order):
        key = (cell.num_documents, score.example_id)
        at_length.setdefault(key, []).append(score.subspan_exact_match)
    lengths, table = _complete(
        [(n, question, sum(v) / len(v)) for (n, question), v in at_length.items()]
    )
    if len(lengths) < 2 or not len(table):
        return None
    return LengthRobustness(
        dataset=dataset,
        passage_order=order,
        curve=_curve(lengths, table, level, resamples, seed),
        slope=doubling_slope(lengths, table, level=level, resamples=resamples, seed=seed),
        questions=len(table),
    )


def split_drop(
    table: Floats, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Best minus worst column of a (questions, positions) table, picked on one half of the rows
    and measured on the other, both ways, averaged over seeded splits.

    Its expectation is 0 where all columns are alike. Where they differ it is at most the true
    difference, and less the oftener half of the questions picks another pair.

    Every resample draws questions, splits the original ones, so that no question is in both
    halves, and repeats the picking and the measuring. Its percentile limits lie too low where the
    curve is uneven, since picking errs in the resamples as it did in the sample; the basic limits
    (Davison and Hinkley, 1997, section 5.2), which take the error off twice, lie too high where it
    is flat. The limits here are half-way between, which is this project's own choice, for its
    coverage in simulation (docs/statistics.md); their middle is about half-way between the
    estimate and the naive drop.
    """
    rng = np.random.default_rng(seed)
    table = table[np.lexsort(table.T)]  # the order of the questions makes no difference
    questions = len(table)
    in_first = _halves(questions, _SPLITS, rng)
    estimate = float(_drops(np.ones((1, questions)), table, in_first).mean())
    fewer = in_first[:_RESAMPLED_SPLITS]
    draws = np.concatenate(
        [
            _drops(counts, table, fewer).mean(axis=1)
            for counts in resampled_counts(questions, resamples, rng)
        ]
    )
    low, high = limits(draws, questions, level)
    naive = float(np.ptp(table.mean(axis=0)))  # what is true in the world of the resamples
    basic = (estimate - (high - naive), estimate - (low - naive))
    lower, upper = (low + basic[0]) / 2, (high + basic[1]) / 2
    # With few questions halves pick so differently that the limits may pass the estimate by.
    return Interval(estimate, min(lower, estimate), max(upper, estimate), table.size)


def doubling_slope(
    lengths: Sequence[int],
    table: Floats,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Change of a (questions, lengths) table's values for each doubling of the length.

    Least squares on log2(length) with an intercept for every question, whose difficulty so drops
    out; limits from resampling questions. Each question has the same lengths, so this is the mean
    of the questions' own slopes.

    >>> round(doubling_slope([5, 10, 20], np.array([[1.0, 0.5, 0.0]])).estimate, 9)
    -0.5
    """
    doublings = np.log2(np.asarray(lengths, dtype=np.float64))
    centred = doublings - doublings.mean()
    slopes = table @ centred / (centred**2).sum()  # (questions,)
    ones = np.ones(len(table))
    draws = resampled_ratios(slopes, ones, resamples, seed)
    return Interval(float(slopes.mean()), *limits(draws, len(table), level), table.size)


def _inserted(scores: Sequence[Score], dataset: str, order: str) -> list[tuple[Cell, Score]]:
    """The scores with gold put somewhere, in one data set and order, with their cells."""
    methods = sorted({score.method for score in scores})
    if len(methods) > 1:
        raise ValueError(f"scores of one method are needed, not of {', '.join(methods)}")
    return [
        (cell, score)
        for cell, score in zip(cells_of(scores), scores, strict=True)
        if cell is not None
        and (cell.dataset, cell.passage_order, cell.gold) == (dataset, order, INSERTED)
    ]


def _complete(values: Sequence[tuple[int, Hashable, float]]) -> tuple[list[int], Floats]:
    """(column, question, value) -> the columns that half of the questions have, sorted, and the
    (questions, columns) table of those questions that have all of them."""
    rows: dict[Hashable, dict[int, float]] = {}
    for column, question, value in values:
        rows.setdefault(question, {})[column] = value
    every = sorted({column for row in rows.values() for column in row})
    columns = [c for c in every if 2 * sum(c in row for row in rows.values()) >= len(rows)]
    complete = [[row[c] for c in columns] for row in rows.values() if row.keys() >= {*columns}]
    return columns, np.array(complete, dtype=np.float64).reshape(len(complete), len(columns))


def _curve(
    columns: Sequence[int], table: Floats, level: float, resamples: int, seed: int
) -> tuple[tuple[int, Interval], ...]:
    questions = range(len(table))
    return tuple(
        (column, bootstrap_rate(values, questions, level=level, resamples=resamples, seed=seed))
        for column, values in zip(columns, table.T.tolist(), strict=True)
    )


def _halves(questions: int, splits: int, rng: np.random.Generator) -> Floats:
    """Which questions are in the first half -> (splits, questions) of 0 and 1."""
    first = np.zeros((splits, questions))
    first[:, : questions // 2] = 1
    return rng.permuted(first, axis=1)


def _drops(counts: Floats, table: Floats, in_first: Floats) -> Floats:
    """The drop for (resamples, questions) counts and (splits, questions) halves, each split's."""
    splits, positions = len(in_first), table.shape[1]
    weighted = in_first[:, None, :] * table.T  # (splits, positions, questions)
    first = (counts @ weighted.reshape(splits * positions, -1).T).reshape(-1, splits, positions)
    size = counts @ in_first.T  # (resamples, splits)
    second = (counts @ table)[:, None, :] - first
    one = first / np.maximum(size, 1)[..., None]
    other = second / np.maximum(counts.sum(axis=1, keepdims=True) - size, 1)[..., None]
    return (_measured(one, other) + _measured(other, one)) / 2


def _measured(picked_on: Floats, measured_on: Floats) -> Floats:
    """Best minus worst position of the one, in the other: (..., positions) -> (...)."""
    extremes = [picked_on.argmax(axis=-1), picked_on.argmin(axis=-1)]
    best, worst = (
        np.take_along_axis(measured_on, at[..., None], axis=-1)[..., 0] for at in extremes
    )
    return np.asarray(best - worst, dtype=np.float64)
