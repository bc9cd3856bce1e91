"""Bars, dots and points of a grid: how answers fail, what they owe to their quotes, what they cost.

Hatches, markers and numbers beside them say in black and white what the colours say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

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
    spread,
)

_POINTS = 72


class Fill(NamedTuple):
    """How a share is drawn: its face, the colour and the pattern of its hatch, and its name."""

    face: str
    edge: str
    hatch: str
    name: str
    text: str = INK


OUTCOMES = {
    Outcome.RIGHT_QUOTED: Fill(BLUE, BLUE, "", "right answer, gold passage quoted", SURFACE),
    Outcome.RIGHT_NOT_QUOTED: Fill(
        SURFACE, BLUE, "//////", "right answer without the gold passage"
    ),
    Outcome.WRONG_QUOTED: Fill(ORANGE, ORANGE, "", "gold passage quoted, wrong answer"),
    Outcome.WRONG_NOT_QUOTED: Fill(
        SURFACE, VERMILLION, "xxxxx", "gold passage not quoted, wrong answer"
    ),
    Outcome.NOT_PARSED: Fill(STONE, STONE, "", "format not kept"),
    Outcome.ABSTAINED: Fill(SURFACE, MUTED, "....", "abstained"),
    Outcome.RIGHT: Fill(BLUE, BLUE, "", "right answer", SURFACE),
    Outcome.WRONG: Fill(SURFACE, VERMILLION, "xxxxx", "wrong answer"),
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
    below = 0.42 + (0.2 * len(fills_of(splits)) + 0.1 if key else 0)
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
                Patch(facecolor=f.face, edgecolor=f.edge, hatch=f.hatch, linewidth=0.8, label=f.name)
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
    below = 0.45 + (0.2 * len(marks) + 0.1 if key else 0)
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
        figure, axes = open_axes((HALF, 2.9), (0.56, 0.16, 0.47, 0.12))
        if log:
            axes.set_xscale("log")
            low = min(point.x.low for point in points)
            high = max(point.x.high for point in points)
            axes.set_xlim(low / 1.35, high * 1.35)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_formatter(lambda value, _: "")
        else:
            axes.set_xlim(-0.03, 1.03)
            percent_axis(axes, "x", ticks=(0, 0.25, 0.5, 0.75, 1))
        ups = [point.y for point in points]
        low_y = math.floor(10 * min(i.low for i in ups) - 1e-9) / 10
        high_y = math.ceil(10 * max(i.high for i in ups) + 1e-9) / 10
        axes.set_ylim(max(-0.03, low_y), min(1.03, max(high_y, low_y + 0.3)))
        percent_axis(axes, "y")
        axes.grid(axis="x", color=RULE, linewidth=0.7)
        axes.set_xlabel(x_label, color=INK)
        axes.set_ylabel(y_label, color=INK)
        _draw_points(axes, points, names)
    return figure


def _draw_shares(axes: Axes, y: float, split: ErrorSplit) -> None:
    left = 0.0
    for outcome, rate in split.shares:
        fill, width = OUTCOMES[outcome], rate.estimate
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
    right = value.high < 0.86
    axes.text(
        value.high + 0.02 if right else value.low - 0.02,
        y,
        percent(value.estimate),
        ha="left" if right else "right",
        va="center_baseline",
        size=7.2,
    )


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
    """Names beside the points, on the side with room, moved apart where they would touch."""
    to_axes = axes.transData + axes.transAxes.inverted()
    places = [to_axes.transform((p.x.estimate, p.y.estimate)) for p in points]
    height = axes.get_position().height * axes.figure.get_figheight() * _POINTS
    for leftwards in (False, True):
        side = [i for i, (x, _) in enumerate(places) if (x > 0.52) == leftwards]
        side.sort(key=lambda i: places[i][1])
        ys = spread([places[i][1] for i in side], 11 / height, 0.02, 0.98)
        for i, y in zip(side, ys, strict=True):
            x = places[i][0]
            away = -0.035 if leftwards else 0.035
            if abs(y - places[i][1]) > 0.02:
                axes.plot(
                    [x, x + away],
                    [places[i][1], y],
                    transform=axes.transAxes,
                    color=MUTED,
                    linewidth=0.5,
                    zorder=1,
                )
            axes.text(
                x + away,
                y,
                names.full(points[i].method),
                transform=axes.transAxes,
                ha="right" if leftwards else "left",
                va="center_baseline",
                size=7.8,
                weight="bold" if names.base(points[i].method) == "scratchpad" else "normal",
                zorder=4,
            )


def _handle(mark: Mark):  # type: ignore[no-untyped-def]
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        linestyle="none",
        marker=mark.marker,
        color=mark.colour,
        markerfacecolor=mark.colour if mark.filled else SURFACE,
        label=mark.name,
    )


def _legend(figure: Figure, handles: Sequence[object]) -> None:
    figure.legend(
        handles=list(handles),  # type: ignore[arg-type]
        loc="lower left",
        bbox_to_anchor=(0.02, 0.0),
        frameon=False,
        handlelength=2.2,
        labelspacing=0.35,
        borderaxespad=0.1,
    )
