"""Accuracy on passages as the retriever returned them, which is what production sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """One AsRetrieved a method, data set and number of documents with passage order "retrieved".

    Raises DataError where a score does not say how many gold passages its question has.
    """
    raise NotImplementedError
