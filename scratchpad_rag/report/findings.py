"""What the numbers say, in sentences: the headline, and figures told to those who cannot see them.

A difference is called distinguishable from zero only if its 95% interval excludes zero and its
paired test has p < 0.05; the intervals and tests are those of `evaluate.statistics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scratchpad_rag.evaluate.statistics import PairedDifference
from scratchpad_rag.evaluate.summary import MethodSummary, compare
from scratchpad_rag.records import Score
from scratchpad_rag.report.labels import (
    count,
    interval_range,
    method_name,
    p_value,
    percent,
    points,
)

# The method that a page is about, and what it is held against: the first of each that was run.
_SUBJECTS = ("scratchpad", "scratchpad_shipped")
_BASELINES = {
    "scratchpad": (("sft", "sft_shipped"), ("zero_shot",)),
    "scratchpad_shipped": (("sft_shipped", "sft"), ("zero_shot",)),
}


def headline(scores: Sequence[Score], summaries: Sequence[MethodSummary]) -> str:
    """One paragraph: the accuracy of Scratchpad and its paired differences from its baselines."""
    by_method = {summary.method: summary for summary in summaries}
    subject = next((method for method in _SUBJECTS if method in by_method), None)
    if subject is None:
        best = max(summaries, key=lambda s: s.subspan_exact_match.estimate)
        return (
            f"{_accuracy(best)} This is the highest accuracy of "
            f"{count(len(summaries), 'method')} here; Scratchpad is not among them, so this page "
            "says nothing about it."
        )
    return _about(subject, scores, by_method)


def second_headline(scores: Sequence[Score], summaries: Sequence[MethodSummary]) -> str:
    """The same of the Scratchpad trained beforehand, where the page is about another one; or ""."""
    by_method = {summary.method: summary for summary in summaries}
    if not all(subject in by_method for subject in _SUBJECTS):
        return ""
    return _about(_SUBJECTS[1], scores, by_method)


def _about(subject: str, scores: Sequence[Score], by_method: Mapping[str, MethodSummary]) -> str:
    sentences = [_accuracy(by_method[subject])]
    for baselines in _BASELINES[subject]:
        baseline = next((method for method in baselines if method in by_method), None)
        if baseline is None:
            name = method_name(baselines[0])
            sentences.append(f"{name} was not run, so there is no comparison with it.")
            continue
        sentences.append(_comparison(baseline, compare(scores, subject, baseline)))
    sentences.append(_fidelity(by_method[subject]))
    return " ".join(filter(None, sentences))


def is_distinguishable(difference: PairedDifference) -> bool:
    """Whether the interval excludes zero and the test agrees (it does not on a few questions)."""
    return difference.interval.excludes_zero and difference.p_value < 0.05


def describe_positions(summaries: Sequence[MethodSummary]) -> str:
    """The position curve in words, with its numbers."""
    sentences = ["Accuracy by position of the gold passage."]
    for summary in summaries:
        name = method_name(summary.method)
        if not summary.by_position:
            level = percent(summary.subspan_exact_match.estimate)
            sentences.append(f"{name}: {level}, at no position of its own.")
            continue
        places = ", ".join(
            f"{percent(p.subspan_exact_match.estimate)} at {p.position}"
            for p in summary.by_position
        )
        sentences.append(f"{name}: {places}.")
    return " ".join(sentences)


def describe_methods(summaries: Sequence[MethodSummary]) -> str:
    """The bar chart in words, with its numbers."""
    parts = [
        f"{method_name(s.method)} {percent(s.subspan_exact_match.estimate)} "
        f"(95% interval {interval_range(s.subspan_exact_match)})"
        for s in summaries
    ]
    return "Accuracy by method: " + "; ".join(parts) + "."


def _accuracy(summary: MethodSummary) -> str:
    accuracy = summary.subspan_exact_match
    samples = count(summary.questions, "question")
    if summary.samples != summary.questions:
        samples = f"{count(summary.samples, 'sample')} of {samples}"
    return (
        f"{method_name(summary.method)} answered {percent(accuracy.estimate)} of its samples right "
        f"(95% interval {interval_range(accuracy)}%; {samples})."
    )


def _comparison(baseline: str, difference: PairedDifference | None) -> str:
    name = method_name(baseline)
    if difference is None:
        return f"It shares no samples with {name}, so there is no paired comparison."
    interval = difference.interval
    numbers = (
        f"95% interval {points(interval.low)} to {points(interval.high)}; "
        f"{p_value(difference.p_value)}; {count(interval.n, 'paired sample')}"
    )
    gap = points(abs(interval.estimate)).lstrip("+")
    way = "above" if interval.estimate > 0 else "below"
    place = f"{gap} points {way}" if interval.estimate else "the same as"
    sentence = f"It is {place} {name} ({numbers})"
    if is_distinguishable(difference):
        return f"{sentence}, a difference that is distinguishable from zero at the 95% level."
    return (
        f"{sentence}: the difference is not distinguishable from zero at the 95% level, so this "
        "run does not show which of the two is better."
    )


def _fidelity(summary: MethodSummary) -> str:
    if summary.quote_recall is None:
        return ""
    text = f"Its quotes hold {percent(summary.quote_recall)} of the gold passages"
    if summary.verbatim_rate is None:
        return text + "."
    return text + f", and {percent(summary.verbatim_rate)} of the quotes are word for word."
