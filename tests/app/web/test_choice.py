"""What somebody chose, and what is read for it."""

from __future__ import annotations

import pytest

from scratchpad_rag.app.web.choice import Choice, checked_question
from scratchpad_rag.app.web.questions import Questions
from scratchpad_rag.errors import UserError
from scratchpad_rag.records import Example, Passage

PASSAGES = tuple(Passage(f"Town {n}", f"Town {n} has a market.") for n in range(6))
QUESTIONS = Questions(
    [
        Example("one", "who", ("x",), PASSAGES, (0,)),
        Example("two", "what", ("x",), PASSAGES, (0, 1)),
        Example("none", "why", (), PASSAGES, ()),
    ]
)


def choice(
    sample: int | None = 0, typed: str = "", documents: int = 5, position: int = 3
) -> Choice:
    return Choice(QUESTIONS, sample, typed, documents, position)


@pytest.mark.parametrize(
    ("chosen", "gold"),
    [
        (choice(), (2,)),
        (choice(position=9), (4,)),  # behind the end: the last place
        (choice(sample=1, position=9), (3, 4)),  # two that end the context
        (choice(sample=1, documents=1), (0, 1)),  # all gold passages or none
        (choice(sample=2), ()),
        (choice(documents=0), ()),
    ],
)
def test_where_the_gold_passages_stand(chosen: Choice, gold: tuple[int, ...]) -> None:
    [asked] = chosen.asked()
    assert asked.gold == gold
    assert chosen.previewed() == asked


def test_the_walk_goes_from_the_first_place_to_the_last() -> None:
    assert [one.gold for one in choice(documents=6).walked()] == [(0,), (1,), (2,), (3,), (5,)]
    assert [one.gold for one in choice(sample=1, documents=4).walked()] == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("chosen", [choice(typed="who?"), choice(sample=None), choice(documents=0)])
def test_nothing_to_walk_through(chosen: Choice) -> None:
    with pytest.raises(UserError, match="only a sample question"):
        list(chosen.walked())


@pytest.mark.parametrize(
    ("chosen", "last", "most", "why"),
    [
        (choice(), 5, 6, ""),
        (choice(sample=1), 4, 6, ""),
        (choice(typed=" who "), 5, 20, "Nobody knows which passage answers a typed question."),
        (choice(sample=2), 5, 6, "No passage is known to answer this question."),
        (choice(documents=0), 1, 6, "No passage is shown."),
        (choice(sample=None), 5, 20, "No passage is known to answer this question."),
    ],
)
def test_what_the_sliders_may_be_moved_to(chosen: Choice, last: int, most: int, why: str) -> None:
    found = chosen.last_position, chosen.most_documents(20), chosen.why_no_position
    assert found == (last, most, why)


def test_a_typed_question_is_asked_of_what_matches_it() -> None:
    typed = choice(typed=" which is town 4 ", documents=1)
    [asked] = typed.asked()
    assert (asked.question, asked.passages) == ("which is town 4", (PASSAGES[4],))
    assert typed.previewed() is None


@pytest.mark.parametrize("chosen", [choice(typed="  "), choice(sample=None)])
def test_no_question(chosen: Choice) -> None:
    with pytest.raises(UserError, match="there is no question"):
        list(chosen.asked())


@pytest.mark.parametrize("text", ["", "  \n ", "?", " ?? "])
def test_nothing_is_no_question(text: str) -> None:
    with pytest.raises(UserError, match="there is no question"):
        checked_question(text)


def test_a_very_long_question_is_refused_with_its_length() -> None:
    with pytest.raises(UserError, match=r"has 20,000 characters; 2,000 are the most"):
        checked_question("x" * 20_000)
    assert checked_question("  who? ") == "who?"
