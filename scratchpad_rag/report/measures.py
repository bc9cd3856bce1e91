"""Everything that a page on a grid says, measured once: by data set, method and cell.

The statistics are those of `evaluate`; this gathers them, and gives methods of several runs the
names that tell them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scratchpad_rag.evaluate.abstention import Abstention, RiskCoverage, abstentions, risk_coverage
from scratchpad_rag.evaluate.cells import (
    INSERTED,
    RETRIEVED,
    Cell,
    Comparison,
    by_cells,
    cell_of,
    compare_grid,
    compare_pooled,
)
from scratchpad_rag.evaluate.cost import Cost, cost
from scratchpad_rag.evaluate.diagnosis import (
    ErrorSplit,
    ScratchpadUse,
    error_splits,
    scratchpad_use,
)
from scratchpad_rag.evaluate.retrieved import AsRetrieved, as_retrieved
from scratchpad_rag.evaluate.robustness import (
    LengthRobustness,
    PositionRobustness,
    length_robustness,
    position_robustness,
)
from scratchpad_rag.evaluate.significance import holm
from scratchpad_rag.evaluate.statistics import Interval, bootstrap_rate
from scratchpad_rag.evaluate.summary import MethodSummary, summarise
from scratchpad_rag.records import Score
from scratchpad_rag.report.grid_runs import FORCED, REFERENCES, GridScores, Names

# What the others are held against: the first of these that was run, else the best.
_SUBJECTS = ("scratchpad", "scratchpad_verbatim")


@dataclass(frozen=True, slots=True)
class CellRate:
    """Accuracy of a method in a cell, and how many questions it answered there."""

    cell: Cell
    accuracy: Interval


@dataclass(frozen=True, slots=True)
class Panel:
    """A position curve: all methods of a run at one number of documents in one order.

    `lines` go over positions from 0; `levels` are methods that see no passages or only gold ones.
    """

    run: str
    order: str
    documents: int
    lines: Mapping[str, tuple[tuple[int, Interval], ...]]
    levels: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Robustness:
    """How a method bears moves of the gold passage (at each number of documents) and length."""

    method: str
    positions: tuple[PositionRobustness, ...]
    length: LengthRobustness | None


@dataclass(frozen=True, slots=True)
class DataSetMeasures:
    """All that is known of one data set; methods are keys of the page's names.

    `accuracy` is over the cells whose gold is `basis`: inserted, or as retrieved where it is never
    inserted (one score a question for methods that no cell reaches). `cells` holds every cell of
    every method. `summaries` are of all its scores.
    """

    dataset: str
    basis: str
    questions: int
    methods: tuple[str, ...]
    reading: tuple[str, ...]
    accuracy: Mapping[str, Interval]
    cells: Mapping[str, tuple[CellRate, ...]]
    summaries: Mapping[str, MethodSummary]
    panels: tuple[Panel, ...]
    robustness: tuple[Robustness, ...]
    errors: tuple[ErrorSplit, ...]
    forced: tuple[ScratchpadUse, ...]
    abstentions: tuple[Abstention, ...]
    risks: tuple[RiskCoverage, ...]
    retrieved: tuple[AsRetrieved, ...]
    costs: tuple[Cost, ...]
    pooled: tuple[Comparison, ...]
    by_cell: tuple[Comparison, ...]

    def best(self) -> str | None:
        """The way of reading with the highest accuracy; bounds and probes are none."""
        known = [method for method in self.reading if method in self.accuracy]
        return max(known, key=lambda m: self.accuracy[m].estimate, default=None)


Runs = Mapping[str, Sequence[Score]]  # the scores of every run, methods as they were run


def measure(grid: GridScores) -> list[DataSetMeasures]:
    """Everything about every data set, in the order in which they first appear."""
    by_dataset: dict[str, Runs] = {
        name: {run: [s for s in scores if s.dataset == name] for run, scores in grid.by_run.items()}
        for name in grid.datasets
    }
    bases = {name: _basis(runs) for name, runs in by_dataset.items()}
    accuracy = {
        name: _accuracies(grid.names, runs, bases[name]) for name, runs in by_dataset.items()
    }
    pooled, cellwise = _comparisons(grid, accuracy, bases)
    return [
        _measure_one(grid, name, bases[name], runs, accuracy[name], pooled, cellwise)
        for name, runs in by_dataset.items()
    ]


def is_reading(method: str) -> bool:
    """Whether a method is a way of reading, not a bound or a probe."""
    return method not in (*REFERENCES, *FORCED)


def subject_of(methods: Sequence[str], accuracy: Mapping[str, Interval]) -> str | None:
    """The method that others are held against: Scratchpad, else the most accurate one."""
    reading = [m for m in methods if is_reading(m)]
    for method in _SUBJECTS:
        if method in reading:
            return method
    return max(reading, key=lambda m: accuracy[m].estimate if m in accuracy else -1, default=None)


def _measure_one(
    grid: GridScores,
    dataset: str,
    basis: str,
    runs: Runs,
    accuracy: Mapping[str, Interval],
    pooled: Sequence[Comparison],
    cellwise: Sequence[Comparison],
) -> DataSetMeasures:
    names = grid.names
    scores = [score for score in grid.scores if score.dataset == dataset]
    here = {score.method for score in scores}
    methods = tuple(key for key in grid.methods if key in here)
    cells = {
        names.key(method, run): _cell_rates(method, found)
        for run, own in runs.items()
        for method, found in by_cells(own, dict.fromkeys(s.method for s in own)).items()
    }
    tagged = _Tagged(names, runs)
    return DataSetMeasures(
        dataset=dataset,
        basis=basis,
        questions=len({score.example_id for score in scores}),
        methods=methods,
        reading=tuple(key for key in methods if is_reading(names.base(key))),
        accuracy=accuracy,
        cells=cells,
        summaries={summary.method: summary for summary in summarise(scores)},
        panels=_panels(names, methods, cells, accuracy),
        robustness=tagged.robustness(dataset, cells),
        errors=tagged.errors(),
        forced=tagged.forced(grid),
        abstentions=tagged.abstentions(),
        risks=tagged.risks(),
        retrieved=tagged.retrieved(),
        costs=tagged.costs(accuracy),
        pooled=tuple(c for c in pooled if c.dataset == dataset),
        by_cell=tuple(c for c in cellwise if c.dataset == dataset),
    )


class _Tagged:
    """The statistics of every run's scores in one data set, under the names of the page."""

    def __init__(self, names: Names, runs: Runs) -> None:
        self.names, self.runs = names, {run: own for run, own in runs.items() if own}

    def robustness(
        self, dataset: str, cells: Mapping[str, Sequence[CellRate]]
    ) -> tuple[Robustness, ...]:
        found = []
        for run, own in self.runs.items():
            for method in dict.fromkeys(score.method for score in own):
                key = self.names.key(method, run)
                places = dict.fromkeys(
                    (rate.cell.passage_order, rate.cell.num_documents)
                    for rate in cells[key]
                    if rate.cell.position is not None
                )
                if not places or not is_reading(method):
                    continue
                mine = [score for score in own if score.method == method]
                positions = (
                    position_robustness(mine, dataset=dataset, documents=documents, order=order)
                    for order, documents in places
                )
                order = next(iter(places))[0]
                length = length_robustness(mine, dataset=dataset, order=order)
                found.append(Robustness(key, tuple(p for p in positions if p), length))
        return tuple(found)

    def errors(self) -> tuple[ErrorSplit, ...]:
        return tuple(
            replace(split, method=self.names.key(split.method, run))
            for run, own in self.runs.items()
            for split in error_splits([s for s in own if is_reading(s.method)])
        )

    def forced(self, grid: GridScores) -> tuple[ScratchpadUse, ...]:
        return tuple(
            replace(use, method=self.names.key(use.method, run))
            for run, own in self.runs.items()
            if any(score.method in FORCED for score in own)
            for use in scratchpad_use(own, grid.passages)
        )

    def abstentions(self) -> tuple[Abstention, ...]:
        return tuple(
            replace(rate, method=self.names.key(rate.method, run))
            for run, own in self.runs.items()
            for rate in abstentions([s for s in own if is_reading(s.method)])
        )

    def risks(self) -> tuple[RiskCoverage, ...]:
        return tuple(
            replace(point, method=self.names.key(point.method, run))
            for run, own in self.runs.items()
            for point in risk_coverage([s for s in own if is_reading(s.method)])
        )

    def retrieved(self) -> tuple[AsRetrieved, ...]:
        return tuple(
            replace(rate, method=self.names.key(rate.method, run))
            for run, own in self.runs.items()
            for rate in as_retrieved([s for s in own if s.passage_order == RETRIEVED])
        )

    def costs(self, accuracy: Mapping[str, Interval]) -> tuple[Cost, ...]:
        found = []
        for run, own in self.runs.items():
            methods = [m for m in dict.fromkeys(s.method for s in own) if is_reading(m)]
            known = {m: accuracy[k] for m in methods if (k := self.names.key(m, run)) in accuracy}
            subject = subject_of(methods, known)
            if subject is None:
                continue
            others = [method for method in methods if method != subject]
            for one in cost(own, method=subject, baselines=others):
                key, baseline = self.names.key(subject, run), self.names.key(one.baseline, run)
                found.append(replace(one, method=key, baseline=baseline))
        return tuple(found)


def _basis(runs: Runs) -> str:
    """The cells by which methods are judged: those with gold inserted, else those as retrieved."""
    kinds = {cell.gold for own in runs.values() for score in own if (cell := cell_of(score))}
    return RETRIEVED if RETRIEVED in kinds and INSERTED not in kinds else INSERTED


def _accuracies(names: Names, runs: Runs, basis: str) -> dict[str, Interval]:
    """Accuracy of every method over the cells of `basis`, or its one score a question."""
    found = {}
    for run, own in runs.items():
        by_method: dict[str, list[Score]] = {}
        for score in own:
            cell = cell_of(score)
            if cell is None or cell.gold == basis:
                by_method.setdefault(score.method, []).append(score)
        for method, scores in by_method.items():
            found[names.key(method, run)] = _rate(scores)
    return found


def _cell_rates(method: str, cells: Mapping[Cell, Mapping[str, Score]]) -> tuple[CellRate, ...]:
    if method in REFERENCES:
        return ()
    return tuple(CellRate(cell, _rate(list(own.values()))) for cell, own in cells.items())


def _rate(scores: Sequence[Score]) -> Interval:
    return bootstrap_rate(
        [score.subspan_exact_match for score in scores], [score.example_id for score in scores]
    )


def _panels(
    names: Names,
    methods: Sequence[str],
    cells: Mapping[str, Sequence[CellRate]],
    accuracy: Mapping[str, Interval],
) -> tuple[Panel, ...]:
    """A panel for every run, order of passages and number of documents that has positions."""
    panels = []
    for run in names.runs:
        own = [key for key in methods if names.run(key) == run]
        lines: dict[tuple[str, int], dict[str, list[tuple[int, Interval]]]] = {}
        for key in own:
            if not is_reading(names.base(key)):
                continue
            for rate in cells[key]:
                place, cell = rate.cell.position, rate.cell
                if place is not None:
                    at = (cell.passage_order, cell.num_documents)
                    lines.setdefault(at, {}).setdefault(key, []).append((place, rate.accuracy))
        levels = {k: accuracy[k] for k in own if names.base(k) in REFERENCES and k in accuracy}
        for order, documents in sorted(lines):
            curves = {key: tuple(sorted(line)) for key, line in lines[order, documents].items()}
            panels.append(Panel(run, order, documents, curves, levels))
    return tuple(panels)


def _comparisons(
    grid: GridScores, accuracy: Mapping[str, Mapping[str, Interval]], bases: Mapping[str, str]
) -> tuple[list[Comparison], list[Comparison]]:
    """Pooled and cell by cell, each with Holm's correction over all data sets and runs.

    In every run Scratchpad is held against all others, and the most accurate way of reading
    against the next; between runs every way of reading against the first run's.
    """
    names = grid.names
    pooled: list[Comparison] = []
    cellwise: list[Comparison] = []
    for run, own in grid.by_run.items():
        methods = list(dict.fromkeys(score.method for score in own))
        rates = [
            {m: r for m in methods if (r := a.get(names.key(m, run)))} for a in accuracy.values()
        ]
        pairs = _pairs(methods, rates)
        keyed = {method: names.key(method, run) for method in methods}
        pooled += _renamed(_pooled(own, pairs, bases), keyed)
        reading = [pair for pair in pairs if all(map(is_reading, pair))]
        cellwise += _renamed(compare_grid(own, reading), keyed)
    across = [
        (names.key(method, run), names.key(method, grid.names.runs[0]))
        for run in names.runs[1:]
        for method in dict.fromkeys(score.method for score in grid.by_run[run])
        if is_reading(method)
    ]
    pooled += _pooled(grid.scores, across, bases)
    cellwise += compare_grid(grid.scores, across) if across else []
    return _adjusted(pooled), _adjusted(cellwise)


def _pooled(
    scores: Sequence[Score], pairs: Sequence[tuple[str, str]], bases: Mapping[str, str]
) -> list[Comparison]:
    """Every pair in every data set over the cells by which it is judged."""
    found: list[Comparison] = []
    for basis in (INSERTED, RETRIEVED):
        own = [score for score in scores if bases[score.dataset] == basis]
        if own and pairs:
            found += compare_pooled(own, pairs, gold=(basis,))
    return found


def _pairs(
    methods: Sequence[str], accuracy: Sequence[Mapping[str, Interval]]
) -> list[tuple[str, str]]:
    """The subject against every other, and in each data set the best against the next."""
    merged: dict[str, Interval] = {}
    for rates in accuracy:
        merged = {**rates, **merged}
    subject = subject_of(methods, merged)
    if subject is None:
        return []
    pairs = [(subject, other) for other in methods if other != subject and other not in FORCED]
    for rates in accuracy:
        reading = [m for m in methods if is_reading(m) and m in rates]
        order = sorted(reading, key=lambda m: -rates[m].estimate)[:2]
        known = {*pairs, *((b, a) for a, b in pairs)}
        if len(order) == 2 and subject not in order and tuple(order) not in known:
            pairs.append((order[0], order[1]))
    return pairs


def _renamed(comparisons: Sequence[Comparison], keys: Mapping[str, str]) -> list[Comparison]:
    return [replace(c, method=keys[c.method], baseline=keys[c.baseline]) for c in comparisons]


def _adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    adjusted = holm([comparison.difference.p_value for comparison in comparisons])
    return [replace(c, adjusted_p=p) for c, p in zip(comparisons, adjusted, strict=True)]
