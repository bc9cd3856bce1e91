"""The histograms of an audit. No pyplot: figures have no global state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from scratchpad_rag.data.audit_records import Histogram, Lengths
from scratchpad_rag.report.plots import (
    BLUE,
    GREEN,
    INK,
    RULE,
    STONE,
    VERMILLION,
    drawing_style,
)

_WIDE, _NARROW = 7.2, 3.6  # inches: a page's width, and a phone's
_COLOURS = {"gold_in_file": STONE, "gold_in_training": VERMILLION, "gold_in_validation": BLUE}
_BINS = 40


def places_plot(histograms: Sequence[Histogram], *, narrow: bool = False) -> Figure:
    """Where the gold passage stands: a panel for the file, for training and for validation."""
    last = max(index for histogram in histograms for index in histogram.counts)
    height = 1.55
    with drawing_style():
        figure = Figure(figsize=(_NARROW if narrow else _WIDE, height * len(histograms) + 0.3))
        panels = figure.subplots(len(histograms), 1, sharex=True, squeeze=False)[:, 0]
        for axes, histogram in zip(panels, histograms, strict=True):
            _bars(axes, histogram, _COLOURS.get(histogram.name, GREEN))
            axes.set_title(histogram.title, loc="left", fontsize=8.5, color=INK)
            axes.set_xlim(-0.6, max(last, 1) + 0.6)
        panels[-1].set_xlabel("Index among the passages (0 = first)", color=INK)
        figure.subplots_adjust(
            left=0.17 if narrow else 0.09,
            right=0.98,
            top=1 - 0.27 / (height * len(histograms) + 0.3),
            bottom=0.47 / (height * len(histograms) + 0.3),
            hspace=0.45,
        )
    return figure


def counts_plot(histograms: Sequence[Histogram], *, narrow: bool = False) -> Figure:
    """Several small histograms, side by side, or one below the other where it is narrow."""
    number = len(histograms)
    with drawing_style():
        if narrow:
            figure = Figure(figsize=(_NARROW, 1.75 * number), layout="constrained")
            panels = figure.subplots(number, 1, squeeze=False)[:, 0]
        else:
            figure = Figure(figsize=(_WIDE, 2.1), layout="constrained")
            panels = figure.subplots(1, number, squeeze=False)[0]
        for axes, histogram in zip(panels, histograms, strict=True):
            _bars(axes, histogram, GREEN)
            axes.set_title(histogram.title, loc="left", fontsize=8.5, color=INK)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    return figure


def lengths_plot(lengths: Lengths, *, narrow: bool = False) -> Figure:
    """Lengths of whole samples, with a line where the model's context ends if that is near."""
    with drawing_style():
        size = (_NARROW if narrow else _WIDE, 2.3)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        heights, edges = np.histogram(lengths.wholes, bins=_BINS // (2 if narrow else 1))
        axes.bar(edges[:-1], heights, np.diff(edges), align="edge", color=GREEN, linewidth=0)
        limit = lengths.limit
        if limit is not None and limit < 1.5 * edges[-1]:
            axes.axvline(limit, color=VERMILLION, linewidth=1.2, linestyle=(0, (4, 2)))
            axes.text(limit, max(heights), f" fits up to {limit:,}", va="top", ha="left", color=INK)
            axes.set_xlim(right=max(edges[-1], 1.25 * limit))
        axes.set_xlabel(f"Length of a sample in {lengths.unit}", color=INK)
        axes.set_ylabel("Samples", color=INK)
        _calm(axes)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5 if narrow else 9))
    return figure


def describe(histogram: Histogram) -> str:
    """What a screen reader says in place of a histogram."""
    shown = [f"{number:,} at {index}" for index, number in list(histogram.counts.items())[:30]]
    more = "" if len(histogram.counts) <= 30 else ", and further ones"
    return f"{histogram.title}: {', '.join(shown) or 'none'}{more}."


def _bars(axes: Axes, histogram: Histogram, colour: str) -> None:
    axes.patch.set_alpha(0)
    places = list(histogram.counts)
    axes.bar(places, list(histogram.counts.values()), 0.8, color=colour, linewidth=0)
    if places and max(places) - min(places) < 2:
        axes.set_xlim(min(places) - 1.5, max(places) + 1.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _calm(axes)


def _calm(axes: Axes) -> None:
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=3, width=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
