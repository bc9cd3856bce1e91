"""Where the gold passage stands and how many documents are shown, drawn anew for every epoch.

A plan is dealt, not thrown: the questions are put in an order once, and all take turns through one
deck of document counts and positions, a card further in every epoch. So an epoch uses all cards
equally often, a question comes to each of them in time, and nothing of an earlier epoch has to be
known to make the plan of a later one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from scratchpad_rag.data.place import place
from scratchpad_rag.data.support import in_sentences
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage


@dataclass(frozen=True, slots=True)
class Curriculum:
    """What is drawn: from `min_docs` to `max_docs` documents, the gold one at any position.

    In each epoch `no_gold_rate` (0..1) of the questions, rounded, are shown without gold passages.
    With `sentences` a passage is shown as those of its sentences that would support an answer.
    """

    min_docs: int
    max_docs: int
    no_gold_rate: float = 0.0
    seed: int = 0
    sentences: bool = False


class Placement(NamedTuple):
    """How a question is shown: so many documents, the first gold one at `gold_at` (None: none)."""

    total_docs: int
    gold_at: int | None


def plan_epoch(
    questions: Sequence[Example], curriculum: Curriculum, epoch: int
) -> tuple[Placement, ...]:
    """The placement of each question in an epoch (from 0): a pure function of its arguments.

    Among questions with the same number of gold passages, document counts are used equally often,
    give or take one, and so are the positions at each count. Which questions go without gold
    rotates: all have done so once before any does twice. The plan depends on the ids of the
    questions, not on their order. All have to pass `require_drawable`.
    """
    order = sorted(range(len(questions)), key=lambda index: questions[index].id)
    random.Random(f"{curriculum.seed}:questions").shuffle(order)
    sizes = Counter(len(question.gold) for question in questions)
    decks = {num_gold: _Deck(curriculum, num_gold) for num_gold in sizes}
    seen: Counter[int] = Counter()
    placements: dict[int, Placement] = {}
    # The questions stand in a circle. Those without gold are a window of it, which moves on by its
    # own length; `first` is the place behind it, counted on over all rounds of the circle.
    spared = round(curriculum.no_gold_rate * len(order))
    first = (epoch + 1) * spared
    for rank, index in enumerate(order):
        num_gold = len(questions[index].gold)
        round_number = -((rank - first) // len(order))  # so that the place is `first` or behind it
        turn = seen[num_gold] + round_number * sizes[num_gold] + epoch
        seen[num_gold] += 1
        dealt = decks[num_gold].deal(turn)
        has_gold = rank + round_number * len(order) < first + len(order) - spared
        placements[index] = dealt if has_gold else dealt._replace(gold_at=None)
    return tuple(placements[index] for index in range(len(questions)))


class _Deck:
    """The placements that fit a number of gold passages, in a drawn order without an end.

    Any run of turns uses the document counts equally often, give or take one, and so the positions
    at each count.
    """

    def __init__(self, curriculum: Curriculum, num_gold: int) -> None:
        name = f"{curriculum.seed}:{num_gold}"
        self.counts = list(range(max(curriculum.min_docs, num_gold), curriculum.max_docs + 1))
        random.Random(f"{name}:counts").shuffle(self.counts)
        self.positions = {count: list(range(count - num_gold + 1)) for count in self.counts}
        for count, positions in self.positions.items():
            random.Random(f"{name}:positions:{count}").shuffle(positions)

    def deal(self, turn: int) -> Placement:
        again, place_in_counts = divmod(turn, len(self.counts))
        count = self.counts[place_in_counts]
        positions = self.positions[count]
        return Placement(count, positions[again % len(positions)])


def place_drawn(question: Example, placement: Placement) -> Example:
    """The question as a placement shows it.

    Without gold, further distractors take the place of the gold passages as long as there are any.
    """
    if placement.gold_at is not None:
        return place(question, placement.total_docs, placement.gold_at)
    distractors = _distractors(question)[: placement.total_docs]
    return replace(question, passages=distractors, gold=(), also_hold=())


def draw(question: Example, curriculum: Curriculum, placement: Placement) -> Example:
    """The question as a placement of the curriculum shows it."""
    placed = place_drawn(question, placement)
    return in_sentences(placed) if curriculum.sentences else placed


def require_drawable(questions: Sequence[Example], curriculum: Curriculum) -> None:
    """Raise DataError, naming the question, where a placement of the curriculum would not fit."""
    most = curriculum.max_docs
    for question in questions:
        available = len(question.passages) - len(question.also_hold)
        num_gold = len(question.gold)
        problem = ""
        if available < most:
            problem = f"has {available} passages, and up to {most} documents are to be shown"
        elif not num_gold:
            problem = "has no gold passage to draw a position for"
        elif num_gold > most:
            problem = f"has {num_gold} gold passages, which do not fit into {most} documents"
        elif curriculum.no_gold_rate and not _distractors(question):
            problem = "has nothing but gold passages, and no_gold_rate shows some without"
        if problem:
            raise DataError(f"training question {question.id!r} {problem}")


def _distractors(question: Example) -> tuple[Passage, ...]:
    """All passages but the gold ones, others that hold an answer, and those that are the same word
    for word."""
    apart = {question.passages[index] for index in (*question.gold, *question.also_hold)}
    return tuple(passage for passage in question.passages if passage not in apart)
