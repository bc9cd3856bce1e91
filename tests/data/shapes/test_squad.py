from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from scratchpad_rag.data.readers import has_splits, read_examples
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage
from tests.data.shapes.files import SQUAD, squad_rows, write_lines

STOKER = [
    Passage("Bram Stoker", text)
    for text in (
        "Stoker wrote Dracula in 1897.",
        "He lived in London.",
        "He was born in Clontarf.",
    )
]


def check(examples: list[Example]) -> None:
    assert [example.id for example in examples] == ["s1", "s2", "s3", "s4"]
    first, second, third, fourth = examples
    assert first.answers == ("1897", "in 1897")
    # The gold paragraph, then the others of the article, the doubled one once.
    assert first.passages == tuple(STOKER)
    assert second.passages == first.passages
    assert third.passages == (STOKER[2], STOKER[0], STOKER[1])
    assert fourth.passages == (Passage("Emma", "A novel by Austen."),)
    assert {example.gold for example in examples} == {(0,)}


@pytest.mark.parametrize("indent", [None, 1])
def test_the_official_file_on_one_line_and_on_many(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "dev-v1.1.json"
    path.write_text(json.dumps(SQUAD, indent=indent), encoding="utf-8")
    assert not has_splits(path)
    check(read_examples(path))


def test_the_hubs_rows(tmp_path: Path) -> None:
    rows = squad_rows()
    examples = read_examples(write_lines(tmp_path / "rows.jsonl", *rows))
    # Paragraphs without questions are not in them.
    assert [example.answers for example in examples][:2] == [("1897", "in 1897"), ("Stoker",)]
    assert examples[0].passages == (STOKER[0], STOKER[2])
    assert examples[2].passages == (STOKER[2], STOKER[0])
    # Rows of another article between them change nothing.
    mixed = read_examples(write_lines(tmp_path / "rows.jsonl", rows[3], *rows[:3]))
    assert mixed == [examples[3], *examples[:3]]


def changed(*path: str | int, value: object) -> dict[str, object]:
    whole = copy.deepcopy(SQUAD)
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return whole


FIRST = ("data", 0, "paragraphs", 0)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (changed("data", value={}), "field 'data' must be a list, not an object"),
        (changed("data", 0, "title", value=""), "data 1: field 'title' is empty"),
        (
            changed(*FIRST, "context", value=None),
            "data 1: paragraphs 1: field 'context' must be a string, not null",
        ),
        (
            changed(*FIRST, "qas", 0, "answers", value=[]),
            "data 1: paragraphs 1: qas 1: the question has no answers",
        ),
        (
            changed(*FIRST, "qas", 0, "answers", value=[{"text": " "}]),
            "qas 1: answers 1: field 'text' is empty",
        ),
        (
            changed(*FIRST, "qas", 1, "is_impossible", value=True),
            "qas 2: the question is impossible (SQuAD 2.0)",
        ),
        (
            changed(*FIRST, "qas", 1, "id", value="s1"),
            "qas 2: id 's1' was given before",
        ),
    ],
)
def test_bad_articles(tmp_path: Path, row: object, problem: str) -> None:
    path = write_lines(tmp_path / "squad.json", row)
    with pytest.raises(DataError) as caught:
        read_examples(path)
    assert str(caught.value).startswith(f"{path}:1: ")
    assert problem in str(caught.value)


def test_no_questions_and_malformed(tmp_path: Path) -> None:
    path = tmp_path / "squad.json"
    write_lines(path, {"version": "1.1", "data": []})
    with pytest.raises(DataError, match="there are no questions in the file"):
        read_examples(path)
    with pytest.raises(DataError, match="there are no questions in the file"):
        has_splits(path)
    path.write_text('{\n"version": "1.1",\n"data": [\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"squad\.json:4: malformed JSON"):
        read_examples(path)
    rows = [{"id": "r", "question": "Who?", "context": "Text.", "answers": {"text": ["a"]}}]
    with pytest.raises(DataError, match=":1: field 'title' is missing"):
        read_examples(write_lines(path, *rows))
