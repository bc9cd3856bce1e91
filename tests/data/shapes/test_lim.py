from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scratchpad_rag.data.place import place
from scratchpad_rag.data.readers import read_examples
from scratchpad_rag.errors import DataError
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.records import Example, Passage
from tests.data.shapes.files import KEY_VALUE, write_lines


def test_each_pair_is_a_passage(tmp_path: Path) -> None:
    [example] = read_examples(write_lines(tmp_path / "kv.jsonl", KEY_VALUE))
    assert example == Example(
        "b-2",
        'What is the value of the key "b-2"',
        ("v-2",),
        (Passage("a-1", "v-1"), Passage("b-2", "v-2"), Passage("c-3", "v-3")),
        (1,),
    )
    prompt = render_prompt(place(example, 3, 2), Wording()).text
    assert 'Question: What is the value of the key "b-2"?\n' in prompt
    assert prompt.index("(Title: c-3) v-3") < prompt.index("(Title: b-2) v-2")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"key": "z"}, "key 'z' is not among ordered_kv_records"),
        ({"value": "v-1"}, "key 'b-2' has the value 'v-2', not 'v-1'"),
        ({"ordered_kv_records": [["b-2", "x"], ["b-2", "y"]]}, "key 'b-2' is 2 times among"),
        ({"ordered_kv_records": [["b-2"]]}, "ordered_kv_records 1: must be [key, value]"),
        ({"ordered_kv_records": [["b-2", 7]]}, "records 1: the value must be a string"),
        ({"ordered_kv_records": []}, "key 'b-2' is not among"),
        ({"key": None}, "field 'key' must be a string, not null"),
    ],
)
def test_bad_pairs(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    path = write_lines(tmp_path / "kv.jsonl", KEY_VALUE | change)
    with pytest.raises(DataError) as caught:
        read_examples(path)
    assert str(caught.value).startswith(f"{path}:1: ")
    assert problem in str(caught.value)


def test_a_key_asked_for_twice(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "kv.jsonl", KEY_VALUE, KEY_VALUE)
    with pytest.raises(DataError, match=":2: id 'b-2' was given before"):
        read_examples(path)
