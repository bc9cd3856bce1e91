"""Two retrievers in one: reciprocal rank fusion (Cormack, Clarke and Büttcher 2009)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from scratchpad_rag.data.retrieve.base import Ranking, Retriever
from scratchpad_rag.records import Example

_K = 60  # of the paper: how much less the first ranks count than they would alone
_FUSED = 1000  # passages of each ranking; beyond, a rank says next to nothing


def fuse(rankings: Sequence[Sequence[int]], k: int = _K) -> Ranking:
    """Passages by the sum over all rankings of 1 / (k + rank), ranks from 1; equal ones by index.

    >>> [round(score, 4) for score in fuse([[7, 3], [3]]).scores], fuse([[7, 3], [3]]).indices
    ([0.0325, 0.0164], [3, 7])
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, index in enumerate(ranking, 1):
            scores[index] = scores.get(index, 0.0) + 1 / (k + rank)
    ranked = sorted(scores, key=lambda index: (-scores[index], index))
    return Ranking(ranked, [scores[index] for index in ranked])


class HybridRetriever:
    """Fuses the first 1,000 passages of several retrievers; those in none follow by index."""

    def __init__(self, retrievers: Sequence[Retriever], size: int) -> None:
        self.retrievers = retrievers
        self.size = size

    def rank(self, questions: Sequence[Example], depth: int) -> list[Ranking]:
        """The `depth` best passages (all there are, if fewer) for each question."""
        found = [retriever.rank(questions, _FUSED) for retriever in self.retrievers]
        return [
            self._cut(fuse([ranking.indices for ranking in of_one]), depth)
            for of_one in zip(*found, strict=True)
        ]

    def _cut(self, fused: Ranking, depth: int) -> Ranking:
        indices, scores = fused.indices[:depth], fused.scores[:depth]
        if len(indices) < depth:
            seen = set(indices)
            rest = (index for index in range(self.size) if index not in seen)
            indices += islice(rest, depth - len(indices))
            scores += [0.0] * (len(indices) - len(scores))
        return Ranking(indices, scores)
