"""The page of a grid in a real browser: Chromium of the system, through Playwright."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from scratchpad_rag.records import Passage
from scratchpad_rag.report.grid import write_grid_report
from scratchpad_rag.report.html import ReportContext
from tests.report.synthetic import grid, write_run

pytestmark = pytest.mark.browser

EVIL = "<script>window.harmed = true</script><img src=x onerror='window.harmed = true'>"
METHODS = (
    "closed_book",
    "zero_shot",
    "sft",
    "scratchpad",
    "gold_only",
    "scratchpad_gold_forced",
    "scratchpad_wrong_forced",
)
# Contrast (WCAG 2.2) of every visible text with the nearest background that has a colour.
CONTRASTS = """() => {
  const parse = (text) => {
    const n = text.match(/[\\d.]+/g).map(Number);
    return {rgb: n.slice(0, 3), alpha: n.length > 3 ? n[3] : 1};
  };
  const light = (rgb) => {
    const c = rgb.map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
  };
  const back = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.alpha === 1) return colour.rgb;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const style = getComputedStyle(e);
    if (!own || !e.checkVisibility() || ["SCRIPT", "STYLE"].includes(e.tagName)) continue;
    const svg = e.closest("svg");
    const ink = parse(svg ? style.fill : style.color).rgb;
    // Text in a figure stands on the page, or on a bar: test_grid.py holds those apart.
    const onBar = [getComputedStyle(document.body).backgroundColor, "rgb(16, 16, 20)"];
    if (svg && onBar.includes(style.fill)) continue;
    const [a, b] = [light(ink), light(back(svg ?? e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) bad.push([e.tagName, e.className, e.textContent.trim().slice(0, 40), ratio]);
  }
  return bad;
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browser")
    scores, passages = grid(("nq", "hotpotqa"), METHODS, (5, 10, 20), questions=16, places=3)
    harmful = {k: Passage(p.title + EVIL, f"{p.text} {EVIL}") for k, p in passages.items()}
    run = write_run(folder / "run", scores, harmful)
    context = ReportContext("Does it hold up?", "Made-up scores", command=f"report {EVIL}")
    return write_grid_report([run], folder / "out", context=context).as_uri()


def opened(browser: Any, address: str, **options: Any) -> Any:
    """The page, with what it said and asked for in `said` and `asked`."""
    page = browser.new_context(**options).new_page()
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    return page


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_never_scrolls_sideways(browser: Any, address: str, width: int) -> None:
    page = opened(browser, address, viewport={"width": width, "height": 844})
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") == 0
    # Boxes may scroll; what cannot be reached that way must not stick out.
    out = page.evaluate(
        """() => [...document.querySelectorAll('main *')].filter((e) =>
             !e.closest('.scroll') && !e.closest('svg')
             && e.getBoundingClientRect().right > innerWidth + 1)
           .map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert out == []


def test_it_asks_for_nothing_and_says_no_error(browser: Any, address: str) -> None:
    page = opened(browser, address)
    assert page.asked == [address]
    assert page.said == []


def test_harmful_text_is_only_ever_text(browser: Any, address: str) -> None:
    page = opened(browser, address)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("window.harmed") is None
    assert EVIL in page.inner_text("#failures >> xpath=..")
    assert page.locator("script").count() == 1
    assert page.locator("img").count() == 0


def test_the_filter_is_reached_and_worked_with_the_keyboard(browser: Any, address: str) -> None:
    page = opened(browser, address)
    reached = []
    for _ in range(200):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.name ?? ''")
        reached.append(name)
        if name == "m":
            break
    assert reached[-1] == "m", "Tab never reached the filter by method"
    all_of_them = page.locator(".failure:visible").count()
    assert all_of_them == 20
    assert page.inner_text(".filters output") == "20 of 20 shown"
    page.keyboard.press("ArrowDown")
    chosen = page.evaluate("document.activeElement.closest('label').innerText.trim()")
    name, _, number = chosen.rpartition(" ")
    shown = page.locator(".failure:visible")
    assert 0 < shown.count() < all_of_them
    assert shown.count() == int(number)
    assert page.inner_text(".filters output") == f"{number} of 20 shown"
    assert all(name in text for text in shown.locator("> summary").all_inner_texts())
    page.locator(".failure:visible summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".failure:visible").first.get_attribute("open") is not None


def test_the_filter_works_without_scripts(browser: Any, address: str) -> None:
    page = opened(browser, address, java_script_enabled=False)
    assert page.locator(".failure:visible").count() == 20
    page.locator("#m-0").check()
    assert 0 < page.locator(".failure:visible").count() < 20


def test_headings_are_in_order_and_images_have_a_text(browser: Any, address: str) -> None:
    page = opened(browser, address)
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    images = page.get_by_role("img").all()
    assert len(images) > 15
    assert all(len(image.get_attribute("aria-label") or "") > 30 for image in images)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(browser: Any, address: str, scheme: str) -> None:
    page = opened(browser, address, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(22, 22, 26)") == (scheme == "dark")
    assert page.evaluate(CONTRASTS) == []


def test_figures_keep_their_text_inside(browser: Any, address: str) -> None:
    page = opened(browser, address, viewport={"width": 1280, "height": 900})
    out = page.evaluate(
        """() => [...document.querySelectorAll('svg.plot')].flatMap((svg) => {
             const box = svg.getBoundingClientRect();
             return [...svg.querySelectorAll('text')].filter((t) => {
               const b = t.getBoundingClientRect();
               return b.left < box.left - 2 || b.right > box.right + 2
                 || b.top < box.top - 2 || b.bottom > box.bottom + 2;
             }).map((t) => t.textContent);
           })"""
    )
    assert out == []


def test_print_shows_everything_but_the_controls(browser: Any, address: str) -> None:
    page = opened(browser, address, viewport={"width": 700, "height": 1000})
    page.emulate_media(media="print")
    assert not page.locator(".filters").is_visible()
    assert not page.locator("nav").is_visible()
    assert page.locator(".failure .passages").first.is_visible()
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") == 0
    assert len(page.pdf(format="A4")) > 10_000
