"""The tables of a page on a grid: rows with their names, headings and captions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from scratchpad_rag.evaluate.cells import Cell, Comparison
from scratchpad_rag.evaluate.cost import Cost
from scratchpad_rag.evaluate.statistics import Interval
from scratchpad_rag.report.grid_runs import FORCED, REFERENCES, Names
from scratchpad_rag.report.labels import (
    NOTHING,
    accuracy_text,
    amount,
    clean,
    method_name,
    percent,
    points,
)
from scratchpad_rag.report.marks import OUTCOMES
from scratchpad_rag.report.measures import DataSetMeasures, Robustness
from scratchpad_rag.report.verdicts import drop_is_real, is_real, title_of

STAR = "★"
SAME = ""  # said once for a group of rows
_REACHES = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)  # scales of the little pictures of intervals


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its name and its cells; `strong` sets it off; `forest` is a difference to draw.

    Rows of one name that follow each other share it on the page.
    """

    name: str
    cells: tuple[str, ...]
    strong: bool = False
    forest: Interval | None = None


class Group(NamedTuple):
    """Rows that share a name."""

    name: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table of the page. `label` is what a screen reader calls its box, `caption` stands below.

    Where `forest` is not 0, a picture of the row's interval follows its first cell, on a scale from
    -`forest` to `forest`.
    """

    label: str
    caption: str
    first: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    forest: float = 0.0

    @property
    def groups(self) -> list[Group]:
        return [Group(n, tuple(rows)) for n, rows in groupby(self.rows, key=lambda row: row.name)]


class Column(NamedTuple):
    """A column of the first table: a data set in a run."""

    heading: str
    measures: DataSetMeasures
    run: str


def columns(measures: Sequence[DataSetMeasures], names: Names) -> list[Column]:
    """Data sets, and within each the runs side by side."""
    found = []
    for one in measures:
        for run in names.runs:
            parts = [title_of(one.dataset)] if len(measures) > 1 or len(names.runs) == 1 else []
            parts += [clean(run)] if len(names.runs) > 1 else []
            found.append(Column(" · ".join(parts), one, run))
    return found


def glance_table(measures: Sequence[DataSetMeasures], names: Names) -> PageTable:
    """A row a method, a column a data set and run: accuracy over the cells with gold inserted."""
    across = columns(measures, names)
    rows = []
    for base in table_order(measures, names):
        cells = []
        for column in across:
            key = names.key(base, column.run)
            rate = column.measures.accuracy.get(key)
            several = len(column.measures.reading) > 1
            best = f" {STAR}" if several and key == column.measures.best() else ""
            cells.append(accuracy_text(rate) + best if rate else NOTHING)
        rows.append(Row(method_name(base), tuple(cells)))
    return PageTable(
        label="Accuracy by method and data set",
        caption=(
            "Accuracy: share of answers that contain a true answer after normalisation (subspan "
            "exact match), over all cells with the gold passages inserted, or all as retrieved "
            "where none are inserted; in brackets the 95% "
            f"interval from resampling questions. {STAR}: the most accurate way of reading of the "
            "data set. Closed-book sees no passages, gold only nothing but the gold ones: bounds, "
            "as are forced quotes."
        ),
        first="Method",
        head=tuple(column.heading for column in across),
        rows=tuple(rows),
    )


def table_order(measures: Sequence[DataSetMeasures], names: Names) -> list[str]:
    """Methods as they were run: ways of reading first, then bounds, then probes."""
    bases = dict.fromkeys(
        names.base(m) for one in measures for m in one.methods if m in one.accuracy
    )
    return sorted(bases, key=lambda base: (base in FORCED) + 0.5 * (base in REFERENCES))


def pooled_table(comparisons: Sequence[Comparison], names: Names) -> PageTable:
    """The paired differences of a data set over all of its cells."""
    return PageTable(
        label="Paired differences",
        caption=(
            "Accuracy of the first method minus that of the second, in points, on the same "
            "questions in the same cells. Interval: 95%, questions resampled. p: sign-flip test "
            "over questions; p (Holm): after correction for all differences of this kind on the "
            "page. Beyond chance: the interval excludes zero and p (Holm) is below 0.05. "
            "Detectable: the smallest difference that this sample would have shown four times in "
            "five."
        ),
        first="Methods",
        head=("Points", "95% interval", "p", "p (Holm)", "Detectable", "Beyond chance"),
        rows=tuple(_comparison_row(c, names.pair(c.method, c.baseline)) for c in comparisons),
        forest=_reach(comparisons),
    )


def cell_table(comparisons: Sequence[Comparison], names: Names) -> PageTable:
    """The paired differences of a data set cell by cell."""
    rows = []
    for comparison in comparisons:
        assert comparison.cell is not None
        name = f"{names.pair(comparison.method, comparison.baseline)}; {cell_name(comparison.cell)}"
        rows.append(_comparison_row(comparison, name))
    return PageTable(
        label="Paired differences by cell",
        caption=(
            "The same in every cell. p: exact McNemar test; p (Holm): after correction for all "
            "cells of all data sets, which few single cells survive."
        ),
        first="Methods and cell",
        head=("Points", "95% interval", "p", "p (Holm)", "Detectable", "Beyond chance"),
        rows=tuple(rows),
        forest=_reach(comparisons),
    )


def robustness_table(robustness: Sequence[Robustness], names: Names) -> PageTable:
    """Loss to position at each number of documents, and the slope a doubling."""
    rows = []
    for one in robustness:
        slope = one.length.slope if one.length else None
        slope_cell = f"{points(slope.estimate)} ({_ends(slope)})" if slope else NOTHING
        for number, at in enumerate(one.positions):
            order = "" if at.passage_order == "ranked" else f", {at.passage_order}"
            rows.append(
                Row(
                    names.full(one.method),
                    (
                        f"{at.num_documents}{order}",
                        f"{points(at.drop.estimate)} ({_ends(at.drop)})",
                        f"{100 * at.naive_drop:.1f}",
                        f"{at.best} / {at.worst}",
                        f"{at.cochran.statistic:.1f} ({at.cochran.degrees})",
                        _p(at.cochran.p_value),
                        "yes" if drop_is_real(at) else "no",
                        slope_cell if number == 0 else SAME,
                    ),
                    strong=drop_is_real(at),
                )
            )
        if not one.positions and slope:
            rows.append(Row(names.full(one.method), (*(NOTHING,) * 7, slope_cell)))
    return PageTable(
        label="Robustness to position and length",
        caption=(
            "Loss: accuracy at the best minus at the worst position in points, the two picked on "
            "one half of the questions and measured on the other, both ways, so that it is about "
            "zero for a reader that does not care. Best − worst of the plain curve is never zero, "
            "even by chance alone. Cochran's Q tests whether all positions are equally accurate. "
            "Real: the interval of the loss lies above zero and Q has p below 0.05 (not corrected "
            "for several methods). Slope: change in points for each doubling of the documents. "
            "Intervals are 95%."
        ),
        first="Method",
        head=(
            "Documents",
            "Loss (95% interval)",
            "Best − worst",
            "Best / worst at",
            "Q (df)",
            "p of Q",
            "Real",
            "Slope a doubling",
        ),
        rows=tuple(rows),
    )


def line_table(
    lines: dict[str, Sequence[tuple[int, Interval]]], names: Names, label: str, first: str, at: str
) -> PageTable:
    """The numbers behind a figure of curves."""
    columns = sorted({place for line in lines.values() for place, _ in line})
    rows = []
    for key, line in lines.items():
        known = dict(line)
        cells = (accuracy_text(known[c]) if c in known else NOTHING for c in columns)
        rows.append(Row(names.full(key), tuple(cells)))
    return PageTable(
        label=label,
        caption=f"{label}, with 95% intervals.",
        first=first,
        head=tuple(f"{at} {column}".strip() for column in columns),
        rows=tuple(rows),
    )


def error_table(measures: DataSetMeasures, names: Names) -> PageTable:
    """The shares of the outcomes with their intervals."""
    seen = {o for split in measures.errors for o, rate in split.shares if rate.estimate > 0}
    outcomes = [outcome for outcome in OUTCOMES if outcome in seen]
    rows = []
    for split in measures.errors:
        shares = dict(split.shares)
        cells = [accuracy_text(shares[o]) if o in shares else NOTHING for o in outcomes]
        rows.append(Row(names.full(split.method), (*cells, f"{split.samples:,}")))
    return PageTable(
        label="What became of the answers",
        caption="Shares of all answers with a gold passage shown, with 95% intervals.",
        first="Method",
        head=(*(_upper(OUTCOMES[outcome].name) for outcome in outcomes), "Answers"),
        rows=tuple(rows),
    )


def forced_table(measures: DataSetMeasures, names: Names) -> PageTable:
    """Accuracy with the reader's own quotes, and with gold and wrong ones forced on it."""
    rows = tuple(
        Row(
            names.full(use.method),
            tuple(
                accuracy_text(rate) if rate else NOTHING
                for rate in (
                    use.wrong_forced,
                    use.free,
                    use.gold_forced,
                    use.follows,
                    use.stands_anyway,
                )
            ),
        )
        for use in measures.forced
    )
    return PageTable(
        label="Use of the scratchpad",
        caption=(
            "Accuracy where the scratchpad was written for the reader: with wrong passages, with "
            "its own, with the gold ones (what perfect quoting could bring). Follows: answers "
            "under wrong passages that stand in them; anyway: its free answers that stand in those "
            "same passages by chance."
        ),
        first="Method",
        head=("Wrong forced", "Its own", "Gold forced", "Follows", "Anyway"),
        rows=rows,
    )


def abstention_table(measures: DataSetMeasures, names: Names) -> PageTable:
    """What is said where no passage answers, and where one does."""
    order = {method: at for at, method in enumerate(measures.methods)}
    risks = {(r.method, r.num_documents): r for r in measures.risks if r.gold == "all"}
    rows = []
    for rate in sorted(measures.abstentions, key=lambda a: (order[a.method], a.num_documents)):
        if rate.abstained is None:
            continue
        risk = risks.get((rate.method, rate.num_documents))
        cells = (
            str(rate.num_documents),
            accuracy_text(rate.false_quotes) if rate.false_quotes else NOTHING,
            accuracy_text(rate.abstained),
            accuracy_text(rate.false_abstained) if rate.false_abstained else NOTHING,
            percent(risk.coverage.estimate) if risk else NOTHING,
            percent(risk.risk.estimate) if risk and risk.risk else NOTHING,
        )
        rows.append(Row(names.full(rate.method), cells))
    return PageTable(
        label="Questions without a gold passage",
        caption=(
            "False quotes: something is quoted although no passage shown answers. Abstains "
            "rightly: no gold passage shown, and the reader says that nothing answers; wrongly: "
            "gold shown, and it says so too. Answered: share of all of these questions; wrong if "
            "answered: share of wrong ones among those answered."
        ),
        first="Method",
        head=(
            "Documents",
            "False quotes",
            "Abstains rightly",
            "Abstains wrongly",
            "Answered",
            "Wrong if answered",
        ),
        rows=tuple(rows),
    )


def retrieved_table(measures: DataSetMeasures, names: Names) -> PageTable:
    """Accuracy as retrieved: overall, and by what the retriever found."""
    order = {method: at for at, method in enumerate(measures.methods)}
    rows = [
        Row(
            names.full(one.method),
            (
                str(one.num_documents),
                accuracy_text(one.accuracy),
                *(
                    accuracy_text(rate) if rate else NOTHING
                    for rate in (one.given_all, one.given_some, one.given_none)
                ),
                percent(one.recall.estimate),
                percent(one.all_found.estimate),
            ),
        )
        for one in sorted(measures.retrieved, key=lambda r: (order[r.method], r.num_documents))
    ]
    return PageTable(
        label="As retrieved",
        caption=(
            "Accuracy on the retriever's own passages, nothing inserted: of all questions, and of "
            "those with all, some or none of their gold passages among the passages. Recall: mean "
            "share of a question's gold passages that was retrieved; complete: questions with all. "
            "These two are the retriever's, the same for every method."
        ),
        first="Method",
        head=("Documents", "All", "All found", "Some found", "None found", "Recall", "Complete"),
        rows=tuple(rows),
    )


def cost_table(measures: DataSetMeasures, names: Names) -> PageTable:
    """Means of one answer, and what the subject's points cost over each baseline."""
    rows = []
    costs = {c.baseline: c for c in measures.costs}
    order = table_order([measures], names)
    known = [m for m in measures.methods if m in measures.accuracy]
    for method in sorted(known, key=lambda m: order.index(names.base(m))):
        if names.base(method) in FORCED:
            continue
        summary = measures.summaries[method]
        cells = [
            amount(summary.prompt_tokens),
            amount(summary.new_tokens),
            amount(summary.forward_passes),
            amount(summary.wall_seconds),
        ]
        rows.append(Row(names.full(method), (*cells, *_bought(costs, method))))
    caption = (
        "Means of one answer over all cells; seconds are of this run on its hardware, as if each "
        "answer had been asked for alone."
    )
    head = ["Prompt tokens", "New tokens", "Passes", "Seconds"]
    if costs:
        subjects = sorted({names.full(c.method) for c in measures.costs})
        caption += (
            f" The last three columns hold {' or '.join(subjects)} against the row's method on the "
            "same samples: points gained, and points per 100 extra new tokens and per extra "
            "second. A dash: it does not cost more, or is not known to."
        )
        head += ["Points gained", "per 100 tokens", "per second"]
    return PageTable("Cost of an answer", caption, "Method", tuple(head), tuple(rows))


def _bought(costs: Mapping[str, Cost], baseline: str) -> tuple[str, ...]:
    """What the subject's points cost over a baseline; nothing where nothing was compared."""
    if not costs:
        return ()
    extra = costs.get(baseline)
    if extra is None:
        return (NOTHING,) * 3
    return (
        points(extra.accuracy.estimate),
        _ratio(extra.per_token, extra.tokens, 100),
        _ratio(extra.per_second, extra.seconds, 1),
    )


def cell_name(cell: Cell) -> str:
    """A cell in words: `20 documents, gold at 9`.

    >>> cell_name(Cell("nq", "shuffled", 20, "inserted", 9))
    '20 documents, shuffled, gold at 9'
    """
    name = f"{cell.num_documents} documents"
    if cell.passage_order not in ("ranked", "retrieved"):
        name += f", {cell.passage_order}"
    if cell.gold == "inserted":
        return name if cell.position is None else f"{name}, gold at {cell.position}"
    return f"{name}, {'as retrieved' if cell.gold == 'retrieved' else 'no gold'}"


def _comparison_row(comparison: Comparison, name: str) -> Row:
    gap, real = comparison.difference.interval, is_real(comparison)
    detectable = comparison.detectable
    cells = (
        points(gap.estimate),
        _ends(gap),
        _p(comparison.difference.p_value),
        _p(comparison.adjusted_p),
        f"{100 * detectable:.1f}" if math.isfinite(detectable) else NOTHING,
        "yes" if real else "no",
    )
    return Row(name, cells, strong=real, forest=gap)


def forest_x(difference: float, reach: float) -> float:
    """Where a difference stands in a picture of 100 units, 50 being zero; ends are cut off.

    >>> forest_x(0.0, 0.5), forest_x(0.25, 0.5), forest_x(-0.9, 0.5)
    (50.0, 75.0, 1.0)
    """
    return round(min(99.0, max(1.0, 50 + 50 * difference / reach)), 2)


def _reach(comparisons: Sequence[Comparison]) -> float:
    """The smallest scale that all intervals fit on."""
    gaps = [comparison.difference.interval for comparison in comparisons]
    most = max((max(abs(gap.low), abs(gap.high)) for gap in gaps), default=1.0)
    return next((reach for reach in _REACHES if most <= reach), _REACHES[-1])


def _ends(interval: Interval) -> str:
    return f"{points(interval.low)} to {points(interval.high)}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _ratio(rate: Interval | None, extra: Interval, per: int) -> str:
    return NOTHING if rate is None or extra.estimate <= 0 else points(rate.estimate * per)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
