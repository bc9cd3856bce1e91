"""Hand-worked means and tests, full enumeration of small bootstraps, and a coverage simulation."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from scratchpad_rag.evaluate.statistics import (
    bootstrap_mean,
    bootstrap_rate,
    mcnemar_p,
    paired_difference,
)
from scratchpad_rag.evaluate.summary import compare, summarise
from scratchpad_rag.records import Score


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
    assert interval.low == pytest.approx(np.quantile(means, 0.1), abs=0.02)
    assert interval.high == pytest.approx(np.quantile(means, 0.9), abs=0.02)


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
    assert bootstrap_rate([1, 0, 1], "abc") == bootstrap_mean([1, 0, 1], "abc")


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
