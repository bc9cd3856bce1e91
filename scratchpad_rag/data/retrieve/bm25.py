"""BM25 (bm25s): passages ranked by the words that they share with a question.

Okapi BM25 in Lucene's variant (Kamphuis et al. 2020, table 1; k1=1.5, b=0.75) over title and text,
without English stop words.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import bm25s
import numpy as np
from bm25s.stopwords import STOPWORDS_EN

from scratchpad_rag.data.retrieve.base import Ranking, Scores, best_of
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage

_find_words: Callable[[str], list[str]] = re.compile(r"\w+").findall
_STOP_WORDS = frozenset(STOPWORDS_EN)
# What the pattern makes of ASCII, as a table of bytes: it parts an English text four times as fast.
_ASCII_WORDS = bytes(code if _find_words(chr(code)) else ord(" ") for code in range(128)).ljust(256)


class BM25Retriever:
    """Ranks a pool by BM25; passages that share no word with a question follow by index."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.size = len(passages)
        tokens = _tokenize(f"{passage.title} {passage.text}" for passage in passages)
        self._has_words = len(tokens.ids.flat) > 0
        self._model = _BulkBM25()
        if self._has_words:
            self._model.index(tokens, show_progress=False)

    def rank(self, questions: Sequence[Example], depth: int) -> list[Ranking]:
        """The `depth` best passages (all there are, if fewer) for each question."""
        return [self.search(question.question, depth) for question in questions]

    def search(self, question: str, depth: int) -> Ranking:
        """The `depth` best passages (all there are, if fewer) for one question."""
        scores = self.scores(question)
        found = np.flatnonzero(scores > 0)  # a sort of the zeros too takes ten times as long
        positive = scores[found]
        best = best_of(positive, depth)
        indices = found[best].tolist()
        values = positive[best].tolist()
        if len(indices) < depth:
            rest = np.flatnonzero(scores <= 0)[: depth - len(indices)].tolist()
            indices += rest
            values += [0.0] * len(rest)
        return Ranking(indices, values)

    def scores(self, question: str) -> Scores:
        """BM25 of every passage, float32 of shape (passages,); 0 where no word is shared."""
        ids = self._model.get_tokens_ids(_words(question)) if self._has_words else []
        if not ids:
            return np.zeros(self.size, dtype=np.float32)
        return np.asarray(self._model.get_scores_from_ids(ids))


def rank_passages(question: str, passages: Sequence[Passage]) -> list[int]:
    """Indices of all `passages`, best first by BM25 over these few; equal scores by index.

    Passages that were retrieved for one question share its words, so that how rare a word is
    among them says little: where more of the collection is at hand, `PassageRanker` ranks better.

    >>> rank_passages("Who wrote Dracula?", [Passage("Emma", "A novel."), Passage("Dracula", "By")])
    [1, 0]
    """
    return BM25Retriever(passages).search(question, len(passages)).indices


class PassageRanker:
    """Ranks few passages by BM25 with the word counts of the whole collection they come from."""

    def __init__(self, collection: Iterable[Passage]) -> None:
        distinct = list(dict.fromkeys(collection))
        self._place_of = {passage: place for place, passage in enumerate(distinct)}
        self._index = BM25Retriever(distinct)

    def rank(self, question: str, passages: Sequence[Passage]) -> list[int]:
        """Indices of all `passages`, best first; equal scores by index.

        Raises DataError for a passage that is not in the collection.
        """
        missing = [passage.title for passage in passages if passage not in self._place_of]
        if missing:
            raise DataError(f"passage {missing[0]!r} is not in the collection that is ranked from")
        places = [self._place_of[passage] for passage in passages]
        return best_of(self._index.scores(question)[places], len(places))


class _TokenIds(NamedTuple):
    """The words of all texts in one row, as numbers, and how many of them each text has."""

    flat: np.ndarray[tuple[int], np.dtype[np.int32]]
    lengths: np.ndarray[tuple[int], np.dtype[np.int64]]


class _Tokens(NamedTuple):
    """What bm25s takes as a tokenized collection (`bm25s.tokenization.Tokenized`)."""

    ids: _TokenIds
    vocab: dict[str, int]


def _tokenize(texts: Iterable[str]) -> _Tokens:
    """As `bm25s.tokenize` with the pattern of all words, which is slower and keeps lists of lists.

    Its own pattern drops words of one letter: "Malcolm X".
    """
    vocab: defaultdict[str, int] = defaultdict()
    vocab.default_factory = vocab.__len__
    number_of = vocab.__getitem__
    for word in sorted(_STOP_WORDS):
        number_of(word)  # the first numbers are the stop words'
    ids = array("i")
    lengths = array("q")
    for text in texts:
        words = _all_words(text)
        ids.extend(map(number_of, words))
        lengths.append(len(words))
    vocab.default_factory = None
    flat = np.frombuffer(ids, dtype=np.int32) if ids else np.zeros(0, dtype=np.int32)
    of_text = np.repeat(np.arange(len(lengths)), lengths)
    kept = flat >= len(_STOP_WORDS)
    counts = np.bincount(of_text[kept], minlength=len(lengths))
    return _Tokens(_TokenIds(flat[kept], counts), dict(vocab))


def _all_words(text: str) -> list[str]:
    lowered = text.lower()
    if lowered.isascii():
        return lowered.encode().translate(_ASCII_WORDS).decode().split()
    return _find_words(lowered)


def _words(text: str) -> list[str]:
    return [word for word in _all_words(text) if word not in _STOP_WORDS]


class _BulkBM25(bm25s.BM25):  # type: ignore[misc]  # bm25s has no types
    """bm25s with an index that is built by a few operations on whole arrays.

    bm25s counts each passage's words in Python and asks to override this method for other ways;
    the scores are the same to the last bit.
    """

    def build_index_from_ids(
        self, unique_token_ids: list[int], corpus_token_ids: _TokenIds, **_: Any
    ) -> dict[str, Any]:
        """The scores by word, then by passage: what bm25s calls a CSC matrix."""
        flat, lengths = corpus_token_ids
        passages, words = len(lengths), len(unique_token_ids)
        # One number a pair of word and passage, so that one sort brings equal pairs together.
        pairs = flat.astype(np.int64)
        pairs *= passages
        pairs += np.repeat(np.arange(passages), lengths)
        pairs.sort()
        first = np.flatnonzero(np.diff(pairs, prepend=-1))
        counts = np.diff(first, append=len(pairs))
        of_word, of_passage = np.divmod(pairs[first], passages)
        holders = np.bincount(of_word, minlength=words)  # passages with the word
        weight = np.array([_idf(count, passages) for count in range(holders.max() + 1)])
        idf = weight.astype(np.float32)[holders]
        norm = self.k1 * (1 - self.b + self.b * lengths / lengths.mean())
        frequency = counts.astype(np.float32)
        data = idf[of_word] * (frequency / (norm[of_passage] + frequency))
        self.nonoccurrence_array = None
        return {
            "data": data.astype(self.dtype),
            "indices": of_passage.astype(self.int_dtype),
            "indptr": np.concatenate([[0], np.cumsum(holders)]),
            "num_docs": passages,
        }


def _idf(holders: int, passages: int) -> float:
    return math.log(1 + (passages - holders + 0.5) / (holders + 0.5))
