"""Against statsmodels and scipy, by hand, and by enumeration of every resample."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import cochrans_q, mcnemar
from statsmodels.stats.multitest import multipletests

from scratchpad_rag.evaluate.distributions import chi_squared_tail, t_quantile
from scratchpad_rag.evaluate.significance import (
    cochran_q,
    detectable_difference,
    detectable_mean_difference,
    holm,
    paired_bootstrap_p,
)

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 29, 30, 99, 100, 101, 499, 5000])
def test_quantiles_and_tails_are_scipys(degrees: int) -> None:
    for probability in (0.5001, 0.6, 0.9, 0.975, 0.9995):
        assert t_quantile(probability, degrees) == pytest.approx(
            stats.t.ppf(probability, degrees), rel=1e-8
        )
    for value in (0.0, 1e-9, 0.1, 1.0, 5.0, 20.0, 100.0, 900.0):
        assert chi_squared_tail(value, min(degrees, 100)) == pytest.approx(
            stats.chi2.sf(value, min(degrees, 100)), rel=1e-9, abs=1e-300
        )


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.2: times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.2.
    assert holm([0.2, 0.01, 0.03, 0.02]) == pytest.approx((0.2, 0.04, 0.06, 0.06))
    assert holm([0.6, 0.7]) == (1.0, 1.0)
    assert holm([]) == ()
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.1, 1.1])


@given(P_VALUES)
def test_holm_is_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


@given(P_VALUES, st.randoms())
def test_holm_keeps_the_order_and_follows_a_permutation(
    p_values: list[float], random: object
) -> None:
    adjusted = holm(p_values)
    for (p, a), (q, b) in itertools.combinations(zip(p_values, adjusted, strict=True), 2):
        assert (p - q) * (a - b) >= 0
    assert all(a >= p for p, a in zip(p_values, adjusted, strict=True))
    order = list(range(len(p_values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert holm([p_values[i] for i in order]) == tuple(adjusted[i] for i in order)


def test_cochran_by_hand() -> None:
    # Columns 6, 4, 2, T = 12; rows 3, 2, 2, 2, 1, 1 and one of 1: L^2 = 9 + 12 + 3 = 24, T = 12.
    rows = [[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 0], [1, 0, 0], [0, 1, 0]]
    result = cochran_q(rows)
    # Q = 2 (3 (36 + 16 + 4) - 144) / (3 * 12 - 24) = 2 * 24 / 12 = 4
    assert (result.statistic, result.degrees, result.questions) == (pytest.approx(4.0), 2, 7)
    assert result.test == "permutation"  # six undecided questions of three: 18 values


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_cochran_is_statsmodels(seed: int, positions: int) -> None:
    rng = np.random.default_rng(seed)
    table = (rng.random((60, positions)) < rng.random((60, 1))).astype(float)
    theirs = cochrans_q(table)
    ours = cochran_q(table.tolist())
    assert ours.statistic == pytest.approx(theirs.statistic)
    undecided = sum(0 < row.sum() < positions for row in table)
    if undecided * positions >= 24:  # below, p is counted, not taken from chi-squared
        assert ours.test == "chi-squared"
        assert ours.p_value == pytest.approx(theirs.pvalue)
    else:
        assert ours.test == "permutation"
    mixed = cochran_q(rng.permutation(rng.permutation(table), axis=1).tolist())
    assert mixed.statistic == pytest.approx(ours.statistic)


def test_cochran_of_two_positions_is_mcnemar_without_correction() -> None:
    rows = [[1, 0]] * 20 + [[0, 1]] * 9 + [[1, 1]] * 30
    theirs = mcnemar([[30, 20], [9, 0]], exact=False, correction=False)
    ours = cochran_q(rows)
    assert (ours.statistic, ours.p_value) == pytest.approx((theirs.statistic, theirs.pvalue))


def test_cochran_of_few_questions_agrees_with_every_permutation() -> None:
    rows = [(1, 0, 0), (1, 0, 0), (1, 1, 0), (1, 0, 1), (1, 1, 1)]
    wanted = cochran_q(rows).statistic
    as_large = [
        cochran_q([*picked, rows[4]]).statistic >= wanted - 1e-9
        for picked in itertools.product(*(sorted(set(itertools.permutations(r))) for r in rows[:4]))
    ]
    assert len(as_large) == 81
    assert cochran_q(rows, resamples=50_000).p_value == pytest.approx(np.mean(as_large), abs=0.01)


def test_cochran_without_any_difference_and_bad_input() -> None:
    same = cochran_q([[1, 1, 1], [0, 0, 0]])
    assert (same.statistic, same.p_value, same.degrees) == (0.0, 1.0, 2)
    for rows, message in [([[1, 0], [1]], "one value"), ([[1], [0]], "two"), ([[0.5, 1]], "0 and")]:
        with pytest.raises(ValueError, match=message):
            cochran_q(rows)


def test_bootstrap_p_agrees_with_every_resample() -> None:
    sums = [2.0, 1.0, 0.0, 1.0]  # of two samples each: a mean of 4 / 8
    a = {(q, p): 1.0 if p < s else 0.0 for q, s in enumerate(sums) for p in (0, 1)}
    b = dict.fromkeys(a, 0.0)
    shifted = [s - 1 for s in sums]
    means = [sum(d) / 8 * math.sqrt(4 / 3) for d in itertools.product(shifted, repeat=4)]
    expected = np.mean([abs(m) >= 0.5 for m in means])
    assert paired_bootstrap_p(a, b, resamples=40_000) == pytest.approx(expected, abs=0.01)
    assert paired_bootstrap_p(b, a, resamples=40_000) == pytest.approx(expected, abs=0.01)


def test_bootstrap_p_is_the_t_tests_for_many_questions() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(0.1, 1, size=400)
    a = {(i,): v for i, v in enumerate(values)}
    theirs = stats.ttest_1samp(values, 0).pvalue
    ours = paired_bootstrap_p(a, dict.fromkeys(a, 0.0), resamples=20_000)
    assert ours == pytest.approx(theirs, abs=0.01)


def test_bootstrap_p_of_equals_one_question_and_strangers() -> None:
    a = {("q1", 0): 1.0, ("q2", 0): 0.0}
    assert paired_bootstrap_p(a, a) == 1.0
    assert paired_bootstrap_p({("q", 0): 1.0}, {("q", 0): 0.0}) == 1.0
    with pytest.raises(ValueError, match="in common"):
        paired_bootstrap_p(a, {("q3", 0): 1.0})


def test_detectable_difference_solves_connors_formula() -> None:
    difference, z_level, z_power = detectable_difference(200, 50), 1.959964, 0.841621
    needed = (z_level * math.sqrt(0.25) + z_power * math.sqrt(0.25 - difference**2)) ** 2
    assert needed / difference**2 == pytest.approx(200, rel=1e-4)


def test_detectable_difference_is_what_the_test_detects() -> None:
    """The power of the uncorrected McNemar test at that difference, from the distribution itself.

    Given the discordant questions, the wins are binomial; their number is binomial too.
    """
    questions, discordant = 300, 60
    share, difference = discordant / questions, detectable_difference(questions, discordant)
    found = np.arange(questions + 1)
    weights = stats.binom.pmf(found, questions, share)
    power = 0.0
    for number, weight in zip(found[1:], weights[1:], strict=True):
        wins = np.arange(number + 1)
        rejects = np.abs(2 * wins - number) / math.sqrt(number) >= 1.959964
        right = (1 + difference / share) / 2
        power += weight * stats.binom.pmf(wins, number, right)[rejects].sum()
    assert power == pytest.approx(0.8, abs=0.02)


def test_detectable_difference_at_the_edges() -> None:
    # No discordant question: a difference of d makes at least d n of them, d n >= about 7.7.
    assert 7 / 500 < detectable_difference(500, 0) < 8 / 500
    assert detectable_difference(3, 3) == math.inf
    assert detectable_difference(10, 10) < 1
    for questions, discordant in [(0, 0), (5, 6), (5, -1)]:
        with pytest.raises(ValueError, match="impossible"):
            detectable_difference(questions, discordant)
    with pytest.raises(ValueError, match="power"):
        detectable_difference(10, 1, power=0.1)


@given(st.integers(4, 3000), st.data())
def test_detectable_difference_grows_with_discordance_and_falls_with_power(
    questions: int, data: st.DataObject
) -> None:
    discordant = data.draw(st.integers(0, questions - 1))
    least = detectable_difference(questions, discordant)
    assert least <= detectable_difference(questions, discordant + 1)
    assert least <= detectable_difference(questions, discordant, power=0.9)
    assert detectable_difference(2 * questions, 2 * discordant) <= least


def test_detectable_mean_difference_is_the_normal_powers() -> None:
    difference = detectable_mean_difference(0.4, 100)
    power = stats.norm.sf(1.959964 - difference / 0.04)
    assert power == pytest.approx(0.8, abs=1e-4)
    assert detectable_mean_difference(0.0, 1) == math.inf
    with pytest.raises(ValueError, match="negative"):
        detectable_mean_difference(-1.0, 10)
