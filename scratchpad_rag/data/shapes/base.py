"""What the readers of all shapes share: fields of an object -> parts of an Example."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from scratchpad_rag.data.lines import Item
from scratchpad_rag.records import Example, Passage


class GoldName(NamedTuple):
    """A gold passage that a question names and does not bring: the title or file of its document,
    or its whole text; `evidence` are texts that it holds."""

    name: str
    evidence: tuple[str, ...] = ()


class Row(NamedTuple):
    """An example, the object that it was read from, which errors about it name, and the gold
    passages to be found in a corpus."""

    item: Item
    example: Example
    gold: tuple[GoldName, ...] = ()


Reader = Callable[[Iterator[Item]], Iterator[Row]]


def each(read: Callable[[Item], Example]) -> Reader:
    """A reader of files whose every object is one question."""

    def reader(items: Iterator[Item]) -> Iterator[Row]:
        return (Row(item, read(item)) for item in items)

    return reader


def make_example(
    item: Item,
    identity: str,
    answers: tuple[str, ...],
    passages: Iterable[Passage],
    gold: Iterable[int],
    gold_total: int | None = None,
) -> Example:
    """An example from checked parts; `gold_total` is kept only where it says more than `gold`."""
    marked = tuple(gold)
    total = None if gold_total == len(marked) else gold_total
    return Example(identity, item.text("question"), answers, tuple(passages), marked, total)


def read_passage(item: Item) -> Passage:
    """An object of `title` and `text`; both must hold something."""
    return Passage(item.text("title"), item.text("text"))


def children(item: Item, key: str) -> list[Item]:
    """The passages of a question as objects, at least one."""
    found = item.items(key)
    if not found:
        raise item.error(f"the question has no passages (field {key!r} is empty)")
    return found


def answers_of(item: Item, key: str = "answers") -> tuple[str, ...]:
    """A list of one answer or more."""
    answers = item.texts(key)
    if not answers:
        raise item.error("the question has no answers")
    return answers


def answers_in_text(item: Item, key: str, separator: str | None = None) -> tuple[str, ...]:
    """Texts that are a list, or one string: a list written as Python or JSON writes it, texts
    between separators, or a single text. Each comes once."""
    if not isinstance(item.fields.get(key), str):
        return tuple(dict.fromkeys(answers_of(item, key)))
    text = item.text(key).strip()
    parts: list[Any] = text.split(separator) if separator else [text]
    if text.startswith("[") and text.endswith("]"):
        try:
            parts = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as cause:
            raise item.error(
                f"field {key!r} is not a list that can be read: {text[:40]!r}"
            ) from cause
    stripped = [part.strip() if isinstance(part, str) else part for part in parts]
    return tuple(dict.fromkeys(answers_of(Item({**item.fields, key: stripped}, item.where), key)))


def distinct(gold: Passage, others: Iterable[Passage]) -> tuple[Passage, ...]:
    """The gold passage, then the others, none of them twice."""
    return tuple(dict.fromkeys([gold, *others]))
