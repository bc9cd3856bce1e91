"""Distractors for questions: passages that look relevant and hold no answer.

As in Lost in the Middle (Liu et al. 2023), the best-ranked passages but the gold ones and those
with one of the answers in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tqdm import tqdm

from scratchpad_rag.data.retrieve.base import Retriever
from scratchpad_rag.data.retrieve.bm25 import BM25Retriever
from scratchpad_rag.data.retrieve.near import (
    NEAR_DUPLICATE,
    Answers,
    Comparable,
    Pool,
    check_near_duplicate,
    nearly_equal,
)
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage

_BATCH = 256  # questions ranked at a time: their rankings lie in memory together


@dataclass(frozen=True)
class MiningRules:
    """How many distractors a question gets, and what is none.

    `total_passages`, where it is given, counts in place of `num_distractors`: gold passages and
    distractors together. `keep_distractors`: those that a question has already come first, in
    their order, and mined ones fill up. Raises DataError for a number below 1 and a share
    outside 0..1.
    """

    num_distractors: int = 19
    total_passages: int | None = None
    keep_distractors: bool = False
    near_duplicate: float = NEAR_DUPLICATE

    def __post_init__(self) -> None:
        for name in ("num_distractors", "total_passages"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} must be 1 or more, not {value}")
        check_near_duplicate(self.near_duplicate)

    def wanted(self, question: Example) -> int:
        """How many distractors are to be mined for a question."""
        if self.total_passages is None:
            wanted = self.num_distractors
        else:
            wanted = self.total_passages - len(question.gold)
        return max(0, wanted - len(self.own(question)))

    def own(self, question: Example) -> tuple[Passage, ...]:
        """The distractors of its own that a question keeps."""
        if not self.keep_distractors:
            return ()
        others = {*question.gold, *question.also_hold}
        return tuple(p for index, p in enumerate(question.passages) if index not in others)


def mine_distractors(
    questions: Sequence[Example],
    passages: Sequence[Passage],
    num_distractors: int,
    progress: bool = False,
    depth: int = 100,
) -> list[list[int]]:
    """`mine` by BM25, as many for every question; distractors of their own are left aside."""
    rules = MiningRules(num_distractors)
    return mine(questions, Pool(passages), BM25Retriever(passages), rules, progress, depth)


def mine(
    questions: Sequence[Example],
    pool: Pool,
    retriever: Retriever,
    rules: MiningRules,
    progress: bool = False,
    depth: int = 100,
) -> list[list[int]]:
    """For each question the indices of its distractors in the pool, best first.

    Left out are gold passages and those nearly equal to one, or to a distractor of its own that
    the question keeps; passages that hold an answer (whole words, after SQuAD's normalisation, in
    title or text); and a text already taken. `depth` passages are looked at first, then more until
    enough are found; a list is shorter than wanted only if the whole pool holds no more.
    """
    with tqdm(
        total=len(questions), desc="mining distractors", disable=not progress, leave=False
    ) as bar:
        chosen: list[list[int]] = []
        for batch in _batches(questions):
            chosen += _mine(batch, pool, retriever, rules, depth)
            bar.update(len(batch))
    return chosen


def with_distractors(
    question: Example, distractors: Sequence[Passage], rules: MiningRules
) -> Example:
    """The gold passages in the order of the reasoning, kept distractors, then mined ones."""
    gold = question.gold_passages
    passages = (*gold, *rules.own(question), *distractors)
    return replace(question, passages=passages, gold=tuple(range(len(gold))), also_hold=())


def _batches(questions: Sequence[Example]) -> Iterator[Sequence[Example]]:
    return (questions[start : start + _BATCH] for start in range(0, len(questions), _BATCH))


def _mine(
    questions: Sequence[Example], pool: Pool, retriever: Retriever, rules: MiningRules, depth: int
) -> list[list[int]]:
    chosen: dict[int, list[int]] = {}
    open_ones = list(range(len(questions)))
    while open_ones:
        rankings = retriever.rank([questions[number] for number in open_ones], depth)
        for number, ranking in zip(open_ones, rankings, strict=True):
            chosen[number] = _choose(ranking.indices, questions[number], pool, rules)
        open_ones = [
            number
            for number in open_ones
            if len(chosen[number]) < rules.wanted(questions[number]) and depth < len(pool)
        ]
        depth *= 4
    return [chosen[number] for number in range(len(questions))]


def _choose(ranked: Sequence[int], question: Example, pool: Pool, rules: MiningRules) -> list[int]:
    answers = Answers(question.answers)
    holding = (question.passages[index] for index in (*question.gold, *question.also_hold))
    present = [Comparable(passage) for passage in (*holding, *rules.own(question))]
    wanted = rules.wanted(question)
    chosen: list[int] = []
    taken: set[str] = set()
    for index in ranked:
        if len(chosen) == wanted:
            break
        passage = pool.comparable(index)
        same = passage.text in taken or any(
            nearly_equal(passage, other, rules.near_duplicate) for other in present
        )
        if not same and not answers.are_in(passage):
            chosen.append(index)
            taken.add(passage.text)
    return chosen
