"""The parts of a page on a grid, a section a data set: figures with their words, and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.figure import Figure

from scratchpad_rag.evaluate.abstention import Abstention
from scratchpad_rag.evaluate.statistics import Interval
from scratchpad_rag.report import curves, grid_tables, marks
from scratchpad_rag.report.grid_runs import REFERENCES, Names
from scratchpad_rag.report.grid_tables import PageTable
from scratchpad_rag.report.inline import inline_svg
from scratchpad_rag.report.keys import Sample, fill_samples, line_samples, mark_samples
from scratchpad_rag.report.labels import clean, count, percent
from scratchpad_rag.report.measures import DataSetMeasures, Panel
from scratchpad_rag.report.verdicts import describe_lines, title_of


class Plate(NamedTuple):
    """A figure of one or more panels: the title and the drawing of each, a key, a caption."""

    panels: tuple[tuple[str, Markup], ...]
    key: tuple[Sample, ...]
    caption: str


class HeatCell(NamedTuple):
    """A cell of a heat map: accuracy, position, shade (0..5), and how many columns it takes."""

    text: str
    position: int
    shade: int
    columns: int


class HeatMap(NamedTuple):
    """A method's heat map as a table: rows with their name and cells."""

    name: str
    across: int
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Everything about one data set; None or () where its scores do not have it."""

    key: str
    title: str
    positions: Plate | None
    position_tables: tuple[PageTable, ...]
    heats: tuple[HeatMap, ...]
    documents: Plate | None
    document_table: PageTable | None
    robustness: PageTable | None
    turns: bool
    pooled: PageTable | None
    by_cell: PageTable | None
    errors: Plate | None
    error_table: PageTable | None
    forced: Plate | None
    forced_table: PageTable | None
    silence: Plate | None
    silence_table: PageTable | None
    retrieved: Plate | None
    retrieved_table: PageTable | None
    cost: Plate | None
    cost_table: PageTable | None


def sections(measures: Sequence[DataSetMeasures], names: Names) -> list[Section]:
    """A section a data set, in their order."""
    return [_section(f"s{number}", one, names) for number, one in enumerate(measures)]


def file_figures(measures: Sequence[DataSetMeasures], names: Names) -> Iterator[tuple[str, Figure]]:
    """Name (without its ending) and figure of every file; of several data sets named after each."""
    for one in measures:
        end = f"_{_file_part(one.dataset)}" if len(measures) > 1 else ""
        if one.panels:
            yield f"position_curves{end}", curves.position_figure(one.panels, names)
        if curves.document_runs(one, names):
            yield f"document_curves{end}", curves.document_figure(one, names)
        if heats := _heats(one):
            yield f"heat_map{end}", curves.heat_figure(heats, names)
        if one.errors:
            yield f"errors{end}", marks.error_figure(one.errors, names, key=True)
        if rows := _forced_rows(one, names):
            yield f"forced{end}", marks.dot_figure(rows, marks.FORCED_MARKS, "Accuracy", key=True)
        if points := _silence_points(one):
            yield f"no_gold{end}", marks.scatter_figure(points, names, *_SILENCE_AXES)
        if one.retrieved:
            most = max(r.num_documents for r in one.retrieved)
            rows = _retrieved_rows(one, most, names)
            label = f"Accuracy, {most} documents as retrieved"
            yield (
                f"as_retrieved{end}",
                marks.dot_figure(rows, marks.RETRIEVED_MARKS, label, key=True),
            )
        if points := _cost_points(one, "wall_seconds"):
            axes = ("Seconds an answer (log scale)", "Accuracy")
            yield f"cost{end}", marks.scatter_figure(points, names, *axes, log=True)


_SILENCE_AXES = ("Abstains though gold is shown", "Abstains without gold")


def _section(key: str, one: DataSetMeasures, names: Names) -> Section:
    return Section(
        key=key,
        title=title_of(one.dataset),
        positions=_positions(key, one, names),
        position_tables=tuple(_position_table(panel, names) for panel in one.panels),
        heats=tuple(_heat_map(names.full(m), h, _heats(one)) for m, h in _heats(one).items()),
        documents=_documents(key, one, names),
        document_table=_document_table(one, names),
        robustness=grid_tables.robustness_table(one.robustness, names) if one.robustness else None,
        turns=bool(one.panels) and not any(r.positions for r in one.robustness),
        pooled=grid_tables.pooled_table(one.pooled, names) if one.pooled else None,
        by_cell=grid_tables.cell_table(one.by_cell, names) if one.by_cell else None,
        errors=_errors(key, one, names),
        error_table=grid_tables.error_table(one, names) if one.errors else None,
        forced=_forced(key, one, names),
        forced_table=grid_tables.forced_table(one, names) if one.forced else None,
        silence=_silence(key, one, names),
        silence_table=_silence_table(one, names),
        retrieved=_retrieved(key, one, names),
        retrieved_table=grid_tables.retrieved_table(one, names) if one.retrieved else None,
        cost=_cost(key, one, names),
        cost_table=grid_tables.cost_table(one, names) if one.accuracy else None,
    )


def _positions(key: str, one: DataSetMeasures, names: Names) -> Plate | None:
    if not one.panels:
        return None
    limits = curves.position_limits(one.panels)
    drawn = []
    for number, panel in enumerate(one.panels):
        title = _panel_title(panel, names)
        words = describe_lines(dict(panel.lines), dict(panel.levels), names, at="at")
        figure = curves.position_panel(panel, limits, names)
        words = f"Accuracy by position of the gold passage, {title}. {words}"
        drawn.append((title, inline_svg(figure, f"{key}-p{number}", words)))
    methods = dict.fromkeys(k for panel in one.panels for k in (*panel.lines, *panel.levels))
    return Plate(
        tuple(drawn),
        line_samples(list(methods), names),
        "Accuracy (subspan exact match) by position of the gold passage, with 95% bands from "
        "resampling questions. Level lines: methods that see no passages, or the gold ones alone.",
    )


def _panel_title(panel: Panel, names: Names) -> str:
    title = count(panel.documents, "document")
    if panel.order != "ranked":
        title += f", {panel.order}"
    return title if len(names.runs) == 1 else f"{clean(panel.run)}: {title}"


def _position_table(panel: Panel, names: Names) -> PageTable:
    title = f"Accuracy by position, {_panel_title(panel, names)}"
    return grid_tables.line_table(dict(panel.lines), names, title, "Method", "At")


def _heats(one: DataSetMeasures) -> dict[str, curves.Heat]:
    found = {key: curves.heat(one.cells[key]) for key in one.reading}
    return {key: heat for key, heat in found.items() if heat}


def _heat_map(name: str, heat: curves.Heat, all_of: Mapping[str, curves.Heat]) -> HeatMap:
    limits = curves.heat_limits(all_of)
    last = len(curves.SHADES) - 1
    rows = tuple(
        (
            curves.row_name(row.order, row.documents),
            tuple(
                HeatCell(
                    text=percent(rate.estimate),
                    position=place,
                    shade=round(last * curves.shade(rate.estimate, limits)),
                    columns=heat.across // len(row.cells),
                )
                for place, rate in row.cells
            ),
        )
        for row in heat.rows
    )
    return HeatMap(name, heat.across, rows)


def _documents(key: str, one: DataSetMeasures, names: Names) -> Plate | None:
    runs = curves.document_runs(one, names)
    if not runs:
        return None
    limits = curves.document_limits(one)
    drawn = []
    for number, run in enumerate(runs):
        lines = _document_lines(one, run, names)
        levels = {
            k: rate
            for k, rate in one.accuracy.items()
            if names.base(k) in REFERENCES and names.run(k) == run
        }
        words = "Accuracy by number of documents. " + describe_lines(
            lines, levels, names, at="with"
        )
        figure = curves.document_panel(one, run, names, limits)
        title = clean(run) if len(names.runs) > 1 else ""
        drawn.append((title, inline_svg(figure, f"{key}-n{number}", words)))
    shown = dict.fromkeys(r.method for r in one.robustness if r.length)
    levelled = [k for k in one.accuracy if names.base(k) in REFERENCES]
    return Plate(
        tuple(drawn),
        line_samples([*shown, *levelled], names),
        "Accuracy over all gold positions by number of documents, with 95% bands; each step to the "
        "right is a doubling.",
    )


def _document_lines(
    one: DataSetMeasures, run: str, names: Names
) -> dict[str, Sequence[tuple[int, Interval]]]:
    return {
        r.method: r.length.curve for r in one.robustness if r.length and names.run(r.method) == run
    }


def _document_table(one: DataSetMeasures, names: Names) -> PageTable | None:
    lines = {k: v for run in names.runs for k, v in _document_lines(one, run, names).items()}
    if not lines:
        return None
    label = "Accuracy by number of documents"
    return grid_tables.line_table(lines, names, label, "Method", "Documents:")


def _errors(key: str, one: DataSetMeasures, names: Names) -> Plate | None:
    if not one.errors:
        return None
    told = []
    for split in one.errors:
        shares = ", ".join(
            f"{percent(rate.estimate)} {marks.OUTCOMES[outcome].name}"
            for outcome, rate in split.shares
            if rate.estimate > 0
        )
        told.append(f"{names.full(split.method)}: {shares}.")
    words = "What became of the answers. " + " ".join(told)
    svg = inline_svg(marks.error_figure(one.errors, names), f"{key}-e", words)
    return Plate(
        (("", svg),),
        fill_samples(marks.fills_of(one.errors), f"{key}-e"),
        "What became of the answers to questions with a gold passage shown. Of several gold "
        "passages all have to be quoted.",
    )


def _forced_rows(one: DataSetMeasures, names: Names) -> list[marks.Dots]:
    return [
        marks.Dots(names.full(use.method), (use.wrong_forced, use.free, use.gold_forced))
        for use in one.forced
    ]


def _forced(key: str, one: DataSetMeasures, names: Names) -> Plate | None:
    rows = _forced_rows(one, names)
    return _dots(
        f"{key}-f",
        rows,
        marks.FORCED_MARKS,
        "Accuracy when the scratchpad is written for the reader: how far better quoting could "
        "bring it, and how far wrong quotes mislead it.",
    )


def _retrieved_rows(one: DataSetMeasures, documents: int, names: Names) -> list[marks.Dots]:
    own = {r.method: r for r in one.retrieved if r.num_documents == documents}
    return [
        marks.Dots(names.full(m), (r.given_all, r.given_some, r.given_none, r.accuracy))
        for m in one.methods
        if (r := own.get(m))
    ]


def _retrieved(key: str, one: DataSetMeasures, names: Names) -> Plate | None:
    if not one.retrieved:
        return None
    most = max(r.num_documents for r in one.retrieved)
    known = next(r for r in one.retrieved if r.num_documents == most)
    return _dots(
        f"{key}-r",
        _retrieved_rows(one, most, names),
        marks.RETRIEVED_MARKS,
        f"Accuracy with the retriever's first {most} passages, nothing inserted, with 95% "
        f"intervals. Its recall there: {percent(known.recall.estimate)} of the gold passages; "
        f"{percent(known.all_found.estimate)} of the questions have all of theirs.",
    )


def _dots(
    key: str, rows: Sequence[marks.Dots], given: Sequence[marks.Mark], caption: str
) -> Plate | None:
    if not rows:
        return None
    told = []
    for row in rows:
        values = ", ".join(
            f"{percent(value.estimate)} {mark.name}"
            for mark, value in zip(given, row.values, strict=True)
            if value
        )
        told.append(f"{row.name}: {values}.")
    svg = inline_svg(marks.dot_figure(rows, given, "Accuracy"), key, "Accuracy. " + " ".join(told))
    used = [m for n, m in enumerate(given) if any(row.values[n] for row in rows)]
    return Plate((("", svg),), mark_samples(used), caption)


def _silence_points(one: DataSetMeasures) -> list[marks.Point]:
    """A point a method at its largest number of documents."""
    latest: dict[str, Abstention] = {}
    for rate in one.abstentions:
        if rate.abstained and rate.false_abstained:
            before = latest.get(rate.method)
            if before is None or rate.num_documents > before.num_documents:
                latest[rate.method] = rate
    if not any(r.abstained and r.abstained.estimate > 0 for r in latest.values()):
        return []  # nobody ever abstains: the table says so
    return [
        marks.Point(method, own.false_abstained, own.abstained)
        for method in one.methods
        if (own := latest.get(method)) and own.false_abstained and own.abstained
    ]


def _silence(key: str, one: DataSetMeasures, names: Names) -> Plate | None:
    points = _silence_points(one)
    if not points:
        return None
    told = " ".join(
        f"{names.full(p.method)}: {percent(p.y.estimate)} rightly, {percent(p.x.estimate)} wrongly."
        for p in points
    )
    figure = marks.scatter_figure(points, names, *_SILENCE_AXES)
    return Plate(
        (("", inline_svg(figure, f"{key}-s", f"Abstentions. {told}")),),
        (),
        "The trade-off of silence at the largest number of documents: rightly without gold, "
        "wrongly with it, so that up and to the left is better. A reader that never abstains "
        "stands at the lower left.",
    )


def _silence_table(one: DataSetMeasures, names: Names) -> PageTable | None:
    table = grid_tables.abstention_table(one, names)
    return table if table.rows else None


def _cost_points(one: DataSetMeasures, field: str) -> list[marks.Point]:
    points = []
    for method in one.methods:
        cost = getattr(one.summaries[method], field)
        known = method in one.reading or (one.accuracy.get(method) and not one.cells[method])
        if known and method in one.accuracy and cost > 0:
            points.append(marks.Point(method, Interval(cost, cost, cost, 1), one.accuracy[method]))
    return points if len(points) > 1 else []


def _cost(key: str, one: DataSetMeasures, names: Names) -> Plate | None:
    drawn: list[tuple[str, Markup]] = []
    for field, title in (("wall_seconds", "Seconds"), ("new_tokens", "New tokens")):
        points = _cost_points(one, field)
        if not points:
            continue
        told = " ".join(
            f"{names.full(p.method)}: {p.x.estimate:.3g}, {percent(p.y.estimate)}." for p in points
        )
        figure = marks.scatter_figure(
            points, names, f"{title} an answer (log scale)", "Accuracy", log=True
        )
        words = f"{title} of an answer against accuracy. {told}"
        drawn.append(("", inline_svg(figure, f"{key}-c{len(drawn)}", words)))
    if not drawn:
        return None
    return Plate(
        tuple(drawn),
        (),
        "Mean cost of an answer against accuracy with its 95% interval: up and to the left is "
        "better. Seconds are of this run on its hardware.",
    )


def _file_part(dataset: str) -> str:
    """A data set's name as a part of a file's name."""
    safe = "".join(c if c.isalnum() and c.isascii() else "-" for c in dataset.lower())
    return safe.strip("-") or "data"
