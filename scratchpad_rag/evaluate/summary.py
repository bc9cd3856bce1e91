"""Scores -> one summary a method: accuracy with its interval, quotes, and what an answer costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from scratchpad_rag.evaluate.cells import NO_GOLD, cell_of
from scratchpad_rag.evaluate.statistics import (
    Interval,
    PairedDifference,
    bootstrap_rate,
    paired_difference,
)
from scratchpad_rag.records import Score


@dataclass(frozen=True, slots=True)
class PositionSummary:
    """Subspan exact match of a method with the first gold passage at `position` (from 0)."""

    position: int
    subspan_exact_match: Interval


@dataclass(frozen=True, slots=True)
class MethodSummary:
    """All samples of one method. Rates are in 0..1, costs are means of one answer.

    Quote figures are means over the samples that have them, None where no sample has. `by_position`
    is empty where the gold passage has no place of its own: none shown, or nothing but gold.
    `abstention_rate` and `false_quote_rate` are shares of the samples from whose passages gold was
    left out (not of those whose retriever missed it), `false_abstention_rate` of those that show
    gold; None where there are none such.
    """

    method: str
    samples: int
    questions: int
    subspan_exact_match: Interval
    exact_match: float
    f1: float
    completion_subspan_exact_match: float
    quote_precision: float | None
    quote_recall: float | None
    verbatim_rate: float | None
    parse_failures: int
    prompt_tokens: float
    new_tokens: float
    forward_passes: float
    wall_seconds: float
    by_position: tuple[PositionSummary, ...]
    abstention_rate: float | None = None
    false_abstention_rate: float | None = None
    false_quote_rate: float | None = None


def summarise(scores: Iterable[Score]) -> list[MethodSummary]:
    """One summary a method, in the order in which methods first appear; [] of no scores."""
    by_method: dict[str, list[Score]] = {}
    for score in scores:
        by_method.setdefault(score.method, []).append(score)
    return [_summarise_method(method, group) for method, group in by_method.items()]


def compare(scores: Sequence[Score], method: str, baseline: str) -> PairedDifference | None:
    """Subspan exact match of `method` minus `baseline` on the samples that both answered.

    None if they have no sample (question, passages shown, gold positions, order) in common.
    """
    ours, theirs = _by_sample(scores, method), _by_sample(scores, baseline)
    if not ours.keys() & theirs.keys():
        return None
    return paired_difference(ours, theirs)


def has_position(score: Score) -> bool:
    """Whether the gold passage stands among others, so that its position means something."""
    return 0 < len(score.gold_positions) < score.num_documents


def _shows_no_gold(score: Score) -> bool:
    cell = cell_of(score)
    return cell is not None and cell.gold == NO_GOLD


def _question(score: Score) -> tuple[str, str]:
    return (score.dataset, score.example_id)


def _by_sample(
    scores: Iterable[Score], method: str
) -> dict[tuple[tuple[str, str], int, tuple[int, ...], str], float]:
    return {
        (
            _question(s),
            s.num_documents,
            s.gold_positions,
            s.passage_order,
        ): s.subspan_exact_match
        for s in scores
        if s.method == method
    }


def _summarise_method(method: str, scores: list[Score]) -> MethodSummary:
    def mean(of: Callable[[Score], float]) -> float:
        return fmean(map(of, scores))

    without_gold = list(filter(_shows_no_gold, scores))
    return MethodSummary(
        method=method,
        samples=len(scores),
        questions=len({_question(score) for score in scores}),
        subspan_exact_match=_accuracy(scores),
        exact_match=mean(lambda s: s.exact_match),
        f1=mean(lambda s: s.f1),
        completion_subspan_exact_match=mean(lambda s: s.completion_subspan_exact_match),
        quote_precision=_mean_of_known(s.quote_precision for s in scores),
        quote_recall=_mean_of_known(s.quote_recall for s in scores),
        verbatim_rate=_mean_of_known(s.verbatim_rate for s in scores),
        parse_failures=sum(not score.parsed for score in scores),
        prompt_tokens=mean(lambda s: s.prompt_tokens),
        new_tokens=mean(lambda s: s.new_tokens),
        forward_passes=mean(lambda s: s.forward_passes),
        wall_seconds=mean(lambda s: s.wall_seconds),
        by_position=_by_position(scores),
        abstention_rate=_mean_of_known(float(s.abstained) for s in without_gold),
        false_abstention_rate=_mean_of_known(
            float(s.abstained) for s in scores if s.gold_positions
        ),
        false_quote_rate=_mean_of_known(
            float(len(s.quotes) > 0) for s in without_gold if s.quote_recall is not None
        ),
    )


def _by_position(scores: list[Score]) -> tuple[PositionSummary, ...]:
    groups: dict[int, list[Score]] = {}
    for score in filter(has_position, scores):
        groups.setdefault(score.gold_positions[0], []).append(score)
    return tuple(PositionSummary(at, _accuracy(groups[at])) for at in sorted(groups))


def _accuracy(scores: list[Score]) -> Interval:
    return bootstrap_rate(
        [score.subspan_exact_match for score in scores], [_question(score) for score in scores]
    )


def _mean_of_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
