"""A prompt or training sample with its regions, and with what is learnt of it: text, HTML, image.

A row is a piece of one region that is learnt whole or not at all. Rows are told apart by their
names and by a bar before what is learnt, so that they are readable without colour; a line break
is shown as ⏎.
"""

from __future__ import annotations

import html
import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from rich.text import Text

from scratchpad_rag.records import Region, Rendered, Span
from scratchpad_rag.report.labels import clean
from scratchpad_rag.report.plots import INK, MUTED, drawing_style

_END = "(end of sequence)"
BAR = "▌"  # before what is learnt
_STYLES = {
    Region.SYSTEM: "cyan",
    Region.QUESTION: "magenta",
    Region.CONTEXT: "",
    Region.SCRATCHPAD: "yellow",
    Region.ANSWER: "green",
    Region.SCAFFOLD: "dim",
}
# Tints of Okabe and Ito's colours that black text is read on.
_TINTS = {
    Region.SYSTEM: "#d9edf9",
    Region.QUESTION: "#f4dfeb",
    Region.CONTEXT: "#f0f0f2",
    Region.SCRATCHPAD: "#fbe3c6",
    Region.ANSWER: "#cfeee3",
    Region.SCAFFOLD: "#ffffff",
}
_COLUMNS = 92  # of text in an image
_NAMES = 13  # columns of the names beside it


class Row(NamedTuple):
    """A piece of a sample: its region, the passage it is of (from 0), and whether it is learnt."""

    text: str
    region: Region
    learnt: bool
    passage: int | None = None

    @property
    def name(self) -> str:
        return self.region.value if self.passage is None else f"{self.region.value} {self.passage}"


def show_regions(
    rendered: Rendered, learnt: Sequence[tuple[int, int]] = (), fold: int | None = None
) -> ShownRegions:
    """A sample to look at; `learnt` are the characters whose tokens have a label, in order.

    With `fold` the middle of a longer piece is left out. Printed it is text; a notebook shows
    an image, which code hosts show too.
    """
    rows: list[Row] = []
    for row in split_rows(rendered, learnt):
        if rows and row.region is Region.SCAFFOLD and row[1:] == rows[-1][1:]:
            rows[-1] = row._replace(text=rows[-1].text + row.text)
        else:
            rows.append(row)
    if rendered.ends:
        rows.append(Row(_END, Region.ANSWER, bool(learnt) and learnt[-1][1] == len(rendered.text)))
    folded = [row._replace(text=_folded(row.text, fold)) for row in rows]
    return ShownRegions(tuple(folded), marks=bool(learnt))


def split_rows(rendered: Rendered, learnt: Sequence[tuple[int, int]] = ()) -> list[Row]:
    """The text by region and by what is learnt; nothing is lost or changed.

    >>> spans = (Span(0, 4, Region.SCAFFOLD), Span(4, 9, Region.ANSWER))
    >>> rendered = Rendered("A:\\n\\n Ida.", 4, spans)
    >>> [(row.text, row.learnt) for row in split_rows(rendered, [(6, 9)])]
    [('A:\\n\\n', False), (' I', False), ('da.', True)]
    """
    return [row for span in rendered.spans for row in _cut(rendered.text, span, learnt)]


def _cut(text: str, span: Span, learnt: Sequence[tuple[int, int]]) -> Iterator[Row]:
    at = span.start
    for begin, end in learnt:
        begin, end = max(begin, at), min(end, span.end)
        if end <= begin:
            continue
        if begin > at:
            yield Row(text[at:begin], span.region, False, span.passage)
        yield Row(text[begin:end], span.region, True, span.passage)
        at = end
    if at < span.end:
        yield Row(text[at : span.end], span.region, False, span.passage)


def _folded(text: str, most: int | None) -> str:
    if most is None or len(text) <= most:
        return text
    kept = most // 2
    return f"{text[:kept]} […{len(text) - 2 * kept:,} characters…] {text[-kept:]}"


@dataclass(frozen=True)
class ShownRegions:
    """Rows of a sample; `marks` says that some of it is known to be learnt."""

    rows: tuple[Row, ...]
    marks: bool

    def __str__(self) -> str:
        lines = []
        for row in self.rows:
            wrapped = _wrap(row.text, _COLUMNS)
            for number, line in enumerate(wrapped):
                name = row.name if number == 0 else ""
                lines.append(f"{BAR if row.learnt else ' '} {name:<{_NAMES}} {line}".rstrip())
        return "\n".join([*lines, *([f"{BAR} is learnt"] if self.marks else [])])

    def terminal(self, width: int) -> Text:
        """For a terminal: colour by region, bold and underlined where it is learnt."""
        text = Text()
        for row in self.rows:
            style = _STYLES[row.region]
            for number, line in enumerate(_wrap(row.text, max(20, width - _NAMES - 3))):
                text.append(f"{BAR if row.learnt else ' '} ", style)
                text.append(f"{row.name if number == 0 else '':<{_NAMES}} ", "dim")
                text.append(line, f"{style} bold underline" if row.learnt else style)
                text.append("\n")
        return text

    @cached_property
    def html(self) -> str:
        """A `<pre>` whose marks outlive the removal of styles: learnt text is bold, underlined."""
        pieces = []
        for row in self.rows:
            text = html.escape(clean(row.text))
            inner = f"<b><u>{text}</u></b>" if row.learnt else text
            pieces.append(
                f'<span title="{row.name}" style="background: {_TINTS[row.region]}; color: {INK}">'
                f"{inner}</span>"
            )
        return f'<pre style="white-space: pre-wrap">{"".join(pieces)}</pre>'

    def figure(self) -> Figure:
        """The rows as an image: tinted by region, a bar and bold letters where it is learnt."""
        lines = [
            (row, number, line)
            for row in self.rows
            for number, line in enumerate(_wrap(row.text, _COLUMNS))
        ]
        width, height = 0.086 * (_COLUMNS + _NAMES + 4), 0.19 * (len(lines) + 1.6)
        with drawing_style():
            figure = Figure(figsize=(width, height))
            axes = figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            axes.set_xlim(0, _COLUMNS + _NAMES + 4)
            axes.set_ylim(len(lines) + 1.6, 0)
            font: Any = {"family": "DejaVu Sans Mono", "fontsize": 8.2, "va": "center"}
            for at, (row, number, line) in enumerate(lines):
                y = at + 0.8
                left = _NAMES + 2
                axes.barh(y, _COLUMNS + 1, 1.0, left, color=_TINTS[row.region], linewidth=0)
                if row.learnt:
                    axes.barh(y, 0.5, 1.0, left - 0.7, color=INK, linewidth=0)
                if number == 0:
                    axes.text(0.6, y, row.name, color=MUTED, **font)
                weight = "bold" if row.learnt else "normal"
                axes.text(left + 0.4, y, line, color=INK, weight=weight, **font)
            told = (
                "A bar and bold letters: the loss is taken over these tokens." if self.marks else ""
            )
            axes.text(0.6, len(lines) + 1.0, told, color=MUTED, fontsize=8)
        return figure

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """What a notebook keeps: an image, since code hosts strip the styles of HTML."""
        with drawing_style():
            return {"image/png": small_png(self.figure()), "text/plain": str(self)}


def small_png(figure: Figure) -> bytes:
    """At 110 dots an inch: a screen's worth, in a tenth of a paper's bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="white")
    return buffer.getvalue()


def _wrap(text: str, width: int) -> list[str]:
    lines = textwrap.wrap(
        _visible(text),
        width,
        drop_whitespace=False,
        replace_whitespace=False,
        break_on_hyphens=False,
    )
    return lines or [""]


def _visible(text: str) -> str:
    """One line, in which breaks can be seen and no character commands a terminal."""
    return clean(text.replace("\r", "\n")).replace("\n", "⏎").replace("\t", "→")
