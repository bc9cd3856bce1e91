"""Summaries as tables: for the terminal (rich), for a paper (Markdown), for a program (CSV)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from scratchpad_rag.evaluate.summary import MethodSummary
from scratchpad_rag.report.labels import (
    accuracy_text,
    amount,
    clean,
    method_name,
    percent,
)


class Column(NamedTuple):
    """A heading and what stands beneath it for one method."""

    heading: str
    cell: Callable[[MethodSummary], str]


ACCURACY_COLUMNS = (
    Column("Accuracy (95% interval)", lambda s: accuracy_text(s.subspan_exact_match)),
    Column("Exact match", lambda s: percent(s.exact_match)),
    Column("F1", lambda s: percent(s.f1)),
)
QUOTE_COLUMNS = (
    Column("Quote recall", lambda s: percent(s.quote_recall)),
    Column("Quote precision", lambda s: percent(s.quote_precision)),
    Column("Word for word", lambda s: percent(s.verbatim_rate)),
)
SAMPLE_COLUMNS = (
    Column("Not parsed", lambda s: f"{s.parse_failures:,}"),
    Column("Questions", lambda s: f"{s.questions:,}"),
    Column("Samples", lambda s: f"{s.samples:,}"),
)
COST_COLUMNS = (
    Column("Prompt tokens", lambda s: amount(s.prompt_tokens)),
    Column("New tokens", lambda s: amount(s.new_tokens)),
    Column("Forward passes", lambda s: amount(s.forward_passes)),
    Column("Seconds", lambda s: amount(s.wall_seconds)),
)
COLUMNS = (*ACCURACY_COLUMNS, *QUOTE_COLUMNS, *COST_COLUMNS, *SAMPLE_COLUMNS)
TERMINAL_COLUMNS = (
    Column("Accuracy (95%)", ACCURACY_COLUMNS[0].cell),
    Column("EM", ACCURACY_COLUMNS[1].cell),
    Column("F1", ACCURACY_COLUMNS[2].cell),
    Column("Quotes", QUOTE_COLUMNS[0].cell),
    Column("Tokens", COST_COLUMNS[1].cell),
    Column("Seconds", COST_COLUMNS[3].cell),
)

_TERMINAL_CAPTION = "Quotes: share of the gold passages quoted. Tokens, seconds: of one answer."
CAPTION = (
    "Accuracy: share of samples whose final answer contains a true answer (subspan exact match), "
    "with the 95% interval from resampling questions."
)


def rich_table(summaries: Sequence[MethodSummary]) -> Table:
    """The table for the terminal: 80 columns hold it."""
    table = Table(
        caption=f"{CAPTION} {_TERMINAL_CAPTION}",
        caption_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
    )
    table.add_column("Method", overflow="fold")
    for column in TERMINAL_COLUMNS:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for summary in summaries:
        name = Text(method_name(summary.method))  # Text: brackets in a name are no markup
        table.add_row(name, *(column.cell(summary) for column in TERMINAL_COLUMNS))
    return table


def positions_table(summary: MethodSummary) -> Table:
    """One method's accuracy by the position of the gold passage."""
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    table.add_column("Gold passage at", justify="right")
    table.add_column("Accuracy (95%)", justify="right", no_wrap=True)
    table.add_column("Samples", justify="right")
    for at in summary.by_position:
        rate = at.subspan_exact_match
        table.add_row(str(at.position), accuracy_text(rate), str(rate.n))
    return table


def documents_table(by_documents: Mapping[int, MethodSummary]) -> Table:
    """One method's figures by the number of documents shown."""
    table = Table(caption=CAPTION, caption_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.add_column("Documents", justify="right")
    for column in TERMINAL_COLUMNS:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for count, summary in sorted(by_documents.items()):
        table.add_row(str(count), *(column.cell(summary) for column in TERMINAL_COLUMNS))
    return table


def markdown_table(summaries: Sequence[MethodSummary]) -> str:
    """A table of GitHub's Markdown, with its caption under it."""
    lines = [
        _markdown_row(["Method", *(column.heading for column in COLUMNS)]),
        _markdown_row(["---", *("---:" for _ in COLUMNS)]),
    ]
    for summary in summaries:
        name = _escape_markdown(method_name(summary.method))
        lines.append(_markdown_row([name, *(column.cell(summary) for column in COLUMNS)]))
    return "\n".join([*lines, "", CAPTION, ""])


def csv_table(summaries: Sequence[MethodSummary]) -> str:
    """One line a method with unrounded numbers: rates in 0..1, nothing where there is none."""
    rows = [_flat(summary) for summary in summaries]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0].keys() if rows else (), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _flat(summary: MethodSummary) -> dict[str, str | float | None]:
    accuracy = summary.subspan_exact_match
    cells: dict[str, str | float | None] = {
        "method": clean(summary.method),
        "name": method_name(summary.method),
        "samples": summary.samples,
        "questions": summary.questions,
        "subspan_exact_match": accuracy.estimate,
        "low": accuracy.low,
        "high": accuracy.high,
        **quality_figures(summary),
        **cost_figures(summary),
    }
    return {key: None if _is_nan(value) else value for key, value in cells.items()}


def quality_figures(summary: MethodSummary) -> dict[str, float | None]:
    """What a line of CSV says of the answers beside their accuracy."""
    return {
        "exact_match": summary.exact_match,
        "f1": summary.f1,
        "completion_subspan_exact_match": summary.completion_subspan_exact_match,
        "quote_precision": summary.quote_precision,
        "quote_recall": summary.quote_recall,
        "verbatim_rate": summary.verbatim_rate,
        "parse_failures": summary.parse_failures,
    }


def cost_figures(summary: MethodSummary) -> dict[str, float]:
    """What a line of CSV says of an answer's mean cost."""
    return {
        "prompt_tokens": summary.prompt_tokens,
        "new_tokens": summary.new_tokens,
        "forward_passes": summary.forward_passes,
        "wall_seconds": summary.wall_seconds,
    }


def _is_nan(value: str | float | None) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape_markdown(text: str) -> str:
    flat = " ".join(text.split())
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>#|~$" else c for c in flat)
