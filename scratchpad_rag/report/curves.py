"""Curves of a grid: accuracy by position, by number of documents, and the heat map of both.

Every figure is drawn twice: panel by panel for the page, whose style sheet lays them out, and all
panels in one with its key, as a file for a paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from scratchpad_rag.evaluate.statistics import Interval
from scratchpad_rag.report.grid_runs import REFERENCES, Names
from scratchpad_rag.report.labels import count, percent
from scratchpad_rag.report.measures import CellRate, DataSetMeasures, Panel
from scratchpad_rag.report.plots import (
    INK,
    MUTED,
    RULE,
    SURFACE,
    Look,
    drawing_style,
    looks_of,
    open_axes,
    percent_axis,
)

PANEL, HALF = 2.75, 3.7  # inches: a third of a page's width, and a half
_WIDE = 7.2
_BAND = 0.13
# From light to dark, evenly in lightness: the order is the same in black and white.
SHADES = ("#f3f1ec", "#c9d9e3", "#8fb6d0", "#4d8bb5", "#1f5f8f", "#0c3a61")


class Limits(NamedTuple):
    """The ends of an axis of rates."""

    low: float
    high: float


class Heat(NamedTuple):
    """A heat map: accuracy by number of documents (rows) and position (columns) of one method."""

    rows: tuple[tuple[str, int], ...]  # order of the passages, number of documents
    columns: tuple[int, ...]
    cells: Mapping[tuple[str, int, int], Interval]


def y_limits(intervals: Sequence[Interval]) -> Limits:
    """Limits on whole tens around all intervals, at least 40 points apart."""
    low = math.floor(10 * min((i.low for i in intervals), default=0.0)) / 10
    high = math.ceil(10 * max((i.high for i in intervals), default=1.0)) / 10
    low = max(0.0, min(low, high - 0.4))
    high = min(1.0, max(high, low + 0.4))
    return Limits(low - 0.02 * (low == 0), high + 0.02 * (high == 1))


def position_limits(panels: Sequence[Panel]) -> Limits:
    """One axis for all panels, so that they can be held against each other."""
    points = [rate for panel in panels for line in panel.lines.values() for _, rate in line]
    return y_limits(points + [level for panel in panels for level in panel.levels.values()])


def position_panel(panel: Panel, limits: Limits, names: Names) -> Figure:
    """One panel: a line a method with its 95% band, level lines for methods without a position."""
    with drawing_style():
        figure, axes = open_axes((PANEL, 2.35), (0.47, 0.1, 0.45, 0.1))
        _draw_positions(axes, panel, limits, names)
        axes.set_xlabel("Gold passage at (0 = first)", color=INK)
    return figure


def position_figure(panels: Sequence[Panel], names: Names) -> Figure:
    """All panels of a data set, a row a run and order of passages, with one key below."""
    rows = list(dict.fromkeys((panel.run, panel.order) for panel in panels))
    columns = sorted({panel.documents for panel in panels})
    limits = position_limits(panels)
    methods = list(dict.fromkeys(k for p in panels for k in (*p.lines, *p.levels)))
    height = 2.1 * len(rows) + 0.55 + _key_height(methods, names)
    with drawing_style():
        figure = Figure(figsize=(max(_WIDE / 2, min(_WIDE, 2.4 * len(columns) + 0.5)), height))
        for panel in panels:
            row, column = rows.index((panel.run, panel.order)), columns.index(panel.documents)
            axes = _place(figure, (row, len(rows)), (column, len(columns)), height, methods, names)
            _draw_positions(axes, panel, limits, names)
            axes.set_title(_panel_title(panel, names), fontsize=8.5, loc="left", weight="bold")
            if column:
                axes.tick_params(labelleft=False)
            else:
                axes.set_ylabel("Accuracy", color=INK)
            if row == len(rows) - 1:
                axes.set_xlabel("Gold passage at (0 = first)", color=INK)
        _key(figure, methods, names)
    return figure


def document_panel(measures: DataSetMeasures, run: str, names: Names, limits: Limits) -> Figure:
    """Accuracy by number of documents on a scale of doublings, over all gold positions."""
    with drawing_style():
        figure, axes = open_axes((HALF, 2.75), (0.5, 0.12, 0.45, 0.1))
        _draw_documents(axes, measures, run, names, limits)
        axes.set_xlabel("Documents shown (log scale)", color=INK)
    return figure


def document_figure(measures: DataSetMeasures, names: Names) -> Figure:
    """The document curves of all runs side by side, with one key below."""
    runs = document_runs(measures, names)
    limits = document_limits(measures)
    shown = {r.method for r in measures.robustness if r.length}
    methods = [m for m in measures.methods if m in shown or names.base(m) in REFERENCES]
    height = 2.75 + _key_height(methods, names)
    with drawing_style():
        figure = Figure(figsize=(max(_WIDE / 2, min(_WIDE, 3.0 * len(runs) + 0.6)), height))
        for column, run in enumerate(runs):
            axes = _place(figure, (0, 1), (column, len(runs)), height, methods, names)
            _draw_documents(axes, measures, run, names, limits)
            if len(names.runs) > 1:
                axes.set_title(run, fontsize=8.5, loc="left", weight="bold")
            axes.set_xlabel("Documents shown (log scale)", color=INK)
            if not column:
                axes.set_ylabel("Accuracy", color=INK)
        _key(figure, methods, names)
    return figure


def document_limits(measures: DataSetMeasures) -> Limits:
    """One axis for the document curves of all runs."""
    points = [rate for r in measures.robustness if r.length for _, rate in r.length.curve]
    return y_limits(points + _levels(measures))


def document_runs(measures: DataSetMeasures, names: Names) -> list[str]:
    """The runs that have a document curve."""
    having = {names.run(r.method) for r in measures.robustness if r.length}
    return [run for run in names.runs if run in having]


def heat(rates: Sequence[CellRate]) -> Heat | None:
    """The heat map of one method's cells; None where it has no two positions or numbers."""
    cells = {
        (r.cell.passage_order, r.cell.num_documents, r.cell.position): r.accuracy
        for r in rates
        if r.cell.position is not None
    }
    if len(cells) < 2:
        return None
    rows = tuple(sorted({(order, documents) for order, documents, _ in cells}))
    return Heat(rows, tuple(sorted({at for *_, at in cells})), cells)


def heat_figure(heats: Mapping[str, Heat], limits: Limits, names: Names) -> Figure:
    """A heat map a method, the number printed in every cell."""
    across = 2 if len(heats) > 1 else 1
    down = math.ceil(len(heats) / across)
    rows = max(len(h.rows) for h in heats.values())
    each = 0.34 * rows + 0.72
    colours = LinearSegmentedColormap.from_list("shades", SHADES)
    with drawing_style():
        figure = Figure(figsize=(_WIDE, each * down + 0.1))
        for number, (method, one) in enumerate(heats.items()):
            row, column = divmod(number, across)
            left, width = 0.75 + column * (_WIDE / across), _WIDE / across - 0.95
            bottom = (down - 1 - row) * each + 0.47
            axes = figure.add_axes(
                (
                    left / _WIDE,
                    bottom / (each * down + 0.1),
                    width / _WIDE,
                    (each - 0.72) / (each * down + 0.1),
                )
            )
            _draw_heat(axes, one, limits, colours)
            axes.set_title(names.full(method), fontsize=8.5, loc="left", weight="bold")
    return figure


def shade(rate: float, limits: Limits) -> float:
    """Where a rate lies between the limits, in 0..1."""
    return min(1.0, max(0.0, (rate - limits.low) / (limits.high - limits.low)))


def _draw_positions(axes: Axes, panel: Panel, limits: Limits, names: Names) -> None:
    style = looks_of(list(map(names.base, (*panel.lines, *panel.levels))))
    places = sorted({at for line in panel.lines.values() for at, _ in line})
    margin = max(0.5, 0.06 * (places[-1] - places[0]))
    axes.set_xlim(places[0] - margin, places[-1] + margin)
    axes.set_xticks(_apart(places, panel.documents))
    axes.set_ylim(*limits)
    percent_axis(axes, "y")
    _level_lines(axes, panel.levels, names, style)
    for key, line in panel.lines.items():
        _draw_line(axes, line, style[names.base(key)], names.base(key) == "scratchpad")


def _draw_documents(
    axes: Axes, measures: DataSetMeasures, run: str, names: Names, limits: Limits
) -> None:
    curves = {
        r.method: r.length.curve
        for r in measures.robustness
        if r.length and names.run(r.method) == run
    }
    numbers = sorted({n for curve in curves.values() for n, _ in curve})
    style = looks_of(list(map(names.base, measures.methods)))
    axes.set_xscale("log", base=2)
    axes.set_xlim(numbers[0] / 2**0.2, numbers[-1] * 2**0.2)
    axes.xaxis.set_major_locator(FixedLocator(numbers))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(*limits)
    percent_axis(axes, "y")
    levels = {k: measures.accuracy[k] for k in measures.methods if _is_level(k, measures, names)}
    _level_lines(axes, {k: v for k, v in levels.items() if names.run(k) == run}, names, style)
    for key, curve in curves.items():
        _draw_line(axes, curve, style[names.base(key)], names.base(key) == "scratchpad")


def _is_level(key: str, measures: DataSetMeasures, names: Names) -> bool:
    return names.base(key) in REFERENCES and key in measures.accuracy


def _levels(measures: DataSetMeasures) -> list[Interval]:
    """Accuracy of the methods that no cell reaches (they have no cells)."""
    return [rate for key, rate in measures.accuracy.items() if not measures.cells[key]]


def _draw_line(
    axes: Axes, line: Sequence[tuple[int, Interval]], look: Look, hero: bool
) -> None:
    at = [x for x, _ in line]
    axes.fill_between(
        at,
        [rate.low for _, rate in line],
        [rate.high for _, rate in line],
        color=look.colour,
        alpha=_BAND,
        linewidth=0,
        zorder=2,
    )
    axes.plot(
        at,
        [rate.estimate for _, rate in line],
        color=look.colour,
        marker=look.marker,
        linestyle=look.dashes,
        linewidth=2.1 if hero else 1.4,
        markersize=5.8 if hero else 4.8,
        markeredgecolor=SURFACE,
        markeredgewidth=0.7,
        zorder=4 if hero else 3,
        clip_on=False,
    )


def _level_lines(
    axes: Axes, levels: Mapping[str, Interval], names: Names, style: Mapping[str, Look]
) -> None:
    for key, level in levels.items():
        look = style[names.base(key)]
        axes.axhspan(level.low, level.high, color=look.colour, alpha=0.09, linewidth=0)
        axes.axhline(level.estimate, color=look.colour, linestyle=look.dashes, linewidth=1.2)


def _draw_heat(axes: Axes, one: Heat, limits: Limits, colours: LinearSegmentedColormap) -> None:
    axes.set_xlim(-0.5, len(one.columns) - 0.5)
    axes.set_ylim(len(one.rows) - 0.5, -0.5)
    axes.set_xticks(range(len(one.columns)), list(map(str, one.columns)))
    axes.set_yticks(range(len(one.rows)), [_row_name(order, n) for order, n in one.rows])
    axes.set_xlabel("Gold passage at (0 = first)", color=INK)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    for y, (order, documents) in enumerate(one.rows):
        for x, place in enumerate(one.columns):
            rate = one.cells.get((order, documents, place))
            if rate is None:
                axes.fill_between(
                    [x - 0.46, x + 0.46], y - 0.44, y + 0.44, facecolor="none", edgecolor=RULE,
                    hatch="//", linewidth=0,
                )
                continue
            at = shade(rate.estimate, limits)
            axes.fill_between([x - 0.47, x + 0.47], y - 0.45, y + 0.45, color=colours(at), lw=0)
            ink = "white" if at > 0.55 else INK
            axes.text(x, y, percent(rate.estimate), ha="center", va="center", color=ink, size=7.5)


def _row_name(order: str, documents: int) -> str:
    return f"{documents} docs" if order == "ranked" else f"{documents}, {order}"


def _panel_title(panel: Panel, names: Names) -> str:
    title = count(panel.documents, "document")
    if panel.order != "ranked":
        title += f", {panel.order}"
    return title if len(names.runs) == 1 else f"{panel.run}: {title}"


def _apart(places: Sequence[int], documents: int) -> list[int]:
    """Ticks that leave room for their numbers."""
    kept: list[int] = []
    for place in places:
        if not kept or place - kept[-1] >= max(1, documents / 11):
            kept.append(place)
    return kept


def _place(
    figure: Figure,
    row: tuple[int, int],
    column: tuple[int, int],
    height: float,
    methods: Sequence[str],
    names: Names,
) -> Axes:
    """Axes at (number, of how many) in rows and columns, above the key."""
    width = figure.get_figwidth()
    below, left, gap = 0.5 + _key_height(methods, names), 0.62, 0.16
    each_width = (width - left - 0.1 - gap * (column[1] - 1)) / column[1]
    each_height = (height - below - 0.05) / row[1]
    bottom = below + (row[1] - 1 - row[0]) * each_height
    room = 0.28 + (0.22 if row[0] < row[1] - 1 else 0)
    axes = figure.add_axes(
        (
            (left + column[0] * (each_width + gap)) / width,
            (bottom + (0.22 if row[0] < row[1] - 1 else 0)) / height,
            each_width / width,
            (each_height - room) / height,
        )
    )
    axes.patch.set_alpha(0)
    return axes


def _key_height(methods: Sequence[str], names: Names) -> float:
    shown = dict.fromkeys(map(names.base, methods))
    return 0.2 * math.ceil(len(shown) / 3) + 0.08


def _key(figure: Figure, methods: Sequence[str], names: Names) -> None:
    from matplotlib.lines import Line2D

    shown = list(dict.fromkeys(map(names.base, methods)))
    style = looks_of(shown)
    plain = Names(("",))
    handles = [
        Line2D(
            [],
            [],
            color=style[base].colour,
            marker=style[base].marker,
            linestyle=style[base].dashes,
            linewidth=1.5,
            markersize=5,
            markeredgecolor=SURFACE,
            markeredgewidth=0.5,
            label=plain.full(base),
        )
        for base in shown
    ]
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=min(3, len(handles)),
        frameon=False,
        handlelength=3.0,
        columnspacing=1.6,
        labelspacing=0.35,
        borderaxespad=0.1,
    )
