"""The questions of the page: at their place among so many passages, or typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scratchpad_rag.app.web.questions import Questions
from scratchpad_rag.config import DataConfig
from scratchpad_rag.errors import DataError, UserError
from scratchpad_rag.records import Example, Passage

BRIDGE = Passage("Bridge", "The bridge was built by Ida Holm.")
MILL = Passage("Mill", "The mill grinds rye.")
TOWNS = tuple(Passage(f"Town {n}", f"Town {n} has a market.") for n in range(4))
QUESTIONS = Questions(
    [
        Example("a", "who built the bridge", ("Ida Holm",), (BRIDGE, *TOWNS), (0,)),
        Example("b", "what does the mill grind?", ("rye",), (MILL, *TOWNS[:2]), (0,)),
    ]
)


def test_labels_are_written_as_a_reader_is_asked() -> None:
    assert QUESTIONS.labels == ["Who built the bridge?", "What does the mill grind?"]
    assert QUESTIONS.example(1).answers == ("rye",)


@pytest.mark.parametrize("position", [0, 1, 3])
def test_the_gold_passage_stands_where_it_is_asked_for(position: int) -> None:
    shown = QUESTIONS.shown(0, 4, position)
    assert (shown.gold, shown.passages[position]) == ((position,), BRIDGE)
    assert [p for p in shown.passages if p != BRIDGE] == list(TOWNS[:3])


def test_without_documents_it_is_asked_closed_book() -> None:
    shown = QUESTIONS.shown(0, 0, None)
    assert (shown.passages, shown.gold, shown.answers) == ((), (), ("Ida Holm",))


@pytest.mark.parametrize("documents", [-1, 4, 400])
def test_more_documents_than_there_are(documents: int) -> None:
    with pytest.raises(UserError, match="this question has 3"):
        QUESTIONS.shown(1, documents, 0)


def test_a_typed_question_gets_the_passages_that_match_it_best() -> None:
    typed = QUESTIONS.typed("who grinds rye in the mill", 2)
    assert (typed.passages[0], len(typed.passages)) == (MILL, 2)
    assert (typed.answers, typed.gold) == ((), ())
    assert len(QUESTIONS.typed("who", 100).passages) == 6  # each once: two questions share towns
    assert QUESTIONS.typed("who", 0).passages == ()


@pytest.mark.parametrize("question", ["", "  ? ", "\n"])
def test_an_empty_question_is_refused(question: str) -> None:
    with pytest.raises(UserError, match="empty"):
        QUESTIONS.typed(question, 2)


def test_a_negative_number_of_documents_is_refused() -> None:
    with pytest.raises(UserError, match="0 is the fewest"):
        QUESTIONS.typed("who", -1)


def test_the_sample_set_s_validation_questions() -> None:
    opened = Questions.open(DataConfig(name="examples", path="data/qa_data/sample", total_docs=20))
    assert len(set(opened.labels)) == len(opened.labels) > 50
    shown = opened.shown(3, 20, 11)
    [gold] = shown.gold_passages
    assert any(answer in gold.text for answer in shown.answers)
    assert shown.passages[11] == gold


def test_an_experiment_without_validation_questions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    passages = [{"title": "Bridge", "text": "Built by Ida Holm.", "gold": True}]
    row = {"id": "a", "question": "who", "answers": ["Ida Holm"], "passages": passages}
    path.write_text(json.dumps({**row, "split": "train"}) + "\n")
    config = DataConfig(name="examples", path=str(path), total_docs=1, gold_at=(0,))
    with pytest.raises(DataError):
        Questions.open(config)
