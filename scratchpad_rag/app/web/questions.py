"""The questions that the demos offer: those an experiment validates on, and typed ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scratchpad_rag.app.collection import Collection, check_count
from scratchpad_rag.config import DataConfig
from scratchpad_rag.data.place import place, show
from scratchpad_rag.errors import DataError, UserError
from scratchpad_rag.prompts.template import format_question
from scratchpad_rag.records import EvalSplit, Example


class Questions:
    """The validation questions of an experiment with all of their passages.

    Typed questions are asked of all passages of the set, those of its training questions too.
    """

    def __init__(self, examples: Sequence[Example], collection: Collection, usual: int) -> None:
        self.examples = examples
        self.collection = collection
        self.usual = usual  # number of documents that the experiment shows

    @classmethod
    def open(cls, config: DataConfig, notify: Callable[[str], None] = lambda _: None) -> Questions:
        """Read the files of an experiment. Raises DataError, also where none is for validation."""
        from scratchpad_rag.data.select import read_split

        split = read_split(config, notify)
        if not split.val:
            raise DataError("this experiment has no validation questions; lower its train_ratio")
        passages = (p for side in split for example in side for p in example.passages)
        return cls(split.val, Collection(passages), config.total_docs)

    @property
    def labels(self) -> list[str]:
        """The questions as they are asked, in the order of their indices."""
        return [format_question(example.question) for example in self.examples]

    def example(self, index: int) -> Example:
        """A question with all of its passages, best first. Raises UserError for no such index."""
        if not 0 <= index < len(self.examples):
            raise UserError(f"there is no question {index}: choose from 0 to {len(self) - 1:,}")
        return self.examples[index]

    def available(self, index: int) -> int:
        """The most documents that can be shown with a question."""
        example = self.example(index)
        return len(example.passages) - len(example.also_hold)

    def last_position(self, index: int, total_docs: int) -> int:
        """The last position that the first gold passage can have among so many; 0 for none."""
        return max(0, total_docs - max(1, len(self.example(index).gold)))

    def shown(self, index: int, total_docs: int, position: int | None) -> Example:
        """A question with so many passages, its gold ones together at `position` (from 0).

        With 0 passages it is asked closed-book. Where `position` is None, or no gold passage is
        known, the passages stand as they were ranked. Raises UserError for what cannot be shown.
        """
        example = self.example(index)
        check_count(total_docs, self.available(index))
        gold = len(example.gold)
        if total_docs == 0:
            return show(example, EvalSplit.CLOSED_BOOK)
        if total_docs < gold:
            raise UserError(f"this question needs {gold} documents or more: so many are gold")
        if not gold or position is None:
            return place(example, total_docs, None)
        last = self.last_position(index, total_docs)
        if not 0 <= position <= last:
            raise UserError(
                f"the gold passage cannot stand at {position}: choose from 0 to {last} with "
                f"{total_docs} documents"
            )
        return place(example, total_docs, position)

    def typed(self, question: str, total_docs: int) -> Example:
        """A question of one's own with the passages that match it best (BM25); none is gold.

        Raises UserError for a question that is empty or too long, and for too many documents.
        """
        return self.collection.ask(question, total_docs)

    def __len__(self) -> int:
        return len(self.examples)
