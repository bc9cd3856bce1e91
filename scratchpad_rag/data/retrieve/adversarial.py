"""Distractors that are made to mislead: about the same things, or with a wrong answer in them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bm25s.stopwords import STOPWORDS_EN

from scratchpad_rag.data.retrieve.base import Ranking
from scratchpad_rag.data.retrieve.bm25 import BM25Retriever
from scratchpad_rag.data.retrieve.kinds import Kind, find_kind, kind_of
from scratchpad_rag.records import Example, Passage

_LOOKED_AT = 1000  # passages, the best by BM25; the others share too little to mislead
_QUALIFIER = re.compile(r"\(.*?\)")  # "(film)" says what a title is, not what it is about
_NO_SUBJECT = frozenset(STOPWORDS_EN) | {"list"}
_CAPITALISED = re.compile(r"(?<=\s)[A-ZÀ-ÖØ-Þ][\w'’-]+")  # not the first word of a question


class AdversarialRetriever:
    """Ranks the 1,000 best passages by BM25 anew, into three groups, by BM25 within each.

    First those whose title shares a word with a gold passage's title or names an entity of the
    question, and which hold something of the answer's kind; then those with either; then the rest.
    That what they hold is no right answer is the miner's care, which leaves out passages with one.
    """

    def __init__(self, passages: Sequence[Passage], ranker: BM25Retriever) -> None:
        self._passages = passages
        self._ranker = ranker
        self._titles: dict[int, frozenset[str]] = {}
        self._held: dict[tuple[int, Kind], frozenset[str]] = {}

    def rank(self, questions: Sequence[Example], depth: int) -> list[Ranking]:
        """The `depth` most misleading passages for each question. Scores are BM25's."""
        return [self._rank(question, depth) for question in questions]

    def _rank(self, question: Example, depth: int) -> Ranking:
        found = self._ranker.search(question.question, max(depth, _LOOKED_AT))
        subject, kind = _subject(question), kind_of(next(iter(question.answers), ""))
        known = _known(question)
        signs = [self._signs(index, subject, kind, known) for index in found.indices[:_LOOKED_AT]]
        signs += [0] * (len(found.indices) - len(signs))
        order = sorted(range(len(signs)), key=lambda place: -signs[place])[:depth]  # stable
        return Ranking([found.indices[i] for i in order], [found.scores[i] for i in order])

    def _signs(self, index: int, subject: frozenset[str], kind: Kind, known: frozenset[str]) -> int:
        """0 to 2: the same subject, a thing of the answer's kind."""
        return (not subject.isdisjoint(self._title(index))) + self._holds(index, kind, known)

    def _holds(self, index: int, kind: Kind, known: frozenset[str]) -> bool:
        """Whether the text has a thing of the kind that is not known from question and titles.

        Of a name no word may be known.
        """
        known = known | self._title(index) if kind is Kind.NAME else known
        return any(known.isdisjoint(thing.split()) for thing in self._things(index, kind))

    def _title(self, index: int) -> frozenset[str]:
        if index not in self._titles:
            self._titles[index] = title_words(self._passages[index].title)
        return self._titles[index]

    def _things(self, index: int, kind: Kind) -> frozenset[str]:
        if (index, kind) not in self._held:
            self._held[index, kind] = find_kind(kind, self._passages[index].text)
        return self._held[index, kind]


def title_words(title: str) -> frozenset[str]:
    """What a title is about: its words of three letters or more, without stop words and brackets.

    >>> sorted(title_words("List of Nobel laureates in Physics (2017)"))
    ['laureates', 'nobel', 'physics']
    """
    words = re.findall(r"\w{3,}", _QUALIFIER.sub(" ", title).lower())
    return frozenset(words) - _NO_SUBJECT


def _subject(question: Example) -> frozenset[str]:
    """Words that a title about the same things has."""
    titles = [passage.title for passage in question.gold_passages]
    entities = _CAPITALISED.findall(question.question)
    return frozenset().union(*(title_words(text) for text in (*titles, *entities)))


def _known(question: Example) -> frozenset[str]:
    """Words of the question and its answers: a thing made of them misleads nobody."""
    text = " ".join((question.question, *question.answers)).lower()
    return frozenset(re.findall(r"\w+", text))
