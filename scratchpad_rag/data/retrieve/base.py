"""What every retriever gives: passages of a pool, ranked for a question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from scratchpad_rag.records import Example

Scores = np.ndarray[tuple[int], np.dtype[Any]]


class Ranking(NamedTuple):
    """Passages of a pool for one question, best first: their indices and their scores.

    Scores are comparable within one ranking only.
    """

    indices: list[int]
    scores: list[float]


class Retriever(Protocol):
    """Ranks the passages of a pool, which it was made with.

    What it finds for a question depends on that question and the pool alone, not on the others
    that it is asked with, and a shallower ranking is the head of a deeper one. Equal scores are
    ranked by index.
    """

    def rank(self, questions: Sequence[Example], depth: int) -> list[Ranking]:
        """The `depth` best passages (all there are, if fewer) for each question."""
        ...


def best_of(scores: Scores, depth: int) -> list[int]:
    """Positions of the `depth` highest scores, highest first, equal ones by position.

    >>> best_of(np.array([0.5, 2.0, 0.5, 0.1]), 2)
    [1, 0]
    """
    if depth < len(scores):
        # All that score as the last one taken: which of them is taken must not be chance.
        threshold = np.partition(scores, len(scores) - depth)[len(scores) - depth]
        found = np.flatnonzero(scores >= threshold)
        scores = scores[found]
    else:
        found = np.arange(len(scores))
    order = np.argsort(-scores, kind="stable")
    chosen: list[int] = found[order][:depth].tolist()
    return chosen
