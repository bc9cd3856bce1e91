"""Whether a passage holds an answer: with and without the quick look that passes most over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.data.answers import AnswerFinder
from scratchpad_rag.records import Passage


@pytest.mark.parametrize(
    ("answer", "text", "held"),
    [
        ("Ida Holm", "built by ida holm.", True),
        ("Ida Holm", "built by Ida Holmes.", False),
        ("the U.S.", "In the US it rained.", True),
        ("x-ray", "An X ray of it.", True),
        ("xray", "An x-ray of it.", True),
        ("Röntgen", "Röntgen’s rays", True),
        ("700", "some 3,700 pairs", False),
        ("3,700", "some 3700 pairs", True),
        ("3700", "some 3,700 pairs", True),
        ("700", "a wing of 700 mm", True),
        ("3.5", "35 miles", True),  # SQuAD's normal form joins them: a false alarm, known
        ("no", "There is no river.", False),
        ("the", "the the the", False),
        ("!", "What!", False),
    ],
)
def test_whole_words_in_two_normal_forms(answer: str, text: str, held: bool) -> None:
    found = AnswerFinder([answer]).find(Passage("A title", text))
    assert found == (answer if held else None)


def test_titles_count_and_the_answer_is_named() -> None:
    passage = Passage("Holm Light", "It stands by the sea.")
    assert AnswerFinder(["1874", "Holm"]).find(passage) == "Holm"


def test_yes_and_no_cannot_be_looked_for() -> None:
    assert not AnswerFinder(["yes"]).findable
    assert not AnswerFinder(["a", "!"]).findable
    assert AnswerFinder(["yes", "Ida"]).findable


ALPHABET = "aB é.,-'\" 19\n’ß"


@given(st.text(ALPHABET, max_size=8), st.text(ALPHABET, max_size=20), st.text(ALPHABET, max_size=8))
def test_the_quick_look_passes_nothing_over(answer: str, text: str, title: str) -> None:
    finder = AnswerFinder([answer])
    quick = finder.find(Passage(title, text))
    finder._needles = {""} if finder.findable else set()  # in every text: nothing is passed over
    assert quick == finder.find(Passage(title, text))
