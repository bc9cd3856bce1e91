"""A user's own questions over a user's own texts: the gold passages that a table names, found.

`read_table` and `read_corpus` read the two, `resolve_gold` brings them together; distractors are
mined afterwards (`data.retrieve`). KILT's questions take the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from scratchpad_rag.data.corpus import ENDINGS, read_corpus
from scratchpad_rag.data.normalise import normalise_answer, spaced_words
from scratchpad_rag.data.readers import Question, SplitExample, read_questions
from scratchpad_rag.data.shapes import GoldName
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Passage

__all__ = ["needs_corpus", "read_corpus", "read_table", "resolve_gold"]


def read_table(path: Path) -> list[Question]:
    """A table of questions: CSV, TSV, JSON lines or Parquet with the columns `question`, `answers`
    (a list, or one string with `|` between), and if wanted `id`, `split` and `gold`.

    Raises DataError for bad input and for a file whose questions bring passages of their own.
    """
    questions = read_questions(path)
    if any(question.example.passages for question in questions):
        raise DataError(f"{path}: the questions bring their passages; this is not a table")
    return questions


def needs_corpus(questions: Iterable[Question]) -> bool:
    """Whether the gold passages of a question are only named."""
    return any(question.gold or not question.example.passages for question in questions)


def resolve_gold(
    questions: Sequence[Question], pool: Sequence[Passage], skip_missing: bool = False
) -> list[SplitExample]:
    """The questions with the gold passages of `pool` that they name; others stay as they are.

    A name is a passage's whole text, or the title or the file of a document. Of a document in
    several passages the one is taken that holds the evidence given, else an answer; of several such
    the one that shares most words with the question, the first of equals. A question that names
    nothing has no gold passage. Raises DataError for a name that is not in the pool, or whose
    passages hold no answer; with `skip_missing` such questions are left out.
    """
    documents = _Documents(pool)
    found: list[SplitExample] = []
    problems: list[str] = []
    for question in questions:
        if not question.gold:
            found.append(SplitExample(question.example, question.split))
            continue
        named = [documents.find(name, question) for name in question.gold]
        missing = [problem for problem in named if isinstance(problem, str)]
        problems += missing[:1]
        if missing:
            continue
        gold = tuple(dict.fromkeys(passage for passage in named if isinstance(passage, Passage)))
        example = replace(question.example, passages=gold, gold=tuple(range(len(gold))))
        found.append(SplitExample(example, question.split))
    if problems and not skip_missing:
        others = len(problems) - 1
        more = f" (and of {others} other question{'s' * (others > 1)})" if others else ""
        raise DataError(problems[0] + more)
    if not found:
        raise DataError(f"no question names a gold passage of the pool; the first: {problems[0]}")
    return found


class _Documents:
    """The passages of a pool by the names that a table may give them."""

    def __init__(self, pool: Sequence[Passage]) -> None:
        self.by_text: dict[str, Passage] = {}
        self.by_title: dict[str, list[Passage]] = {}
        for passage in pool:
            self.by_text.setdefault(_spaced(passage.text), passage)
            self.by_title.setdefault(_title_key(passage.title), []).append(passage)

    def find(self, name: GoldName, question: Question) -> Passage | str:
        """The passage meant, or what is wrong."""
        text = self.by_text.get(_spaced(name.name))
        if text is not None:
            return text
        passages = self.by_title.get(_title_key(name.name)) or self.by_title.get(
            _title_key(PurePosixPath(name.name).name), []
        )
        asked = (
            f"{question.where}: gold {_shortened(name.name)} of question {question.example.id!r}"
        )
        if not passages:
            return f"{asked} is neither the title nor the text of a passage"
        if len(passages) == 1:
            return passages[0]
        holding = [p for p in passages if _holds(p, name.evidence)]
        holding = holding or [p for p in passages if _holds(p, question.example.answers)]
        if not holding:
            return (
                f"{asked} is a document of {len(passages)} passages and none of them holds an"
                " answer; name the passage by its whole text"
            )
        words = set(spaced_words(question.example.question).split())
        return max(holding, key=lambda p: len(words & set(spaced_words(p.text).split())))


def _holds(passage: Passage, texts: Iterable[str]) -> bool:
    squad, spaced = f" {normalise_answer(passage.text)} ", f" {spaced_words(passage.text)} "
    return any(
        (form and f" {form} " in squad) or (parted and f" {parted} " in spaced)
        for form, parted in ((normalise_answer(text), spaced_words(text)) for text in texts)
    )


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _title_key(title: str) -> str:
    """
    >>> _title_key("Ada_Lovelace.txt") == _title_key("ada lovelace")
    True
    """
    bare = re.sub(rf"({'|'.join(map(re.escape, ENDINGS))})$", "", title.strip().lower())
    return _spaced(bare.replace("_", " "))


def _shortened(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:59] + "…")
