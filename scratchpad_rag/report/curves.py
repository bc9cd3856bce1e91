"""Curves of a grid: accuracy by position, by number of documents, and the heat map of both.

Every figure is drawn twice: panel by panel for the page, whose style sheet lays them out, and all
panels in one with its key, as a file for a paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from scratchpad_rag.evaluate.statistics import Interval
from scratchpad_rag.report.grid_runs import REFERENCES, Names
from scratchpad_rag.report.labels import count, percent
from scratchpad_rag.report.measures import CellRate, DataSetMeasures, Panel
from scratchpad_rag.report.plots import (
    INK,
    MUTED,
    SURFACE,
    Look,
    drawing_style,
    looks_of,
    open_axes,
    percent_axis,
)

PANEL, HALF = 2.75, 3.7  # inches: a third of a page's width, and a half
_WIDE = 7.2
_INK_OF_BANDS = 0.34  # shared by all bands, so that many on each other stay light
# From light to dark, evenly in lightness: the order is the same in black and white.
_WHITE_BELOW = 0.179  # relative luminance: white has more contrast than black below this
SHADES = ("#f3f1ec", "#c9d9e3", "#8fb6d0", "#4d8bb5", "#1f5f8f", "#0c3a61")


class Limits(NamedTuple):
    """The ends of an axis of rates."""

    low: float
    high: float


class HeatRow(NamedTuple):
    """One number of documents: accuracy by position, from the first to the last."""

    order: str
    documents: int
    cells: tuple[tuple[int, Interval], ...]


class Heat(NamedTuple):
    """A heat map of one method. Rows are equally wide and may have different numbers of cells,
    since 5 documents have fewer positions than 20."""

    rows: tuple[HeatRow, ...]
    across: int  # columns of a grid in which every row's cells are equally wide


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
    width = max(_WIDE / 2, min(_WIDE, 2.4 * len(columns) + 0.5))
    height = 2.1 * len(rows) + 0.55 + _key_height(methods, names, width)
    with drawing_style():
        figure = Figure(figsize=(width, height))
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
    width = max(_WIDE / 2, min(_WIDE, 3.0 * len(runs) + 0.6))
    height = 2.75 + _key_height(methods, names, width)
    with drawing_style():
        figure = Figure(figsize=(width, height))
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
    """The heat map of one method's cells; None where there are fewer than two."""
    rows: dict[tuple[str, int], list[tuple[int, Interval]]] = {}
    for rate in rates:
        cell = rate.cell
        if cell.position is not None:
            own = rows.setdefault((cell.passage_order, cell.num_documents), [])
            own.append((cell.position, rate.accuracy))
    if sum(map(len, rows.values())) < 2:
        return None
    made = tuple(HeatRow(*place, tuple(sorted(rows[place]))) for place in sorted(rows))
    return Heat(made, math.lcm(*(len(row.cells) for row in made)))


def heat_limits(heats: Mapping[str, Heat]) -> Limits:
    """One scale of shades for all methods of a data set."""
    return y_limits([rate for h in heats.values() for row in h.rows for _, rate in row.cells])


def heat_figure(heats: Mapping[str, Heat], names: Names) -> Figure:
    """A heat map a method, accuracy and position printed in every cell."""
    across = 2 if len(heats) > 1 else 1
    down = math.ceil(len(heats) / across)
    each = 0.42 * max(len(h.rows) for h in heats.values()) + 0.42
    limits = heat_limits(heats)
    width, height = _WIDE / 2 * across, each * down + 0.25
    colours = LinearSegmentedColormap.from_list("shades", SHADES)
    with drawing_style():
        figure = Figure(figsize=(width, height))
        for number, (method, one) in enumerate(heats.items()):
            row, column = divmod(number, across)
            left, bottom = 0.65 + column * _WIDE / 2, (down - 1 - row) * each + 0.3
            place = (left, bottom, _WIDE / 2 - 0.75, each - 0.42)
            axes = figure.add_axes(
                (place[0] / width, place[1] / height, place[2] / width, place[3] / height)
            )
            _draw_heat(axes, one, limits, colours)
            axes.set_title(names.full(method), fontsize=8.5, loc="left", weight="bold", pad=3)
        figure.text(
            0.65 / width, 0.08 / height, "Left to right: gold passage first to last", color=MUTED
        )
    return figure


def shade(rate: float, limits: Limits) -> float:
    """Where a rate lies between the limits, in 0..1."""
    return min(1.0, max(0.0, (rate - limits.low) / (limits.high - limits.low)))


def ink_on(colour: tuple[float, ...]) -> str:
    """Black or white, whichever is better read on a colour: a contrast of at least 4.5 (WCAG 2.2).

    >>> ink_on((1.0, 1.0, 1.0)), ink_on((0.0, 0.2, 0.4))
    ('black', 'white')
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "white" if luminance < _WHITE_BELOW else "black"


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
        _draw_line(axes, line, style[names.base(key)], key, names, len(panel.lines))


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
        _draw_line(axes, curve, style[names.base(key)], key, names, len(curves))


def _is_level(key: str, measures: DataSetMeasures, names: Names) -> bool:
    return names.base(key) in REFERENCES and key in measures.accuracy


def _levels(measures: DataSetMeasures) -> list[Interval]:
    """Accuracy of the methods that no cell reaches (they have no cells)."""
    return [rate for key, rate in measures.accuracy.items() if not measures.cells[key]]


def _draw_line(
    axes: Axes,
    line: Sequence[tuple[int, Interval]],
    look: Look,
    key: str,
    names: Names,
    lines: int,
) -> None:
    """A curve with its band, one of so many `lines`; thin edges tell bands apart."""
    at, hero = [x for x, _ in line], names.base(key) == "scratchpad"
    low, high = [rate.low for _, rate in line], [rate.high for _, rate in line]
    alpha = min(0.13, _INK_OF_BANDS / lines)
    axes.fill_between(at, low, high, color=look.colour, alpha=alpha, linewidth=0, zorder=1.5)
    for edge in (low, high):
        axes.plot(at, edge, color=look.colour, alpha=0.4, linewidth=0.5, zorder=1.6)
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
        axes.axhspan(level.low, level.high, color=look.colour, alpha=0.06, linewidth=0)
        axes.axhline(level.estimate, color=look.colour, linestyle=look.dashes, linewidth=1.2)


def _draw_heat(axes: Axes, one: Heat, limits: Limits, colours: LinearSegmentedColormap) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(len(one.rows) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks(range(len(one.rows)), [row_name(row.order, row.documents) for row in one.rows])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    for y, row in enumerate(one.rows):
        width = 1 / len(row.cells)
        for x, (place, rate) in enumerate(row.cells):
            at = shade(rate.estimate, limits)
            box = Rectangle(
                (x * width, y - 0.5), width, 1, facecolor=colours(at), edgecolor="white"
            )
            axes.add_patch(box)
            ink, middle = ink_on(colours(at)), (x + 0.5) * width
            axes.text(
                middle,
                y - 0.08,
                percent(rate.estimate),
                ha="center",
                va="center",
                color=ink,
                size=8,
            )
            axes.text(middle, y + 0.3, f"at {place}", ha="center", va="center", color=ink, size=5.5)


def row_name(order: str, documents: int) -> str:
    """What a row of a heat map is called."""
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
    below, left, gap = 0.5 + _key_height(methods, names, width), 0.62, 0.16
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


def _key_height(methods: Sequence[str], names: Names, width: float = _WIDE) -> float:
    shown = dict.fromkeys(map(names.base, methods))
    return 0.2 * math.ceil(len(shown) / _key_columns(width)) + 0.08


def _key_columns(width: float) -> int:
    return max(1, int(width / 1.8) - 1)


def _key(figure: Figure, methods: Sequence[str], names: Names) -> None:
    shown = list(dict.fromkeys(map(names.base, methods)))
    style = looks_of(shown)
    plain = Names(("",))
    handles = [
        Line2D(
            [],
            [],
            color=style[base].colour,
            marker=style[base].marker,
            linestyle=style[base].dashes,  # type: ignore[arg-type]
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
        ncols=min(_key_columns(figure.get_figwidth()), len(handles)),
        frameon=False,
        handlelength=3.0,
        columnspacing=1.6,
        labelspacing=0.35,
        borderaxespad=0.1,
    )
