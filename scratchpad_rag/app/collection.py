"""The passages that questions of one's own are asked of, and those questions' limits."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from scratchpad_rag.data.lines import read_items
from scratchpad_rag.errors import DataError, UserError
from scratchpad_rag.reader import make_example, passage_from
from scratchpad_rag.records import Example, Passage

if TYPE_CHECKING:
    from scratchpad_rag.data.retrieve.bm25 import BM25Retriever

LONGEST_QUESTION = 2000  # characters; what is longer is a document
_JSON_SUFFIXES = (".json", ".jsonl", ".gz")


class Collection:
    """Passages, and those of them that match a question best by BM25."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        self.passages = list(dict.fromkeys(passages))
        self._index: BM25Retriever | None = None
        self._indexing = Lock()

    def __len__(self) -> int:
        return len(self.passages)

    def ask(self, question: str, total_docs: int) -> Example:
        """The question with its `total_docs` best passages, or with all in their own order.

        With 0 it is asked closed-book. Raises UserError for a question that is empty or too long,
        and for a number of passages that there are not.
        """
        asked = typed_question(question)
        check_count(total_docs, len(self))
        if total_docs == len(self):
            return make_example(asked, self.passages)
        chosen = self.index().search(asked, total_docs).indices if total_docs else []
        return make_example(asked, [self.passages[index] for index in chosen])

    def index(self) -> BM25Retriever:
        """The index, which takes seconds to build over thousands of passages; it is kept."""
        from scratchpad_rag.data.retrieve.bm25 import BM25Retriever

        with self._indexing:
            if self._index is None:
                self._index = BM25Retriever(self.passages)
            return self._index


def typed_question(question: str) -> str:
    """The question, if it is one. Raises UserError where it is empty or too long."""
    if len(question) > LONGEST_QUESTION:
        raise UserError(
            f"the question has {len(question):,} characters; at most {LONGEST_QUESTION:,} are asked"
        )
    if not question.strip():
        raise UserError("the question to answer is empty")
    return make_example(question).question


def check_count(total_docs: int, available: int) -> None:
    """Raises UserError for a number of documents that cannot be shown."""
    if not 0 <= total_docs <= available:
        raise UserError(f"{total_docs:,} documents cannot be shown: choose from 0 to {available:,}")


def read_documents(path: Path) -> list[Passage]:
    """One's own documents: JSON lines or an array of `text` and perhaps `title`, or plain text.

    Plain text is split at blank lines. Files named `.json`, `.jsonl` or `.gz`, and those that
    begin with `{`, are read as JSON. A document without a title is called after the file.
    Raises DataError naming the file and the line.
    """
    name = path.name.partition(".")[0]
    if path.suffix not in _JSON_SUFFIXES and not _read_text(path).lstrip().startswith("{"):
        blocks = "\n".join(line.rstrip() for line in _read_text(path).splitlines()).split("\n\n")
        texts = [block.strip() for block in blocks if block.strip()]
        if not texts:
            raise DataError(f"{path}: the file is empty")
        return [Passage(f"{name} {n}", text) for n, text in enumerate(texts, start=1)]
    items = enumerate(read_items(path), start=1)
    return [passage_from(item, f"{name} {number}") for number, item in items]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start})") from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
