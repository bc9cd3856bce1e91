"""The passages shown, in a long strip, with every quote lit at the characters it was copied from.

Above it lies a map: one cell a passage, as wide as its text is long, so that it is seen at a glance
where in the context the answer stands and where a reader has quoted from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from scratchpad_rag.app.web.anchors import passage_id, quote_id
from scratchpad_rag.app.web.views import LiveQuote, ReaderView, RunView, Stage
from scratchpad_rag.records import Passage

_STRIP = Markup(
    '<section class="sp sp-strip" aria-labelledby="strip-title">'
    '<header class="sp-strip-head"><h2 id="strip-title">Context</h2>'
    '<p class="sp-note">{note}</p></header>{map}'
    '<div class="sp-scroller" role="region" tabindex="0" aria-label="Passages shown to the readers"'
    '{live}><ol class="sp-passages">{passages}</ol></div></section>'
)
_EMPTY = Markup(
    '<section class="sp sp-strip sp-empty" aria-labelledby="strip-title">'
    '<header class="sp-strip-head"><h2 id="strip-title">Context</h2></header>'
    "<p>The passages retrieved for the question stand here, one below the other. "
    "While a reader quotes, <mark>the very words it copies light up</mark>.</p></section>"
)
_PASSAGE = Markup(
    '<li class="sp-passage{classes}" id="{id}" data-passage="{number}">'
    '<h3><span class="sp-number"><span class="sp-unseen">Document </span>{number}</span> '
    '<span class="sp-title">{title}</span>{tags}</h3><p class="sp-text">{text}</p></li>'
)
_GOLD_TAG = Markup(
    ' <span class="sp-tag sp-tag-gold"><span aria-hidden="true">◆ </span>holds the answer</span>'
)
_LIVE_TAG = Markup(' <span class="sp-tag sp-tag-live">quoted now</span>')
_MAP = Markup(
    '<div class="sp-map" role="img" aria-label="{label}"><div class="sp-cells">{cells}</div>'
    '<div class="sp-ends" aria-hidden="true"><span>first</span>{middle}<span>last</span></div>'
    "</div>"
)
_CELL = Markup(
    '<span class="sp-cell{classes}" data-goto="{goto}" title="{title}" '
    'style="flex-grow:{weight}">{fills}</span>'
)
_FILL = Markup('<span class="sp-fill{classes}" style="left:{left:.1f}%;width:{width:.1f}%"></span>')


@dataclass(frozen=True, slots=True)
class _Lit:
    """A quote at its place in a passage: characters `start:end`, with the id that links name."""

    id: str
    number: int
    start: int
    end: int
    verbatim: bool
    live: bool
    reader: int  # its number, since two readers' marks look different


def strip(view: RunView | None) -> str:
    """The strip of a run as HTML, or before the first run an invitation."""
    if view is None:
        return str(_EMPTY)
    passages, gold = view.example.passages, view.example.gold
    lit = [_lit_in(view.readers, number, len(p.text)) for number, p in enumerate(passages)]
    items = Markup("").join(
        _passage(number, passage, number in gold, lit[number])
        for number, passage in enumerate(passages)
    )
    live = next((n for n, quotes in enumerate(lit) if any(q.live for q in quotes)), None)
    return str(
        _STRIP.format(
            note=_note(view),
            map=_map(passages, gold, lit),
            live="" if live is None else Markup(' data-live="{}"').format(passage_id(live)),
            passages=items,
        )
    )


def _lit_in(readers: Sequence[ReaderView], passage: int, length: int) -> list[_Lit]:
    lit = []
    for number, reader in enumerate(readers):
        for quote in reader.quotes:
            if quote.passage != passage:
                continue
            start = min(max(quote.start, 0), length)
            lit.append(
                _Lit(
                    id=quote_id(reader.name, quote.number),
                    number=quote.number,
                    start=start,
                    end=min(max(quote.end, start), length),
                    verbatim=quote.verbatim,
                    live=is_live(reader, quote),
                    reader=number,
                )
            )
    return lit


def is_live(reader: ReaderView, quote: LiveQuote) -> bool:
    """Whether this quote is growing: the last of a reader that is quoting."""
    return reader.stage is Stage.QUOTING and quote is reader.quotes[-1]


def _passage(number: int, passage: Passage, gold: bool, lit: Sequence[_Lit]) -> Markup:
    live = any(quote.live for quote in lit)
    classes = " sp-gold" * gold + " sp-quoted" * bool(lit) + " sp-live" * live
    return _PASSAGE.format(
        classes=classes,
        id=passage_id(number),
        number=number + 1,
        title=passage.title,
        tags=(_GOLD_TAG if gold else Markup("")) + (_LIVE_TAG if live else Markup("")),
        text=Markup("").join(_marked(passage.text, lit)),
    )


def _marked(text: str, lit: Sequence[_Lit]) -> Iterator[Markup]:
    """The text with its quotes in `<mark>`; where quotes overlap, marks stand within marks.

    Only the first piece of a quote has its id. A quote of no characters yet (its title is being
    copied) has an empty mark at its start, so that links to it lead somewhere.
    """
    bounds = sorted({0, len(text), *(b for quote in lit for b in (quote.start, quote.end))})
    begun: set[str] = set()
    for start in bounds:
        for quote in lit:
            if quote.start == quote.end == start:
                yield _mark(quote, Markup(""), begun, last=True)
        end = next((bound for bound in bounds if bound > start), start)
        piece = escape(text[start:end])
        for quote in reversed(lit):
            if quote.start <= start < end <= quote.end:
                piece = _mark(quote, piece, begun, last=end == quote.end)
        yield piece


def _mark(quote: _Lit, content: Markup, begun: set[str], *, last: bool) -> Markup:
    first = quote.id not in begun
    begun.add(quote.id)
    classes = "sp-mark"
    classes += "" if quote.verbatim else " sp-altered"
    classes += " sp-other" * (quote.reader > 0)
    classes += " sp-growing" * (quote.live and last)
    opening = (
        Markup(' id="{}" data-number="{}" tabindex="-1"').format(quote.id, quote.number)
        if first
        else Markup("")
    )
    return Markup('<mark class="{}"{} data-quote="{}">{}</mark>').format(
        classes, opening, quote.id, content
    )


def _note(view: RunView) -> str:
    count = len(view.example.passages)
    if count == 0:
        return "No passages: the readers answer from what they remember."
    shown = "1 passage" if count == 1 else f"{count} passages"
    gold = [str(number + 1) for number in view.example.gold]
    if not gold:
        return f"{shown}, in the order that the readers see"
    noun, holds = ("document", "holds") if len(gold) == 1 else ("documents", "hold")
    return f"{shown}; {noun} {_listed(gold)} {holds} the answer"


def _map(passages: Sequence[Passage], gold: Sequence[int], lit: Sequence[Sequence[_Lit]]) -> Markup:
    if not passages:
        return Markup("")
    cells = Markup("").join(
        _CELL.format(
            classes=" sp-gold" * (number in gold) + " sp-live" * any(q.live for q in lit[number]),
            goto=passage_id(number),
            title=f"{number + 1} {passage.title}",
            weight=max(len(passage.text), 1),
            fills=Markup("").join(_fill(quote, len(passage.text)) for quote in lit[number]),
        )
        for number, passage in enumerate(passages)
    )
    quoted = [str(number + 1) for number, quotes in enumerate(lit) if quotes]
    label = f"Map of {len(passages)} passages."
    if gold:
        label += f" The answer stands in {_listed([str(number + 1) for number in gold])}."
    label += f" Quoted: {_listed(quoted)}." if quoted else " Nothing is quoted yet."
    middle = Markup("<span>middle</span>") if len(passages) > 2 else Markup("")
    return _MAP.format(label=label, cells=cells, middle=middle)


def _fill(quote: _Lit, length: int) -> Markup:
    whole = max(length, 1)
    return _FILL.format(
        classes="" if quote.verbatim else " sp-altered",
        left=100 * quote.start / whole,
        width=100 * (quote.end - quote.start) / whole,
    )


def _listed(items: Sequence[str]) -> str:
    """
    >>> _listed(["3", "7", "12"])
    '3, 7 and 12'
    """
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))
