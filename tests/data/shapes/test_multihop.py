from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scratchpad_rag.data.place import order_support, place
from scratchpad_rag.data.readers import read_examples, write_examples
from scratchpad_rag.errors import DataError
from scratchpad_rag.prompts.render import render_sample
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.records import Example, Method, Passage, Region
from tests.data.shapes.files import HUB_HOTPOT, MUSIQUE, TWO_WIKI, write_lines


def read_one(tmp_path: Path, row: object) -> Example:
    [example] = read_examples(write_lines(tmp_path / "one.jsonl", row))
    return example


def refusal(tmp_path: Path, row: object) -> str:
    with pytest.raises(DataError) as caught:
        read_one(tmp_path, row)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{tmp_path / 'one.jsonl'}:1: ")
    return message


# --- HotpotQA as the Hub has it, and 2WikiMultihopQA


def test_the_hubs_columns_are_the_official_pairs(tmp_path: Path) -> None:
    example = read_one(tmp_path, HUB_HOTPOT)
    assert example == Example(
        "5a7a",
        "Where was the author of Dracula born?",
        ("Clontarf",),
        (
            Passage("Bram Stoker", "A writer. Born in Clontarf."),
            Passage("Carmilla", "By Le Fanu."),
            Passage("Dracula", "A novel."),
        ),
        (2, 0),
        support=("A novel.", "Born in Clontarf."),
    )


def test_facts_without_a_sentence_are_left_out(tmp_path: Path) -> None:
    facts = [["Dracula", 0], ["Dracula", 7], ["Bram Stoker", -1], ["Bram Stoker"], ["Absent", 0]]
    example = read_one(tmp_path, TWO_WIKI | {"supporting_facts": facts})
    assert example.support == ("A novel.",)
    assert example.gold == (2, 0)


def test_2wiki(tmp_path: Path) -> None:
    example = read_one(tmp_path, TWO_WIKI)
    assert (example.id, example.answers, example.gold) == ("100c", ("Clontarf",), (2, 0))
    assert example.passages[0].text == "A writer. Born in Clontarf."
    assert example.gold_total is None


def test_gold_that_was_not_retrieved_is_counted(tmp_path: Path) -> None:
    half = read_one(tmp_path, TWO_WIKI | {"context": TWO_WIKI["context"][:2]})
    assert (half.gold, half.gold_total) == ((0,), 2)
    none = read_one(tmp_path, TWO_WIKI | {"context": []})
    assert (none.gold, none.gold_total, none.passages) == ((), 2, ())
    # Two facts of one paragraph are one gold passage.
    facts = [["Dracula", 0], ["Dracula", 1], ["Lost", 0]]
    assert read_one(tmp_path, TWO_WIKI | {"supporting_facts": facts}).gold_total == 2


def test_the_count_survives_placing_and_writing(tmp_path: Path) -> None:
    half = read_one(tmp_path, TWO_WIKI | {"context": TWO_WIKI["context"][:2]})
    write_examples([half], tmp_path / "own.jsonl")
    assert read_examples(tmp_path / "own.jsonl") == [half]
    assert place(half, 2, 1).gold_total == 2
    assert place(half, 1, 0, "retrieved").gold_total == 2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"context": {"title": ["A"]}}, "context: field 'sentences' is missing"),
        ({"context": {"title": ["A"], "sentences": []}}, "1 of 'title' and 0 of 'sentences'"),
        ({"context": {"title": "A", "sentences": []}}, "'title' must be a list, not a string"),
        ({"context": "A"}, "field 'context' must be a list, not a string"),
        ({"supporting_facts": None}, "field 'supporting_facts' must be a list, not null"),
        ({"id": ["x"]}, "field 'id' must be a string, not a list"),
    ],
)
def test_bad_columns(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    assert problem in refusal(tmp_path, HUB_HOTPOT | change)


# --- MuSiQue


def test_musique_gold_is_in_the_order_of_the_decomposition(tmp_path: Path) -> None:
    example = read_one(tmp_path, MUSIQUE)
    assert example.id == "3hop1__1_2_3"
    assert example.answers == ("London", "Greater London")
    assert example.gold == (4, 2, 0)
    assert [passage.title for passage in example.gold_passages] == [
        "Dracula",
        "Bram Stoker",
        "London",
    ]
    assert example.gold_total is None


def test_musique_supporting_paragraphs_without_a_step_follow(tmp_path: Path) -> None:
    steps = MUSIQUE["question_decomposition"][1:2]  # names paragraph 2 only
    example = read_one(tmp_path, MUSIQUE | {"question_decomposition": steps})
    assert example.gold == (2, 0, 4)


def test_musique_steps_may_name_no_paragraph(tmp_path: Path) -> None:
    steps = [step | {} for step in MUSIQUE["question_decomposition"]]
    steps[1]["paragraph_support_idx"] = None
    paragraphs = [p | {"is_supporting": p["idx"] in (0, 4)} for p in MUSIQUE["paragraphs"]]
    row = MUSIQUE | {"question_decomposition": steps, "paragraphs": paragraphs}
    example = read_one(tmp_path, row)
    assert (example.gold, example.gold_total) == ((4, 0), 3)


def test_musique_numbers_are_those_that_the_paragraphs_carry(tmp_path: Path) -> None:
    turned = MUSIQUE["paragraphs"][::-1]
    assert read_one(tmp_path, MUSIQUE | {"paragraphs": turned}).gold == (0, 2, 4)
    bare = [{k: v for k, v in p.items() if k != "idx"} for p in MUSIQUE["paragraphs"]]
    assert read_one(tmp_path, MUSIQUE | {"paragraphs": bare}).gold == (4, 2, 0)


def test_musique_full_has_each_question_twice(tmp_path: Path) -> None:
    paragraphs = [p | {"is_supporting": p["idx"] == 4} for p in MUSIQUE["paragraphs"]]
    steps = [step | {} for step in MUSIQUE["question_decomposition"]]
    steps[1]["paragraph_support_idx"] = steps[2]["paragraph_support_idx"] = None
    without = MUSIQUE | {
        "answerable": False,
        "paragraphs": paragraphs,
        "question_decomposition": steps,
    }
    answerable, not_so = read_examples(write_lines(tmp_path / "full.jsonl", MUSIQUE, without))
    assert not_so.id == f"{answerable.id}-unanswerable"
    assert (not_so.gold, not_so.gold_total) == ((), 3)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"paragraphs": []}, "the question has no passages"),
        ({"paragraphs": [{"title": "T"}]}, "paragraphs 1: field 'paragraph_text' is missing"),
        ({"answer": None}, "field 'answer' must be a string, not null"),
        ({"answer_aliases": "x"}, "field 'answer_aliases' must be a list, not a string"),
        ({"answerable": "yes"}, "field 'answerable' must be true or false, not a string"),
        ({"id": ""}, "field 'id' is empty"),
        (
            {"question_decomposition": [{"paragraph_support_idx": 9}]},
            "question_decomposition 1: paragraph_support_idx 9 is not the idx of a paragraph",
        ),
        (
            {"question_decomposition": [{"paragraph_support_idx": "4"}]},
            "paragraph_support_idx '4' is not the idx",
        ),
        ({"question_decomposition": {}}, "must be a list, not an object"),
        (
            {"paragraphs": [MUSIQUE["paragraphs"][0] | {"idx": "0"}]},
            "paragraphs 1: field 'idx' must be a number, not a string",
        ),
        (
            {
                "paragraphs": [MUSIQUE["paragraphs"][0] | {"is_supporting": 1}],
                "question_decomposition": [],
            },
            "field 'is_supporting' must be true or false, not a number",
        ),
    ],
)
def test_bad_musique(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    assert problem in refusal(tmp_path, MUSIQUE | change)


# --- the order of several gold passages in a scratchpad


def scratchpad(example: Example) -> list[str]:
    """Titles of the passages that the scratchpad quotes, in its order."""
    rendered = render_sample(example, Wording(), Method.SCRATCHPAD)
    return [
        rendered.text[span.start : span.end].split("Title: ")[1].split(")")[0]
        for span in rendered.spans
        if span.region is Region.SCRATCHPAD
    ]


@pytest.mark.parametrize(
    ("row", "reasoning", "standing"),
    [
        (TWO_WIKI, ["Dracula", "Bram Stoker"], ["Bram Stoker", "Dracula"]),
        (MUSIQUE, ["Dracula", "Bram Stoker", "London"], ["London", "Bram Stoker", "Dracula"]),
    ],
)
def test_support_order_of_passages_that_keep_their_places(
    tmp_path: Path, row: object, reasoning: list[str], standing: list[str]
) -> None:
    shown = place(read_one(tmp_path, row), None, None, "given")
    assert scratchpad(order_support(shown, "given")) == reasoning
    assert scratchpad(order_support(shown, "position")) == standing


def test_inserted_gold_stands_in_the_order_of_reasoning(tmp_path: Path) -> None:
    shown = place(read_one(tmp_path, MUSIQUE), 5, 1)
    titles = [passage.title for passage in shown.passages]
    assert titles == ["Emma", "Dracula", "Bram Stoker", "London", "Emma"]
    for order in ("given", "position"):
        assert scratchpad(order_support(shown, order)) == titles[1:4]
