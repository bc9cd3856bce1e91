"""Passages as they were retrieved, nothing inserted, and how many of the gold ones are there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from scratchpad_rag.data.retrieve.base import Retriever
from scratchpad_rag.data.retrieve.near import Comparable, Pool, nearly_equal
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example


def as_retrieved(
    questions: Sequence[Example],
    pool: Pool,
    retriever: Retriever,
    count: int,
    near_duplicate: float,
) -> list[Example]:
    """Each question with the `count` best passages of the pool, best first, the gold ones marked.

    A gold passage is found where its text stands, or else where one stands that is nearly equal
    to it; further such copies are marked as holding an answer too. `gold` keeps the order of the
    reasoning, and `gold_total` says how many there are where not all were found. Raises DataError
    for a pool of fewer passages.
    """
    if not 1 <= count <= len(pool):
        raise DataError(f"as_retrieved {count} is outside 1..{len(pool)}, the passages of the pool")
    rankings = retriever.rank(questions, count)
    return [
        _mark(question, ranking.indices, pool, near_duplicate)
        for question, ranking in zip(questions, rankings, strict=True)
    ]


def recall_at(examples: Sequence[Example], count: int) -> float | None:
    """The share of a question's gold passages among its first `count`, on average.

    Questions without gold passages do not count; None where there are no others.

    >>> passages = tuple(Example("q", "?", (), (), ()) for _ in range(3))
    >>> recall_at([Example("q", "?", (), passages, gold=(2,), gold_total=2)], 3)
    0.5
    """
    shares = [
        sum(place < count for place in example.gold) / total
        for example in examples
        if (total := _gold_total(example))
    ]
    return sum(shares) / len(shares) if shares else None


def count_absent(questions: Sequence[Example], found: Sequence[Example], pool: Pool) -> int:
    """Questions with gold passages of which the pool holds none, but for case, marks and articles.

    `found` are the questions as retrieved: with a gold passage marked, nearly equal or not, they
    do not count. The pool is only normalised where a text is not in it as it stands.
    """
    texts: Collection[str] = {passage.text for passage in pool.passages}
    missing = [
        question.gold_passages
        for question, retrieved in zip(questions, found, strict=True)
        if question.gold
        and not retrieved.gold
        and not any(passage.text in texts for passage in question.gold_passages)
    ]
    if missing:
        texts = {pool.comparable(index).text for index in range(len(pool))}
    return sum(not any(Comparable(passage).text in texts for passage in gold) for gold in missing)


def _gold_total(example: Example) -> int:
    return len(example.gold) if example.gold_total is None else example.gold_total


def _mark(question: Example, ranked: Sequence[int], pool: Pool, near_duplicate: float) -> Example:
    found = [pool.comparable(index) for index in ranked]
    gold: list[int] = []
    copies: set[int] = set()
    for passage in map(Comparable, question.gold_passages):
        alike = [i for i, other in enumerate(found) if nearly_equal(passage, other, near_duplicate)]
        # Stable: the best-ranked of those that are equally alike.
        alike.sort(key=lambda place: found[place].text != passage.text)
        free = [place for place in alike if place not in gold]
        gold += free[:1]
        copies.update(alike)
    total = _gold_total(question)
    return replace(
        question,
        passages=tuple(other.passage for other in found),
        gold=tuple(gold),
        gold_total=total if total > len(gold) else None,
        also_hold=tuple(sorted(copies - set(gold))),
    )
