"""How the loss of each region fell over a training, as a plot in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scratchpad_rag.report.plots import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    RULE,
    SKY,
    SURFACE,
    VERMILLION,
    drawing_style,
)

_COLOURS = {
    "loss": INK,
    "loss_scratchpad": VERMILLION,
    "loss_choice": VERMILLION,
    "loss_answer": BLUE,
    "loss_context": GREEN,
    "loss_question": PURPLE,
    "loss_system": SKY,
    "loss_scaffold": MUTED,
}
_NAMES = {"loss": "all scored tokens", "loss_choice": "choice of what is quoted"}
_DASHED = ("loss_choice",)  # a part of what is drawn in the same colour


def loss_plot(log: Sequence[Mapping[str, float]]) -> Figure:
    """Mean loss a token by region over the updates; validation scores on a scale of their own."""
    with drawing_style():
        figure = Figure(figsize=(7.2, 3.6), facecolor=SURFACE, layout="constrained")
        axes = figure.subplots()
        axes.set_facecolor(SURFACE)
        axes.grid(axis="y", color=RULE, linewidth=0.6)
        for key, colour in _COLOURS.items():
            points = [(entry["step"], entry[key]) for entry in log if key in entry]
            if points:
                name = _NAMES.get(key, key.removeprefix("loss_"))
                width = 1.8 if key == "loss" else 1.1
                line = "--" if key in _DASHED else "-"
                axes.plot(
                    *zip(*points, strict=True),
                    color=colour,
                    linestyle=line,
                    linewidth=width,
                    label=name,
                )
        axes.set_xlabel("Updates")
        axes.set_ylabel("Loss a token (nats)")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, labels = axes.get_legend_handles_labels()
        scores = [
            (entry["step"], entry["eval_subspan_exact_match"])
            for entry in log
            if "eval_subspan_exact_match" in entry
        ]
        if scores:
            second = axes.twinx()
            validation = second.plot(
                *zip(*scores, strict=True),
                color=ORANGE,
                marker="o",
                linewidth=1.1,
                label="validation: answers right",
            )
            second.set_ylim(0, 1)
            second.set_ylabel("Share of validation answers right")
            handles, labels = [*handles, *validation], [*labels, "validation: answers right"]
        figure.legend(handles, labels, frameon=False, loc="outside right upper")
    return figure


def write_loss_plot(log: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write the plot as SVG, where there is anything to show."""
    if any("loss" in entry for entry in log):
        with drawing_style():
            loss_plot(log).savefig(path, format="svg")
