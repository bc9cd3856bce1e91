"""The built site in a real browser: nothing asked of others, both colour schemes, the search."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.conftest import Site
from tests.report.test_browser import CONTRASTS

pytestmark = pytest.mark.browser

SHOWN = ("index", "concepts/copy-decoder", "reference/reader", "flags", "results", "notebook")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The site's address below a path of its own, as of a project on a static host."""
    root = tmp_path_factory.mktemp("served")
    (root / "some").mkdir()
    (root / "some" / "path").symlink_to(site.folder, target_is_directory=True)
    handler = functools.partial(Quiet, directory=str(root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/some/path/"
    server.shutdown()
    server.server_close()
    thread.join()


def opened(browser: Any, scheme: str, width: int = 1280) -> tuple[Any, list[str], list[str]]:
    """A page, the addresses that it asks for, and what goes wrong in it."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: wrong.append(f"{request.url} failed"))
    page.on("response", lambda r: wrong.append(f"{r.url}: {r.status}") if r.status >= 400 else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    return page, asked, wrong


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_ask_nobody_else(browser: Any, served: str, scheme: str) -> None:
    page, asked, wrong = opened(browser, scheme)
    papers = set()
    for name in SHOWN:
        page.goto(f"{served}{name}.html", wait_until="load")
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert page.locator("h1").count() == 1
    page.context.close()
    assert len(asked) > len(SHOWN)
    assert [url for url in asked if not url.startswith((served, "data:"))] == []
    assert wrong == []
    # The paper of the report, by day and by night.
    assert papers == {"rgb(254, 254, 254)" if scheme == "light" else "rgb(22, 22, 26)"}


def test_the_colours_can_be_chosen(browser: Any, served: str) -> None:
    page, _, wrong = opened(browser, "light")
    page.goto(f"{served}index.html")
    scheme = "document.body.getAttribute('data-md-color-scheme')"
    assert page.evaluate(scheme) == "default"
    for expected in ("default", "slate"):  # from the system's to light to dark
        page.locator("label.md-header__button[title^='Colours']:visible").click()
        page.wait_for_function(f"{scheme} === '{expected}'")
    page.goto(f"{served}results.html")
    assert page.evaluate(scheme) == "slate"  # and it is remembered
    page.context.close()
    assert wrong == []


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_page_is_wider_than_the_screen(browser: Any, served: str, width: int) -> None:
    page, _, _ = opened(browser, "light", width)
    for name in SHOWN:
        page.goto(f"{served}{name}.html")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(browser: Any, served: str, scheme: str) -> None:
    page, _, _ = opened(browser, scheme)
    for name in SHOWN:
        page.goto(f"{served}{name}.html")
        assert page.evaluate(CONTRASTS) == [], name
    pale = "document.querySelector('article').innerHTML = '<p style=\"color: #888\">pale</p>'"
    page.evaluate(pale)
    found = page.evaluate(CONTRASTS)
    page.context.close()
    # The check sees what is pale: #888 has 3.5 on white, and 5.1 on the dark paper.
    assert [text for _, _, text, _ in found] == (["pale"] if scheme == "light" else [])


def found_by(page: Any, words: str) -> list[str]:
    page.locator("input.md-search__input").click()
    page.wait_for_timeout(1000)  # the index is read when the field has the focus
    page.keyboard.type(words, delay=50)
    page.wait_for_selector(".md-search-result__item a")
    return [link.get_attribute("href") for link in page.locator(".md-search-result__link").all()]


@pytest.mark.parametrize("way", ["server", "files"])
def test_search_finds(browser: Any, served: str, site: Site, way: str) -> None:
    base = served if way == "server" else Path(site.folder).as_uri() + "/"
    page, asked, wrong = opened(browser, "light")
    page.goto(f"{base}training.html")
    found = found_by(page, "Cochran")
    assert any("statistics.html" in link for link in found)
    page.locator(".md-search-result__link").first.click()
    page.wait_for_url("**/*.html*")
    assert page.locator("h1").count() == 1
    page.context.close()
    assert [url for url in asked if not url.startswith((base, "data:", "about:"))] == []
    assert wrong == []
