"""Views to draw, and a reader of the HTML that comes of them (the standard library's parser)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser

from scratchpad_rag.app.web.views import LiveQuote, ReaderView, RunView, Stage
from scratchpad_rag.records import Example, Passage

VOID = {"br", "img", "input", "hr", "meta", "link"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parts: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(p if isinstance(p, str) else p.text for p in self.parts)

    @property
    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()

    def all(self) -> list[Element]:
        below = [e for part in self.parts if isinstance(part, Element) for e in part.all()]
        return [self, *below]

    def find(self, *, tag: str = "", class_: str = "", id_: str = "") -> list[Element]:
        return [
            element
            for element in self.all()
            if (not tag or element.tag == tag)
            and (not class_ or class_ in element.classes)
            and (not id_ or element.attributes.get("id") == id_)
        ]


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("root", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        assert len(element.attributes) == len(attrs), f"an attribute twice in <{tag}>: {attrs}"
        self.open[-1].parts.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def parse(html: str) -> Element:
    """The tree of a piece of HTML whose elements are all closed, in order."""
    builder = _Builder()
    builder.feed(html)
    builder.close()
    assert len(builder.open) == 1, f"never closed: {builder.open[-1].tag}"
    return builder.open[0]


def ids(root: Element) -> list[str]:
    return [e.attributes["id"] for e in root.all() if "id" in e.attributes]


def lit(passage: Element, quote: str) -> list[tuple[int, int]]:
    """The characters of a passage's text that lie in marks of this quote, as joined ranges."""
    (text,) = passage.find(class_="sp-text")
    ranges: list[tuple[int, int]] = []

    def walk(element: Element, at: int) -> int:
        start = at
        for part in element.parts:
            at = at + len(part) if isinstance(part, str) else walk(part, at)
        if element.attributes.get("data-quote") == quote:
            if ranges and ranges[-1][1] == start:
                ranges[-1] = (ranges[-1][0], at)
            else:
                ranges.append((start, at))
        return at

    walk(text, 0)
    return ranges


def example(texts: Sequence[str], gold: Sequence[int] = (0,)) -> Example:
    passages = tuple(Passage(f"Title {n}", text) for n, text in enumerate(texts))
    return Example("id", "Who?", ("Ada",), passages, tuple(gold))


def quote(
    number: int,
    passage: int | None,
    start: int,
    end: int,
    *,
    verbatim: bool = True,
    text: str = "t",
) -> LiveQuote:
    return LiveQuote(number, "Title", text, passage, start, end, verbatim)


def reader(*quotes: LiveQuote, name: str = "Scratchpad", stage: Stage = Stage.DONE) -> ReaderView:
    return ReaderView(name, stage, True, quotes)


def run(texts: Sequence[str], *readers: ReaderView, gold: Sequence[int] = (0,)) -> RunView:
    return RunView(example(texts, gold), readers)
