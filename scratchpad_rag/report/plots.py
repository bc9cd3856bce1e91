"""Accuracy by position of the gold passage, and by method, as matplotlib figures.

Colours are Okabe and Ito's (2008), which colour-blind readers tell apart; markers and dashes carry
the same message in black and white. No pyplot: figures have no global state.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scratchpad_rag.evaluate.summary import MethodSummary
from scratchpad_rag.report.labels import interval_range, method_name, percent

INK, MUTED, RULE, SURFACE = "#1d1d21", "#67676f", "#dddde3", "#fefefe"
BLUE, VERMILLION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY, STONE, WINE = "#e69f00", "#56b4e9", "#8a8a94", "#882255"
_WIDE, _NARROW = 7.2, 3.6  # inches: a page's width, and a phone's or a paper column's
_POINTS = 72  # an inch


class Look(NamedTuple):
    """How a method is drawn: colour, marker and dashes ("-" or on-off lengths)."""

    colour: str
    marker: str
    dashes: str | tuple[int, tuple[float, ...]]


class LineEnd(NamedTuple):
    """The right end of a line, in the units of the axes."""

    x: float
    y: float


_LOOKS = {
    "scratchpad": Look(VERMILLION, "o", "-"),
    "scratchpad_shipped": Look(ORANGE, "D", (0, (6, 1.5))),
    "scratchpad_verbatim": Look(WINE, "D", (0, (8, 1.5, 2, 1.5))),
    "sft": Look(BLUE, "s", (0, (4, 1.5))),
    "sft_shipped": Look(SKY, "v", (0, (2, 1.2))),
    "zero_shot": Look(GREEN, "^", (0, (1, 1.4))),
    "rerank_then_read": Look(PURPLE, "p", (0, (5, 1.5, 1, 1.5))),
    "closed_book": Look(MUTED, "", (0, (1, 2.5))),
    "gold_only": Look(MUTED, "", (0, (7, 3))),
}
_SPARE_LOOKS = tuple(Look(STONE, marker, (0, (3, 1, 1, 1))) for marker in "X*hd<>8P")


class Draw(Protocol):
    """Summaries -> a figure, for a page's width or for a narrow one."""

    def __call__(self, summaries: Sequence[MethodSummary], *, narrow: bool = False) -> Figure: ...


def looks(summaries: Sequence[MethodSummary]) -> dict[str, Look]:
    """The look of every method: its own, or for a method that is not known one of the spare."""
    return looks_of([summary.method for summary in summaries])


def looks_of(methods: Sequence[str]) -> dict[str, Look]:
    """The same of methods by name."""
    unknown = [method for method in dict.fromkeys(methods) if method not in _LOOKS]
    spare = {m: _SPARE_LOOKS[i % len(_SPARE_LOOKS)] for i, m in enumerate(unknown)}
    return {**_LOOKS, **spare}


@contextmanager
def drawing_style(*, text_as_paths: bool = True) -> Iterator[None]:
    """Our fonts, sizes and colours while a figure is made or saved; names are never mathematics."""
    with matplotlib.rc_context(
        {
            "axes.edgecolor": MUTED,
            "axes.linewidth": 0.8,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "font.family": "DejaVu Sans",  # comes with matplotlib
            "font.size": 8.5,
            "svg.fonttype": "path" if text_as_paths else "none",
            "svg.hashsalt": "scratchpad-rag",  # the same figure gives the same file
            "text.color": INK,
            "text.parse_math": False,
            "xtick.color": MUTED,
            "xtick.labelcolor": INK,
            "ytick.color": MUTED,
            "ytick.labelcolor": INK,
        }
    ):
        yield


def position_curve(summaries: Sequence[MethodSummary], *, narrow: bool = False) -> Figure:
    """Accuracy by position of the gold passage: a line a method, bars for 95% intervals.

    Methods whose gold passage has no position are level lines. Names stand at the ends of the
    lines, or with `narrow` in a key below.
    """
    if narrow:
        legend = 0.17 * len(summaries) + 0.1
        size, room = (_NARROW, 3.0 + legend), (0.66, 0.1, 0.45 + legend, 0.1)
    else:
        size, room = (_WIDE, 3.9), (0.7, 2.6, 0.48, 0.12)
    with drawing_style():
        figure, axes = open_axes(size, room)
        positions = sorted({p.position for s in summaries for p in s.by_position})
        low, high = _y_limits(summaries)
        axes.set_ylim(low, high)
        ends = positions or [0]
        margin = max(0.5, 0.05 * (ends[-1] - ends[0]))
        axes.set_xlim(ends[0] - margin, ends[-1] + margin)
        axes.set_xticks(positions)
        axes.set_xlabel("Position of the gold passage (0 = first)", color=INK)
        percent_axis(axes, "y")
        at_ends = _draw_lines(axes, summaries, margin)
        if narrow:
            axes.set_ylabel("Accuracy", color=INK)
            _key_below(figure, axes)
        else:
            axes.set_ylabel("Accuracy (subspan exact match)", color=INK)
            _name_line_ends(
                axes, summaries, at_ends, height=(size[1] - room[2] - room[3]) * _POINTS
            )
    return figure


def document_curve(by_documents: Mapping[int, MethodSummary]) -> Figure:
    """One method's accuracy by the number of documents shown, with 95% intervals."""
    counts = sorted(by_documents)
    rates = [by_documents[count].subspan_exact_match for count in counts]
    with drawing_style():
        figure, axes = open_axes((_WIDE, 3.9), (0.7, 0.3, 0.48, 0.12))
        axes.set_ylim(0, max(0.1, 1.15 * max(rate.high for rate in rates)))
        axes.errorbar(
            range(len(counts)),
            [rate.estimate for rate in rates],
            yerr=[
                [max(0.0, rate.estimate - rate.low) for rate in rates],
                [max(0.0, rate.high - rate.estimate) for rate in rates],
            ],
            color=INK,
            marker="o",
            capsize=3,
        )
        axes.set_xticks(range(len(counts)), [str(count) for count in counts])
        axes.set_xlabel("Documents shown", color=INK)
        axes.set_ylabel("Accuracy (subspan exact match)", color=INK)
        percent_axis(axes, "y")
    return figure


def method_bars(summaries: Sequence[MethodSummary], *, narrow: bool = False) -> Figure:
    """Accuracy of every method as a bar from zero, with its 95% interval."""
    height = 0.3 * len(summaries)
    if narrow:
        size, room = (_NARROW, 1.45 * height + 0.5), (0.16, 0.1, 0.4, 0.1)
    else:
        size, room = (_WIDE, height + 0.55), (2.45, 0.15, 0.42, 0.1)
    with drawing_style():
        figure, axes = open_axes(size, room)
        axes.set_xlim(0, 1.45 if narrow else 1.28)
        axes.set_ylim(len(summaries) - 0.5, -0.75 if narrow else -0.5)
        axes.set_yticks([])
        axes.set_xlabel("Accuracy (subspan exact match)", color=INK)
        percent_axis(axes, "x", ticks=(0, 0.25, 0.5, 0.75, 1))
        for row, summary in enumerate(summaries):
            _draw_bar(axes, row, summary, narrow=narrow)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """The figure at 300 dots an inch on white, as papers ask for."""
    buffer = io.BytesIO()
    with drawing_style():
        figure.savefig(buffer, format="png", dpi=300, facecolor="white")
    return buffer.getvalue()


def svg_text(figure: Figure, *, text_as_paths: bool = True) -> str:
    """The figure as SVG on white; without `text_as_paths` with real text on nothing."""
    buffer = io.StringIO()
    face = "white" if text_as_paths else "none"
    with drawing_style(text_as_paths=text_as_paths):
        figure.savefig(buffer, format="svg", facecolor=face, metadata={"Date": None})
    return buffer.getvalue()


def open_axes(
    size: tuple[float, float], room: tuple[float, float, float, float]
) -> tuple[Figure, Axes]:
    """A figure of `size` with one pair of axes, `room` free left, right, below, above (inches)."""
    width, height = size
    left, right, below, above = room
    figure = Figure(figsize=size)
    axes = figure.add_axes(
        (
            left / width,
            below / height,
            (width - left - right) / width,
            (height - below - above) / height,
        )
    )
    axes.patch.set_alpha(0)
    return figure, axes


def percent_axis(axes: Axes, name: str, ticks: Sequence[float] = ()) -> None:
    """Percentages, and lines across, on the axis called "x" or "y"."""
    axis = axes.xaxis if name == "x" else axes.yaxis
    if ticks:
        axis.set_ticks(list(ticks))
    axis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    axes.grid(axis="y" if name == "y" else "x", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=3, width=0.8)


def _y_limits(summaries: Sequence[MethodSummary]) -> tuple[float, float]:
    """Limits on whole tens around all intervals, at least 40 points apart."""
    shown = [p.subspan_exact_match for s in summaries for p in s.by_position]
    shown += [s.subspan_exact_match for s in summaries if not s.by_position]
    low = int(10 * min((i.low for i in shown), default=0.0)) / 10
    high = -int(-10 * max((i.high for i in shown), default=1.0) // 1) / 10
    low = max(0.0, min(low, high - 0.4))
    high = min(1.0, max(high, low + 0.4))
    return low - 0.02 * (low == 0), high + 0.02 * (high == 1)


def _draw_lines(
    axes: Axes, summaries: Sequence[MethodSummary], margin: float
) -> dict[str, LineEnd]:
    """Draw every method -> where its line ends on the right."""
    curves = [s for s in summaries if s.by_position]
    style, ends = looks(summaries), {}
    for summary in summaries:
        look, interval = style[summary.method], summary.subspan_exact_match
        if summary.by_position:
            continue
        axes.axhspan(interval.low, interval.high, color=look.colour, alpha=0.1, linewidth=0)
        axes.axhline(
            interval.estimate,
            color=look.colour,
            linestyle=look.dashes,
            linewidth=1.3,
            label=method_name(summary.method),
        )
        ends[summary.method] = LineEnd(axes.get_xlim()[1], interval.estimate)
    step = 0.22 * margin
    for number, summary in enumerate(curves):
        look = style[summary.method]
        aside = step * (number - (len(curves) - 1) / 2)  # bars of several methods stand apart
        hero = summary.method == "scratchpad"
        intervals = [p.subspan_exact_match for p in summary.by_position]
        axes.errorbar(
            [p.position + aside for p in summary.by_position],
            [i.estimate for i in intervals],
            yerr=[
                [max(0.0, i.estimate - i.low) for i in intervals],
                [max(0.0, i.high - i.estimate) for i in intervals],
            ],
            color=look.colour,
            marker=look.marker,
            linestyle=look.dashes,
            linewidth=2.2 if hero else 1.4,
            markersize=6.5 if hero else 5,
            markeredgecolor=SURFACE,
            markeredgewidth=0.7,
            elinewidth=0.9,
            capsize=1.8,
            zorder=4 if hero else 3,
            label=method_name(summary.method),
        )
        ends[summary.method] = LineEnd(
            summary.by_position[-1].position + aside, intervals[-1].estimate
        )
    return ends


def _name_line_ends(
    axes: Axes, summaries: Sequence[MethodSummary], ends: dict[str, LineEnd], *, height: float
) -> None:
    """Write the names to the right of the axes, `height` points high, without overlap."""
    style = looks(summaries)
    low, high = axes.get_ylim()
    gap = 12.5 / height * (high - low)
    methods = sorted(ends, key=lambda method: ends[method].y)
    left, right = axes.get_xlim()
    places = spread([ends[method].y for method in methods], gap, low, high)
    for method, place in zip(methods, places, strict=True):
        look = style[method]
        end = (ends[method].x - left) / (right - left)
        axes.plot(  # a thin line from the end of the curve to a sample of it beside the name
            [end, 1.06],
            [ends[method].y, place],
            transform=axes.get_yaxis_transform(),
            color=look.colour,
            linewidth=0.6,
            clip_on=False,
        )
        axes.plot(
            [1.06, 1.085, 1.11],
            [place] * 3,
            transform=axes.get_yaxis_transform(),
            color=look.colour,
            linestyle=look.dashes,
            linewidth=1.4,
            marker=look.marker,
            markevery=[1],
            markersize=5,
            markeredgecolor=SURFACE,
            markeredgewidth=0.5,
            clip_on=False,
        )
        axes.text(
            1.13,
            place,
            _short(method_name(method)),
            transform=axes.get_yaxis_transform(),
            va="center",
            weight="bold" if method == "scratchpad" else "normal",
        )


def _key_below(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        [_short(name) for name in names],
        loc="lower left",
        bbox_to_anchor=(0.02, 0.0),
        frameon=False,
        handlelength=3.2,
        labelspacing=0.35,
        borderaxespad=0.1,
    )


def _draw_bar(axes: Axes, row: int, summary: MethodSummary, *, narrow: bool) -> None:
    interval = summary.subspan_exact_match
    ours = summary.method.startswith("scratchpad")
    axes.barh(
        row + 0.12 * narrow,
        interval.estimate,
        height=0.42 if narrow else 0.62,
        color=VERMILLION if ours else STONE,
        alpha=0.85,
    )
    axes.errorbar(
        interval.estimate,
        row + 0.12 * narrow,
        xerr=[[interval.estimate - interval.low], [interval.high - interval.estimate]],
        color=INK,
        elinewidth=1.1,
        capsize=2.5,
    )
    figures = f"{percent(interval.estimate)}  ({interval_range(interval)})"
    axes.text(interval.high + 0.02, row + 0.12 * narrow, figures, va="center")
    weight = "bold" if ours else "normal"
    name = _short(method_name(summary.method))
    if narrow:
        axes.text(0, row - 0.16, name, va="bottom", weight=weight)
    else:
        axes.text(-0.015, row, name, ha="right", va="center", weight=weight)


def spread(
    wanted: Sequence[float], gap: float, low: float = -math.inf, high: float = math.inf
) -> list[float]:
    """Places nearest to the rising `wanted` ones that are `gap` apart (pooled neighbours).

    They stay within `low` and `high` as long as there is room.

    >>> spread([0.5, 0.5, 0.9], 0.2)
    [0.4, 0.6, 0.9]
    >>> spread([0.9, 1.0], 0.2, high=1.0)
    [0.8, 1.0]
    """
    groups: list[tuple[float, float, int]] = []  # runs that touch: centre wanted, centre, how many
    for place in wanted:
        groups.append((place, min(max(place, low), high), 1))
        while len(groups) > 1:
            (below, at_below, m), (above, at_above, n) = groups[-2:]
            if at_above - at_below >= gap * (m + n) / 2 - 1e-9:
                break
            centre, half = (below * m + above * n) / (m + n), gap * (m + n - 1) / 2
            groups[-2:] = [(centre, min(max(centre, low + half), high - half), m + n)]
    return [
        round(centre + gap * (i - (size - 1) / 2), 9)
        for _, centre, size in groups
        for i in range(size)
    ]


def _short(name: str, limit: int = 32) -> str:
    flat = " ".join(name.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
