"""Hand-worked curves, and simulated readers whose true loss is known."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scratchpad_rag.evaluate.robustness import (
    doubling_slope,
    length_robustness,
    position_robustness,
    split_drop,
)
from tests.evaluate.test_statistics import a_score


def table_of(questions: int, chances: list[float], seed: int) -> np.ndarray:
    """Answers of 0 and 1 that agree with each other within a question, as real ones do."""
    rng = np.random.default_rng(seed)
    common, own = rng.random((questions, 1)), rng.random((questions, len(chances)))
    drawn = np.where(rng.random((questions, len(chances))) < 0.6, common, own)
    return (drawn < np.array(chances)).astype(np.float64)


def test_drop_of_an_unmistakable_curve_is_best_minus_worst() -> None:
    table = np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]] * 30)  # 1, 0 and a half
    interval = split_drop(table, resamples=200)
    assert (interval.estimate, interval.low, interval.high) == (1.0, 1.0, 1.0)
    assert interval.n == 180


def test_drop_agrees_with_every_split_of_few_questions() -> None:
    table = np.array([[1, 0], [0, 1], [1, 0], [1, 1]], dtype=float)
    drops = []
    for half in itertools.combinations(range(4), 2):
        one = table[list(half)].mean(axis=0)
        other = table[[i for i in range(4) if i not in half]].mean(axis=0)
        # The same position is picked twice where both are alike.
        picked = [other[m.argmax()] - other[m.argmin()] for m in (one,)]
        picked += [one[m.argmax()] - one[m.argmin()] for m in (other,)]
        drops.append(sum(picked) / 2)
    estimates = [split_drop(table, resamples=1, seed=seed).estimate for seed in range(60)]
    assert np.mean(estimates) == pytest.approx(np.mean(drops), abs=0.02)


def test_drop_of_a_robust_reader_is_zero_on_average_and_the_naive_one_is_not() -> None:
    drops, naive = [], []
    for seed in range(200):
        table = table_of(500, [0.6] * 5, seed)
        drops.append(split_drop(table, resamples=1, seed=seed).estimate)
        naive.append(np.ptp(table.mean(axis=0)))
    assert np.mean(drops) == pytest.approx(0.0, abs=4 * np.std(drops) / 200**0.5)
    assert abs(np.mean(drops)) < 0.004
    assert np.mean(naive) > 0.03


def test_drop_never_overstates_on_average() -> None:
    chances = [0.75, 0.57, 0.54, 0.55, 0.63]
    drops = [
        split_drop(table_of(300, chances, seed), resamples=1, seed=seed).estimate
        for seed in range(150)
    ]
    assert 0.18 < np.mean(drops) < 0.2125


@given(st.integers(0, 2**32 - 1), st.integers(4, 40), st.integers(2, 6))
def test_drop_minds_neither_the_order_of_questions_nor_a_shift(
    seed: int, questions: int, positions: int
) -> None:
    rng = np.random.default_rng(seed)
    table = (rng.random((questions, positions)) < 0.5).astype(float)
    interval = split_drop(table, resamples=20)
    assert split_drop(rng.permutation(table), resamples=20) == interval
    assert interval.low <= interval.high
    assert -1 <= interval.estimate <= 1
    shifted = split_drop(table + 3, resamples=20).estimate
    assert shifted == pytest.approx(interval.estimate)


def test_position_robustness_by_hand() -> None:
    right = {0: (1, 1, 1, 1, 0), 9: (0, 1, 0, 0, 0), 4: (1, 1, 0, 0, 0)}
    scores = [
        a_score("sft", f"q{number}", position, float(value), documents=10)
        for position, values in right.items()
        for number, value in enumerate(values)
    ]
    others = [
        a_score("sft", "q9", 0, 1.0, documents=10),  # at one position only
        a_score("sft", "q0", 0, 0.0, documents=20),
        a_score("sft", "q0", None, 0.0, documents=10),
        replace(a_score("sft", "q0", 0, 0.0, documents=10), dataset="squad"),
        replace(a_score("sft", "q0", 0, 0.0, documents=10), passage_order="reversed"),
        a_score("sft", "q0", 8, 0.0, documents=10),  # a position that one question has
    ]
    result = position_robustness(scores + others, documents=10, resamples=200)
    assert result is not None
    assert [(at, i.estimate, i.n) for at, i in result.curve] == [
        (0, 0.8, 5),
        (4, 0.4, 5),
        (9, 0.2, 5),
    ]
    assert (result.best, result.worst, result.questions) == (0, 9, 5)
    assert result.naive_drop == pytest.approx(0.6)
    # Columns 4, 2, 1; rows 2, 3, 1, 1, 0: Q = 2 (3 * 21 - 49) / (3 * 7 - 15) = 28 / 6
    assert result.cochran.statistic == pytest.approx(28 / 6)
    assert (result.dataset, result.passage_order, result.num_documents) == ("", "ranked", 10)


def test_positions_of_several_gold_passages_are_places() -> None:
    scores = [
        replace(
            a_score("sft", f"q{number}", 0, right, documents=20),
            gold_positions=tuple(range(at, at + hops)),
        )
        for number, hops in enumerate([2, 2, 2, 3, 4])
        for at, right in ((0, 1.0), (20 - hops, float(number == 4)))
    ]
    result = position_robustness(scores, documents=20, resamples=50)
    assert result is not None
    assert [(at, i.estimate) for at, i in result.curve] == [(0, 1.0), (18, 0.2)]


def test_robustness_of_too_little_is_none() -> None:
    one_position = [a_score("sft", f"q{i}", 0) for i in range(9)]
    three_questions = [a_score("sft", f"q{i}", at) for i in range(3) for at in (0, 4)]
    assert position_robustness(one_position, documents=5) is None
    assert position_robustness(three_questions, documents=5) is None
    assert position_robustness([], documents=5) is None
    assert length_robustness(one_position) is None
    mixed = [*one_position, a_score("scratchpad", "q1", 0)]
    for robustness in (length_robustness, lambda s: position_robustness(s, documents=5)):
        with pytest.raises(ValueError, match="of one method are needed, not of scratchpad, sft"):
            robustness(mixed)


def test_slope_is_that_of_least_squares_with_an_intercept_a_question() -> None:
    lengths = [5, 10, 20, 60]
    table = np.random.default_rng(1).random((40, 4))
    design = np.zeros((160, 41))
    design[:, 0] = np.tile(np.log2(lengths), 40)
    design[np.arange(160), 1 + np.repeat(np.arange(40), 4)] = 1
    expected = np.linalg.lstsq(design, table.ravel(), rcond=None)[0][0]
    interval = doubling_slope(lengths, table, resamples=40_000)
    assert interval.estimate == pytest.approx(expected)
    own = [stats.linregress(np.log2(lengths), row).slope for row in table]
    low, high = stats.t.interval(0.95, 39, np.mean(own), stats.sem(own))
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.004)


def test_length_robustness_by_hand() -> None:
    scores = [
        a_score("sft", question, at, right, documents=documents)
        for question, documents, at, right in [
            ("q1", 5, 0, 1.0), ("q1", 5, 4, 1.0), ("q1", 20, 0, 1.0), ("q1", 20, 19, 0.0),
            ("q2", 5, 0, 1.0), ("q2", 5, 4, 0.0), ("q2", 20, 0, 0.0), ("q2", 20, 19, 0.0),
            ("q3", 5, 0, 1.0),  # at one length only
        ]
    ]  # fmt: skip
    scores.append(a_score("sft", "q1", None, 0.0, documents=20))  # no gold shown
    result = length_robustness(scores, resamples=100)
    assert result is not None
    assert [(n, i.estimate) for n, i in result.curve] == [(5, 0.75), (20, 0.25)]
    assert result.slope.estimate == pytest.approx(-0.25)  # half over two doublings
    assert result.questions == 2
