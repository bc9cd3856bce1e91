"""The strip: every quote lit at its very characters, whatever else lies there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.app.web.strip import strip
from scratchpad_rag.app.web.views import Stage
from tests.app.web.drawn import Element, ids, lit, parse, quote, reader, run

FIRST, SECOND, OTHER = "quote-scratchpad-1", "quote-scratchpad-2", "quote-other-1"


def passages(root: Element) -> list[Element]:
    return root.find(class_="sp-passage")


def test_a_quote_is_lit_at_its_characters_and_nowhere_else() -> None:
    root = parse(strip(run(["abcdef", "ghijkl"], reader(quote(1, 1, 2, 5)))))
    first, second = passages(root)
    assert lit(first, FIRST) == []
    assert lit(second, FIRST) == [(2, 5)]
    (mark,) = second.find(tag="mark")
    assert mark.text == "ijk"
    assert (mark.attributes["id"], mark.attributes["data-number"]) == (FIRST, "1")


def test_quotes_that_overlap_are_each_lit_whole() -> None:
    view = run(
        ["0123456789"],
        reader(quote(1, 0, 2, 6), quote(2, 0, 4, 8)),
        reader(quote(1, 0, 2, 9), name="Other"),
    )
    root = parse(strip(view))
    (passage,) = passages(root)
    assert passage.find(class_="sp-text")[0].text == "0123456789"
    assert lit(passage, FIRST) == [(2, 6)]
    assert lit(passage, SECOND) == [(4, 8)]
    assert lit(passage, OTHER) == [(2, 9)]
    assert sorted(i for i in ids(root) if i.startswith("quote")) == [OTHER, FIRST, SECOND]
    others = [m for m in passage.find(tag="mark") if m.attributes["data-quote"] == OTHER]
    assert all("sp-other" in mark.classes for mark in others)


spans = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)).map(sorted), max_size=5)


@given(st.text(min_size=0, max_size=14, alphabet="a<>&\"' é\u2028"), spans, spans)
def test_any_quotes_leave_the_text_as_it_is(
    text: str, one: list[list[int]], two: list[list[int]]
) -> None:
    readers = [
        reader(*(quote(n + 1, 0, start, end) for n, (start, end) in enumerate(places)), name=name)
        for name, places in (("Scratchpad", one), ("Other", two))
    ]
    root = parse(strip(run([text], *readers)))
    (passage,) = passages(root)
    assert passage.find(class_="sp-text")[0].text == text
    assert len(ids(root)) == len(set(ids(root)))
    for name, places in (("scratchpad", one), ("other", two)):
        for number, (start, end) in enumerate(places, start=1):
            start, end = min(start, len(text)), min(end, len(text))
            assert lit(passage, f"quote-{name}-{number}") == [(start, end)]


def test_a_quote_whose_title_is_being_copied_has_a_place_already() -> None:
    view = run(["abc", "def"], reader(quote(1, 1, 0, 0), stage=Stage.QUOTING))
    root = parse(strip(view))
    _, second = passages(root)
    (mark,) = second.find(tag="mark")
    assert (mark.text, mark.attributes["id"]) == ("", FIRST)
    assert "sp-live" in second.classes
    (scroller,) = root.find(class_="sp-scroller")
    assert scroller.attributes["data-live"] == second.attributes["id"] == "passage-2"


def test_only_the_last_quote_of_a_reader_that_quotes_grows() -> None:
    quotes = quote(1, 0, 0, 2), quote(2, 1, 0, 2)
    root = parse(strip(run(["abc", "def"], reader(*quotes, stage=Stage.QUOTING))))
    assert [m.attributes["id"] for m in root.find(class_="sp-growing")] == [SECOND]
    done = parse(strip(run(["abc", "def"], reader(*quotes))))
    assert done.find(class_="sp-growing") == []
    assert done.find(class_="sp-passage")[1].classes == ["sp-passage", "sp-quoted"]
    assert "data-live" not in done.find(class_="sp-scroller")[0].attributes


def test_the_passage_with_the_answer_says_so_in_words() -> None:
    root = parse(strip(run(["a", "b", "c"], reader(), gold=(1,))))
    tagged = [p.attributes["id"] for p in passages(root) if "holds the answer" in p.text]
    assert tagged == ["passage-2"]
    assert "document 2 holds the answer" in root.find(class_="sp-note")[0].text
    several = parse(strip(run(["a", "b", "c"], reader(), gold=(0, 2))))
    assert "documents 1 and 3 hold the answer" in several.find(class_="sp-note")[0].text
    none = parse(strip(run(["a", "b", "c"], reader(), gold=())))
    assert "holds the answer" not in none.text


def test_markup_in_a_passage_is_shown_as_text() -> None:
    evil = "</p><script>alert(1)</script>${1}{{x}}"
    root = parse(strip(run([evil], reader(quote(1, 0, 4, 12)))))
    assert root.find(tag="script") == []
    (passage,) = passages(root)
    assert passage.find(class_="sp-text")[0].text == evil
    assert passage.find(tag="mark")[0].text == "<script>"


def test_the_map_has_a_cell_a_passage_as_wide_as_its_text_with_the_quote_at_its_place() -> None:
    view = run(["x" * 50, "y" * 200], reader(quote(1, 1, 50, 150)), gold=(1,))
    root = parse(strip(view))
    narrow, wide = root.find(class_="sp-cell")
    assert narrow.attributes["style"] == "flex-grow:50"
    assert wide.attributes["style"] == "flex-grow:200"
    assert ("sp-gold" in narrow.classes, "sp-gold" in wide.classes) == (False, True)
    (fill,) = wide.find(class_="sp-fill")
    assert fill.attributes["style"] == "left:25.0%;width:50.0%"
    (label,) = [m.attributes["aria-label"] for m in root.find(class_="sp-map")]
    assert label == "Map of 2 passages. The answer stands in 2. Quoted: 2."


def test_without_a_run_it_invites_and_without_passages_it_says_so() -> None:
    assert "light up" in parse(strip(None)).text
    assert "No passages" in parse(strip(run([], reader(), gold=()))).text
