"""A completion that is still coming: what is shown of it, and that it ends in the Reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.prompts.growing import SoFar, read_so_far
from scratchpad_rag.prompts.parse import parse_completion
from scratchpad_rag.prompts.render import render_sample
from scratchpad_rag.prompts.template import (
    NO_SUPPORT,
    Wording,
    format_passage,
    restated_question,
)
from scratchpad_rag.records import Example, Method, Passage, Quote, ScratchpadForm

MARREN = Passage("Marren", "A town by a river. It has a mill.")
MILL = Passage("Mill (Marren)", "Built in 1895.\n\nIt stands.")
EXAMPLE = Example("q", "when was the mill built", ("1895",), (MARREN, MILL), (1,))
WHOLE = (
    " Document (Title: Mill (Marren)) Built in 1895.\n\nIt stands.\n\n"
    "Question: When was the mill built?\n\nAnswer: 1895"
)


def grown(length: int, text: str = WHOLE) -> SoFar:
    return read_so_far(text[:length], EXAMPLE, Method.SCRATCHPAD)


def quote(text: str, number: int = 1) -> Quote:
    return Quote(text, EXAMPLE.passages[number].title, number, 0, len(text), verbatim=True)


def test_nothing_is_told_before_the_title_is_whole() -> None:
    assert grown(0) == SoFar()
    assert grown(len(" Document (Title: Mill (Marr")) == SoFar()


def test_a_title_names_its_passage_before_any_of_its_text() -> None:
    assert grown(len(" Document (Title: Mill (Marren))")).quotes == (quote(""),)


def test_a_quote_grows_letter_by_letter() -> None:
    assert grown(len(" Document (Title: Mill (Marren)) Built in")).quotes == (quote("Built in"),)


def test_a_blank_line_of_the_passage_is_shown_once_it_cannot_be_the_format_s() -> None:
    head = " Document (Title: Mill (Marren)) "
    assert grown(len(head + "Built in 1895.\n\n")).quotes == (quote("Built in 1895."),)
    assert grown(len(head + "Built in 1895.\n\nIt")).quotes == (quote("Built in 1895.\n\nIt"),)


def test_the_restated_question_is_never_shown_as_quoted() -> None:
    for length in range(WHOLE.index("Question"), WHOLE.index("Answer:") + len("Answer:")):
        assert grown(length).quotes == (quote(MILL.text),), WHOLE[:length]


def test_the_answer_comes_behind_the_last_label() -> None:
    assert not grown(WHOLE.index("Answer:")).answering
    assert grown(len(WHOLE) - 2) == SoFar((quote(MILL.text),), "18", answering=True)
    assert grown(len(WHOLE)) == SoFar((quote(MILL.text),), "1895", answering=True)


def test_the_sentence_that_abstains_is_no_quote() -> None:
    text = f" {NO_SUPPORT}{restated_question(EXAMPLE.question)} unanswerable"
    for length in range(len(text)):
        assert grown(length, text).quotes == ()
    assert grown(len(text), text) == SoFar((), "unanswerable", answering=True)


def test_what_departs_from_the_passage_is_not_verbatim() -> None:
    text = " Document (Title: Marren) A town by a lake. It has"
    [departed] = grown(len(text), text).quotes
    assert (departed.passage, departed.verbatim) == (0, False)


def test_a_reader_that_quotes_nothing_answers_from_the_first_letter() -> None:
    assert read_so_far(" 189", EXAMPLE, None) == SoFar((), "189", answering=True)


TEXTS = st.text("ab .\n", min_size=1, max_size=30).map(lambda text: f"X{text}X")
CONTEXTS = st.lists(TEXTS, min_size=1, max_size=4).map(
    lambda texts: tuple(Passage(f"{n} town", text) for n, text in enumerate(texts))
)


@given(CONTEXTS, st.data())
def test_every_beginning_is_a_beginning_of_the_reading(
    passages: tuple[Passage, ...], data: st.DataObject
) -> None:
    """Copies of whole passages only ever grow, however the text is cut, and end as it is parsed."""
    quoted = data.draw(st.lists(st.sampled_from(passages), min_size=1, max_size=3, unique=True))
    example = Example("q", "why", ("x",), passages, ())
    text = " " + "\n\n".join(map(format_passage, quoted)) + restated_question("why") + " The x"
    reading = parse_completion(text, example, Method.SCRATCHPAD)
    before = SoFar()
    for length in range(len(text) + 1):
        now = read_so_far(text[:length], example, Method.SCRATCHPAD)
        assert len(before.quotes) <= len(now.quotes) <= len(reading.quotes)
        for earlier, later in zip(before.quotes, now.quotes, strict=False):
            assert later.text.startswith(earlier.text)
        for growing, final in zip(now.quotes, reading.quotes, strict=False):
            assert growing.passage == final.passage
            assert final.text.startswith(growing.text)
            assert growing.verbatim
        assert reading.answer.startswith(now.answer)
        before = now
    assert (before.quotes, before.answer) == (reading.quotes, reading.answer)


@pytest.mark.parametrize("form", ScratchpadForm)
def test_scratchpads_of_every_form_only_ever_grow(form: ScratchpadForm) -> None:
    """Twelve passages, so that a number may be the beginning of another."""
    towns = tuple(Passage(f"Town {n}", f"It lies {n} miles away. It is old.") for n in range(10))
    example = Example("q", EXAMPLE.question, ("1895",), (*towns, MARREN, MILL), (11, 0, 10))
    text = render_sample(example, Wording(form=form), Method.SCRATCHPAD).completion
    reading = parse_completion(text, example, Method.SCRATCHPAD, form)
    assert [found.passage for found in reading.quotes] == [11, 0, 10]
    before = SoFar()
    for length in range(len(text) + 1):
        now = read_so_far(text[:length], example, Method.SCRATCHPAD, form)
        assert len(before.quotes) <= len(now.quotes) <= len(reading.quotes)
        for growing, final in zip(now.quotes, reading.quotes, strict=False):
            assert (growing.passage, growing.title) == (final.passage, final.title)
            assert final.text.startswith(growing.text)
            assert growing.verbatim
        before = now
    assert (before.quotes, before.answer) == (reading.quotes, "1895")
