"""Training and validation questions kept apart, and which of them are used at which position."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from scratchpad_rag.data.normalise import normalise_question
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example


class Split(NamedTuple):
    """Examples for training and for validation; no question is on both sides."""

    train: list[Example]
    val: list[Example]


class Draw(NamedTuple):
    """Samples drawn, each an example and its gold position; `asked` may exceed `available`."""

    samples: list[tuple[Example, int]]
    asked: int
    available: int

    @property
    def is_short(self) -> bool:
        return self.asked > self.available


def split_by_question(examples: Sequence[Example], train_ratio: float, seed: int) -> Split:
    """`train_ratio` (0..1) of the questions for training, the rest for validation.

    The same question, however it is spelled and wherever its gold passage stands, goes to one
    side. The sides depend on the set of questions and the seed, not on the order of the file,
    and keep that order. Raises DataError for a ratio outside 0..1.
    """
    if not 0 <= train_ratio <= 1:
        raise DataError(f"train_ratio {train_ratio} is outside 0..1")
    keys = [normalise_question(example.question) for example in examples]
    questions = sorted(set(keys))
    random.Random(seed).shuffle(questions)
    chosen = set(questions[: round(train_ratio * len(questions))])
    pairs = list(zip(keys, examples, strict=True))
    return Split(
        train=[example for key, example in pairs if key in chosen],
        val=[example for key, example in pairs if key not in chosen],
    )


def draw_samples(
    examples: Sequence[Example],
    num_samples: int | None,
    gold_at: Sequence[int],
    seed: int,
    by: str,
) -> Draw:
    """Up to `num_samples` (None: all) pairs of a question and a gold position, from a seed.

    `by="question"` (training): all questions in a drawn order, each once, then once more at
    another position, and so on; after any number of samples the positions are used equally often,
    give or take one. `by="position"` (validation): each question at all its positions before
    the next, so that positions are compared on the same questions.
    Raises DataError for positions or ids that occur twice, and for an unknown `by`.
    """
    _check_draw(examples, num_samples, gold_at, by)
    order = sorted(examples, key=lambda example: example.id)
    random.Random(seed).shuffle(order)
    if by == "question":
        pairs = _rotated(order, gold_at)
    else:
        pairs = [(example, position) for example in order for position in gold_at]
    asked = len(pairs) if num_samples is None else num_samples
    return Draw(pairs[:asked], asked, len(pairs))


def _rotated(order: Sequence[Example], gold_at: Sequence[int]) -> list[tuple[Example, int]]:
    """Every pair once, in rounds over the questions, positions taking turns.

    Turns alone would bring a question back to its old position where the two counts share a
    factor: after each `lcm` of them, when the turns come full circle, one position is skipped.
    """
    if not order:
        return []
    circle = math.lcm(len(order), len(gold_at))
    turns = range(len(order) * len(gold_at))
    return [
        (order[turn % len(order)], gold_at[(turn + turn // circle) % len(gold_at)])
        for turn in turns
    ]


def _check_draw(
    examples: Sequence[Example], num_samples: int | None, gold_at: Sequence[int], by: str
) -> None:
    if by not in ("question", "position"):
        raise DataError(f"unknown order of samples {by!r}; choose from question, position")
    if num_samples is not None and num_samples < 0:
        raise DataError(f"the number of samples cannot be {num_samples}")
    if not gold_at or len(set(gold_at)) < len(gold_at):
        raise DataError(f"gold_at {list(gold_at)} must name one or more positions, each once")
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise DataError(f"example id {example.id!r} occurs twice among those to draw from")
        seen.add(example.id)
