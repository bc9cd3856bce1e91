"""Outcomes, shares, abstention, retrieval and cost of samples written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from scratchpad_rag.errors import DataError
from scratchpad_rag.evaluate.abstention import abstentions, risk_coverage
from scratchpad_rag.evaluate.cost import cost, ratio_interval
from scratchpad_rag.evaluate.diagnosis import Outcome, diagnose, error_splits, scratchpad_use
from scratchpad_rag.evaluate.retrieved import as_retrieved
from scratchpad_rag.records import Passage, Quote, Score
from tests.evaluate.test_statistics import a_score

QUOTE = Quote("The tower is high.", "Tower", 0, 0, 18, True)


def read(right: float, recall: float | None, **changes: object) -> Score:
    quotes = () if recall is None else (QUOTE,)
    return replace(a_score("scratchpad", "q1", 0, right, recall=recall), quotes=quotes, **changes)


@pytest.mark.parametrize(
    ("score", "outcome"),
    [
        (read(1.0, 1.0), Outcome.RIGHT_QUOTED),
        (read(1.0, 0.0), Outcome.RIGHT_NOT_QUOTED),
        (read(0.0, 1.0), Outcome.WRONG_QUOTED),
        (read(0.0, 0.0), Outcome.WRONG_NOT_QUOTED),
        (read(0.0, 0.5, gold_positions=(0, 1)), Outcome.WRONG_NOT_QUOTED),  # one of two hops
        (read(1.0, 0.5, gold_positions=(0, 1)), Outcome.RIGHT_NOT_QUOTED),
        (read(0.0, 1.0, gold_total=2), Outcome.WRONG_NOT_QUOTED),  # the other is not shown
        (read(0.0, 1.0, gold_positions=(), gold_total=1), Outcome.WRONG_NOT_QUOTED),
        (read(0.0, 1.0, parsed=False), Outcome.NOT_PARSED),
        (read(1.0, 1.0, parsed=False), Outcome.RIGHT_QUOTED),
        (read(0.0, 1.0, parsed=False, abstained=True), Outcome.ABSTAINED),
        (read(1.0, 1.0, abstained=True), Outcome.ABSTAINED),
        (read(1.0, None), Outcome.RIGHT),
        (read(0.0, None), Outcome.WRONG),
        (read(0.0, None, abstained=True), Outcome.ABSTAINED),
    ],
)
def test_outcomes(score: Score, outcome: Outcome) -> None:
    assert diagnose(score) is outcome


def test_error_split_by_hand() -> None:
    scores = [
        read(1.0, 1.0),
        read(1.0, 0.0, example_id="q2"),
        read(0.0, 1.0, example_id="q3"),
        read(0.0, 1.0, example_id="q3", gold_positions=(4,)),
        read(0.0, 1.0, example_id="q4", gold_positions=()),  # no gold shown
        read(0.0, 1.0, example_id="q4", passage_order="retrieved"),
        a_score("sft", "q1", 0, 1.0),
        a_score("closed_book", "q1", None, 1.0, documents=0),
    ]
    scratchpad, sft = error_splits(scores)
    shares = {outcome: interval.estimate for outcome, interval in scratchpad.shares}
    assert shares == {
        Outcome.RIGHT_QUOTED: 0.25,
        Outcome.RIGHT_NOT_QUOTED: 0.25,
        Outcome.WRONG_QUOTED: 0.5,
        Outcome.WRONG_NOT_QUOTED: 0.0,
        Outcome.NOT_PARSED: 0.0,
        Outcome.ABSTAINED: 0.0,
    }
    assert list(shares) == [outcome for outcome in Outcome if outcome in shares]
    assert (scratchpad.samples, scratchpad.questions) == (4, 3)
    assert [outcome for outcome, _ in sft.shares] == [
        Outcome.ABSTAINED,
        Outcome.RIGHT,
        Outcome.WRONG,
    ]


def test_use_of_the_scratchpad_by_hand() -> None:
    sources = {
        "p0": Passage("The Tower", "It was built by Ada Holm in 1900."),
        "p1": Passage("x", "y"),
    }
    answers = [  # free, under gold, under the wrong passage; what is right
        ("Bo", "Bo", "ada holm", (1, 1, 0)),
        ("Bo", "Bo", "The tower", (1, 1, 0)),
        ("1900", "Bo", "Bo", (0, 1, 1)),
        ("Bo", "Bo", "Ada Holm of Corvin", (1, 1, 0)),  # more than stands there
    ]
    scores = [
        replace(
            a_score(method, f"q{number}", 0, float(right)),
            prediction=prediction,
            quotes=(QUOTE,),
            shown=("p0", "p1"),
        )
        for number, (*predictions, rights) in enumerate(answers)
        for method, prediction, right in zip(
            ("scratchpad", "scratchpad_gold_forced", "scratchpad_wrong_forced"),
            predictions,
            rights,
            strict=True,
        )
    ]
    extra = a_score("scratchpad", "q9", 0, 0.0)  # nobody forced it
    (use,) = scratchpad_use([*scores, extra], sources)
    intervals = (use.free, use.gold_forced, use.wrong_forced, use.follows, use.stands_anyway)
    assert [i and i.estimate for i in intervals] == [0.75, 1.0, 0.25, 0.5, 0.25]
    assert use.samples == 4
    (without,) = scratchpad_use(scores, {})  # the quote itself: the title Tower, no Ada, no 1900
    assert without.follows is not None
    assert without.stands_anyway is not None
    assert (without.follows.estimate, without.stands_anyway.estimate) == (0.25, 0.0)


def test_use_without_forced_cells_or_free_ones() -> None:
    free = a_score("scratchpad", "q1", 0, 1.0)
    assert scratchpad_use([free], {}) == []
    gold = a_score("scratchpad_gold_forced", "q1", 0, 1.0)
    (use,) = scratchpad_use([gold], {})
    assert (use.free, use.wrong_forced, use.follows) == (None, None, None)
    assert scratchpad_use([free, replace(gold, example_id="q2")], {}) == []


def test_abstentions_and_their_trade_off_by_hand() -> None:
    without = read(0.0, 1.0, gold_positions=(), gold_total=1)
    scores = [
        replace(without, example_id="q1", abstained=True, quotes=()),
        replace(without, example_id="q2"),  # quotes what is there
        replace(without, example_id="q3", quotes=()),
        replace(without, example_id="q4", subspan_exact_match=1.0),  # from memory
        read(1.0, 1.0, example_id="q1"),
        read(0.0, 1.0, example_id="q2", abstained=True),
        a_score("sft", "q1", 0, 1.0),
        a_score("closed_book", "q1", None, 1.0, documents=0),
        read(0.0, 1.0, example_id="q9", passage_order="retrieved", gold_positions=()),
    ]
    scratchpad, sft = abstentions(scores)
    assert scratchpad.false_quotes is not None
    assert scratchpad.abstained is not None
    assert scratchpad.false_abstained is not None
    assert scratchpad.false_quotes.estimate == 0.5
    assert scratchpad.abstained.estimate == 0.25
    assert scratchpad.false_abstained.estimate == 0.5
    assert (sft.false_quotes, sft.abstained) == (None, None)
    points = {(p.method, p.gold): p for p in risk_coverage(scores)}
    assert list(points) == [
        ("scratchpad", "all"),
        ("scratchpad", "inserted"),
        ("scratchpad", "none"),
        ("scratchpad", "retrieved"),
        ("sft", "inserted"),
    ]
    everything = points["scratchpad", "all"]
    assert everything.coverage.estimate == pytest.approx(4 / 6)
    assert everything.risk is not None
    assert everything.risk.estimate == pytest.approx(2 / 4)
    silent = replace(without, abstained=True)
    assert risk_coverage([silent])[0].risk is None
    assert abstentions([]) == risk_coverage([]) == []


def test_as_retrieved_by_hand() -> None:
    def retrieved(question: str, found: tuple[int, ...], total: int | None, right: float) -> Score:
        return replace(
            a_score("sft", question, 0, right),
            gold_positions=found,
            gold_total=total,
            passage_order="retrieved",
        )

    scores = [
        retrieved("q1", (0, 3), 2, 1.0),
        retrieved("q2", (2,), 2, 0.0),
        retrieved("q3", (), 2, 0.0),
        retrieved("q4", (1,), 1, 1.0),
        retrieved("q5", (), 0, 1.0),  # has none
        a_score("sft", "q1", 0, 0.0),
    ]
    (result,) = as_retrieved(scores)
    assert result.given_all is not None
    assert result.given_some is not None
    assert result.given_none is not None
    assert (result.accuracy.estimate, result.accuracy.n) == (0.5, 4)
    assert (result.given_all.estimate, result.given_all.n) == (1.0, 2)
    assert (result.given_some.estimate, result.given_none.estimate) == (0.0, 0.0)
    assert result.recall.estimate == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert result.all_found.estimate == 0.5
    assert (result.method, result.num_documents) == ("sft", 5)
    (only_found,) = as_retrieved(scores[:1])
    assert (only_found.given_some, only_found.given_none) == (None, None)
    with pytest.raises(DataError, match="gold passages question 'q6' has"):
        as_retrieved([retrieved("q6", (), None, 0.0)])


def test_cost_by_hand() -> None:
    scores = []
    for number in range(6):
        question = f"q{number}"
        ours = a_score("scratchpad", question, 0, float(number < 5), seconds=2.0 + number % 2)
        scores += [
            replace(ours, new_tokens=110 + 20 * number),
            a_score("sft", question, 0, float(number < 2), seconds=1.0 + number % 2),
            a_score("zero_shot", question, 0, 0.0, seconds=1.0 + 3 * (number % 2)),
        ]
    sft, zero_shot = cost([*scores, a_score("sft", "q9", 0, 1.0)])
    assert (sft.baseline, zero_shot.baseline, sft.questions) == ("sft", "zero_shot", 6)
    assert sft.accuracy.estimate == pytest.approx(0.5)
    assert sft.tokens.estimate == pytest.approx(150)
    assert (sft.seconds.low, sft.seconds.high) == (1.0, 1.0)
    assert sft.per_token is not None
    assert sft.per_second is not None
    assert sft.per_token.estimate == pytest.approx(0.5 / 150)
    assert sft.per_second.estimate == pytest.approx(0.5)
    # Now one second more, now one less: nobody knows whether it is slower.
    assert zero_shot.seconds.estimate == pytest.approx(0.0)
    assert zero_shot.per_second is None
    assert zero_shot.per_token is not None
    assert cost(scores, method="absent") == []


def test_ratio_limits_agree_with_scipy() -> None:
    rng = np.random.default_rng(2)
    below = rng.integers(40, 400, size=300).astype(float)
    above = (rng.random(300) < 0.4).astype(float) - (rng.random(300) < 0.2)
    theirs = stats.bootstrap(
        (above, below),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    ours = ratio_interval(above, below, 300, resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.03)
