"""Passages in a drawn order, an order for each question: how easy a set is without a retriever."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice

from scratchpad_rag.data.retrieve.base import Ranking
from scratchpad_rag.records import Example, Passage


class RandomRetriever:
    """Draws from the seed and a question's id, so that each question has its own order."""

    def __init__(self, passages: Sequence[Passage], seed: int) -> None:
        self.size = len(passages)
        self.seed = seed

    def rank(self, questions: Sequence[Example], depth: int) -> list[Ranking]:
        """`depth` passages (all there are, if fewer) for each question; every score is 0."""
        return [self._rank(question, depth) for question in questions]

    def _rank(self, question: Example, depth: int) -> Ranking:
        generator = random.Random(f"{self.seed}:{question.id}:distractors")
        drawn = list(islice(_shuffled(self.size, generator), depth))
        return Ranking(drawn, [0.0] * len(drawn))


def _shuffled(size: int, generator: random.Random) -> Iterator[int]:
    """The numbers below `size` in a drawn order, each drawn only when it is asked for.

    Fisher and Yates's shuffle that keeps only what it moved: the first of a million cost no more
    than the first of ten, and are the same however many follow.
    """
    moved: dict[int, int] = {}
    for place in range(size):
        chosen = generator.randrange(place, size)
        yield moved.get(chosen, chosen)
        moved[chosen] = moved.get(place, place)
