"""Built pages read with the standard library's parser: what they link to, show and say."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"}
SHAPES = {f"h{level}" for level in range(1, 7)} | {
    *("ul", "ol", "li", "table", "tr", "th", "td", "pre", "blockquote", "hr"),
    *("code", "em", "strong", "a", "img"),
}


class Tag(NamedTuple):
    name: str
    attributes: dict[str, str]


class Page(HTMLParser):
    """The tags of a page, and the shape and words of its article without links to headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[Tag] = []
        self.shape: list[str] = []
        self.words: list[str] = []
        self._open: list[tuple[str, bool]] = []  # with whether it stands aside of the text
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append(Tag(tag, attributes))
        names = attributes.get("class", "").split()
        aside = tag in ("script", "style") or bool({"headerlink", "linenos"} & set(names))
        within = self._in_article()
        if tag not in VOID:
            self._open.append((tag, aside))
        inside_pre = tag == "code" and any(name == "pre" for name, _ in self._open)
        if within and not aside and not inside_pre and tag in SHAPES and not self._aside():
            self.shape.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and tag not in VOID:
            if self._open.pop()[0] == tag:
                break

    def handle_data(self, data: str) -> None:
        if self._in_article() and not self._aside():
            self.words.append(data)

    def _in_article(self) -> bool:
        return any(name == "article" for name, _ in self._open)

    def _aside(self) -> bool:
        return any(aside for _, aside in self._open)

    @property
    def ids(self) -> set[str]:
        return {tag.attributes[key] for tag in self.tags for key in ("id", "name") if key in tag[1]}

    @property
    def text(self) -> str:
        return squeezed("".join(self.words))


def squeezed(text: str) -> str:
    """Without any white space, which the two renderers set differently."""
    return re.sub(r"\s+", "", text)


class Shape(NamedTuple):
    tags: list[str]
    text: str


def as_commonmark(markdown: str) -> Shape:
    """The tags and words of a page as a git host renders it."""
    page = Page("<article>" + MarkdownIt().enable("table").render(markdown) + "</article>")
    return Shape(page.shape, page.text)


def read_pages(site: Path) -> dict[str, Page]:
    return {
        path.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
    }


def problems(site: Path, pages: Mapping[str, Page]) -> list[str]:
    """Links and pictures of built pages that lead nowhere, and what would be fetched elsewhere."""
    found = []
    ids = {name: page.ids for name, page in pages.items()}
    for name, page in pages.items():
        for tag in page.tags:
            for link in _addresses(tag):
                problem = _problem(site, name, link, ids) or _fetched(tag, link)
                if problem:
                    found.append(f"{name}: <{tag.name}> {link}: {problem}")
            if tag.name == "img" and not tag.attributes.get("alt", "").strip():
                found.append(f"{name}: {tag.attributes.get('src')} has no words that stand for it")
            found += [f"{name}: style {u}" for u in remote(tag.attributes.get("style", ""))]
    return found


def _addresses(tag: Tag) -> list[str]:
    found = [tag.attributes[key] for key in ("href", "src", "data", "poster") if key in tag[1]]
    candidates = tag.attributes.get("srcset", "").split(",")
    return found + [words[0] for words in map(str.split, candidates) if words]


def _problem(site: Path, page: str, link: str, ids: Mapping[str, set[str]]) -> str | None:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None if parts.scheme in ("https", "data") else "neither https nor within the site"
    if page == "404.html":  # served for any address, so its links begin at the root
        link = link.removeprefix("/") or "index.html"
        parts = urlsplit(link)
    elif link.startswith("/"):
        return "breaks below another path"
    base = (site / page).parent
    path = (base / unquote(parts.path)).resolve() if parts.path else site / page
    if path.is_dir():
        path /= "index.html"
    if not path.is_file():
        return "leads nowhere"
    target = path.relative_to(site.resolve() if path.is_relative_to(site.resolve()) else site)
    known = ids.get(target.as_posix())
    if parts.fragment and known is not None and unquote(parts.fragment) not in known:
        return f"there is no #{parts.fragment}"
    return None


def _fetched(tag: Tag, link: str) -> str | None:
    if tag.name == "a" or tag.attributes.get("rel") == "canonical":
        return None
    return "comes from elsewhere" if re.match(r"([a-z]+:)?//", link) else None


def remote(style: str) -> list[str]:
    """What a style sheet would fetch from elsewhere.

    >>> remote("@import 'https://a.org/x.css'; a { background: url(//b.org/y.png) }")
    ['https://a.org/x.css', '//b.org/y.png']
    >>> remote("a { background: url(data:image/png;base64,AA==) } /* http://c.org */")
    []
    """
    plain = re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL)
    named = re.findall(r"""@import\s+["']([^"']+)|url\(\s*["']?([^"')]+)""", plain)
    return [u for u in itertools.chain.from_iterable(named) if re.match(r"([a-z]+:)?//", u)]
