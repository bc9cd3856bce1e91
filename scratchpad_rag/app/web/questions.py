"""The questions that the page offers, and those that are typed, with the passages to read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from scratchpad_rag.app.sample_questions import validation_questions
from scratchpad_rag.config import DataConfig
from scratchpad_rag.data.place import place, show
from scratchpad_rag.errors import UserError
from scratchpad_rag.prompts.template import format_question
from scratchpad_rag.reader import make_example
from scratchpad_rag.records import EvalSplit, Example, Passage

if TYPE_CHECKING:
    from scratchpad_rag.data.retrieve.bm25 import BM25Retriever


class Questions:
    """Questions with passages, and all of their passages together to retrieve from."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = tuple(examples)

    @classmethod
    def open(cls, config: DataConfig) -> Questions:
        """The validation questions of an experiment. Raises DataError, as reading them does."""
        return cls(validation_questions(config))

    @property
    def labels(self) -> list[str]:
        """The questions in their order, as they are put to a reader."""
        return [format_question(example.question) for example in self.examples]

    def example(self, index: int) -> Example:
        """A question with all of its passages, best first."""
        return self.examples[index]

    def shown(self, index: int, total_docs: int, position: int | None) -> Example:
        """A question with so many passages, its gold ones from `position` on (from 0).

        With 0 passages it is asked closed-book. Raises UserError for more than there are.
        """
        example = self.examples[index]
        if total_docs == 0:
            return show(example, EvalSplit.CLOSED_BOOK)
        if not 0 < total_docs <= len(example.passages):
            raise UserError(
                f"{total_docs} documents were asked for; this question has "
                f"{len(example.passages)}, and 0 asks it without any"
            )
        return place(example, total_docs, position)

    def typed(self, question: str, total_docs: int) -> Example:
        """A typed question with the passages of all questions that match it best by BM25.

        Raises UserError for an empty question and a negative number of documents.
        """
        if total_docs < 0:
            raise UserError(f"{total_docs} documents were asked for; 0 is the fewest")
        asked = make_example(question)
        if not total_docs:
            return asked
        found = self._index.search(question, min(total_docs, len(self._collection))).indices
        return make_example(question, [self._collection[place] for place in found])

    @cached_property
    def _collection(self) -> list[Passage]:
        return list(dict.fromkeys(p for example in self.examples for p in example.passages))

    @cached_property
    def _index(self) -> BM25Retriever:
        from scratchpad_rag.data.retrieve.bm25 import BM25Retriever

        return BM25Retriever(self._collection)
