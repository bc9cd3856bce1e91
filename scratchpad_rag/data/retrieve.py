"""BM25 (bm25s): distractors for questions out of a pool, and a ranking of the passages shown.

A distractor is a passage that looks relevant and holds no answer, as in Lost in the Middle (Liu
et al. 2023): the best-ranked passages but the gold ones and those with one of the answers in them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import bm25s
import numpy as np
from tqdm import tqdm

from scratchpad_rag.data.normalise import normalise_answer, spaced_words
from scratchpad_rag.data.readers import read_passages, read_with_splits, write_examples
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage

_TOKEN = r"(?u)\b\w+\b"  # bm25s's own pattern drops words of one letter: "Malcolm X"
_NEAR_EQUAL = 0.8  # of the words of the shorter text found in the other
_NOT_SPANS = {"yes", "no"}  # HotpotQA's: a passage with the word "no" does not hold that answer


class BuildReport(NamedTuple):
    """What `build_examples` wrote; `short` questions have fewer distractors than asked for."""

    path: Path
    questions: int
    pool_passages: int
    num_distractors: int
    short: int
    seconds: float


def build_examples(
    questions_path: Path,
    passages_path: Path,
    out: Path,
    num_distractors: int = 19,
    progress: bool = False,
) -> BuildReport:
    """Questions with their gold passages and a pool of passages -> our own inline JSON lines.

    Each question's passages are its gold ones, then its distractors, best first; distractors that
    the questions' own file brought are left aside. Raises DataError for bad input.
    """
    started = time.perf_counter()
    if num_distractors < 1:
        raise DataError(f"num_distractors must be 1 or more, not {num_distractors}")
    if out.is_dir() or out in (questions_path, passages_path):
        raise DataError(f"{out}: cannot be the file to write; name a new .jsonl or .jsonl.gz file")
    rows = read_with_splits(questions_path)
    pool = read_passages(passages_path)
    mined = mine_distractors([row.example for row in rows], pool, num_distractors, progress)
    examples = [
        _with_distractors(row.example, [pool[index] for index in chosen])
        for row, chosen in zip(rows, mined, strict=True)
    ]
    splits = {row.example.id: row.split for row in rows if row.split is not None}
    write_examples(examples, out, splits or None)
    return BuildReport(
        path=out,
        questions=len(examples),
        pool_passages=len(pool),
        num_distractors=num_distractors,
        short=sum(len(chosen) < num_distractors for chosen in mined),
        seconds=time.perf_counter() - started,
    )


def mine_distractors(
    questions: Sequence[Example],
    passages: Sequence[Passage],
    num_distractors: int,
    progress: bool = False,
    depth: int = 100,
) -> list[list[int]]:
    """For each question the indices of its distractors among `passages`, best first.

    Left out are gold passages and those nearly equal to one, passages that hold an answer (whole
    words, after SQuAD's normalisation, in title or text) and a text already taken. Equal scores
    are ranked by index. `depth` passages are looked at first, then more until enough are found;
    a list is shorter than `num_distractors` only if the whole pool holds no more.
    """
    pool = _Pool(passages)
    shown = tqdm(questions, desc="mining distractors", disable=not progress, leave=False)
    return [_mine(question, pool, num_distractors, depth) for question in shown]


def rank_passages(question: str, passages: Sequence[Passage]) -> list[int]:
    """Indices of all `passages`, best first by BM25 over these few; equal scores by index.

    Passages that were retrieved for one question share its words, so that how rare a word is
    among them says little: where more of the collection is at hand, `PassageRanker` ranks better.

    >>> rank_passages("Who wrote Dracula?", [Passage("Emma", "A novel."), Passage("Dracula", "By")])
    [1, 0]
    """
    return _Index(passages).best(question, len(passages))


class PassageRanker:
    """Ranks few passages by BM25 with the word counts of the whole collection they come from."""

    def __init__(self, collection: Iterable[Passage]) -> None:
        distinct = list(dict.fromkeys(collection))
        self._place_of = {passage: place for place, passage in enumerate(distinct)}
        self._index = _Index(distinct)

    def rank(self, question: str, passages: Sequence[Passage]) -> list[int]:
        """Indices of all `passages`, best first; equal scores by index.

        Raises DataError for a passage that is not in the collection.
        """
        missing = [passage.title for passage in passages if passage not in self._place_of]
        if missing:
            raise DataError(f"passage {missing[0]!r} is not in the collection that is ranked from")
        places = [self._place_of[passage] for passage in passages]
        scores = self._index.scores(question)[places]
        return [int(index) for index in np.argsort(-scores, kind="stable")]


class _Index:
    """Okapi BM25 (Lucene's variant, k1=1.5, b=0.75) over title and text of passages."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.size = len(passages)
        texts = [f"{passage.title} {passage.text}" for passage in passages]
        tokens = bm25s.tokenize(texts, token_pattern=_TOKEN, show_progress=False)
        self._has_words = bool(tokens.vocab) and any(tokens.ids)
        self._model = bm25s.BM25()
        if self._has_words:
            self._model.index(tokens, show_progress=False)

    def best(self, question: str, depth: int) -> list[int]:
        """Indices of the `depth` best passages (all there are, if fewer)."""
        scores = self.scores(question)  # (passages,)
        found = np.flatnonzero(scores > 0)
        if len(found) > depth:
            # All that score as the last one taken: which of them is taken must not be chance.
            # np.argpartition over the zeros too takes ten times as long.
            threshold = np.partition(scores[found], len(found) - depth)[len(found) - depth]
            found = found[scores[found] >= threshold]
        ranked = found[np.lexsort((found, -scores[found]))].tolist()[:depth]
        if len(ranked) < depth:
            rest = np.flatnonzero(scores <= 0)
            ranked += rest[: depth - len(ranked)].tolist()
        return list(ranked)

    def scores(self, question: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """BM25 of every passage, shape (passages,); 0 where no word is shared."""
        zeros = np.zeros(self.size, dtype=np.float32)
        if not self._has_words:
            return zeros
        tokenized = bm25s.tokenize(
            [question], token_pattern=_TOKEN, return_ids=False, show_progress=False
        )
        known = [token for token in tokenized[0] if token in self._model.vocab_dict]
        return np.asarray(self._model.get_scores(known)) if known else zeros


class _Normalised(NamedTuple):
    """A passage made comparable: words of its text, and title and text in two normal forms."""

    words: frozenset[str]
    text: str
    squad: str
    spaced: str


class _Pool:
    """Passages to mine from; each is normalised at most once, and only if it is retrieved."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = passages
        self.index = _Index(passages)
        self._normalised: dict[int, _Normalised] = {}

    def normalised(self, index: int) -> _Normalised:
        if index not in self._normalised:
            self._normalised[index] = _normalise(self.passages[index])
        return self._normalised[index]


def _normalise(passage: Passage) -> _Normalised:
    text = normalise_answer(passage.text)
    whole = f"{passage.title} {passage.text}"
    squad = f" {normalise_answer(passage.title)} {text} "
    return _Normalised(frozenset(text.split()), text, squad, f" {spaced_words(whole)} ")


class _Answers:
    """Tells whether a passage holds one of the answers as whole words.

    Two normal forms are searched: SQuAD's joins what punctuation parts ("U.S." is "us", "x-ray"
    is "xray"), the other parts it ("Röntgen's" holds "Röntgen").
    """

    def __init__(self, answers: Sequence[str]) -> None:
        spans = [answer for answer in answers if normalise_answer(answer) not in _NOT_SPANS]
        # An answer of nothing but articles and marks would be found everywhere.
        self._squad = [f" {form} " for form in map(normalise_answer, spans) if form]
        self._spaced = [f" {form} " for form in map(spaced_words, spans) if form]

    def are_in(self, passage: _Normalised) -> bool:
        return any(answer in passage.squad for answer in self._squad) or any(
            answer in passage.spaced for answer in self._spaced
        )


def _mine(question: Example, pool: _Pool, wanted: int, depth: int) -> list[int]:
    answers = _Answers(question.answers)
    gold = [_normalise(passage) for passage in question.gold_passages]
    while True:
        ranked = pool.index.best(question.question, depth)
        chosen = _choose(ranked, wanted, answers, gold, pool)
        if len(chosen) == wanted or depth >= len(pool.passages):
            return chosen
        depth *= 4


def _choose(
    ranked: Sequence[int], wanted: int, answers: _Answers, gold: Sequence[_Normalised], pool: _Pool
) -> list[int]:
    chosen: list[int] = []
    taken: set[str] = set()
    for index, passage in _normalised_in_order(ranked, pool):
        if len(chosen) == wanted:
            break
        same = passage.text in taken or any(_nearly_equal(passage, other) for other in gold)
        if not same and not answers.are_in(passage):
            chosen.append(index)
            taken.add(passage.text)
    return chosen


def _normalised_in_order(ranked: Sequence[int], pool: _Pool) -> Iterator[tuple[int, _Normalised]]:
    return ((index, pool.normalised(index)) for index in ranked)


def _nearly_equal(passage: _Normalised, other: _Normalised) -> bool:
    shorter = min(len(passage.words), len(other.words))
    shared = len(passage.words & other.words)
    return passage.text == other.text or (shorter > 0 and shared >= _NEAR_EQUAL * shorter)


def _with_distractors(example: Example, distractors: Sequence[Passage]) -> Example:
    gold = example.gold_passages
    passages = (*gold, *distractors)
    return Example(example.id, example.question, example.answers, passages, tuple(range(len(gold))))
