import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.data.curriculum import (
    Curriculum,
    Placement,
    place_drawn,
    plan_epoch,
    require_drawable,
)
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage


def question(number: int, gold: Sequence[int] = (2,), passages: int = 9) -> Example:
    titles = [f"{'G' if at in gold else 'D'}{at}" for at in range(passages)]
    shown = tuple(Passage(title, f"{title} of {number}.") for title in titles)
    return Example(f"q{number:03}", f"who is number {number}", ("she",), shown, tuple(gold))


def questions(count: int) -> list[Example]:
    return [question(number) for number in range(count)]


def titles(example: Example) -> list[str]:
    return [passage.title for passage in example.passages]


def spread(counts: Sequence[int]) -> int:
    return max(counts) - min(counts)


@st.composite
def curricula(draw: st.DrawFn) -> Curriculum:
    fewest = draw(st.integers(1, 9))
    rate = draw(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]))
    return Curriculum(fewest, draw(st.integers(fewest, 9)), rate, draw(st.integers(0, 5)))


# --- by hand


def test_as_many_questions_as_positions_take_each_position_once() -> None:
    curriculum = Curriculum(20, 20)
    asked = questions(20)
    plans = [plan_epoch(asked, curriculum, epoch) for epoch in range(20)]
    for plan in plans:
        assert {placement.total_docs for placement in plan} == {20}
        assert sorted(placement.gold_at or 0 for placement in plan) == list(range(20))
    # In as many epochs as there are positions each question was at all of them.
    for index in range(20):
        assert sorted(plan[index].gold_at or 0 for plan in plans) == list(range(20))


def test_every_document_count_with_every_position_comes_once() -> None:
    """Two, three and four documents have 2 + 3 + 4 positions, but the counts are as frequent."""
    curriculum = Curriculum(2, 4)
    seen = Counter(plan_epoch(questions(36), curriculum, epoch=5))
    expected = {(2, at): 6 for at in range(2)} | {(3, at): 4 for at in range(3)}
    assert seen == expected | {(4, at): 3 for at in range(4)}


def test_a_quarter_goes_without_gold_each_in_turn() -> None:
    curriculum = Curriculum(4, 4, no_gold_rate=0.25)
    asked = questions(8)
    without = [
        {index for index, p in enumerate(plan_epoch(asked, curriculum, epoch)) if p.gold_at is None}
        for epoch in range(8)
    ]
    assert [len(some) for some in without] == [2] * 8
    assert set().union(*without[:4]) == set().union(*without[4:]) == set(range(8))


def test_the_plan_is_drawn_from_the_seed() -> None:
    plans = {plan_epoch(questions(40), Curriculum(9, 9, seed=seed), 0) for seed in range(5)}
    assert len(plans) == 5


def test_who_goes_without_gold_is_drawn_from_the_seed() -> None:
    without = {
        tuple(p.gold_at is None for p in plan_epoch(questions(40), Curriculum(5, 5, 0.5, seed), 0))
        for seed in range(5)
    }
    assert len(without) == 5


def test_each_number_of_gold_passages_is_balanced_when_the_circle_closes() -> None:
    """Of 9 and 10 questions with one and two gold passages, another 5 have none every epoch."""
    asked = [question(number, range(1 + number % 2)) for number in range(1, 20)]
    for epoch in range(12):
        plan = plan_epoch(asked, Curriculum(4, 4, no_gold_rate=0.26), epoch)
        for gold, positions in ((1, 4), (2, 3)):
            pairs = zip(asked, plan, strict=True)
            at = Counter(p.gold_at for example, p in pairs if len(example.gold) == gold)
            assert spread([at[position] for position in range(positions)]) <= 1


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = random.getstate()
    plan_epoch(questions(10), Curriculum(1, 9, 0.2), 3)
    assert random.getstate() == before


# --- whatever the curriculum


@given(curricula(), st.integers(1, 60), st.integers(0, 30))
def test_counts_and_positions_are_balanced(curriculum: Curriculum, n: int, epoch: int) -> None:
    plan = plan_epoch(questions(n), curriculum, epoch)
    totals = Counter(placement.total_docs for placement in plan)
    counts = range(curriculum.min_docs, curriculum.max_docs + 1)
    assert totals.keys() <= set(counts)
    assert spread([totals[count] for count in counts]) <= 1
    for count in counts:
        at = Counter(p.gold_at for p in plan if p.total_docs == count and p.gold_at is not None)
        assert at.keys() <= set(range(count))
        assert spread([at[position] for position in range(count)]) <= 1


@given(curricula(), st.integers(1, 60), st.integers(1, 30))
def test_so_many_go_without_gold_and_it_rotates(
    curriculum: Curriculum, n: int, epochs: int
) -> None:
    times = Counter(dict.fromkeys(range(n), 0))
    for epoch in range(epochs):
        plan = plan_epoch(questions(n), curriculum, epoch)
        without = [index for index, placement in enumerate(plan) if placement.gold_at is None]
        assert len(without) == round(curriculum.no_gold_rate * n)
        times.update(without)
    assert spread(list(times.values())) <= 1


@given(curricula(), st.integers(1, 40), st.integers(0, 30))
def test_no_question_keeps_its_placement(curriculum: Curriculum, n: int, epoch: int) -> None:
    now = plan_epoch(questions(n), curriculum, epoch)
    then = plan_epoch(questions(n), curriculum, epoch + 1)
    if curriculum.max_docs > 1:
        for one, other in zip(now, then, strict=True):
            assert one != other or one.gold_at is None


@given(st.integers(2, 9), st.integers(1, 40), st.integers(0, 30))
def test_a_question_comes_to_all_positions_of_a_count(most: int, n: int, epoch: int) -> None:
    """Over counts from `most - 1` on, each count comes every second epoch."""
    curriculum = Curriculum(most - 1, most)
    epochs = range(epoch, epoch + 2 * most)
    plans = [plan_epoch(questions(n), curriculum, e) for e in epochs]
    for index in range(n):
        seen = {plan[index] for plan in plans}
        for count in (most - 1, most):
            assert {p.gold_at for p in seen if p.total_docs == count} == set(range(count))


@given(curricula(), st.lists(st.integers(1, 5), min_size=1, max_size=40), st.integers(0, 30))
def test_several_gold_passages_are_always_inside(
    curriculum: Curriculum, golds: list[int], epoch: int
) -> None:
    asked = [question(number, range(gold)) for number, gold in enumerate(golds)]
    if curriculum.max_docs < max(golds):
        with pytest.raises(DataError, match="gold passages, which do not fit"):
            require_drawable(asked, curriculum)
        return
    require_drawable(asked, curriculum)
    starts: defaultdict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    for example, placement in zip(asked, plan_epoch(asked, curriculum, epoch), strict=True):
        shown = place_drawn(example, placement)
        assert curriculum.min_docs <= placement.total_docs <= curriculum.max_docs or (
            placement.total_docs == len(example.gold)
        )
        if placement.gold_at is None:
            assert shown.gold == ()
            assert not {title for title in titles(shown) if title.startswith("G")}
        else:
            assert len(shown.passages) == placement.total_docs
            last = placement.gold_at + len(example.gold)
            assert shown.gold == tuple(range(placement.gold_at, last))
            assert shown.gold_passages == example.gold_passages
            starts[len(example.gold), placement.total_docs][placement.gold_at] += 1
    for (gold, total), at in starts.items():
        assert spread([at[position] for position in range(total - gold + 1)]) <= 1


@given(curricula(), st.integers(1, 40), st.integers(0, 30), st.randoms())
def test_a_plan_depends_on_nothing_but_its_arguments(
    curriculum: Curriculum, n: int, epoch: int, shuffler: random.Random
) -> None:
    asked = questions(n)
    plan = dict(zip(asked, plan_epoch(asked, curriculum, epoch), strict=True))
    plan_epoch(asked, curriculum, epoch + 1)
    shuffler.shuffle(asked)
    assert dict(zip(asked, plan_epoch(asked, curriculum, epoch), strict=True)) == plan


def test_nothing_to_place() -> None:
    assert plan_epoch([], Curriculum(3, 5, 0.5), 0) == ()


# --- how a placement is shown


def test_gold_passages_are_moved_and_distractors_keep_their_rank() -> None:
    shown = place_drawn(question(0, (1, 4), passages=7), Placement(4, 2))
    assert titles(shown) == ["D0", "D2", "G1", "G4"]
    assert shown.gold == (2, 3)


def test_without_gold_further_distractors_take_its_place() -> None:
    example = question(0, (1,), passages=5)
    assert titles(place_drawn(example, Placement(3, None))) == ["D0", "D2", "D3"]
    assert titles(place_drawn(example, Placement(4, None))) == ["D0", "D2", "D3", "D4"]
    # There is no fifth one.
    shown = place_drawn(example, Placement(5, None))
    assert titles(shown) == ["D0", "D2", "D3", "D4"]
    assert shown.gold == ()
    assert (shown.id, shown.answers) == (example.id, example.answers)


def test_without_gold_no_copy_of_it_is_left() -> None:
    gold, other = Passage("G", "the answer"), Passage("D", "no answer")
    example = Example("q", "who", ("she",), (gold, other, gold), (0,))
    assert place_drawn(example, Placement(2, None)).passages == (other,)


# --- what does not fit


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (question(7, passages=4), "'q007' has 4 passages, and up to 5 documents"),
        (question(7, ()), "'q007' has no gold passage"),
        (question(7, range(6)), "'q007' has 6 gold passages, which do not fit into 5 documents"),
        (question(7, range(5), passages=5), "'q007' has nothing but gold passages"),
    ],
)
def test_questions_that_do_not_fit_are_named(example: Example, said: str) -> None:
    with pytest.raises(DataError, match=said):
        require_drawable([question(1), example], Curriculum(3, 5, no_gold_rate=0.1))


def test_nothing_but_gold_is_fine_where_it_is_always_shown() -> None:
    require_drawable([question(7, range(5), passages=5)], Curriculum(3, 5))
