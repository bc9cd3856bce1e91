from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scratchpad_rag.data.readers import read_examples, read_questions, read_with_splits
from scratchpad_rag.data.shapes import GoldName
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Passage
from tests.data.shapes.files import KILT, write_lines

ROW = {"question": "Who wrote Dracula?", "answers": ["Stoker"], "gold": ["Dracula"]}


def test_a_question_without_passages(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.jsonl", ROW, ROW | {"id": 7, "answers": "Bram Stoker| Stoker"})
    first, second = read_questions(path)
    assert first.example.id == "f2fc212ed8109913"  # of the question
    assert (first.example.passages, first.gold) == ((), (GoldName("Dracula"),))
    assert second.example.id == "7"
    assert second.example.answers == ("Bram Stoker", "Stoker")
    assert [row.example for row in read_with_splits(path)] == [first.example, second.example]


def test_one_answer_may_stand_alone_and_gold_be_absent(tmp_path: Path) -> None:
    row = {"question": "Who wrote Dracula?", "answer": "Stoker", "split": "dev"}
    [question] = read_questions(write_lines(tmp_path / "t.jsonl", row | {"gold": []}))
    assert (question.example.answers, question.gold, question.split) == (("Stoker",), (), "val")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"answers": None}, "field 'answers' must be a list, not null"),
        ({"answers": ""}, "field 'answers' is empty"),
        ({"answers": "a||b"}, "field 'answers', entry 2, is empty"),
        ({"answers": [3]}, "entry 1, must be a string, not a number"),
        ({"gold": [3]}, "field 'gold', entry 1, must be a string"),
        ({"gold": {"title": "x"}}, "field 'gold' must be a list, not an object"),
        ({"question": None}, "field 'question' must be a string, not null"),
        ({"id": True}, "field 'id' must be a string, not a truth value"),
        ({"split": "test"}, "unknown split 'test'"),
    ],
)
def test_bad_rows(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    path = write_lines(tmp_path / "t.jsonl", ROW | change)
    with pytest.raises(DataError) as caught:
        read_questions(path)
    assert str(caught.value).startswith(f"{path}:1: ")
    assert problem in str(caught.value)


def test_kilt_names_pages_and_evidence(tmp_path: Path) -> None:
    [question] = read_questions(write_lines(tmp_path / "kilt.jsonl", KILT))
    assert (question.example.id, question.example.question) == ("k1", "who wrote dracula")
    assert question.example.answers == ("Bram Stoker", "Stoker")
    # Those of the first output with a provenance.
    assert question.gold == (GoldName("Dracula", ("a novel by Bram",)), GoldName("Bram Stoker"))


def test_kilt_with_the_texts_brings_its_gold_passages(tmp_path: Path) -> None:
    sources = [{"title": "Dracula", "text": "By Stoker."}, {"title": "Stoker", "text": "A man."}]
    row = KILT | {"output": [{"answer": "Stoker", "provenance": sources}]}
    [example] = read_examples(write_lines(tmp_path / "kilt.jsonl", row))
    assert example.passages == (Passage("Dracula", "By Stoker."), Passage("Stoker", "A man."))
    assert example.gold == (0, 1)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"output": []}, "the question has no answers"),
        ({"output": {}}, "field 'output' must be a list, not an object"),
        (
            {"output": [{"answer": "a", "provenance": [{}]}]},
            "output 1: provenance 1: field 'title'",
        ),
        ({"output": [{"answer": "a", "provenance": "x"}]}, "'provenance' must be a list"),
        ({"input": 3}, "field 'input' must be a string, not a number"),
        ({"id": None}, "field 'id' must be a string, not null"),
    ],
)
def test_bad_kilt(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    path = write_lines(tmp_path / "kilt.jsonl", KILT | change)
    with pytest.raises(DataError) as caught:
        read_questions(path)
    assert str(caught.value).startswith(f"{path}:1: ")
    assert problem in str(caught.value)
