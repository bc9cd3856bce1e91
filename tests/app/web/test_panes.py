"""A reader's pane: each state in words, citations that lead somewhere, and the cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scratchpad_rag.app.web.panes import empty_pane, pane
from scratchpad_rag.app.web.strip import strip
from scratchpad_rag.app.web.views import Cost, ReaderView, Stage
from scratchpad_rag.app.web.waiting import loading_panel, queue_line
from tests.app.web.drawn import Element, ids, parse, quote, reader, run

DONE = replace(reader(quote(1, 0, 12, 204), quote(2, None, 0, 0)), answer="Ada", cited=(1, 2))


def one(root: Element, class_: str) -> str:
    (element,) = root.find(class_=class_)
    return element.text


def test_a_quote_names_its_document_title_and_characters() -> None:
    root = parse(pane(replace(DONE, quotes=(quote(1, 6, 12, 204),))))
    source = one(root, "sp-source")
    assert source == "Document 7 · Title · characters 12–204 · ✓ verbatim"
    altered = replace(DONE, quotes=(quote(1, 6, 12, 204, verbatim=False),))
    assert "≈ not verbatim" in one(parse(pane(altered)), "sp-source")
    begun = replace(DONE, stage=Stage.QUOTING, quotes=(quote(1, 6, 0, 0),))
    assert one(parse(pane(begun)), "sp-source") == "Document 7 · Title · its title so far"
    alone = replace(DONE, quotes=(quote(1, 6, 0, 0),))
    assert one(parse(pane(alone)), "sp-source") == "Document 7 · Title · its title"
    invented = replace(DONE, quotes=(quote(1, None, 0, 0),))
    assert one(parse(pane(invented)), "sp-source") == "Title · ✗ in no passage shown"


def test_every_citation_leads_to_its_quote() -> None:
    shown = parse(pane(DONE) + strip(run(["x" * 300], DONE)))
    assert len(ids(shown)) == len(set(ids(shown)))
    links = [a.attributes["href"] for a in shown.find(class_="sp-cite")]
    assert links == ["#quote-scratchpad-1", "#in-quote-scratchpad-2"]
    (lit,) = shown.find(id_="quote-scratchpad-1")
    assert lit.tag == "mark"
    (invented,) = shown.find(id_="in-quote-scratchpad-2")
    assert "sp-quote" in invented.classes
    assert [a.text for a in shown.find(class_="sp-cite")] == ["[1]", "[2]"]


def test_a_citation_of_no_quote_is_left_out() -> None:
    assert parse(pane(replace(DONE, cited=(1, 9)))).text.count("[") == 1


@pytest.mark.parametrize(
    ("right", "expected"), [(True, ["✓ right"]), (False, ["✗ wrong"]), (None, [])]
)
def test_right_and_wrong_have_a_word_and_a_sign(right: bool | None, expected: list[str]) -> None:
    root = parse(pane(replace(DONE, right=right), ["Ada", "Ada L."]))
    assert [v.text for v in root.find(class_="sp-verdict")] == expected
    assert one(root, "sp-known") == "Known answers: Ada or Ada L."


STATES = {
    Stage.WAITING: "Waits for its turn",
    Stage.READING: "Reads the context",
    Stage.QUOTING: "Quotes document 4",
    Stage.ANSWERING: "Answers",
    Stage.DONE: "Done",
    Stage.STOPPED: "Stopped midway",
    Stage.FAILED: "Failed",
}


@pytest.mark.parametrize("stage", list(Stage))
def test_each_stage_is_said_in_words_in_a_polite_region(stage: Stage) -> None:
    root = parse(pane(reader(quote(1, 3, 0, 4), stage=stage)))
    (status,) = root.find(class_="sp-stage")
    assert status.text == f"Scratchpad: {STATES[stage]}"
    assert status.attributes["aria-live"] == "polite"


def test_an_answer_that_is_still_growing_is_not_judged() -> None:
    growing = replace(DONE, stage=Stage.ANSWERING, answer="Ad", right=False)
    root = parse(pane(growing, ["Ada"]))
    assert root.find(class_="sp-answer")[0].text.startswith("Ad")
    assert root.find(class_="sp-verdict") == root.find(class_="sp-known") == []


def test_an_answer_that_runs_on_gets_a_scroller() -> None:
    short = parse(pane(replace(DONE, answer="a" * 159))).find(class_="sp-answer")
    long = parse(pane(replace(DONE, answer="a" * 160))).find(class_="sp-answer")
    assert [(e.classes, e.attributes.get("tabindex")) for e in (*short, *long)] == [
        (["sp-answer"], None),
        (["sp-answer", "sp-long"], "0"),
    ]
    assert long[0].text == "a" * 160 + " [1][2]"


def test_what_went_otherwise_is_said() -> None:
    stopped = ReaderView("Scratchpad", Stage.STOPPED, True)
    assert "You stopped it before it had answered" in parse(pane(stopped)).text
    midway = parse(pane(replace(stopped, answer="Ad", right=False)))
    assert one(midway, "sp-verdict") == "■ stopped midway: not judged"
    failed = parse(pane(replace(stopped, stage=Stage.FAILED, error="no <memory>")))
    assert one(failed, "sp-alert") == "It failed. No <memory>."
    abstained = replace(stopped, stage=Stage.DONE, abstained=True, parsed=False)
    said = parse(pane(abstained))
    assert [v.text for v in said.find(class_="sp-verdict")] == [
        "∅ says that nothing shown answers it",
        "! the format was not kept: read as far as it goes",
    ]
    assert "It quoted nothing" not in said.text
    assert "It quoted nothing" in parse(pane(replace(abstained, abstained=False))).text


def test_the_cost_and_what_plain_decoding_would_need() -> None:
    root = parse(pane(replace(DONE, cost=Cost(3120, 1214, 50, 3.24))))
    cost = [div.text for div in root.find(class_="sp-cost")[0].find(tag="div")]
    assert cost == ["passes50", "tokens1,214", "seconds3.2", "tokens a pass24.3"]
    saving = one(root, "sp-saving")
    assert "takes 1,214 passes for these 1,214 tokens" in saving
    assert "made it 50" in saving
    (bar,) = root.find(class_="sp-bar")[0].find(tag="span")
    assert bar.attributes["style"] == "width:4.1%"  # 50 of 1,214
    plain = ReaderView("Zero-shot", Stage.DONE, False, answer="x", cost=Cost(9, 7, 7, 1.0))
    assert parse(pane(plain)).find(class_="sp-saving") == []
    assert parse(pane(replace(plain, cost=Cost()))).find(class_="sp-cost") == []


def test_markup_is_shown_as_text_wherever_it_comes_from() -> None:
    evil = '"><script>alert(1)</script>'
    view = replace(
        reader(replace(quote(1, 0, 0, 1, text=evil), title=evil), name=evil),
        answer=evil,
        right=True,
    )
    for html in (
        pane(view, [evil]),
        pane(replace(view, stage=Stage.FAILED, error=evil)),
        empty_pane(evil, quoting=True),
        loading_panel(evil, 1.0),
        loading_panel(evil, 1.0, failed=True),
    ):
        root = parse(html)
        assert root.find(tag="script") == []
        assert evil in root.text


def test_both_readers_have_ids_of_their_own() -> None:
    zero_shot = ReaderView("Zero-shot", Stage.DONE, False, answer="x")
    shown = parse(pane(DONE) + pane(zero_shot) + strip(run(["x" * 300], DONE, zero_shot)))
    assert len(ids(shown)) == len(set(ids(shown)))
    named = {
        e.attributes["aria-labelledby"] for e in shown.all() if "aria-labelledby" in e.attributes
    }
    assert named <= set(ids(shown))


def test_those_who_wait_are_told() -> None:
    assert queue_line(0) == ""
    assert "1 person is before you" in queue_line(1)
    assert "3 people are before you" in queue_line(3)
    loading = parse(loading_panel("Reads\nweights", 3.4))
    assert "Loading 3 s" in loading.text
    assert "No model could be loaded" in parse(loading_panel("why", 3.4, failed=True)).text
