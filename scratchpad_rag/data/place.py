"""What the reader is shown: how many passages, where the gold ones stand, which view of them."""

from __future__ import annotations

import random
from dataclasses import replace

from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage

VIEWS = (
    "train_anc",
    "train_pos",
    "train_neg",
    "train_closed_book",
    "val_anc",
    "val_pos",
    "val_neg",
    "val_closed_book",
)


def place(
    example: Example,
    total_docs: int | None,
    gold_at: int | None,
    order: str = "ranked",
    seed: int = 0,
) -> Example:
    """The example with `total_docs` passages (None: all), the first gold one at index `gold_at`.

    The best-ranked distractors are shown, in the `order` of their rank ("ranked"), the worst first
    ("reversed") or drawn from the seed and the example's id ("shuffled"); further gold passages
    follow the first at once, in their own order. With `gold_at` None or order "given" every passage
    keeps its place, and the worst-ranked distractors go. Order "retrieved" shows the first passages
    as they are, with those gold ones that are among them. Raises DataError if the example
    has too few passages or the position lies outside.

    >>> passages = tuple(Passage(title, "...") for title in "GABC")
    >>> example = Example("q", "Who?", ("she",), passages, gold=(0,))
    >>> [passage.title for passage in place(example, 3, gold_at=1).passages]
    ['A', 'G', 'B']
    """
    total = len(example.passages) if total_docs is None else total_docs
    if order == "retrieved":
        return _first(example, total)
    _check_total(example, total)
    if gold_at is None or order == "given":
        return _trim(example, total)
    _check_position(example, total, gold_at)
    gold = example.gold_passages
    distractors = _in_order(_distractors(example)[: total - len(gold)], order, seed, example.id)
    shown = distractors[:gold_at] + gold + distractors[gold_at:]
    return _showing(example, shown, tuple(range(gold_at, gold_at + len(gold))))


def show(example: Example, split: str) -> Example:
    """One of the four views of a placed example, by the name of a split.

    `*_anc` shows all passages, `*_pos` only the gold ones, `*_neg` all but the gold ones and
    `*_closed_book` none. Raises DataError for another name, and for `*_pos` without gold.
    """
    if split not in VIEWS:
        raise DataError(f"unknown split {split!r}; choose from {', '.join(VIEWS)}")
    view = split.partition("_")[2]
    if view == "anc":
        return example
    if view == "neg":
        return _showing(example, _distractors(example), ())
    if view == "closed_book":
        return _showing(example, (), ())
    if not example.gold:
        raise DataError(f"example {example.id!r} has no gold passage to show for split {split!r}")
    return _showing(example, example.gold_passages, tuple(range(len(example.gold))))


def order_support(example: Example, support_order: str) -> Example:
    """The example with its gold passages in the order in which a scratchpad is to hold them:
    as they are ("given": that of the reasoning) or as they stand ("position")."""
    if support_order == "given":
        return example
    return replace(example, gold=tuple(sorted(example.gold)))


def _in_order(
    distractors: tuple[Passage, ...], order: str, seed: int, identity: str
) -> tuple[Passage, ...]:
    if order == "reversed":
        return distractors[::-1]
    if order == "shuffled":
        drawn = list(distractors)
        random.Random(f"{seed}:{identity}:order").shuffle(drawn)
        return tuple(drawn)
    return distractors


def _first(example: Example, total: int) -> Example:
    if not 1 <= total <= len(example.passages):
        raise DataError(
            f"example {example.id!r} has {len(example.passages)} passages; total_docs is {total}"
        )
    gold, also_hold = (
        tuple(index for index in indices if index < total)
        for indices in (example.gold, example.also_hold)
    )
    return replace(example, passages=example.passages[:total], gold=gold, also_hold=also_hold)


def _trim(example: Example, total: int) -> Example:
    spare = total - len(example.gold)
    apart = {*example.gold, *example.also_hold}
    distractors = [index for index in range(len(example.passages)) if index not in apart]
    kept = sorted({*example.gold, *distractors[:spare]})
    passages = tuple(example.passages[index] for index in kept)
    return _showing(example, passages, tuple(kept.index(index) for index in example.gold))


def _distractors(example: Example) -> tuple[Passage, ...]:
    apart = {*example.gold, *example.also_hold}
    return tuple(p for index, p in enumerate(example.passages) if index not in apart)


def _check_total(example: Example, total: int) -> None:
    available, gold = len(example.passages) - len(example.also_hold), len(example.gold)
    if total > available:
        raise DataError(
            f"example {example.id!r} has {available} passages, fewer than total_docs {total}"
        )
    if total < max(gold, 1) and available:
        raise DataError(
            f"total_docs {total} is too few for example {example.id!r}: it must be 1 or more"
            f" and hold its {gold} gold passages"
        )


def _check_position(example: Example, total: int, gold_at: int) -> None:
    gold = len(example.gold)
    if not gold:
        raise DataError(f"example {example.id!r} has no gold passage to put at gold_at {gold_at}")
    if not 0 <= gold_at <= total - gold:
        raise DataError(
            f"gold_at {gold_at} is outside 0..{total - gold} for example {example.id!r} with"
            f" total_docs {total} and {gold} gold passage{'s' if gold > 1 else ''}"
        )


def _showing(example: Example, passages: tuple[Passage, ...], gold: tuple[int, ...]) -> Example:
    return replace(example, passages=passages, gold=gold, also_hold=())
