"""The built site: complete, without a dead link, and as a git host shows the same pages."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.docs.conftest import ROOT, Site
from tests.docs.html_pages import Page, as_commonmark, problems, read_pages, remote

DOCS = ROOT / "docs"
# Hosts that pages may link to, where data, papers and other programs are at home.
HOSTS = {"github.com", "hotpotqa.github.io", "rajpurkar.github.io", "sbert.net", "www.ray.io"}
HOSTS |= {"arxiv.org", "aclanthology.org"}
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def written(page: Path) -> bool:
    """Whether a page is all there in its file, with nothing put in by the site."""
    text = page.read_text(encoding="utf-8")
    return not re.search(r"^::: |<!-- README|markdown>", text, re.MULTILINE)


# The notes are no page: they are put into the report of `make quickstart`.
ALL = sorted(page for page in DOCS.rglob("*.md") if page.name != "quickstart-notes.md")
PAGES = [page for page in ALL if written(page)]


@pytest.fixture(scope="module")
def pages(site: Site) -> dict[str, Page]:
    return read_pages(site.folder)


def test_the_build_says_nothing_and_needs_no_torch(site: Site) -> None:
    assert site.said == "False False\n"
    assert "WARNING" not in site.told
    assert "ERROR" not in site.told


def test_every_page_is_there(pages: dict[str, Page]) -> None:
    expected = {page.relative_to(DOCS).with_suffix(".html").as_posix() for page in ALL}
    expected |= {"changelog.html", "notebook.html", "404.html"}
    built = {name for name in pages if not name.startswith("source/")}
    assert built == expected


def test_no_link_is_dead_and_nothing_is_fetched(site: Site, pages: dict[str, Page]) -> None:
    assert problems(site.folder, pages) == []
    styles = list(site.folder.rglob("*.css"))
    assert len(styles) >= 3
    for style in styles:
        assert remote(style.read_text(encoding="utf-8")) == [], style
    for picture in site.folder.rglob("*.svg"):
        assert not re.search(r"""(?:href|src)=["'](?:https?:)?//""", picture.read_text("utf-8"))


def test_links_elsewhere_go_to_known_hosts(pages: dict[str, Page]) -> None:
    links = {
        tag.attributes["href"]
        for page in pages.values()
        for tag in page.tags
        if tag.name == "a" and urlsplit(tag.attributes.get("href", "")).netloc
    }
    assert links  # there are some
    assert {link for link in links if urlsplit(link).netloc not in HOSTS} == set()


def test_every_page_has_a_title_and_one_heading(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        assert sum(tag.name == "title" for tag in page.tags) == 1, name
        assert page.shape.count("h1") == 1, name
        levels = [int(tag[1]) for tag in page.shape if re.fullmatch(r"h[1-6]", tag)]
        steps = [b - a for a, b in itertools.pairwise(levels)]
        assert max(steps, default=0) <= 1, f"{name} leaves out a level of headings"


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(DOCS)) for p in PAGES])
def test_a_page_reads_as_on_a_git_host(page: Path, pages: dict[str, Page]) -> None:
    here = pages[page.relative_to(DOCS).with_suffix(".html").as_posix()]
    there = as_commonmark(page.read_text(encoding="utf-8"))
    assert here.shape == there.tags
    assert here.text == there.text


def test_the_reference_shows_what_is_public(pages: dict[str, Page]) -> None:
    reader = pages["reference/reader.html"]
    assert {"scratchpad_rag.reader.Reader", "scratchpad_rag.reader.Reader.answer"} <= reader.ids
    assert not any("._" in name for page in pages.values() for name in page.ids)
    # A type in a signature leads to its page.
    links = [tag.attributes.get("href", "") for tag in reader.tags if tag.name == "a"]
    assert any(
        link.endswith("config.html#scratchpad_rag.config.stages.ModelConfig") for link in links
    )
    # Doctests are code, and comments beside fields their text.
    assert ">>>make_example(" in reader.text
    assert "indicesintopassages;severalformulti-hop" in pages["reference/records.html"].text


def test_pages_from_elsewhere_say_what_stands_there(pages: dict[str, Page]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lead = re.search(r"^Readers for retrieval-augmented.*$", readme, re.MULTILINE)
    assert lead is not None
    assert as_commonmark(lead[0]).text in pages["index.html"].text
    assert pages["index.html"].shape.count("img") == 1
    assert "3min34s" in pages["quickstart.html"].text
    assert pages["quickstart.html"].shape.count("table") == 1
    assert "goodreader" in pages["limits.html"].text
    assert "CC0;SmolLM2" not in pages["limits.html"].text
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert pages["changelog.html"].text == as_commonmark(changes).text


@pytest.mark.parametrize("name", ["index.md", "quickstart.md", "limits.md"])
def test_figures_stand_elsewhere_too(name: str) -> None:
    """These pages repeat; what they repeat has its command beside it on another page."""
    sources = [ROOT / "README.md", *DOCS.glob("*.md")]
    others = [page for page in sources if page.name not in ("index.md", "quickstart.md", name)]
    known = {n for page in others for n in NUMBER.findall(page.read_text(encoding="utf-8"))}
    text = re.sub(r"\]\([^)]*\)|```.*?```", "", (DOCS / name).read_text("utf-8"), flags=re.DOTALL)
    assert {n for n in NUMBER.findall(text) if n not in known} == set()


def test_the_site_asks_nobody(site: Site) -> None:
    """No analytics, no fonts, no search service, no repository whose stars would be counted."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    plain = yaml.safe_load(re.sub(r"!\S+", "", settings))
    assert plain["theme"]["font"] is False
    assert "repo_url" not in plain
    assert "analytics" not in plain["extra"]
    home = (site.folder / "index.html").read_text(encoding="utf-8")
    assert "googleapis" not in home
    assert "gstatic" not in home


# --- The checks themselves


def test_bad_pages_are_found(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "plot.png").write_bytes(b"")
    (tmp_path / "a.html").write_text(
        "<h1 id='top'>A</h1><a href='below/b.html#there'>x</a><a href='below/b.html#gone'>x</a>"
        "<a href='gone.html'>x</a><a href='/a.html'>x</a><a href='#top'>x</a>"
        "<a href='#nowhere'>x</a>"
        "<a href='http://example.org'>x</a><a href='https://example.org'>x</a>"
        "<img src='plot.png' alt='A plot'><img src='plot.png'><img src='gone.png' alt='x'>"
        "<script src='https://example.org/x.js'></script><link rel='icon' href='//e.org/x.css'>"
        "<p style='background: url(https://example.org/y.png)'>x</p>"
    )
    (tmp_path / "below" / "b.html").write_text("<p id='there'>x <a href='../a.html#top'>x</a></p>")
    found = problems(tmp_path, read_pages(tmp_path))
    expected = ["b.html#gone", "gone.html", "/a.html", "#nowhere", "http://example.org", "no words"]
    expected += ["gone.png", "x.js", "x.css", "y.png"]
    assert len(found) == len(expected)
    for problem, part in zip(found, expected, strict=True):
        assert part in problem


def test_other_renderings_are_found() -> None:
    # A list right behind a paragraph, and a block within an item, are what the two differ in.
    page = Page("<article><p>Text\n- one\n- two</p></article>")
    there = as_commonmark("Text\n- one\n- two\n")
    assert (page.shape, there.tags) == ([], ["ul", "li", "li"])
    heading = Page(
        "<article><h1>A<a class='headerlink' href='#a'>¶</a></h1><pre><code>x</code></pre>"
    )
    assert (heading.shape, heading.text) == (["h1", "pre"], "Ax")
