"""The questions that the page offers, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scratchpad_rag.app import collection
from scratchpad_rag.app.web.questions import Questions
from scratchpad_rag.config import DataConfig
from scratchpad_rag.errors import DataError, UserError


@pytest.fixture
def questions(tmp_path: Path) -> Questions:
    """Two validation questions (the second with two gold passages), and one to train on."""
    path = tmp_path / "questions.jsonl"
    rows = [
        {
            "id": "a",
            "question": "who built the mill",
            "answers": ["Ida"],
            "split": "val",
            "gold": {2},
        },
        {
            "id": "b",
            "question": "where is it?",
            "answers": ["Corvin"],
            "split": "val",
            "gold": {0, 1},
        },
        {"id": "c", "question": "when", "answers": ["1895"], "split": "train", "gold": {0}},
    ]
    for number, row in enumerate(rows):
        gold = row.pop("gold")
        row["passages"] = [
            {"title": f"T{number}.{rank}", "text": f"Text {number}.{rank}", "gold": rank in gold}
            for rank in range(5)
        ]
    rows[2]["passages"].append({"title": "Ferry", "text": "The ferry crosses the river."})
    path.write_text("\n".join(map(json.dumps, rows)))
    return Questions.open(DataConfig(name="examples", path=str(path), total_docs=4))


def titles(questions: Questions, index: int, total: int, position: int | None) -> list[str]:
    return [p.title for p in questions.shown(index, total, position).passages]


def test_labels_are_the_validation_questions(questions: Questions) -> None:
    assert questions.labels == ["Who built the mill?", "Where is it?"]
    assert len(questions) == 2
    assert questions.example(1).answers == ("Corvin",)
    assert questions.usual == 4
    assert questions.available(0) == 5


class TestShown:
    def test_the_gold_passage_stands_where_it_is_asked_for(self, questions: Questions) -> None:
        assert titles(questions, 0, 3, 0) == ["T0.2", "T0.0", "T0.1"]
        assert titles(questions, 0, 3, 2) == ["T0.0", "T0.1", "T0.2"]
        assert questions.shown(0, 3, 1).gold == (1,)
        assert titles(questions, 0, 5, None) == ["T0.0", "T0.1", "T0.2", "T0.3", "T0.4"]

    def test_several_gold_passages_stand_together(self, questions: Questions) -> None:
        assert questions.last_position(1, 4) == 2
        assert questions.shown(1, 4, 2).gold == (2, 3)

    def test_none_is_closed_book(self, questions: Questions) -> None:
        shown = questions.shown(0, 0, 0)
        assert (shown.passages, shown.gold, shown.answers) == ((), (), ("Ida",))

    @pytest.mark.parametrize(
        ("index", "total", "position", "message"),
        [
            (0, -1, 0, "-1 documents cannot be shown: choose from 0 to 5"),
            (0, 6, 0, "6 documents cannot be shown: choose from 0 to 5"),
            (0, 3, 3, "cannot stand at 3: choose from 0 to 2 with 3 documents"),
            (0, 3, -1, "cannot stand at -1: choose from 0 to 2"),
            (1, 1, 0, "needs 2 documents or more"),
            (1, 4, 3, "cannot stand at 3: choose from 0 to 2 with 4 documents"),
            (2, 4, 0, "there is no question 2: choose from 0 to 1"),
            (-1, 4, 0, "there is no question -1"),
        ],
    )
    def test_refusals(
        self, questions: Questions, index: int, total: int, position: int, message: str
    ) -> None:
        with pytest.raises(UserError, match=message) as caught:
            questions.shown(index, total, position)
        assert "\n" not in str(caught.value)


class TestTyped:
    def test_is_asked_of_all_passages_of_the_set(self, questions: Questions) -> None:
        example = questions.typed("what crosses the river", 2)
        assert example.passages[0].title == "Ferry"
        assert (len(example.passages), example.gold, example.answers) == (2, (), ())

    def test_with_no_documents(self, questions: Questions) -> None:
        assert questions.typed("who", 0).passages == ()

    def test_the_index_is_built_once(
        self, questions: Questions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from scratchpad_rag.data.retrieve import bm25

        built = []
        real = bm25.BM25Retriever

        class Counting(real):  # type: ignore[misc, valid-type]
            def __init__(self, passages: object) -> None:
                built.append(1)
                super().__init__(passages)

        monkeypatch.setattr(bm25, "BM25Retriever", Counting)
        for _ in range(3):
            questions.typed("what crosses the river", 2)
        assert built == [1]

    @pytest.mark.parametrize(
        ("question", "total", "message"),
        [
            ("", 2, "the question to answer is empty"),
            ("  ? ", 2, "the question to answer is empty"),
            ("x" * 20_000, 2, "the question has 20,000 characters; at most 2,000 are asked"),
            ("half \ud83d", 2, "holds half a character"),
            ("who", -1, "-1 documents cannot be shown: choose from 0 to 16"),
            ("who", 17, "17 documents cannot be shown"),
        ],
    )
    def test_refusals(self, questions: Questions, question: str, total: int, message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            questions.typed(question, total)
        assert "\n" not in str(caught.value)

    def test_the_longest_question_is_asked(self, questions: Questions) -> None:
        longest = "x" * collection.LONGEST_QUESTION
        assert questions.typed(longest, 1).question == longest


def test_a_set_without_validation_questions(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    passages = [{"title": "T", "text": "x", "gold": True}]
    row = {"id": "a", "question": "who", "answers": ["a"], "split": "train"}
    row["passages"] = passages
    path.write_text(json.dumps(row))
    with pytest.raises(DataError, match="no validation questions"):
        Questions.open(DataConfig(name="examples", path=str(path)))


def test_the_sample_set() -> None:
    from scratchpad_rag.config import load_experiment

    sections, _ = load_experiment("sample_20_docs")
    questions = Questions.open(DataConfig(**sections["data"]))
    assert len(questions) == 1000
    shown = questions.shown(0, 20, 9)
    assert (len(shown.passages), shown.gold) == (20, (9,))
    assert questions.available(0) == 30
