"""Hand-worked means and tests, full enumeration of small bootstraps, and a coverage simulation."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from scratchpad_rag.evaluate.statistics import (
    bootstrap_mean,
    bootstrap_rate,
    mcnemar_p,
    paired_difference,
    resampled_ratios,
)
from scratchpad_rag.evaluate.summary import compare, summarise
from scratchpad_rag.records import Quote, Score


def a_score(
    method: str = "sft",
    question: str = "q1",
    position: int | None = 0,
    right: float = 1.0,
    *,
    documents: int = 5,
    parsed: bool = True,
    recall: float | None = None,
    seconds: float = 1.0,
) -> Score:
    return Score(
        method=method,
        example_id=question,
        question="Who?",
        answers=("Ada",),
        num_documents=documents,
        gold_positions=() if position is None else (position,),
        prediction="Ada",
        completion="Ada",
        quotes=(),
        parsed=parsed,
        subspan_exact_match=right,
        exact_match=right / 2,
        f1=right / 4,
        completion_subspan_exact_match=1.0,
        quote_precision=recall,
        quote_recall=recall,
        verbatim_rate=recall,
        prompt_tokens=100,
        new_tokens=10,
        forward_passes=4,
        wall_seconds=seconds,
    )


def test_mean_is_over_all_samples_and_not_over_questions() -> None:
    interval = bootstrap_mean([1, 1, 1, 0], ["a", "a", "a", "b"])
    assert (interval.estimate, interval.n) == (0.75, 4)


def test_limits_agree_with_the_enumeration_of_every_resample() -> None:
    sums, counts = (3.0, 0.0, 1.0, 2.0), (3, 1, 2, 2)
    means = [
        sum(sums[i] for i in draw) / sum(counts[i] for i in draw)
        for draw in itertools.product(range(4), repeat=4)
    ]
    interval = bootstrap_mean(
        [1, 1, 1, 0, 1, 0, 1, 1], list("aaabccdd"), level=0.8, resamples=40_000
    )
    # Four questions: a tail of 0.1 becomes Phi(-sqrt(4 / 3) t) = 0.0293 with t = 1.638.
    tail = stats.norm.cdf(-math.sqrt(4 / 3) * stats.t.ppf(0.9, 3))
    assert tail == pytest.approx(0.0293, abs=1e-4)
    assert interval.low == pytest.approx(np.quantile(means, tail), abs=0.02)
    assert interval.high == pytest.approx(np.quantile(means, 1 - tail), abs=0.02)


def test_limits_of_a_mean_are_as_wide_as_the_t_interval() -> None:
    values = np.random.default_rng(3).normal(size=12)
    interval = bootstrap_mean(values.tolist(), range(12), resamples=100_000)
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert interval.high - interval.low == pytest.approx(high - low, rel=0.05)
    percentile = stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert percentile.high - percentile.low < 0.9 * (high - low)  # what is put right


def test_limits_agree_with_scipy_where_there_are_many_questions() -> None:
    values = np.random.default_rng(4).gamma(1.0, size=400)
    interval = bootstrap_mean(values.tolist(), range(400), resamples=40_000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_repeating_a_question_adds_no_certainty() -> None:
    values, names = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0], list("abcdef")
    once = bootstrap_mean(values, names)
    fivefold = bootstrap_mean(values * 5, names * 5)
    assert (fivefold.low, fivefold.high) == pytest.approx((once.low, once.high))
    assert fivefold.n == 30


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(50).tolist()
    whole = bootstrap_mean(values, range(50))
    monkeypatch.setattr("scratchpad_rag.evaluate.statistics._MAX_DRAWS", 777)
    assert bootstrap_mean(values, range(50)) == whole


def test_same_seed_same_interval_other_seed_another() -> None:
    values = np.random.default_rng(1).random(40).tolist()
    assert bootstrap_mean(values, range(40), seed=3) == bootstrap_mean(values, range(40), seed=3)
    assert bootstrap_mean(values, range(40), seed=3) != bootstrap_mean(values, range(40), seed=4)


@pytest.mark.parametrize(
    ("values", "clusters", "level", "resamples", "message"),
    [
        ([], [], 0.95, 10, "no values"),
        ([1.0], ["a", "b"], 0.95, 10, "1 values but 2"),
        ([math.nan], ["a"], 0.95, 10, "finite"),
        ([1.0], ["a"], 1.0, 10, "level"),
        ([1.0], ["a"], 0.95, 0, "resamples"),
    ],
)
def test_bad_input(
    values: list[float], clusters: list[str], level: float, resamples: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values, clusters, level=level, resamples=resamples)


def test_one_value() -> None:
    interval = bootstrap_mean([0.3], ["a"])
    assert (interval.estimate, interval.low, interval.high, interval.n) == (0.3, 0.3, 0.3, 1)


def test_all_right_has_the_exact_binomial_limit() -> None:
    interval = bootstrap_rate([1.0] * 6, list("aabbcc"))  # three questions: p^3 = 0.025
    assert interval.low**3 == pytest.approx(0.025)
    wrong = bootstrap_rate([0.0] * 6, list("aabbcc"))
    assert (wrong.low, wrong.high) == pytest.approx((0.0, 1 - interval.low))


def test_rate_of_independent_samples_is_wilsons() -> None:
    values = [1.0] * 60 + [0.0] * 40
    effective = 99 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 99)) ** 2
    wilson = proportion_confint(0.6 * effective, effective, method="wilson")
    interval = bootstrap_rate(values, range(100), resamples=100_000)
    assert (interval.low, interval.high) == pytest.approx(wilson, abs=0.002)


def test_rate_of_questions_all_or_nothing_counts_questions() -> None:
    once = bootstrap_rate([1.0] * 60 + [0.0] * 40, range(100))
    names = [i for i in range(100) for _ in range(5)]
    fivefold = bootstrap_rate([1.0] * 300 + [0.0] * 200, names)
    assert (fivefold.low, fivefold.high) == pytest.approx((once.low, once.high))


def test_rate_is_never_surer_than_independent_samples_would_be() -> None:
    # Every question has one right and one wrong answer: the questions' means do not vary at all.
    interval = bootstrap_rate([1.0, 0.0] * 20, [i for i in range(20) for _ in "ab"])
    effective = 40 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 19)) ** 2
    wilson = proportion_confint(0.5 * effective, effective, method="wilson")
    assert (interval.low, interval.high) == pytest.approx(wilson)
    one = bootstrap_rate([1.0, 0.0], "aa")
    assert (one.low, one.high) == pytest.approx(proportion_confint(0.5, 1, method="wilson"))


def test_rates_lie_between_0_and_1() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_rate([1.5], "a")


@given(st.data())
def test_order_of_the_samples_makes_no_difference(data: st.DataObject) -> None:
    samples = data.draw(
        st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 9)), min_size=1)
    )
    mixed = data.draw(st.permutations(samples))
    for interval in (bootstrap_mean, bootstrap_rate):
        one, other = (
            interval([v for v, _ in part], [c for _, c in part], resamples=50)
            for part in (samples, mixed)
        )
        assert (one.low, one.high) == pytest.approx((other.low, other.high))
        assert one.low <= one.high


def test_counting_kinds_and_drawing_one_by_one_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    above, below = np.array([3.0, 0, 1, 1, 2, 0] * 10), np.array([3.0, 1, 2, 2, 2, 1] * 10)
    counted = resampled_ratios(above, below, 20_000, 0)
    monkeypatch.setattr("scratchpad_rag.evaluate.statistics._FEW_KINDS", 0.0)
    drawn = resampled_ratios(above, below, 20_000, 0)
    assert not np.array_equal(counted, drawn)
    quantiles = [0.025, 0.25, 0.5, 0.75, 0.975]
    assert np.quantile(counted, quantiles) == pytest.approx(np.quantile(drawn, quantiles), abs=0.01)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """60 questions of 5 samples; chance of a right answer differs by question, 0.6 on average."""
    rng = np.random.default_rng(7)
    clusters = np.repeat(np.arange(60), 5).tolist()
    trials, covered, covered_naively = 400, 0, 0
    for trial in range(trials):
        chance = rng.beta(1.2, 0.8, size=60)  # mean 1.2 / 2
        values = (rng.random((60, 5)) < chance[:, None]).astype(float).ravel()
        interval = bootstrap_mean(values.tolist(), clusters, resamples=400, seed=trial)
        covered += interval.low <= 0.6 <= interval.high
        naive = 1.96 * values.std() / math.sqrt(values.size)
        covered_naively += abs(values.mean() - 0.6) <= naive
    assert 0.92 <= covered / trials <= 0.98
    assert covered_naively / trials < 0.90  # the simulation would notice if clusters were ignored


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [(8, 1, 20 / 512), (1, 8, 20 / 512), (6, 0, 2 / 64), (10, 4, 2 * 1471 / 16384), (2, 2, 1.0)],
)
def test_mcnemar_by_hand(wins: int, losses: int, p: float) -> None:
    assert mcnemar_p(wins, losses) == pytest.approx(p)
    theirs = mcnemar([[7, wins], [losses, 5]], exact=True).pvalue
    assert mcnemar_p(wins, losses) == pytest.approx(theirs)


def test_paired_difference_with_one_sample_a_question_is_mcnemar() -> None:
    a = {(f"q{i}", 0): 1.0 for i in range(8)} | {("q8", 0): 0.0, ("q9", 0): 1.0}
    b = {(f"q{i}", 0): 0.0 for i in range(8)} | {("q8", 0): 1.0, ("q9", 0): 1.0}
    result = paired_difference(a, b)
    assert (result.wins, result.losses, result.test) == (8, 1, "mcnemar")
    assert result.p_value == pytest.approx(20 / 512)
    assert result.interval.estimate == pytest.approx(0.7)
    assert result.interval.n == 10
    assert result.interval.excludes_zero


def test_paired_difference_takes_only_what_both_have() -> None:
    result = paired_difference({("q", 0): 1.0, ("q", 1): 1.0}, {("q", 1): 0.5, ("r", 1): 0.0})
    assert (result.interval.estimate, result.interval.n, result.unpaired) == (0.5, 1, 2)
    assert result.test == "sign-flip"
    with pytest.raises(ValueError, match="in common"):
        paired_difference({("q", 0): 1.0}, {("r", 0): 1.0})


def test_paired_difference_of_equals_is_nothing() -> None:
    same = {(f"q{i}", p): float(i % 2) for i in range(6) for p in range(3)}
    result = paired_difference(same, same)
    assert (result.interval.estimate, result.p_value, result.wins) == (0.0, 1.0, 0)
    assert not result.interval.excludes_zero


def test_paired_difference_swaps_sign_and_keeps_p() -> None:
    rng = np.random.default_rng(0)
    keys = [(f"q{i}", p) for i in range(30) for p in (0, 4)]
    a = {key: float(rng.random() < 0.7) for key in keys}
    b = {key: float(rng.random() < 0.5) for key in keys}
    ab, ba = paired_difference(a, b), paired_difference(b, a)
    assert ab.interval.estimate == -ba.interval.estimate
    assert (ab.p_value, ab.wins, ab.losses) == (ba.p_value, ba.losses, ba.wins)


def test_sign_flip_p_agrees_with_the_enumeration_of_every_exchange() -> None:
    sums = [2, 1, 1, -1, 2, 0, 1]  # by question, each of two samples: 6 in all
    a = {(q, p): float(s > p) for q, s in enumerate(sums) for p in (0, 1)}
    b = {(q, p): float(-s > p) for q, s in enumerate(sums) for p in (0, 1)}
    flips = [
        sum(sign * s for sign, s in zip(signs, sums, strict=True))
        for signs in itertools.product((-1, 1), repeat=7)
    ]
    expected = sum(abs(total) >= 6 for total in flips) / len(flips)
    result = paired_difference(a, b, resamples=40_000)
    assert result.test == "sign-flip"
    assert result.interval.estimate == pytest.approx(6 / 14)
    assert result.p_value == pytest.approx(expected, abs=0.01)


def test_few_questions_prove_nothing_however_many_samples() -> None:
    a = {(q, p): 1.0 for q in "abc" for p in range(50)}
    b = dict.fromkeys(a, 0.0)
    assert paired_difference(a, b).p_value == pytest.approx(0.25, abs=0.03)  # 2 of 2^3 exchanges


def test_p_is_below_a_twentieth_once_in_twenty_when_nothing_differs() -> None:
    rng = np.random.default_rng(11)
    small = 0
    for trial in range(300):
        chance = rng.beta(1, 1, size=40)[:, None]
        right = rng.random((2, 40, 3)) < chance
        a, b = (
            {(q, p): float(table[q, p]) for q in range(40) for p in range(3)} for table in right
        )
        small += paired_difference(a, b, resamples=300, seed=trial).p_value <= 0.05
    assert 0.02 <= small / 300 <= 0.08


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(2)
    hard = rng.random(80) < 0.5
    b = {(f"q{i}",): float(h) for i, h in enumerate(hard)}
    a = {(f"q{i}",): float(h or i % 8 == 0) for i, h in enumerate(hard)}
    paired = paired_difference(a, b).interval
    alone = bootstrap_mean(list(a.values()), range(80))
    assert paired.high - paired.low < (alone.high - alone.low)


def test_summary_by_hand() -> None:
    scores = [
        a_score("sft", "q1", 0, 1.0, seconds=1.0),
        a_score("sft", "q1", 4, 0.0, seconds=2.0),
        a_score("sft", "q2", 0, 1.0, seconds=3.0, parsed=False),
        a_score("scratchpad", "q1", 4, 0.0, recall=1.0),
        a_score("scratchpad", "q2", 4, 1.0, recall=None),
    ]
    sft, scratchpad = summarise(scores)
    assert (sft.method, sft.samples, sft.questions, sft.parse_failures) == ("sft", 3, 2, 1)
    assert sft.subspan_exact_match.estimate == pytest.approx(2 / 3)
    assert (sft.exact_match, sft.f1) == pytest.approx((1 / 3, 1 / 6))
    assert (sft.wall_seconds, sft.prompt_tokens, sft.new_tokens, sft.forward_passes) == (
        2.0,
        100,
        10,
        4,
    )
    assert sft.quote_recall is None
    assert sft.verbatim_rate is None
    assert [(p.position, p.subspan_exact_match.estimate) for p in sft.by_position] == [
        (0, 1.0),
        (4, 0.0),
    ]
    assert (scratchpad.quote_recall, scratchpad.subspan_exact_match.n) == (1.0, 2)
    assert summarise([]) == []
    assert json.loads(json.dumps(asdict(sft)))["by_position"][1]["position"] == 4


def test_summary_of_abstaining_by_hand() -> None:
    without = a_score("scratchpad", "q1", None, 0.0, recall=1.0)
    scores = [
        replace(without, abstained=True),
        replace(without, example_id="q2", quotes=(Quote("x", "t", 0, 0, 1, True),)),
        replace(without, example_id="q3"),
        replace(without, example_id="q4", abstained=True, passage_order="retrieved"),
        a_score("scratchpad", "q1", 0, 1.0, recall=1.0),
        replace(a_score("scratchpad", "q2", 0, 0.0, recall=0.0), abstained=True),
        a_score("sft", "q1", 0, 1.0),
        a_score("sft", "q1", None, 1.0),
        a_score("closed_book", "q1", None, documents=0),
    ]
    scratchpad, sft, closed_book = summarise(scores)
    assert scratchpad.abstention_rate == pytest.approx(1 / 3)
    assert scratchpad.false_quote_rate == pytest.approx(1 / 3)
    assert scratchpad.false_abstention_rate == pytest.approx(1 / 2)
    assert (sft.abstention_rate, sft.false_quote_rate) == (0.0, None)
    assert closed_book.abstention_rate is None


def test_the_same_id_in_two_data_sets_is_two_questions() -> None:
    scores = [
        replace(a_score(method, "q1", 0, right), dataset=dataset)
        for method, dataset, right in [
            ("a", "nq", 1.0),
            ("a", "squad", 1.0),
            ("b", "nq", 0.0),
            ("b", "squad", 0.0),
        ]
    ]
    assert summarise(scores)[0].questions == 2
    result = compare(scores, "a", "b")
    assert result is not None
    assert (result.interval.n, result.test, result.p_value) == (2, "mcnemar", 0.5)


def test_gold_alone_or_absent_has_no_position() -> None:
    alone = a_score("gold_only", "q1", 0, documents=1)
    absent = a_score("closed_book", "q1", None, documents=0)
    without_gold = a_score("no_gold", "q1", None, documents=4)
    assert all(not s.by_position for s in summarise([alone, absent, without_gold]))


def test_compare_pairs_on_question_documents_and_positions() -> None:
    scores = [
        a_score("scratchpad", "q1", 0, 1.0),
        a_score("scratchpad", "q1", 4, 1.0),
        a_score("sft", "q1", 0, 0.0),
        a_score("sft", "q1", 4, 1.0, documents=9),
        a_score("closed_book", "q1", None, 0.0, documents=0),
    ]
    result = compare(scores, "scratchpad", "sft")
    assert result is not None
    assert (result.interval.n, result.wins, result.unpaired) == (1, 1, 2)
    assert compare(scores, "scratchpad", "closed_book") is None
    assert compare(scores, "scratchpad", "absent") is None
