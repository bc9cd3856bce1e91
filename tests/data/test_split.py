import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.data.split import draw_samples, split_by_question
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage

GOLD_AT = (0, 4, 9, 14, 19)


def question(identity: str, text: str) -> Example:
    return Example(identity, text, ("she",), (Passage("T", "t"),), (0,))


def questions(count: int) -> list[Example]:
    return [question(f"q{number:03}", f"who is number {number}") for number in range(count)]


def test_one_question_is_on_one_side_only() -> None:
    spellings = ["{}", "{}?", " {} ?", "{}  "]
    examples = [
        question(f"{number}-{form}", form.format(f"Who is {number}").swapcase())
        for number in range(40)
        for form in spellings
    ]
    for seed in range(10):
        split = split_by_question(examples, 0.5, seed)
        assert len(split.train) == len(split.val) == 80
        sides = [{example.id.split("-")[0] for example in side} for side in split]
        assert not sides[0] & sides[1]


def test_sides_do_not_depend_on_the_order_of_the_file() -> None:
    examples = questions(50)
    split = split_by_question(examples, 0.8, seed=3)
    assert (len(split.train), len(split.val)) == (40, 10)
    backwards = split_by_question(examples[::-1], 0.8, seed=3)
    assert backwards.train == split.train[::-1]
    assert backwards.val == split.val[::-1]
    assert split_by_question(examples, 0.8, seed=4) != split
    assert split.train == sorted(split.train, key=lambda example: example.id)


@given(st.lists(st.sampled_from("abcdefgh")), st.floats(0, 1), st.integers(0, 99))
def test_split_is_a_partition(texts: list[str], ratio: float, seed: int) -> None:
    examples = [question(str(number), text) for number, text in enumerate(texts)]
    train, val = split_by_question(examples, ratio, seed)
    assert Counter(e.id for e in train + val) == Counter(e.id for e in examples)
    assert not {e.question for e in train} & {e.question for e in val}
    assert len({e.question for e in train}) == round(ratio * len(set(texts)))


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_ratio_outside(ratio: float) -> None:
    with pytest.raises(DataError, match=r"train_ratio .* is outside 0\.\.1"):
        split_by_question(questions(3), ratio, 0)


def test_training_samples_use_each_question_once_a_round() -> None:
    draw = draw_samples(questions(7), 7, GOLD_AT, seed=0, by="question")
    assert sorted(example.id for example, _ in draw.samples) == [f"q{n:03}" for n in range(7)]
    assert Counter(position for _, position in draw.samples) == {0: 2, 4: 2, 9: 1, 14: 1, 19: 1}
    assert (draw.asked, draw.available, draw.is_short) == (7, 35, False)


@given(
    st.integers(1, 12),
    st.lists(st.integers(0, 30), min_size=1, max_size=6, unique=True),
    st.integers(0, 80),
    st.integers(0, 5),
)
def test_training_samples_are_balanced(
    count: int, gold_at: list[int], num_samples: int, seed: int
) -> None:
    draw = draw_samples(questions(count), num_samples, gold_at, seed, by="question")
    assert draw.available == count * len(gold_at)
    assert len(draw.samples) == min(num_samples, draw.available)
    assert draw.is_short == (num_samples > draw.available)
    assert len(set(draw.samples)) == len(draw.samples)
    for taken in range(len(draw.samples) + 1):
        used = Counter(position for _, position in draw.samples[:taken])
        asked = Counter(example.id for example, _ in draw.samples[:taken])
        position_counts = [used[position] for position in gold_at]
        question_counts = [asked[f"q{number:03}"] for number in range(count)]
        assert max(position_counts) - min(position_counts) <= 1
        assert max(question_counts) - min(question_counts) <= 1


@given(st.integers(1, 12), st.integers(0, 80), st.integers(0, 5))
def test_validation_samples_are_paired(count: int, num_samples: int, seed: int) -> None:
    draw = draw_samples(questions(count), num_samples, GOLD_AT, seed, by="position")
    assert len(draw.samples) == min(num_samples, 5 * count)
    whole = draw.samples[: len(draw.samples) // 5 * 5]
    for start in range(0, len(whole), 5):
        group = whole[start : start + 5]
        assert len({example.id for example, _ in group}) == 1
        assert tuple(position for _, position in group) == GOLD_AT
    heads = [example.id for example, _ in draw.samples[::5]]
    assert len(set(heads)) == len(heads)


def test_draws_are_reproducible_and_leave_the_global_generator_alone() -> None:
    random.seed(1)
    before = random.getstate()
    for by in ("question", "position"):
        draws = [draw_samples(questions(20), None, GOLD_AT, seed, by) for seed in (5, 5, 6)]
        assert draws[0] == draws[1] != draws[2]
        assert draws[0].asked == draws[0].available == 100
        backwards = draw_samples(questions(20)[::-1], None, GOLD_AT, 5, by)
        assert backwards == draws[0]
    assert random.getstate() == before


def test_fewer_samples_are_a_beginning_of_more() -> None:
    many = draw_samples(questions(9), 40, GOLD_AT, 2, "question").samples
    few = draw_samples(questions(9), 11, GOLD_AT, 2, "question").samples
    assert few == many[:11]
    firsts = [example.id for example, _ in many]
    assert firsts[:9] == firsts[9:18]
    assert all(one != other for one, other in pairwise(firsts))


def test_bad_draws() -> None:
    with pytest.raises(DataError, match="unknown order of samples 'random'"):
        draw_samples(questions(2), 1, GOLD_AT, 0, "random")
    with pytest.raises(DataError, match="number of samples cannot be -1"):
        draw_samples(questions(2), -1, GOLD_AT, 0, "question")
    with pytest.raises(DataError, match=r"gold_at \[\] must name one or more"):
        draw_samples(questions(2), 1, (), 0, "question")
    with pytest.raises(DataError, match=r"gold_at \[3, 3\] must name"):
        draw_samples(questions(2), 1, (3, 3), 0, "question")
    with pytest.raises(DataError, match="'q000' occurs twice"):
        draw_samples(questions(2) + questions(1), 1, GOLD_AT, 0, "question")
    assert draw_samples([], None, GOLD_AT, 0, "question").samples == []
