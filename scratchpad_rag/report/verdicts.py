"""What a grid's numbers say, in sentences that claim no more than the tests bear.

A difference between methods is called real only if its 95% interval excludes zero and its p-value
after Holm's correction is below 0.05; a loss between positions only if its interval, measured on
the other half of the questions, excludes zero and Cochran's Q has p < 0.05; a slope only if its
interval excludes zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from scratchpad_rag.evaluate.cells import INSERTED, RETRIEVED, Comparison
from scratchpad_rag.evaluate.robustness import LengthRobustness, PositionRobustness
from scratchpad_rag.evaluate.statistics import Interval
from scratchpad_rag.report.grid_runs import Names
from scratchpad_rag.report.labels import (
    accuracy_text,
    clean,
    count,
    method_name,
    p_value,
    percent,
    points,
)
from scratchpad_rag.report.measures import DataSetMeasures, Robustness

LEVEL = 0.05
_SAME = 1e-9
_RETRIEVED = "_as_retrieved"
_BASELINES = ("sft", "zero_shot")
_TITLES = {
    "nq": "Natural Questions",
    "hotpotqa": "HotpotQA",
    "musique": "MuSiQue",
    "2wiki": "2WikiMultihopQA",
    "2wikimultihopqa": "2WikiMultihopQA",
    "squad": "SQuAD",
    "triviaqa": "TriviaQA",
    "kv": "Key-value retrieval",
}


class Finding(NamedTuple):
    """What is to be said of one data set: a word on what each sentence is about, and it."""

    dataset: str
    points: tuple[tuple[str, str], ...]


def title_of(dataset: str) -> str:
    """The name of a data set for people; one that is not known keeps its own.

    >>> title_of("nq"), title_of("my_set"), title_of("")
    ('Natural Questions', 'my_set', 'Results')
    >>> title_of("nq_as_retrieved")
    'Natural Questions, as retrieved'
    """
    base = dataset.removesuffix(_RETRIEVED)
    if base and base != dataset:
        return f"{title_of(base)}, as retrieved"
    return _TITLES.get(dataset, clean(dataset) or "Results")


def excludes_zero(interval: Interval) -> bool:
    """Whether an interval excludes zero by more than the last bits of a sum.

    >>> excludes_zero(Interval(1e-17, 1e-17, 1e-17, 80))
    False
    """
    return interval.low > _SAME or interval.high < -_SAME


def is_real(comparison: Comparison) -> bool:
    """Whether chance does not explain a difference, after correction for all that were tested."""
    return excludes_zero(comparison.difference.interval) and comparison.adjusted_p < LEVEL


def drop_is_real(robustness: PositionRobustness) -> bool:
    """Whether a reader loses something to the place of the gold passage."""
    return robustness.drop.low > _SAME and robustness.cochran.p_value < LEVEL


def findings(measures: Sequence[DataSetMeasures], names: Names) -> list[Finding]:
    """For every data set: what reads best, whether that is sure, and what moves and length cost."""
    return [Finding(m.dataset, tuple(_points(m, names))) for m in measures]


def lead(measures: Sequence[DataSetMeasures], names: Names) -> str:
    """One sentence over all data sets on the pair that most pages are about; "" for one set."""
    by_pair: dict[tuple[str, str], list[Comparison]] = {}
    for one in measures:
        for comparison in one.pooled if one.basis == INSERTED else ():
            by_pair.setdefault((comparison.method, comparison.baseline), []).append(comparison)
    for baseline in _BASELINES:
        for (method, other), found in by_pair.items():
            if names.base(other) == baseline and len(found) > 1:
                return _lead(names.full(method), names.full(other), found)
    return ""


def _lead(method: str, baseline: str, found: Sequence[Comparison]) -> str:
    above = [c for c in found if c.difference.interval.estimate > 0]
    sure = [c for c in above if is_real(c)]
    below = [c for c in found if c.difference.interval.estimate < 0 and is_real(c)]
    gaps = sorted(c.difference.interval.estimate for c in found)
    text = (
        f"{method} is more accurate than {baseline} in {_share(len(above), len(found))} data sets "
        f"(differences of {points(gaps[0])} to {points(gaps[-1])} points)"
    )
    if sure:
        text += f"; chance does not explain it in {_share(len(sure), len(found))}"
    else:
        text += "; chance may explain every one of these differences"
    if below:
        text += f", and the reverse in {_share(len(below), len(found))}"
    return text + "."


def _share(part: int, whole: int) -> str:
    """
    >>> _share(4, 4), _share(2, 2), _share(1, 4), _share(0, 3)
    ('all 4', 'both', '1 of 4', 'none of 3')
    """
    if part == whole:
        return "both" if whole == 2 else f"all {whole}"
    return f"{part or 'none'} of {whole}"


def _points(measures: DataSetMeasures, names: Names) -> list[tuple[str, str]]:
    best = measures.best()
    if best is None:
        return [("Bounds only", _no_best(measures, names))]
    shown = [best]
    run = names.run(best)
    for base in _BASELINES:
        key = next(
            (k for k in measures.reading if names.base(k) == base and names.run(k) == run), ""
        )
        if key and key not in shown:
            shown.append(key)
            break
    by_method = {r.method: r for r in measures.robustness}
    robust = [by_method[key] for key in shown if key in by_method]
    best_told = f"{_of_best(measures, best, names)} {_against_next(measures, best, names)}".strip()
    told = [
        ("Accuracy", best_told),
        ("Position", _of_position(robust, names)),
        ("Length", _of_length(robust, names)),
        ("Runs", _of_runs(measures, best, names)),
    ]
    return [(word, sentence) for word, sentence in told if sentence]


def _no_best(measures: DataSetMeasures, names: Names) -> str:
    if not measures.accuracy:
        return "No cell here has a gold passage inserted, so there is no accuracy by position."
    told = ", ".join(
        f"{names.full(key)} {accuracy_text(rate)}" for key, rate in measures.accuracy.items()
    )
    return f"There is no way of reading here to tell apart, only bounds: {told}."


def _of_best(measures: DataSetMeasures, best: str, names: Names) -> str:
    rate = measures.accuracy[best]
    cells = len([r for r in measures.cells[best] if r.cell.gold == measures.basis])
    where = f"{count(cells, 'cell')} of {count(measures.questions, 'question')}"
    if measures.basis == RETRIEVED:
        where += " with the passages as retrieved"
    rivals = len([m for m in measures.reading if m in measures.accuracy])
    if rivals == 1:
        return f"{names.full(best)} answers {accuracy_text(rate)} right over {where}."
    among = f"{rivals} ways of reading"
    if len(names.runs) > 1:
        ways = len({names.base(m) for m in measures.reading})
        among = f"{count(ways, 'way')} of reading in {len(names.runs)} runs"
    return (
        f"{names.full(best)} is the most accurate of {among}: {accuracy_text(rate)} over {where}."
    )


def _against_next(measures: DataSetMeasures, best: str, names: Names) -> str:
    rivals = [m for m in measures.reading if m in measures.accuracy and m != best]
    if not rivals:
        return ""
    second = max(rivals, key=lambda m: measures.accuracy[m].estimate)
    comparison = _find(measures.pooled, best, second)
    if comparison is None:
        return f"Its lead over {names.full(second)}, the next one, was not tested."
    gap, p = comparison.difference.interval, comparison.adjusted_p
    numbers = f"{span_points(gap)}; {p_value(p)} after Holm's correction"
    ahead = f"It is {_size(gap.estimate)} points ahead of {names.full(second)}, the next one"
    if _size(gap.estimate) == "0.0":
        ahead = f"It is level with {names.full(second)}, the next one"
    if is_real(comparison):
        return f"{ahead} ({numbers}): more than chance explains."
    shown = ""
    if math.isfinite(comparison.detectable):
        shown = (
            f"; a difference of {_size(comparison.detectable)} points would have shown four times "
            "in five"
        )
    return f"{ahead} ({numbers}), which chance may explain{shown}."


def _of_position(robust: Sequence[Robustness], names: Names) -> str:
    told, documents = [], 0
    for one in robust:
        if not one.positions:
            continue
        most = max(one.positions, key=lambda p: p.num_documents)
        documents = documents or most.num_documents
        sure = "beyond chance" if drop_is_real(most) else "not distinguishable from none"
        drop = f"{points(most.drop.estimate).lstrip('+')} points ({_ends(most.drop)})"
        told.append(f"{drop} for {names.full(one.method)}, {sure}")
    if not told:
        return ""
    return (
        f"Between the best and the worst place of the gold passage among {documents} documents, "
        "picked on one half of the questions and measured on the other, the loss is "
        f"{'; '.join(told)}."
    )


def _of_length(robust: Sequence[Robustness], names: Names) -> str:
    told = [
        f"{names.full(one.method)} by {slope_text(one.length)}"
        for one in robust
        if one.length is not None
    ]
    return f"A doubling of the documents changes {'; '.join(told)}." if told else ""


def _of_runs(measures: DataSetMeasures, best: str, names: Names) -> str:
    """The method that reads best in the runs that have it, against the first run."""
    told = []
    for one in measures.pooled:
        if names.base(one.method) == names.base(one.baseline) == names.base(best):
            gap = one.difference.interval
            sure = "beyond chance" if is_real(one) else "which chance may explain"
            told.append(
                f"{names.run(one.method)} differs from {names.run(one.baseline)} by "
                f"{points(gap.estimate)} points ({_ends(gap)}), {sure}"
            )
    return f"With {method_name(names.base(best))}, {'; '.join(told)}." if told else ""


def slope_text(length: LengthRobustness) -> str:
    """Points for a doubling of the documents, and whether that is sure."""
    sure = "beyond chance" if excludes_zero(length.slope) else "not distinguishable from none"
    return f"{points(length.slope.estimate)} points ({_ends(length.slope)}), {sure}"


def span_points(interval: Interval) -> str:
    """The limits of a difference in points.

    >>> span_points(Interval(0.1, 0.052, 0.148, 80))
    '95% interval +5.2 to +14.8'
    """
    return f"95% interval {_ends(interval)}"


def describe_lines(
    lines: dict[str, Sequence[tuple[int, Interval]]],
    levels: dict[str, Interval],
    names: Names,
    *,
    at: str,
) -> str:
    """A figure of curves in words with its numbers; `at` says what the numbers across are."""
    told = []
    for key, line in lines.items():
        places = ", ".join(f"{percent(rate.estimate)} {at} {place}" for place, rate in line)
        told.append(f"{names.full(key)}: {places}.")
    told += [f"{names.full(k)}: {percent(rate.estimate)} throughout." for k, rate in levels.items()]
    return " ".join(told)


def _find(comparisons: Sequence[Comparison], method: str, baseline: str) -> Comparison | None:
    """The comparison of two methods whichever came first, told from the side of `method`."""
    for one in comparisons:
        if one.cell is None and (one.method, one.baseline) == (method, baseline):
            return one
        if one.cell is None and (one.method, one.baseline) == (baseline, method):
            return turned(one)
    return None


def turned(comparison: Comparison) -> Comparison:
    """The same comparison seen from the other method."""
    old = comparison.difference
    interval = Interval(
        -old.interval.estimate, -old.interval.high, -old.interval.low, old.interval.n
    )
    difference = replace(old, interval=interval, wins=old.losses, losses=old.wins)
    return replace(
        comparison,
        method=comparison.baseline,
        baseline=comparison.method,
        difference=difference,
    )


def _ends(interval: Interval) -> str:
    return f"{points(interval.low)} to {points(interval.high)}"


def _size(difference: float) -> str:
    return f"{100 * abs(difference):.1f}"
