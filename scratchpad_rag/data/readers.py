"""Question files -> Examples: our own formats and those of the public sets (`data/shapes`).

Which of them a file is, its first object tells. Every mistake in a file is a DataError of one
line that names the file and the line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scratchpad_rag.data.corpus import read_corpus
from scratchpad_rag.data.lines import Item, read_items, write_lines
from scratchpad_rag.data.shapes import GoldName, Row, from_compact, read_passage, read_rows
from scratchpad_rag.data.tables import read_objects
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage

# HotpotQA calls its validation set `dev`; we write `val`.
SPLITS = {"train": "train", "val": "val", "dev": "val", "validation": "val"}


class SplitExample(NamedTuple):
    """An example and the split that its file puts it in (`train`, `val`), if it says so."""

    example: Example
    split: str | None


class Question(NamedTuple):
    """A question as its file has it; `gold` names the gold passages that are in a corpus and not
    among its own (`data.own.resolve_gold` finds them), `where` is its place in the file."""

    example: Example
    split: str | None
    gold: tuple[GoldName, ...]
    where: str


def read_examples(path: Path, split: str | None = None) -> list[Example]:
    """All examples of a file or folder, in its order, or those that it puts in `split`.

    Raises DataError for bad input, for an id that occurs twice, and for a `split` that the file
    does not know.
    """
    rows = read_with_splits(path)
    if split is None:
        return [row.example for row in rows]
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r} asked of {path}; choose from train, val")
    chosen = [row.example for row in rows if row.split == SPLITS[split]]
    if not chosen:
        known = "a split" if rows[0].split is None else f"split {split!r}"
        raise DataError(f"{path}: no question names {known} in its field 'split'")
    return chosen


def has_splits(path: Path) -> bool:
    """Whether the file says itself what is for training and what for validation.

    Only the first question is looked at: `read_examples` refuses a file that names a split for
    some questions only.
    """
    first = next(_rows(Path(path)), None)
    if first is None:
        raise _no_questions(path)
    return first.item.has("split")


def read_with_splits(path: Path) -> list[SplitExample]:
    """All examples with the split that the file names for each; all of them name one or none.

    Those of a table or of KILT's files have no passages: `read_questions` tells what they name.
    """
    return [SplitExample(row.example, row.split) for row in read_questions(path)]


def read_questions(path: Path) -> list[Question]:
    """All questions of a file or folder, with the gold passages that they only name."""
    rows: list[Question] = []
    seen: dict[str, str] = {}
    for item, example, gold in _rows(Path(path)):
        earlier = seen.setdefault(example.id, item.where)
        if earlier != item.where:
            raise item.error(f"id {example.id!r} was given before, at {earlier}")
        row = Question(example, _split_of(item), gold, item.where)
        if rows and (row.split is None) != (rows[0].split is None):
            raise item.error("field 'split' must be given for every question or for none")
        rows.append(row)
    if not rows:
        raise _no_questions(path)
    return rows


def _no_questions(path: Path) -> DataError:
    return DataError(f"{path}: there are no questions in the file")


def read_passages(path: Path) -> list[Passage]:
    """A pool of passages: JSON lines (.gz), CSV, TSV or Parquet of `title` and `text`; or a folder,
    of text files (`data.corpus`) or with the `passages.jsonl` of our own format."""
    path = Path(path)
    if not path.is_dir():
        return [read_passage(item) for item in read_objects(path)]
    for name in ("passages.jsonl", "passages.jsonl.gz"):
        if (path / name).exists():
            return [read_passage(item) for item in read_items(path / name)]
    return read_corpus(path)


def write_examples(
    examples: Iterable[Example], path: Path, splits: Mapping[str, str] | None = None
) -> None:
    """Examples to our own inline JSON lines, gzipped if the name ends in `.gz`.

    `splits` maps ids to `train` or `val`. The same examples give the same bytes. Raises DataError
    for an example without passages, which could not be read again.
    """
    lines = (
        json.dumps(_to_json(example, splits), ensure_ascii=False, separators=(",", ":"))
        for example in examples
    )
    write_lines(lines, Path(path))


def _to_json(example: Example, splits: Mapping[str, str] | None) -> dict[str, Any]:
    if not example.passages:
        raise DataError(f"example {example.id!r} has no passages and cannot be written")
    ascending = list(example.gold) == sorted(example.gold)
    marks: dict[int, bool | int] = {
        # The order of reasoning is written out only where it is not the order of the passages.
        index: True if ascending else order
        for order, index in enumerate(example.gold, 1)
    }
    passages = [
        {"title": passage.title, "text": passage.text}
        | ({"gold": marks[index]} if index in marks else {})
        | ({"holds_answer": True} if index in example.also_hold else {})
        for index, passage in enumerate(example.passages)
    ]
    fields: dict[str, Any] = {
        "id": example.id,
        "question": example.question,
        "answers": list(example.answers),
        "passages": passages,
    }
    if example.gold_total is not None:
        fields["gold_total"] = example.gold_total
    if example.support:
        fields["support"] = list(example.support)
    return fields | ({"split": splits[example.id]} if splits is not None else {})


def _rows(path: Path) -> Iterator[Row]:
    return _read_folder(path) if path.is_dir() else read_rows(read_objects(path))


class _CompactFiles(NamedTuple):
    passages: Path
    questions: Path


def _compact_files(folder: Path) -> _CompactFiles:
    found = []
    for name in _CompactFiles._fields:
        plain, zipped = folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"
        if plain.exists() and zipped.exists():
            raise DataError(f"{folder}: holds both {plain.name} and {zipped.name}; keep one")
        if not plain.exists() and not zipped.exists():
            raise DataError(
                f"{folder}: a folder of examples must hold passages.jsonl and questions.jsonl"
                f" (or .jsonl.gz); {plain.name} is missing"
            )
        found.append(plain if plain.exists() else zipped)
    return _CompactFiles(*found)


def _read_folder(folder: Path) -> Iterator[Row]:
    files = _compact_files(folder)
    pool: dict[str, Passage] = {}
    for item in read_items(files.passages):
        identity = item.text("id")
        if identity in pool:
            raise item.error(f"passage id {identity!r} was given before")
        pool[identity] = read_passage(item)
    for item in read_items(files.questions):
        yield Row(item, from_compact(item, pool))


def _split_of(item: Item) -> str | None:
    if not item.has("split"):
        return None
    name = item.text("split")
    if name not in SPLITS:
        raise item.error(f"unknown split {name!r}; choose from train, val")
    return SPLITS[name]
