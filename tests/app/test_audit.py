"""`scratchpad-rag data audit` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.app.test_cli import Call, Done, call, write_lines  # noqa: F401  a fixture
from tests.test_bad_input import item, write_model

WORDS = ["alder", "birch", "cedar", "dogwood", "elm", "fir", "ginkgo", "hazel", "ivy", "juniper"]


def clean_item(number: int) -> dict[str, Any]:
    """A question whose passages and words are its own."""
    word = WORDS[number]
    made = item(number)
    made["question"] = f"which year did {word} workers finish their {word} bridge"
    made["passages"] = [
        {"title": f"Bridge {number}", "text": f"The {word} one dates from {1850 + number}, {word}."}
        | {"gold": True},
        {"title": "Town", "text": f"Many {word} houses stand near {word} streets."},
        {"title": "River", "text": f"Its {word} banks are {word} woods."},
    ]
    return made | {"split": "train" if number < 5 else "val"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "clean.jsonl", [clean_item(n) for n in range(10)])
    leaky = [clean_item(n) for n in range(10)]
    leaky[9]["question"] = leaky[0]["question"]
    write_lines(tmp_path / "leaky.jsonl", leaky)
    return tmp_path


def test_a_clean_file_is_told_so(call: Call, home: Path) -> None:  # noqa: F811
    done = call("data", "audit", "--data_path", "clean.jsonl", "--strict")
    assert done.code == 0, done.out
    assert "All 11 checks are passed." in done.out
    assert "Length in words, all samples" in done.out


def test_strict_ends_with_1_where_something_is_found(call: Call, home: Path) -> None:  # noqa: F811
    assert call("data", "audit", "leaky.jsonl").code == 0
    done = call("data", "audit", "leaky.jsonl", "--strict")
    assert done.code == 1
    assert "✗ refuse" in done.out
    assert "1 of 5 (20.0%) are in both" in done.out


def test_an_experiment_places_the_samples_and_a_model_counts_tokens(
    call: Call,  # noqa: F811
    home: Path,
    tiny_mistral: Path,
) -> None:
    write_model(home, "tiny", tiny_mistral)
    arguments = ["data", "audit", "--experiment_config", "examples", "--data_path", "clean.jsonl"]
    arguments += ["--total_docs", "3", "--model_config", "tiny", "--out", "page"]
    done = call(*arguments)
    assert done.code == 0
    content = json.loads((home / "page/audit.json").read_text("utf-8"))
    places = {h["name"]: h["counts"] for h in content["histograms"]}
    assert places["gold_in_training"] == {"0": 5}  # of the experiment's positions 0 is shown
    assert content["lengths"]["unit"] == "tokens"
    assert content["lengths"]["limit"] == 16384
    page = (home / "page/audit.html").read_text("utf-8")
    assert all(f">{word}</span>" in page for word in ("audit", "--data_path", "clean.jsonl"))

    from transformers import AutoTokenizer

    from scratchpad_rag.data.place import place
    from scratchpad_rag.data.readers import read_examples
    from scratchpad_rag.prompts.render import render_sample
    from scratchpad_rag.prompts.template import Wording
    from scratchpad_rag.records import LossRegion, Method
    from scratchpad_rag.tokens.encode import encode_sample

    tokenizer = AutoTokenizer.from_pretrained(tiny_mistral)
    longest = max(
        len(
            encode_sample(
                render_sample(place(e, 3, 0), Wording(), Method.SCRATCHPAD),
                tokenizer,
                LossRegion.SAMPLE,
                tokenizer.eos_token_id,
            )
        )
        for e in read_examples(home / "clean.jsonl")
    )
    assert content["lengths"]["percentiles"]["whole"]["100"] == longest


def test_a_limit_of_ones_own(call: Call, home: Path) -> None:  # noqa: F811
    done = call("data", "audit", "clean.jsonl", "--max_length", "10", "--strict")
    assert done.code == 1
    assert "10 of 10 samples are longer" in done.out


def test_several_files_follow_one_flag(call: Call, home: Path) -> None:  # noqa: F811
    for name, numbers in (("my_train", range(6)), ("my_dev", range(5, 10))):
        items = [clean_item(n) for n in numbers]
        for made in items:
            del made["split"]
        write_lines(home / f"{name}.jsonl", items)
    done = call("data", "audit", "--data_path", "my_train.jsonl", "my_dev.jsonl")
    assert "6 to train on, 5 to validate on, by the files' names" in done.out
    assert "1 of 5 (20.0%) are in both" in done.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--data_path"),
        (("gone.jsonl",), "gone.jsonl: no such file"),
        (("clean.jsonl", "--near", "0"), "above 0 to 1"),
        (("clean.jsonl", "--method", "both"), "choose from sft, scratchpad"),
        (("clean.jsonl", "--model_config", "tinny"), "unknown model config 'tinny'"),
        (("clean.jsonl", "leaky.jsonl", "--experiment_config", "examples"), "one --data_path"),
        (("clean.jsonl", "--out", "clean.jsonl"), "cannot write to clean.jsonl"),
    ],
)
def test_what_a_user_can_put_right_is_one_line(
    call: Call,  # noqa: F811
    home: Path,
    arguments: tuple[str, ...],
    told: str,
) -> None:
    before = sorted(home.rglob("*"))
    done: Done = call("data", "audit", *arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.splitlines()[-1].startswith("error: ")
    assert told in done.err
    assert sorted(home.rglob("*")) == before


def test_too_few_passages_are_a_finding_and_not_the_end(call: Call, home: Path) -> None:  # noqa: F811
    done = call("data", "audit", "--experiment_config", "examples", "--data_path", "clean.jsonl")
    assert done.code == 0
    assert "10 of 10 (100.0%) questions have fewer" in done.out
    assert "a run would refuse: " in done.err
