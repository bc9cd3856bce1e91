from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scratchpad_rag.data.curriculum import Curriculum, Placement, place_drawn, require_drawable
from scratchpad_rag.data.place import place, show
from scratchpad_rag.data.readers import read_examples, write_examples
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage
from tests.data.shapes.files import DPR, RETRIEVED, dpr_passage

# sha256("who wrote dracula"), worked out with sha256sum
WHO = "f2fc212ed8109913"


def write_array(path: Path, *rows: object) -> Path:
    path.write_text(json.dumps(rows, indent=4), encoding="utf-8")
    return path


def test_the_first_positive_is_gold_among_the_negatives(tmp_path: Path) -> None:
    [example] = read_examples(write_array(tmp_path / "biencoder.json", DPR))
    assert example == Example(
        WHO,
        "who wrote dracula",
        ("Bram Stoker", "Stoker"),
        # Hard negatives first; the second positive, which is a negative too, is left out.
        (
            Passage("Dracula", "A novel by Bram Stoker."),
            Passage("Carmilla", "By Le Fanu."),
            Passage("Emma", "A novel by Austen."),
        ),
        (0,),
    )


def test_without_a_positive_there_is_no_gold(tmp_path: Path) -> None:
    [example] = read_examples(write_array(tmp_path / "a.json", DPR | {"positive_ctxs": []}))
    assert example.gold == ()
    assert [passage.title for passage in example.passages] == ["Carmilla", "Emma", "Bram Stoker"]


def test_a_question_that_comes_again_gets_a_number(tmp_path: Path) -> None:
    again = DPR | {"question": "Who wrote Dracula?"}
    examples = read_examples(write_array(tmp_path / "a.json", DPR, again, DPR))
    assert [example.id for example in examples] == [WHO, f"{WHO}-2", f"{WHO}-3"]


@pytest.mark.parametrize(
    ("written", "answers"),
    [
        ("['Bram Stoker', \"O'Neil\"]", ("Bram Stoker", "O'Neil")),
        ('["Bram Stoker"]', ("Bram Stoker",)),
        ("Bram Stoker", ("Bram Stoker",)),
    ],
)
def test_answers_written_as_text(tmp_path: Path, written: str, answers: tuple[str, ...]) -> None:
    [example] = read_examples(write_array(tmp_path / "a.json", DPR | {"answers": written}))
    assert example.answers == answers


def test_retrieved_passages_keep_their_ranks(tmp_path: Path) -> None:
    [example] = read_examples(write_array(tmp_path / "ctxs.json", RETRIEVED))
    assert example.id == WHO
    titles = [passage.title for passage in example.passages]
    assert titles == ["Carmilla", "Dracula", "Emma", "Stoker"]
    assert (example.gold, example.also_hold) == ((1,), (3,))


def test_further_passages_with_the_answer_are_no_distractors(tmp_path: Path) -> None:
    [example] = read_examples(write_array(tmp_path / "ctxs.json", RETRIEVED))

    def titles(shown: Example) -> list[str]:
        return [passage.title for passage in shown.passages]

    assert titles(place(example, 3, 0)) == ["Dracula", "Carmilla", "Emma"]
    assert titles(place(example, 3, None, "given")) == ["Carmilla", "Dracula", "Emma"]
    with pytest.raises(DataError, match="has 3 passages, fewer than total_docs 4"):
        place(example, 4, 0)
    retrieved = place(example, 4, 0, "retrieved")
    assert titles(retrieved) == titles(example)
    assert titles(show(retrieved, "val_neg")) == ["Carmilla", "Emma"]
    assert place(example, 3, 0, "retrieved").also_hold == ()
    assert titles(place_drawn(example, Placement(4, None))) == ["Carmilla", "Emma"]
    require_drawable([example], Curriculum(3, 3))
    with pytest.raises(DataError, match="has 3 passages, and up to 4"):
        require_drawable([example], Curriculum(4, 4))
    write_examples([example], tmp_path / "own.jsonl")
    assert [e.also_hold for e in read_examples(tmp_path / "own.jsonl")] == [(3,)]


def test_a_retriever_may_have_found_nothing(tmp_path: Path) -> None:
    passages = [passage | {"has_answer": False} for passage in RETRIEVED["ctxs"]]
    [example] = read_examples(write_array(tmp_path / "ctxs.json", RETRIEVED | {"ctxs": passages}))
    assert (example.gold, example.also_hold) == ((), ())


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (DPR | {"positive_ctxs": [], "negative_ctxs": [], "hard_negative_ctxs": []}, "no passages"),
        (DPR | {"positive_ctxs": None}, "field 'positive_ctxs' must be a list, not null"),
        (DPR | {"positive_ctxs": ["x"]}, "positive_ctxs 1: must be an object, not a string"),
        (
            DPR | {"positive_ctxs": [dpr_passage("", "x")]},
            "positive_ctxs 1: field 'title' is empty",
        ),
        (DPR | {"answers": []}, "the question has no answers"),
        (DPR | {"answers": "['a'"}, None),
        (DPR | {"answers": "[a]"}, "field 'answers' is not a list that can be read: '[a]'"),
        (DPR | {"answers": "[1]"}, "field 'answers', entry 1, must be a string, not a number"),
        (DPR | {"answers": "[]"}, "the question has no answers"),
        (DPR | {"question": " "}, "field 'question' is empty"),
        (
            RETRIEVED | {"ctxs": [{"title": "T", "text": "t", "has_answer": "yes"}]},
            "ctxs 1: field 'has_answer' must be true or false, not a string",
        ),
    ],
)
def test_bad_questions(tmp_path: Path, row: dict[str, Any], problem: str | None) -> None:
    path = write_array(tmp_path / "bad.json", row)
    if problem is None:  # half a list is an odd answer, but a text
        assert read_examples(path)[0].answers == ("['a'",)
        return
    with pytest.raises(DataError) as caught:
        read_examples(path)
    assert str(caught.value).startswith(f"{path}: item 1: ")
    assert problem in str(caught.value)
