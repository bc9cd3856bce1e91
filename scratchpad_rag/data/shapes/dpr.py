"""The files of Dense Passage Retrieval (Karpukhin et al. 2020), for Natural Questions and TriviaQA.

They carry no ids: one is made from the question, and a number added where a question comes again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from scratchpad_rag.data.lines import Item
from scratchpad_rag.data.normalise import question_id
from scratchpad_rag.data.shapes.base import (
    Reader,
    Row,
    answers_in_text,
    children,
    distinct,
    make_example,
    read_passage,
)
from scratchpad_rag.records import Passage


class _Parts(NamedTuple):
    passages: tuple[Passage, ...]
    gold: tuple[int, ...]
    also_hold: tuple[int, ...] = ()


def _numbered(read: Callable[[Item], _Parts]) -> Reader:
    def reader(items: Iterator[Item]) -> Iterator[Row]:
        times: Counter[str] = Counter()
        for item in items:
            identity = question_id(item.text("question"))
            times[identity] += 1
            if times[identity] > 1:
                identity = f"{identity}-{times[identity]}"
            parts = read(item)
            answers = answers_in_text(item, "answers")
            example = make_example(item, identity, answers, parts.passages, parts.gold)
            yield Row(item, replace(example, also_hold=parts.also_hold))

    return reader


def _training_parts(item: Item) -> _Parts:
    """The first positive passage is gold; the others hold the answer too and are left out. The
    distractors are the hard negatives, then the negatives, best first, each passage once."""
    positive = item.items("positive_ctxs")
    negative = [
        read_passage(child)
        for key in ("hard_negative_ctxs", "negative_ctxs")
        if item.has(key)
        for child in item.items(key)
    ]
    if not positive and not negative:
        raise item.error("the question has no passages")
    if not positive:
        return _Parts(tuple(dict.fromkeys(negative)), ())
    held = {read_passage(child) for child in positive[1:]}
    gold = read_passage(positive[0])
    return _Parts(distinct(gold, (p for p in negative if p not in held)), (0,))


def _retrieved_parts(item: Item) -> _Parts:
    """All passages as they were retrieved; the best-ranked one with `has_answer` is gold, and the
    others with it are shown only as retrieved, never as distractors."""
    ranked = children(item, "ctxs")
    holding = [index for index, child in enumerate(ranked) if child.flag("has_answer")]
    passages = tuple(map(read_passage, ranked))
    return _Parts(passages, tuple(holding[:1]), tuple(holding[1:]))


read_training: Reader = _numbered(_training_parts)
read_retrieved: Reader = _numbered(_retrieved_parts)
