"""Keys of figures as small pictures beside names, so that a page can break their lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from scratchpad_rag.report.grid_runs import Names
from scratchpad_rag.report.inline import THEME
from scratchpad_rag.report.marks import Fill, Mark
from scratchpad_rag.report.plots import SURFACE, looks_of

# Markers in a box of 10 units around (0, 0).
_SHAPES = {
    "o": "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
    "s": "M-3.6,-3.6h7.2v7.2h-7.2z",
    "^": "M0,-4.4L4.2,3.4H-4.2z",
    "v": "M0,4.4L4.2,-3.4H-4.2z",
    "D": "M0,-4.6L4.6,0L0,4.6L-4.6,0z",
    "p": "M0,-4.3L4.1,-1.3L2.5,3.5H-2.5L-4.1,-1.3z",
    "X": "M-4,-2.4L-2.4,-4L0,-1.6L2.4,-4L4,-2.4L1.6,0L4,2.4L2.4,4L0,1.6L-2.4,4L-4,2.4L-1.6,0z",
}
_STRIPES = {
    "//////": ("M-1,5L5,-1M1,7L7,1", 6),
    "\\\\\\\\\\": ("M-1,1L5,7M1,-1L7,5", 6),
    "xxxxx": ("M0,0L6,6M6,0L0,6", 6),
    "....": ("M1.5,1.5h.01M4.5,4.5h.01", 6),
}


class Sample(NamedTuple):
    """A picture and what it stands for."""

    picture: Markup
    name: str


def line_samples(methods: Sequence[str], names: Names) -> tuple[Sample, ...]:
    """A dashed line with its marker for every method, those of several runs once."""
    bases = list(dict.fromkeys(map(names.base, methods)))
    style = looks_of(bases)
    plain = Names(("",))
    samples = []
    for base in bases:
        look = style[base]
        dashes = ""
        if isinstance(look.dashes, tuple):
            width = 1.5  # matplotlib's dashes are in units of the line's width
            spaced = " ".join(f"{width * length:g}" for length in look.dashes[1])
            dashes = f' stroke-dasharray="{spaced}"'
        colour = _themed(look.colour)
        line = f'<path d="M1,6H35" stroke="{colour}" stroke-width="2" fill="none"{dashes}/>'
        marker = _shape(look.marker, colour, colour, 18) if look.marker else ""
        samples.append(Sample(_picture(line + marker, 36), plain.full(base)))
    return tuple(samples)


def mark_samples(marks: Sequence[Mark]) -> tuple[Sample, ...]:
    """A marker for every mark of a dot plot."""
    return tuple(
        Sample(
            _picture(
                _shape(m.marker, _themed(m.colour if m.filled else SURFACE), _themed(m.colour), 8),
                16,
            ),
            m.name,
        )
        for m in marks
    )


def fill_samples(fills: Sequence[Fill], key: str) -> tuple[Sample, ...]:
    """A box with its hatch for every fill of a bar; `key` makes their ids unique in the page."""
    samples = []
    for number, fill in enumerate(fills):
        face, edge = _themed(fill.face), _themed(fill.edge)
        box = f'<rect x="1" y="1" width="22" height="10" fill="{face}" stroke="{edge}"/>'
        if fill.hatch:
            path, size = _STRIPES[fill.hatch]
            cap = ' stroke-linecap="round" stroke-width="1.6"' if fill.hatch == "...." else ""
            box += (
                f'<pattern id="{key}-hatch{number}" width="{size}" height="{size}" '
                f'patternUnits="userSpaceOnUse"><path d="{path}" stroke="{edge}"{cap}/></pattern>'
                f'<rect x="1" y="1" width="22" height="10" '
                f'fill="url(#{key}-hatch{number})"/>'
            )
        samples.append(Sample(_picture(box, 24), fill.name))
    return tuple(samples)


def _shape(marker: str, face: str, edge: str, x: int) -> str:
    path = _SHAPES.get(marker, _SHAPES["D"])
    return f'<path d="{path}" transform="translate({x},6)" fill="{face}" stroke="{edge}"/>'


def _picture(body: str, width: int) -> Markup:
    return Markup(f'<svg class="sample" viewBox="0 0 {width} 12" width="{width}" height="12" ') + (
        Markup(f'aria-hidden="true">{body}</svg>')
    )


def _themed(colour: str) -> str:
    return str(escape(f"var({THEME[colour]}, {colour})"))
