"""Supporting sentences, each case worked out by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.data.sentences import split_sentences
from scratchpad_rag.data.support import in_sentences, supporting_sentences
from scratchpad_rag.records import Example, Passage

FIRST = "Ida Holm was born in Marren in 1860."
SECOND = "She built Corvin Bridge in 1911."
THIRD = "Corvin Bridge fell in 1911."
FOURTH = "She died in the U.S."
TEXT = f"{FIRST} {SECOND} {THIRD} {FOURTH}"


def supporting(
    question: str, answers: tuple[str, ...], support: tuple[str, ...] = (), text: str = TEXT
) -> str:
    passages = (Passage("Ard", "A river."), Passage("Ida Holm", text))
    example = Example("q", question, answers, passages, (1,), support=support)
    start, end = supporting_sentences(example, 1)
    return text[start:end]


def test_marked_sentences_win_over_answers() -> None:
    assert supporting("when was the bridge built", ("1911",), (FIRST,)) == FIRST


def test_marked_sentences_apart_are_a_run_with_what_stands_between() -> None:
    assert supporting("who", ("x",), (THIRD, FIRST)) == f"{FIRST} {SECOND} {THIRD}"


def test_a_marked_piece_stands_for_the_sentences_that_it_reaches_into() -> None:
    assert supporting("who", ("x",), ("in 1911. Corvin",)) == f"{SECOND} {THIRD}"


def test_what_is_marked_in_another_passage_says_nothing() -> None:
    assert supporting("where did she die", ("US",), ("A river.",)) == FOURTH


def test_of_sentences_with_an_answer_the_one_with_most_words_of_the_question() -> None:
    assert supporting("when was corvin bridge built", ("1911",)) == SECOND
    assert supporting("when did the corvin bridge fall", ("1911",)) == SECOND  # the first of equals
    assert supporting("in what year was it that corvin bridge fell", ("1911",)) == THIRD


def test_answers_are_normalised_as_the_metrics_do() -> None:
    assert supporting("who is it", ("the marren",)) == FIRST
    assert supporting("who is it", ("US",)) == FOURTH


def test_an_answer_in_the_title_alone_or_none_leaves_all_sentences() -> None:
    assert supporting("who died in it", ("Nobody",)) == FOURTH
    assert supporting("did corvin bridge fall", ("yes",)) == SECOND


def test_a_text_without_a_stop_is_one_sentence_without_its_outer_space() -> None:
    assert supporting("who", ("x",), text="  a town \n") == "a town"


@given(
    text=st.text("ab .\n", min_size=1, max_size=40).filter(str.strip),
    answer=st.text("ab", min_size=1, max_size=2),
    marked=st.lists(st.text("ab .", min_size=1, max_size=6), max_size=2),
)
def test_any_run_begins_and_ends_with_sentences(text: str, answer: str, marked: list[str]) -> None:
    passages = (Passage("A", text),)
    example = Example("q", "a b", (answer,), passages, (0,), support=tuple(marked))
    start, end = supporting_sentences(example, 0)
    ranges = split_sentences(text)
    assert start in [begin for begin, _ in ranges]
    assert end in [stop for _, stop in ranges]
    assert start < end
    here = [piece for piece in marked if piece in text and piece.strip()]
    if not here:
        assert (start, end) in ranges
    for piece in here:
        begin = text.find(piece) + len(piece) - len(piece.lstrip())
        assert start <= begin < end


def test_passages_in_sentences_keep_titles_gold_and_what_is_nearest_to_the_question() -> None:
    """The gold passage its sentence with the answer, a distractor the one most like the question,
    and one of a single sentence all of it."""
    passages = (
        Passage("Ard", "A river. The bridge over it was built of oak. It floods."),
        Passage("Ida Holm", TEXT),
        Passage("Marren", "A town."),
    )
    example = Example("q", "when was the bridge built", ("1911",), passages, (1,))
    cut = in_sentences(example)
    assert [passage.title for passage in cut.passages] == ["Ard", "Ida Holm", "Marren"]
    assert [passage.text for passage in cut.passages] == [
        "The bridge over it was built of oak.",
        SECOND,
        "A town.",
    ]
    assert (cut.gold, cut.answers, cut.question) == ((1,), ("1911",), example.question)
