from collections.abc import Sequence

import pytest

from scratchpad_rag.data.retrieve.base import Ranking
from scratchpad_rag.data.retrieve.found import as_retrieved, count_absent, recall_at
from scratchpad_rag.data.retrieve.near import Pool
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage

BRIDGE = Passage("Bridge", "The bridge was built by Ida Holm in 1874.")
TOWN = Passage("Town", "Ida Holm was born in the town of Corvin.")
POOL = [
    Passage("Mill", "A mill by the river."),
    Passage("Bridge, a copy", "the bridge, built by Ida Holm in 1874, is long"),  # 7 of 7 words
    Passage("Town of another title", "Ida Holm was born in the town of Corvin"),  # the same text
    BRIDGE,
    Passage("Lake", "A lake."),
]
QUESTION = Example("q", "where was the builder born?", ("Corvin",), (TOWN, BRIDGE), (1, 0))


class Ordered:
    """Ranks the pool as it stands."""

    def rank(self, questions: Sequence[Example], depth: int) -> list[Ranking]:
        return [Ranking(list(range(depth)), [0.0] * depth) for _ in questions]


def found(count: int, question: Example = QUESTION) -> Example:
    (example,) = as_retrieved([question], Pool(POOL), Ordered(), count, 0.8)
    return example


def test_marks_are_where_the_gold_passages_stand() -> None:
    example = found(5)
    assert example.passages == tuple(POOL)
    # In the order of the reasoning: the bridge, though its copy ranks first, then the town.
    assert example.gold == (3, 2)
    assert example.gold_total is None
    assert example.also_hold == (1,)


def test_a_near_copy_is_the_mark_where_the_text_itself_was_not_found() -> None:
    example = found(3)
    assert (example.gold, example.gold_total, example.also_hold) == ((1, 2), None, ())


def test_what_was_not_found_is_counted() -> None:
    example = found(2)
    assert (example.gold, example.gold_total) == ((1,), 2)
    nothing = found(1)
    assert (nothing.gold, nothing.gold_total, nothing.passages) == ((), 2, (POOL[0],))


def test_two_gold_passages_never_share_a_mark() -> None:
    twice = Example("q", "?", ("x",), (BRIDGE, POOL[1]), (0, 1))
    example = found(2, twice)
    assert (example.gold, example.gold_total) == ((1,), 2)


def test_a_total_that_a_question_brings_stays() -> None:
    partly = Example("q", "?", ("x",), (BRIDGE,), (0,), gold_total=3)
    assert found(5, partly).gold_total == 3


def test_recall_is_the_mean_share_of_gold_passages() -> None:
    passages = tuple(POOL)
    examples = [
        Example("1", "?", ("x",), passages, (0, 4)),  # at 1: 1/2, at 5: 2/2
        Example("2", "?", ("x",), passages, (3,), gold_total=2),  # 0, 1/2
        Example("3", "?", ("x",), passages, (), gold_total=1),  # 0, 0
        Example("4", "?", ("x",), passages, ()),  # has none to find
    ]
    assert recall_at(examples, 1) == pytest.approx(1 / 6)
    assert recall_at(examples, 5) == pytest.approx(1.5 / 3)
    assert recall_at(examples[3:], 5) is None


def test_questions_without_any_gold_passage_in_the_pool() -> None:
    def question(*gold: Passage) -> Example:
        return Example("q", "?", ("x",), gold, tuple(range(len(gold))))

    questions = [
        question(BRIDGE),  # as it stands
        question(Passage("Other", "a MILL, by the river!")),  # but for case, marks and articles
        question(Passage("Sea", "The sea."), BRIDGE),  # one of two
        question(Passage("Sea", "The sea.")),
        question(),
    ]
    unfound = [Example("q", "?", ("x",), (POOL[4],), ()) for _ in questions]
    assert count_absent(questions, unfound, Pool(POOL)) == 1
    marked = [*unfound[:3], Example("q", "?", ("x",), (POOL[4],), (0,)), unfound[4]]
    assert count_absent(questions, marked, Pool(POOL)) == 0


@pytest.mark.parametrize("count", [0, 6])
def test_more_passages_than_the_pool_has_are_refused(count: int) -> None:
    with pytest.raises(DataError, match=rf"as_retrieved {count} is outside 1\.\.5"):
        found(count)
