"""Accuracy on passages as the retriever returned them, which is what production sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scratchpad_rag.errors import DataError
from scratchpad_rag.evaluate.cells import RETRIEVED, cell_of
from scratchpad_rag.evaluate.diagnosis import rate, rate_if_any
from scratchpad_rag.evaluate.statistics import Interval
from scratchpad_rag.records import Score


@dataclass(frozen=True, slots=True)
class AsRetrieved:
    """One method in one data set with the retriever's first `num_documents` passages.

    `accuracy` of all questions, and of those with all of their gold passages retrieved, with some
    and not all, and with none (None: no such question). `recall` is the mean share of a question's
    gold passages that were retrieved, `all_found` the share of questions with all of them: figures
    of the retriever, the same for every method.
    """

    method: str
    dataset: str
    num_documents: int
    accuracy: Interval
    given_all: Interval | None
    given_some: Interval | None
    given_none: Interval | None
    recall: Interval
    all_found: Interval


def as_retrieved(scores: Sequence[Score]) -> list[AsRetrieved]:
    """One AsRetrieved a method, data set and number of documents with passage order "retrieved",
    sorted by the last two, methods in order of appearance.

    Questions without any gold passage are left out. Raises DataError where a score does not say
    how many gold passages its question has.
    """
    groups: dict[tuple[str, str, int], list[Score]] = {}
    for score in scores:
        cell = cell_of(score)
        if cell is not None and cell.gold == RETRIEVED and _total(score):
            key = (score.method, score.dataset, score.num_documents)
            groups.setdefault(key, []).append(score)
    return [_summary(key, groups[key]) for key in sorted(groups, key=lambda key: key[1:])]


def _summary(key: tuple[str, str, int], scores: list[Score]) -> AsRetrieved:
    found = [len(score.gold_positions) / _total(score) for score in scores]
    parts: dict[str, list[Score]] = {"all": [], "some": [], "none": []}
    for score, share in zip(scores, found, strict=True):
        parts["all" if share == 1 else "some" if share else "none"].append(score)
    return AsRetrieved(
        method=key[0],
        dataset=key[1],
        num_documents=key[2],
        accuracy=rate(scores, (score.subspan_exact_match for score in scores)),
        given_all=_accuracy(parts["all"]),
        given_some=_accuracy(parts["some"]),
        given_none=_accuracy(parts["none"]),
        recall=rate(scores, found),
        all_found=rate(scores, (share == 1 for share in found)),
    )


def _accuracy(scores: list[Score]) -> Interval | None:
    return rate_if_any(scores, (score.subspan_exact_match for score in scores))


def _total(score: Score) -> int:
    if score.gold_total is None:
        raise DataError(
            f"the scores of {score.method} as retrieved do not say how many gold passages question"
            f" {score.example_id!r} has (gold_total): run it again"
        )
    return score.gold_total
