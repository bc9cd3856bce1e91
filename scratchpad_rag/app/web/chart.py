"""The curve that grows under one's hands: right answers by where the answer stands in the context.

Every run is a mark, above the plot if right and below it if wrong; each reader's share of right
answers by position is a line between them. Under the axis stands how many runs each mean is of.
Markers and dashes say without colour which reader is which, as in the project's reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from scratchpad_rag.app.web.anchors import slug
from scratchpad_rag.app.web.views import Point

_GOLDEN = 0.6180339887  # multiples of it spread evenly in 0..1, however many there are


@dataclass(frozen=True, slots=True)
class Size:
    """The drawing in pixels: the whole, its left margin, and the three bands from above.

    There is one a range of widths, of which the style sheet shows the one that fits, so that type
    is about as large in all.
    """

    name: str
    width: int
    left: int = 46
    right: int = 14
    radius: float = 4  # of the mark of a run
    top: int = 8
    band: int = 34  # of the runs that were right, and of those that were wrong
    plot: int = 190  # the means
    row: int = 15  # of the numbers of runs

    def x(self, position: int, documents: int) -> float:
        """The middle of a position's column."""
        room = self.width - self.left - self.right
        return self.left + room * (position + 0.5) / documents

    @property
    def high(self) -> int:
        """Where a mean of 100% lies."""
        return self.top + self.band

    @property
    def low(self) -> int:
        """Where a mean of 0% lies."""
        return self.high + self.plot

    @property
    def axis(self) -> int:
        """The lower end of the runs that were wrong."""
        return self.low + self.band


WIDE = Size("wide", 860)
MIDDLE = Size("middle", 520, plot=170)
NARROW = Size("narrow", 340, left=38, right=6, radius=3, plot=140)


class Mean(NamedTuple):
    """The runs of one reader with the answer at one position (from 0)."""

    position: int
    right: int
    runs: int

    @property
    def share(self) -> float:
        return self.right / self.runs


_FIGURE = Markup(
    '<section class="sp sp-chart" aria-labelledby="chart-title"><div class="sp-chart-parts">'
    '<header class="sp-chart-head"><h2 id="chart-title">'
    "Right answers by where the answer stands</h2>"
    '<p class="sp-note">{note}</p>{legend}</header><div class="sp-plot">{drawings}</div>{table}'
    "</div></section>"
)
_SVG = Markup(
    '<svg class="sp-svg sp-{name}" viewBox="0 0 {width} {height}" role="img" '
    'aria-labelledby="chart-{name}-title chart-{name}-desc" focusable="false">'
    '<title id="chart-{name}-title">Right answers by position, {documents} documents</title>'
    '<desc id="chart-{name}-desc">{description}</desc>{body}</svg>'
)
_LEGEND_ITEM = Markup(
    '<li><svg class="sp-sample sp-reader-{slug}" viewBox="0 0 44 16" width="44" height="16" '
    'aria-hidden="true"><line class="sp-line" x1="1" x2="43" y1="8" y2="8"/>{marker}</svg>'
    "{name}</li>"
)
_TABLE = Markup(
    '<details class="sp-numbers"><summary>The numbers</summary><table><thead><tr>'
    '<th scope="col">Document with the answer</th>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    "</details>"
)


def chart(points: Sequence[Point], documents: int) -> str:
    """The chart of all runs over this many documents, as HTML with inline SVG.

    Runs over other numbers of documents are not drawn, and how many there are is said.
    """
    shown = [p for p in points if p.documents == documents and 0 <= p.position < documents]
    readers = list(dict.fromkeys(point.reader for point in shown))
    means = {reader: means_of(shown, reader) for reader in readers}
    return str(
        _FIGURE.format(
            note=_note(shown, documents, others=len(points) - len(shown)),
            legend=_legend(readers),
            drawings=Markup("").join(
                _svg(size, shown, means, documents) for size in (WIDE, MIDDLE, NARROW)
            ),
            table=_table(means) if means else "",
        )
    )


def means_of(points: Sequence[Point], reader: str) -> list[Mean]:
    """This reader's means in the order of the positions."""
    counts: dict[int, tuple[int, int]] = {}
    for point in points:
        if point.reader == reader:
            right, runs = counts.get(point.position, (0, 0))
            counts[point.position] = (right + point.right, runs + 1)
    return [Mean(position, *counts[position]) for position in sorted(counts)]


def offset_of(place: int) -> tuple[float, float]:
    """Where the n-th run of a column stands: across in -0.5..0.5, and away from the plot in 0..1.

    The first stands in the middle and nearest; later ones fill the gaps and never move the others.

    >>> offset_of(0)
    (0.0, 0.0)
    """
    across = (0.5 + place * _GOLDEN) % 1 - 0.5
    return round(across, 4), round(place * _GOLDEN**2 % 1, 4)


def _note(shown: Sequence[Point], documents: int, others: int) -> str:
    if not shown:
        note = (
            f"Each run over {documents} document{'' if documents == 1 else 's'} adds a mark here. "
            "Move the passage that holds the answer from the first place to the middle and to "
            "the last: does the line sag?"
        )
    else:
        note = f"{_counted(len(shown), 'answer')} over {documents} documents"
    return note + (
        f" ({_counted(others, 'answer')} over other numbers not drawn)" if others else ""
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (count != 1)


def _legend(readers: Sequence[str]) -> Markup:
    if not readers:
        return Markup("")
    items = Markup("").join(
        _LEGEND_ITEM.format(
            slug=slug(reader), name=reader, marker=_marker(reader, 22, 8, "sp-mean", 6)
        )
        for reader in readers
    )
    return Markup('<ul class="sp-legend">{}</ul>').format(items)


def _svg(
    size: Size, points: Sequence[Point], means: dict[str, list[Mean]], documents: int
) -> Markup:
    body = _frame(size, documents, means)
    body += Markup("").join(_dots(size, points, documents, list(means)))
    for reader, line in means.items():
        body += _line(size, reader, line, documents)
    return _SVG.format(
        name=size.name,
        width=size.width,
        height=size.axis + 34 + size.row * (len(means) + 1) * bool(means),
        documents=documents,
        description=_description(means),
        body=body,
    )


def _frame(size: Size, documents: int, means: dict[str, list[Mean]]) -> Markup:
    """Grid, ticks, names of the bands, and under the axis how many runs there are."""
    right = size.width - size.right
    body = Markup("")
    for share in (0, 50, 100):
        y = size.low - size.plot * share / 100
        body += Markup(
            '<line class="sp-grid" x1="{}" x2="{}" y1="{:g}" y2="{:g}"/>'
            '<text class="sp-tick" text-anchor="end" x="{}" y="{:g}">{}%</text>'
        ).format(size.left, right, y, y, size.left - 8, y + 4, share)
    for word, y in (("right", size.top + size.band / 2), ("wrong", size.low + size.band / 2)):
        body += Markup('<text class="sp-tick" text-anchor="end" x="{}" y="{:g}">{}</text>').format(
            size.left - 8, y + 4, word
        )
    for position in _ticks(documents, size):
        body += Markup(
            '<text class="sp-tick" text-anchor="middle" x="{:.1f}" y="{}">{}</text>'
        ).format(size.x(position, documents), size.axis + 14, position + 1)
    body += Markup('<text class="sp-axis" text-anchor="middle" x="{:g}" y="{}">{}</text>').format(
        (size.left + right) / 2, size.axis + 30, "Document that holds the answer"
    )
    return body + _runs(size, documents, means)


def _ticks(documents: int, size: Size) -> list[int]:
    """Positions that have a number: all where there is room, else the ends and even steps.

    >>> _ticks(20, NARROW)
    [0, 4, 9, 14, 19]
    """
    room = (size.width - size.left - size.right) / documents
    if room >= 22:
        return list(range(documents))
    step = next(step for step in (5, 10, 20, 50, 100, 1000) if room * step >= 40)
    return sorted({0, *range(step - 1, documents, step)})


def _runs(size: Size, documents: int, means: dict[str, list[Mean]]) -> Markup:
    """How many runs each mean is of: a row a reader, with its marker. Left out where too narrow."""
    body = Markup("")
    if not means:
        return body
    top = size.axis + 34 + size.row
    body += Markup('<text class="sp-tick" x="{}" y="{}">Runs</text>').format(0, top - 2)
    roomy = (size.width - size.left - size.right) / documents >= 14
    for row, (reader, line) in enumerate(means.items()):
        y = top + size.row * row
        body += _marker(reader, size.left - 12, y + 8, "sp-mean", 4.5)
        if roomy:
            for mean in line:
                body += Markup(
                    '<text class="sp-runs" text-anchor="middle" x="{:.1f}" y="{}">{}</text>'
                ).format(size.x(mean.position, documents), y + 12, mean.runs)
        else:
            body += Markup('<text class="sp-runs" x="{}" y="{}">{} in all</text>').format(
                size.left + 2, y + 12, sum(mean.runs for mean in line)
            )
    return body


def _dots(
    size: Size, points: Sequence[Point], documents: int, readers: Sequence[str]
) -> list[Markup]:
    """A mark a run: readers side by side in a position's column, each run at a place of its own."""
    column = (size.width - size.left - size.right) / documents
    lane = min(column / max(len(readers), 1), 24)
    room = size.band - 12
    seen: dict[tuple[str, int, bool], int] = {}
    dots = []
    for number, point in enumerate(points):
        key = (point.reader, point.position, point.right)
        place = seen[key] = seen.get(key, -1) + 1
        across, away = offset_of(place)
        side = readers.index(point.reader) - (len(readers) - 1) / 2
        x = size.x(point.position, documents) + lane * side + 0.7 * lane * across
        y = size.high - 6 - room * away if point.right else size.low + 6 + room * away
        name = f"{point.reader}, document {point.position + 1}: {_outcome(point)}. {point.question}"
        # Those present at the last run stand out: one mark a reader.
        new = " sp-new" if number >= len(points) - len(readers) else ""
        dots.append(_marker(point.reader, x, y, "sp-run" + new, size.radius, name))
    return dots


def _outcome(point: Point) -> str:
    outcome = "right" if point.right else "wrong"
    if point.found is None:
        return outcome
    return outcome + (", passage quoted" if point.found else ", passage not quoted")


def _line(size: Size, reader: str, line: Sequence[Mean], documents: int) -> Markup:
    places = [
        (size.x(mean.position, documents), size.low - size.plot * mean.share) for mean in line
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    body = Markup('<polyline class="sp-line" points="{}"/>').format(path)
    for mean, (x, y) in zip(line, places, strict=True):
        name = (
            f"{reader}, document {mean.position + 1}: "
            f"{mean.right} of {_counted(mean.runs, 'run')} right"
        )
        body += _marker(reader, x, y, "sp-mean", 5.5, name)
    return Markup('<g class="sp-reader-{}">{}</g>').format(slug(reader), body)


def _marker(reader: str, x: float, y: float, classes: str, radius: float, name: str = "") -> Markup:
    """A triangle for the reader that only answers, a disc for any other."""
    title = Markup("<title>{}</title>").format(name) if name else Markup("")
    classes = f"{classes} sp-reader-{slug(reader)}"
    if slug(reader) != "zero-shot":
        return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:g}">{}</circle>').format(
            classes, x, y, radius, title
        )
    # Within a disc of the same radius, so that both are seen where they lie upon each other.
    half, low = 0.87 * radius, y + 0.5 * radius
    corners = f"{x:.1f},{y - radius:.1f} {x - half:.1f},{low:.1f} {x + half:.1f},{low:.1f}"
    return Markup('<polygon class="{}" points="{}">{}</polygon>').format(classes, corners, title)


def _description(means: dict[str, list[Mean]]) -> str:
    if not means:
        return "No runs yet."
    parts = []
    for reader, line in means.items():
        shares = ", ".join(f"document {m.position + 1} {m.right} of {m.runs}" for m in line)
        parts.append(f"{reader}, right answers: {shares}.")
    return " ".join(parts)


def _table(means: dict[str, list[Mean]]) -> Markup:
    positions = sorted({mean.position for line in means.values() for mean in line})
    cells = {(reader, mean.position): mean for reader, line in means.items() for mean in line}
    rows = Markup("").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            position + 1,
            Markup("").join(_cell(cells.get((reader, position))) for reader in means),
        )
        for position in positions
    )
    heads = Markup("").join(Markup('<th scope="col">{}</th>').format(reader) for reader in means)
    return _TABLE.format(heads=heads, rows=rows)


def _cell(mean: Mean | None) -> Markup:
    if mean is None:
        return Markup("<td>–</td>")
    return Markup("<td>{} of {} right ({:.0%})</td>").format(mean.right, mean.runs, mean.share)
