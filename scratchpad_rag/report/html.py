"""Scores -> one page that needs nothing else, with its plots and tables as files beside it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from scratchpad_rag.errors import DataError
from scratchpad_rag.evaluate.summary import MethodSummary, summarise
from scratchpad_rag.records import Score
from scratchpad_rag.report import findings, labels, plots, tables
from scratchpad_rag.report.environment import page_environment
from scratchpad_rag.report.examples import choose_examples
from scratchpad_rag.report.inline import inline_svg

_SOFTWARE = ("scratchpad-rag", "torch", "transformers", "peft", "numpy", "matplotlib")


@dataclass(frozen=True, slots=True)
class ReportContext:
    """What a page says beside the scores. The caller leaves secrets out of settings and command.

    `notes` tell what the model can and cannot do: each is a paragraph, or, where it begins with
    "- ", an item of a list.
    """

    title: str
    subtitle: str
    settings: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    notes: Sequence[str] = ()
    wall_seconds: float | None = None


class NoteBlock(NamedTuple):
    """Notes that stand together: paragraphs, or the items of one list."""

    is_list: bool
    texts: tuple[str, ...]


def write_report(scores: Sequence[Score], out: Path, *, context: ReportContext) -> Path:
    """Write report.html, position_curve.png and .svg, table.csv and .md to the folder `out`.

    Every file is written under another name and then renamed, so a killed run leaves no half
    page. Returns the path of the page; raises DataError without scores.
    """
    if not scores:
        raise DataError(f"no scores to report on in {out}; evaluate first")
    summaries = summarise(scores)
    curve = plots.position_curve(summaries)
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / "position_curve.png", plots.png_bytes(curve))
    write_file(out / "position_curve.svg", plots.svg_text(curve))
    write_file(out / "table.csv", tables.csv_table(summaries))
    write_file(out / "table.md", tables.markdown_table(summaries))
    page = out / "report.html"
    write_file(page, render_page(scores, summaries, context))
    return page


def render_page(
    scores: Sequence[Score], summaries: Sequence[MethodSummary], context: ReportContext
) -> str:
    """The page as text; nothing in it comes from elsewhere, and scores are only ever text."""
    environment = page_environment()
    environment.globals.update(labels=labels, positions=_positions(summaries))
    page = environment.get_template("report.html.j2").render(
        context=context,
        headline=findings.headline(scores, summaries),
        second_headline=findings.second_headline(scores, summaries),
        summaries=summaries,
        accuracy_columns=(*tables.ACCURACY_COLUMNS, *tables.QUOTE_COLUMNS, *tables.SAMPLE_COLUMNS),
        cost_columns=tables.COST_COLUMNS,
        curves=_figures(plots.position_curve, "curve", summaries),
        bars=_figures(plots.method_bars, "bars", summaries),
        notes=note_blocks(context.notes),
        examples=choose_examples(scores),
        software=software(),
    )
    return labels.clean(page)


def note_blocks(notes: Sequence[str]) -> list[NoteBlock]:
    """Paragraphs one by one, items of a list together.

    >>> [block.texts for block in note_blocks(["It reads.", "- English", "- slowly"])]
    [('It reads.',), ('English', 'slowly')]
    """
    blocks = []
    for is_list, group in groupby(notes, key=lambda note: note.startswith("- ")):
        texts = tuple(note.removeprefix("- ") for note in group)
        blocks += [NoteBlock(True, texts)] if is_list else [NoteBlock(False, (t,)) for t in texts]
    return blocks


def _figures(draw: plots.Draw, name: str, summaries: Sequence[MethodSummary]) -> list[str]:
    """The figure for wide and for narrow screens; the page shows one of the two."""
    tell = findings.describe_positions if name == "curve" else findings.describe_methods
    return [
        inline_svg(draw(summaries, narrow=narrow), f"{name}-{width}", tell(summaries))
        for width, narrow in (("wide", False), ("narrow", True))
    ]


def _positions(summaries: Sequence[MethodSummary]) -> list[int]:
    return sorted({p.position for s in summaries for p in s.by_position})


def software() -> dict[str, str]:
    """Versions of what makes the numbers, without importing it."""
    versions = {"Python": platform.python_version()}
    for package in _SOFTWARE:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # an optional package that is not installed took no part
    return versions


def write_file(path: Path, content: str | bytes) -> None:
    """Write under another name and rename, so that a killed run leaves no half file."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    data = content.encode("utf-8") if isinstance(content, str) else content
    unfinished.write_bytes(data)
    unfinished.replace(path)
