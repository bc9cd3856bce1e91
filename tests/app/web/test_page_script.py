"""The page's script in a real browser, on the drawn parts alone: Chromium, through Playwright."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from scratchpad_rag.app.web.anchors import script, style
from scratchpad_rag.app.web.chart import chart
from scratchpad_rag.app.web.panes import pane
from scratchpad_rag.app.web.strip import strip
from scratchpad_rag.app.web.views import Cost, Point, ReaderView, RunView, Stage
from tests.app.web.drawn import example, quote

pytestmark = pytest.mark.browser

SENTENCE = "The lamp was lit in the year of the great storm by a keeper of no name. "
LONG = "https://example.org/" + "a" * 200


def view(stage: Stage, *spans: tuple[int, int, int]) -> RunView:
    """Twenty passages, and a reader with a quote at `start:end` of each passage named."""
    quotes = tuple(quote(n + 1, *span, text=LONG) for n, span in enumerate(spans))
    done = stage is Stage.DONE
    reader = ReaderView(
        "Scratchpad",
        stage,
        True,
        quotes,
        answer=LONG if done else "",
        cited=tuple(q.number for q in quotes) if done else (),
        right=True if done else None,
        cost=Cost(3000, 214, 23, 3.2),
    )
    shown = example([SENTENCE * 8] * 19 + [LONG], gold=(9,))
    return RunView(shown, (reader, ReaderView("Zero-shot", Stage.WAITING, False)))


def parts(run: RunView, runs: int = 2) -> str:
    points = [Point("Scratchpad", 20, 9, True, True, LONG)] * runs
    panes = "".join(pane(reader, run.example.answers) for reader in run.readers)
    return strip(run) + panes + chart(points, 20)


def document(body: str, dark: bool = False) -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><base href="/elsewhere/">'
        '<meta name="viewport" content="width=device-width"><title>t</title>'
        f"<style>body {{ margin: 0; background: var(--sp-paper); }} {style()}</style>"
        f'<body class="{"dark" if dark else ""}"><main id="main">{body}</main>'
        f"<script>{script()}</script></body></html>"
    )


# As Gradio does it: what is there stays, and is made like the new.
UPDATE = """(html) => {
  const fresh = document.createElement("main");
  fresh.innerHTML = html;
  const make = (old, now) => {
    if (old.nodeType !== now.nodeType || old.tagName !== now.tagName) {
      old.replaceWith(now.cloneNode(true));
      return;
    }
    if (old.nodeType === 3) { old.textContent = now.textContent; return; }
    for (const a of [...old.attributes]) if (!now.hasAttribute(a.name)) old.removeAttribute(a.name);
    for (const a of [...now.attributes]) old.setAttribute(a.name, a.value);
    const [olds, nows] = [[...old.childNodes], [...now.childNodes]];
    nows.forEach((node, n) => olds[n] ? make(olds[n], node) : old.append(node.cloneNode(true)));
    olds.slice(nows.length).forEach((node) => node.remove());
  };
  fresh.id = "main";
  make(document.getElementById("main"), fresh);
}"""
# How much of the strip's window lies above the middle of an element: 0..1 where it is in view.
PLACE = """(selector) => {
  const strip = document.querySelector(".sp-scroller").getBoundingClientRect();
  const box = document.querySelector(selector).getBoundingClientRect();
  return (box.top - strip.top) / strip.height;
}"""


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Any]]:
    opened = []

    def opens(html: str, width: int = 1200, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        opened.append(context)
        page = context.new_page()
        page.set_content(html)
        return page

    yield opens
    for context in opened:
        context.close()


def settled(page: Any, selector: str) -> float:
    """Where an element stands in the strip once nothing moves any more."""
    page.wait_for_timeout(600)  # the strip rests between two moves
    before, after = -1.0, -2.0
    while before != after:
        before = after
        page.wait_for_timeout(150)
        after = page.evaluate(PLACE, selector)
    return after


def test_the_strip_follows_a_growing_quote_and_the_window_stays(show: Callable[..., Any]) -> None:
    page = show(document(parts(view(Stage.READING))))
    assert settled(page, "#passage-12") > 1
    page.evaluate(UPDATE, parts(view(Stage.QUOTING, (11, 0, 40))))
    assert 0 <= settled(page, "#quote-scratchpad-1") < 0.8
    page.evaluate(UPDATE, parts(view(Stage.QUOTING, (11, 0, 400), (3, 0, 30))))
    assert 0 <= settled(page, "#quote-scratchpad-2") < 0.8
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("document.activeElement === document.body")


def test_the_growing_end_stays_in_view_where_the_passage_does_not_fit(
    show: Callable[..., Any],
) -> None:
    page = show(document(parts(view(Stage.READING))), 360)
    page.set_viewport_size({"width": 360, "height": 500})
    ends = """() => {
      const strip = document.querySelector(".sp-scroller").getBoundingClientRect();
      const lines = [...document.querySelector("mark.sp-growing").getClientRects()];
      return (lines.pop().bottom - strip.top) / strip.height;
    }"""
    for length in (100, 250, 400, 560):
        page.evaluate(UPDATE, parts(view(Stage.QUOTING, (11, 0, length))))
        settled(page, "#quote-scratchpad-1")
        assert 0 < page.evaluate(ends) < 0.9
    tall = "[...document.querySelectorAll('#passage-12, .sp-scroller')].map((e) => e.offsetHeight)"
    strip_height, passage_height = page.evaluate(tall)
    assert passage_height > strip_height


def test_a_user_who_scrolls_the_strip_is_left_alone(show: Callable[..., Any]) -> None:
    page = show(document(parts(view(Stage.READING))))
    page.locator(".sp-scroller").hover()
    page.mouse.wheel(0, 40)
    page.evaluate(UPDATE, parts(view(Stage.QUOTING, (11, 0, 40))))
    assert settled(page, "#quote-scratchpad-1") > 1


def test_a_run_that_is_over_at_once_is_still_brought_into_view(show: Callable[..., Any]) -> None:
    page = show(document(parts(view(Stage.READING))))
    page.evaluate(UPDATE, parts(view(Stage.DONE, (14, 0, 40))))
    assert 0 <= settled(page, "#quote-scratchpad-1") < 0.8


def test_a_citation_leads_to_the_quote_by_mouse_and_by_keyboard(show: Callable[..., Any]) -> None:
    page = show(document(parts(view(Stage.DONE, (16, 0, 40), (2, 0, 40)))))
    address = page.url
    for number, press in ((1, False), (2, True)):
        link = page.get_by_role("link", name=f"Quote {number}, shown in its passage")
        if press:
            link.focus()
            page.keyboard.press("Enter")
        else:
            link.click()
        assert 0 <= settled(page, f"#quote-scratchpad-{number}") < 0.8
        focused = page.evaluate("document.activeElement.id")
        assert focused == f"quote-scratchpad-{number}"
    assert page.url == address


def test_what_a_user_opened_stays_open(show: Callable[..., Any]) -> None:
    page = show(document(parts(view(Stage.READING))))
    page.get_by_text("The numbers").click()
    page.evaluate(UPDATE, parts(view(Stage.DONE, (1, 0, 4)), runs=3))
    page.wait_for_timeout(100)
    assert page.locator("details").get_attribute("open") is not None
    page.get_by_text("The numbers").click()
    page.evaluate(UPDATE, parts(view(Stage.DONE, (1, 0, 4)), runs=4))
    page.wait_for_timeout(100)
    assert page.locator("details").get_attribute("open") is None


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_nothing_is_wider_than_the_window(show: Callable[..., Any], width: int) -> None:
    page = show(document(parts(view(Stage.DONE, (19, 0, 100)))), width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_what_is_touched_is_large_enough(show: Callable[..., Any]) -> None:
    page = show(document(parts(view(Stage.DONE, (1, 0, 9), (2, 0, 9)))), 390, has_touch=True)
    page.emulate_media(reduced_motion="reduce")
    for selector in (".sp-cite", ".sp-goto", ".sp-chart summary"):
        for element in page.locator(selector).all():
            element.scroll_into_view_if_needed()
            box = element.bounding_box()
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            for dx, dy in ((0, -21), (0, 21), (-21, 0), (21, 0)):
                hit = "([x, y, s]) => document.elementFromPoint(x, y)?.closest(s) !== null"
                assert page.evaluate(hit, [x + dx, y + dy, selector]), (selector, dx, dy)
