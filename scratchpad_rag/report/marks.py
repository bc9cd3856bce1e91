"""Bars, dots and points of a grid: how answers fail, what they owe to their quotes, what they cost.

Hatches, markers and numbers beside them say in black and white what the colours say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, MultipleLocator, NullLocator

from scratchpad_rag.evaluate.diagnosis import ErrorSplit, Outcome
from scratchpad_rag.evaluate.statistics import Interval
from scratchpad_rag.report.curves import HALF
from scratchpad_rag.report.grid_runs import Names
from scratchpad_rag.report.labels import percent
from scratchpad_rag.report.plots import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    RULE,
    SKY,
    STONE,
    SURFACE,
    VERMILLION,
    drawing_style,
    looks_of,
    open_axes,
    percent_axis,
)

# On fills that are light by day and by night: it does not follow the page's theme.
BLACK = "#101014"
_POINTS = 72  # an inch
_NAME_SIZE = 7.8  # points


class Fill(NamedTuple):
    """How a share is drawn: its face, the colour and the pattern of its hatch, and its name."""

    face: str
    edge: str
    hatch: str
    name: str
    text: str = INK


# In the order of the bars: right answers first, whoever gives them.
OUTCOMES = {
    Outcome.RIGHT_QUOTED: Fill(BLUE, BLUE, "", "right answer, gold passage quoted", SURFACE),
    Outcome.RIGHT_NOT_QUOTED: Fill(
        SURFACE, BLUE, "//////", "right answer without the gold passage"
    ),
    Outcome.RIGHT: Fill(SKY, SKY, "", "right answer (writes no quotes)", BLACK),
    Outcome.WRONG_QUOTED: Fill(ORANGE, ORANGE, "", "gold passage quoted, wrong answer", BLACK),
    Outcome.WRONG_NOT_QUOTED: Fill(
        SURFACE, VERMILLION, "xxxxx", "gold passage not quoted, wrong answer"
    ),
    Outcome.WRONG: Fill(SURFACE, STONE, "\\\\\\\\\\", "wrong answer (writes no quotes)"),
    Outcome.NOT_PARSED: Fill(STONE, STONE, "", "format not kept", BLACK),
    Outcome.ABSTAINED: Fill(SURFACE, MUTED, "....", "abstained"),
}


class Mark(NamedTuple):
    """What an interval of a row stands for: a marker, filled or not, and its name."""

    marker: str
    colour: str
    filled: bool
    name: str


class Dots(NamedTuple):
    """A row of a dot plot: a name, and intervals in the order of the marks (None: nothing)."""

    name: str
    values: tuple[Interval | None, ...]


class Point(NamedTuple):
    """A method in a scatter plot with its intervals across and up."""

    method: str
    x: Interval
    y: Interval


FORCED_MARKS = (
    Mark("X", VERMILLION, True, "wrong passages forced"),
    Mark("o", INK, True, "its own quotes"),
    Mark("^", BLUE, True, "gold passages forced"),
)
RETRIEVED_MARKS = (
    Mark("^", BLUE, True, "all gold passages found"),
    Mark("s", STONE, True, "some found"),
    Mark("v", VERMILLION, False, "none found"),
    Mark("o", INK, True, "all questions"),
)


def error_figure(splits: Sequence[ErrorSplit], names: Names, *, key: bool = False) -> Figure:
    """A bar a method, cut into its outcomes; shares of at least 6% have their number in them.

    `key` adds what the fills mean, for a file; the page has its own.
    """
    below = 0.3 + (0.19 * len(fills_of(splits)) + 0.08 if key else 0)
    size = (HALF, 0.46 * len(splits) + below + 0.05)
    with drawing_style():
        figure, axes = open_axes(size, (0.12, 0.16, below, 0.05))
        axes.set_xlim(0, 1)
        axes.set_ylim(len(splits) - 0.45, -0.75)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        percent_axis(axes, "x", ticks=(0, 0.25, 0.5, 0.75, 1))
        for row, split in enumerate(splits):
            axes.text(0, row - 0.24, names.full(split.method), va="bottom")
            _draw_shares(axes, row + 0.06, split)
        if key:
            handles = [
                Patch(
                    facecolor=f.face, edgecolor=f.edge, hatch=f.hatch, linewidth=0.8, label=f.name
                )
                for f in fills_of(splits)
            ]
            _legend(figure, handles)
    return figure


def fills_of(splits: Sequence[ErrorSplit]) -> list[Fill]:
    """The fills that these bars use, in their order."""
    seen = {outcome for split in splits for outcome, rate in split.shares if rate.estimate > 0}
    return [fill for outcome, fill in OUTCOMES.items() if outcome in seen]


def dot_figure(
    rows: Sequence[Dots], marks: Sequence[Mark], label: str, *, key: bool = False
) -> Figure:
    """A row a method with its intervals on one scale from 0 to 100%."""
    kept = [any(row.values[number] for row in rows) for number in range(len(marks))]
    marks = [mark for mark, keep in zip(marks, kept, strict=True) if keep]
    rows = [Dots(r.name, tuple(v for v, k in zip(r.values, kept, strict=True) if k)) for r in rows]
    below = 0.45 + (0.19 * len(marks) + 0.08 if key else 0)
    step = 0.36 + 0.12 * len(marks)
    with drawing_style():
        figure, axes = open_axes((HALF, step * len(rows) + below + 0.05), (0.12, 0.2, below, 0.05))
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label, color=INK)
        percent_axis(axes, "x", ticks=(0, 0.25, 0.5, 0.75, 1))
        for row, dots in enumerate(rows):
            if row:
                axes.axhline(row - 0.5, color=RULE, linewidth=0.7)
            axes.text(-0.02, row - 0.5 + 0.05 / step, dots.name, va="top")
            for number, (mark, value) in enumerate(zip(marks, dots.values, strict=True)):
                if value is not None:
                    y = row - 0.5 + (0.3 + 0.12 * number) / step
                    _draw_dot(axes, y, value, mark)
        if key:
            handles = [_handle(mark) for mark in marks]
            _legend(figure, handles)
    return figure


def scatter_figure(
    points: Sequence[Point], names: Names, x_label: str, y_label: str, *, log: bool = False
) -> Figure:
    """A point a method with its intervals both ways and its name beside it."""
    with drawing_style():
        figure, axes = open_axes((HALF, 2.9), (0.66, 0.16, 0.47, 0.12))
        if log:
            axes.set_xscale("log")
            low = min(point.x.low for point in points)
            high = max(point.x.high for point in points)
            axes.set_xlim(low / 1.35, high * 1.35)
            axes.xaxis.set_major_locator(FixedLocator(log_ticks(low / 1.35, high * 1.35)))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.set_xlim(*_rate_limits([point.x for point in points]))
            percent_axis(axes, "x")
        axes.set_ylim(*_rate_limits([point.y for point in points]))
        percent_axis(axes, "y")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(MultipleLocator(0.1 if high - low < 0.55 else 0.2))
        axes.grid(axis="x", color=RULE, linewidth=0.7)
        axes.set_xlabel(x_label, color=INK)
        axes.set_ylabel(y_label, color=INK)
        _draw_points(axes, points, names)
    return figure


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between the ends of a logarithmic axis: as few as tell where things stand.

    >>> log_ticks(0.04, 1.5), log_ticks(18, 37), log_ticks(7, 300)
    ([0.1, 1.0], [20.0, 30.0], [10.0, 100.0])
    >>> log_ticks(0.15, 3)
    [0.2, 0.5, 1.0, 2.0]
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) > 1:
            break
    return ticks


def _rate_limits(rates: Sequence[Interval]) -> tuple[float, float]:
    """Limits on tens around all intervals, at least 40 points apart, with room at 0 and at 1."""
    low = math.floor(10 * min(rate.low for rate in rates) - 1e-9) / 10
    high = math.ceil(10 * max(rate.high for rate in rates) + 1e-9) / 10
    low = max(0.0, min(low, 0.6))
    high = min(1.0, max(high, low + 0.4))
    return low - 0.04 * (low == 0), high + 0.04 * (high == 1)


def _draw_shares(axes: Axes, y: float, split: ErrorSplit) -> None:
    left, shares = 0.0, dict(split.shares)
    for outcome, fill in OUTCOMES.items():
        width = shares[outcome].estimate if outcome in shares else 0.0
        if width <= 0:
            continue
        axes.add_patch(
            Rectangle(
                (left, y - 0.24),
                width,
                0.48,
                facecolor=fill.face,
                edgecolor=fill.edge,
                hatch=fill.hatch,
                linewidth=0.8,
            )
        )
        if width >= 0.06:
            on_plain = not fill.hatch
            box = None if on_plain else {"facecolor": SURFACE, "linewidth": 0, "pad": 1.2}
            axes.text(
                left + width / 2,
                y,
                percent(width),
                ha="center",
                va="center_baseline",
                color=fill.text,
                size=8,
                bbox=box,
            )
        left += width


def _draw_dot(axes: Axes, y: float, value: Interval, mark: Mark) -> None:
    axes.plot([value.low, value.high], [y, y], color=mark.colour, linewidth=1.1, zorder=2)
    axes.plot(
        [value.estimate],
        [y],
        marker=mark.marker,
        markersize=5.5,
        color=mark.colour,
        markerfacecolor=mark.colour if mark.filled else SURFACE,
        markeredgecolor=mark.colour,
        zorder=3,
        linestyle="none",
    )
    # The number stands behind the interval, before it, or above one that fills the scale.
    place: dict[str, Any] = {"x": value.estimate, "y": y, "ha": "center", "va": "bottom"}
    if value.high < 0.86:
        place |= {"x": value.high + 0.02, "ha": "left", "va": "center_baseline"}
    elif value.low > 0.14:
        place |= {"x": value.low - 0.02, "ha": "right", "va": "center_baseline"}
    axes.text(s=percent(value.estimate), size=7.2, **place)


def _draw_points(axes: Axes, points: Sequence[Point], names: Names) -> None:
    style = looks_of([names.base(point.method) for point in points])
    for point in points:
        look = style[names.base(point.method)]
        axes.errorbar(
            point.x.estimate,
            point.y.estimate,
            xerr=[[point.x.estimate - point.x.low], [point.x.high - point.x.estimate]],
            yerr=[[point.y.estimate - point.y.low], [point.y.high - point.y.estimate]],
            color=look.colour,
            marker=look.marker or "D",
            markersize=6.5,
            markeredgecolor=SURFACE,
            markeredgewidth=0.6,
            elinewidth=0.9,
            capsize=0,
            zorder=3,
        )
    _name_points(axes, points, names)


def _name_points(axes: Axes, points: Sequence[Point], names: Names) -> None:
    """Names beside the points: right, left, above or below, where they touch the least."""
    to_axes = axes.transData + axes.transAxes.inverted()
    figure, frame = axes.figure, axes.get_position()
    width = frame.width * figure.get_figwidth() * _POINTS  # type: ignore[union-attr]
    height = frame.height * figure.get_figheight() * _POINTS  # type: ignore[union-attr]
    places = []
    for point in points:
        x, y = to_axes.transform((point.x.estimate, point.y.estimate))
        places.append((float(x) * width, float(y) * height))
    taken = [_Box(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    bars = {}  # the ends of a point's interval across
    for point, place in zip(points, places, strict=True):
        ends = [to_axes.transform((at, point.y.estimate))[0] for at in (point.x.low, point.x.high)]
        bars[place] = [float(end) * width for end in ends]
        taken.append(_Box(bars[place][0], place[1] - 1, bars[place][1], place[1] + 1))
        ups = [to_axes.transform((point.x.estimate, at))[1] for at in (point.y.low, point.y.high)]
        taken.append(_Box(place[0] - 1, ups[0] * height, place[0] + 1, ups[1] * height))
    for (x, y), group in _together(places, points):
        left, right = bars[x, y]
        text = _joint_name([names.full(point.method) for point in group])
        bold = len(group) == 1 and names.base(group[0].method) == "scratchpad"
        long = len(text) * _NAME_SIZE * (0.63 if bold else 0.57)
        spots = {
            ("left", "center_baseline"): (max(x + 7, right + 3), y),
            ("right", "center_baseline"): (min(x - 7, left - 3), y),
            ("center", "bottom"): (x, y + 6),
            ("center", "top"): (x, y - 6),
            ("left", "bottom"): (x + 4, y + 4),
            ("right", "top"): (x - 4, y - 4),
            ("left", "top"): (x + 4, y - 4),
            ("right", "bottom"): (x - 4, y + 4),
        }
        boxes = {spot: _text_box(at, spot, long) for spot, at in spots.items()}
        inside = _Box(0, 0, width, height)
        best = min(boxes, key=lambda s: _cost(boxes[s], taken, inside))
        taken.append(boxes[best])
        axes.text(
            spots[best][0] / width,
            spots[best][1] / height,
            text,
            transform=axes.transAxes,
            ha=best[0],
            va=best[1],
            size=_NAME_SIZE,
            weight="bold" if bold else "normal",
            zorder=4,
        )


def _joint_name(names: Sequence[str]) -> str:
    """
    >>> _joint_name(["SFT", "Zero-shot"]), _joint_name(["Zero-shot · 135M"] * 4)
    ('SFT, Zero-shot', 'Zero-shot · 135M and 3 more')
    """
    joint = ", ".join(names)
    return joint if len(joint) <= 36 or len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


Place = tuple[float, float]


def _together(places: Sequence[Place], points: Sequence[Point]) -> list[tuple[Place, list[Point]]]:
    """Points that lie on each other share one name."""
    groups: list[tuple[Place, list[Point]]] = []
    for place, point in zip(places, points, strict=True):
        for at, group in groups:
            if math.dist(at, place) < 3:
                group.append(point)
                break
        else:
            groups.append((place, [point]))
    return groups


class _Box(NamedTuple):
    """A rectangle in points from the lower left corner of the axes."""

    left: float
    bottom: float
    right: float
    top: float


def _text_box(at: tuple[float, float], spot: tuple[str, str], long: float) -> _Box:
    left = at[0] - {"left": 0.0, "center": long / 2, "right": long}[spot[0]]
    bottom = at[1] - {"bottom": 0.0, "center_baseline": 0.5, "top": 1.0}[spot[1]] * _NAME_SIZE
    return _Box(left, bottom, left + long, bottom + _NAME_SIZE)


def _cost(box: _Box, taken: Sequence[_Box], inside: _Box) -> float:
    """Area that a name shares with what is there already, and ten times what sticks out."""
    shared = sum(_overlap(box, other) for other in taken)
    area = (box.right - box.left) * (box.top - box.bottom)
    return shared + 10 * (area - _overlap(box, inside))


def _overlap(a: _Box, b: _Box) -> float:
    across = min(a.right, b.right) - max(a.left, b.left)
    return max(0.0, across) * max(0.0, min(a.top, b.top) - max(a.bottom, b.bottom))


def _handle(mark: Mark) -> Line2D:
    return Line2D(
        [],
        [],
        linestyle="none",
        marker=mark.marker,
        color=mark.colour,
        markerfacecolor=mark.colour if mark.filled else SURFACE,
        label=mark.name,
    )


def _legend(figure: Figure, handles: Sequence[Artist]) -> None:
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.02, 0.0),
        frameon=False,
        handlelength=2.2,
        labelspacing=0.35,
        borderaxespad=0.1,
    )
