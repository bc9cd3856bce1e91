"""What the scratchpad's points cost in tokens and seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scratchpad_rag.evaluate.diagnosis import SampleKey, sample_key
from scratchpad_rag.evaluate.statistics import (
    Floats,
    Interval,
    bootstrap_mean,
    by_cluster,
    limits,
    resampled_ratios,
)
from scratchpad_rag.records import Score


@dataclass(frozen=True, slots=True)
class Cost:
    """`method` against `baseline` in one data set, on the samples that both answered.

    `accuracy`, `tokens` (new ones) and `seconds` are mean paired differences of one answer;
    `per_token` and `per_second` are their ratios: accuracy (0..1) bought per extra token and per
    extra second. A ratio is None where its denominator's interval holds 0: then it is not known
    whether the method costs more at all, and no ratio means anything.
    """

    method: str
    baseline: str
    dataset: str
    accuracy: Interval
    tokens: Interval
    seconds: Interval
    per_token: Interval | None
    per_second: Interval | None
    questions: int


def cost(
    scores: Sequence[Score],
    *,
    method: str = "scratchpad",
    baselines: Sequence[str] = ("sft", "zero_shot"),
    resamples: int = 2000,
    seed: int = 0,
) -> list[Cost]:
    """One Cost a data set and baseline that has samples in common with `method`."""
    grids: dict[tuple[str, str], dict[SampleKey, Score]] = {}
    for score in scores:
        grids.setdefault((score.dataset, score.method), {})[sample_key(score)] = score
    found = []
    for dataset in dict.fromkeys(dataset for dataset, _ in grids):
        ours = grids.get((dataset, method), {})
        for baseline in baselines:
            theirs = grids.get((dataset, baseline), {})
            shared = [(ours[key], theirs[key]) for key in ours if key in theirs]
            if shared:
                found.append(_cost((method, baseline, dataset), shared, resamples, seed))
    return found


def ratio_interval(
    above: Floats,
    below: Floats,
    samples: int,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Sum of `above` through sum of `below`, each (questions,), with questions resampled.

    The limits are percentiles of the ratio itself, numerator and denominator of the same questions
    (Efron and Tibshirani, 1993, section 10.6). The denominator must be clear of 0.
    """
    draws = resampled_ratios(above, below, resamples, seed)
    estimate = float(above.sum() / below.sum())
    return Interval(estimate, *limits(draws, len(above), level), samples)


def _cost(
    names: tuple[str, str, str], shared: list[tuple[Score, Score]], resamples: int, seed: int
) -> Cost:
    questions = [ours.example_id for ours, _ in shared]

    def differences(of: Callable[[Score], float]) -> list[float]:
        return [of(ours) - of(theirs) for ours, theirs in shared]

    def mean(values: list[float]) -> Interval:
        return bootstrap_mean(values, questions, resamples=resamples, seed=seed)

    def bought(extra: Interval, values: list[float]) -> Interval | None:
        if not extra.excludes_zero:
            return None
        gained, _ = by_cluster(accuracy, questions)
        spent, _ = by_cluster(values, questions)
        return ratio_interval(gained, spent, len(shared), resamples=resamples, seed=seed)

    accuracy = differences(lambda s: s.subspan_exact_match)
    tokens = differences(lambda s: s.new_tokens)
    seconds = differences(lambda s: s.wall_seconds)
    extra_tokens, extra_seconds = mean(tokens), mean(seconds)
    return Cost(
        *names,
        accuracy=mean(accuracy),
        tokens=extra_tokens,
        seconds=extra_seconds,
        per_token=bought(extra_tokens, tokens),
        per_second=bought(extra_seconds, seconds),
        questions=len(set(questions)),
    )
