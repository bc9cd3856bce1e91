from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from scratchpad_rag.config import DataConfig
from scratchpad_rag.data.curriculum import Curriculum, place_drawn, plan_epoch
from scratchpad_rag.data.select import Selection, select_samples
from scratchpad_rag.records import EvalSplit, Example


def write_examples(path: Path, count: int = 10, passages: int = 6) -> None:
    lines = [
        {
            "id": f"q{number}",
            "question": f"when was bridge {number} built",
            "answers": [str(1850 + number)],
            "passages": [
                {"title": f"P{at}", "text": f"Passage {at} of {number}.", "gold": at == 1}
                for at in range(passages)
            ],
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    write_examples(tmp_path / "data.jsonl")
    return DataConfig(
        name="examples",
        path=str(tmp_path / "data.jsonl"),
        total_docs=4,
        gold_at=(0, 3),
        train_positions="uniform",
    )


def select(config: DataConfig, view: EvalSplit = EvalSplit.ALL) -> Selection:
    return select_samples(config, view, lambda _: None)


def titles(example: Example) -> list[str]:
    return [passage.title for passage in example.passages]


def test_questions_to_be_drawn_keep_all_their_passages(config: DataConfig) -> None:
    selection = select(config)
    assert selection.curriculum == Curriculum(4, 4, 0.0, 0)
    assert len(selection.train) == 8
    for example in selection.train:
        assert titles(example) == [f"P{at}" for at in range(6)]
        assert example.gold == (1,)


def test_the_questions_are_those_of_fixed_positions(config: DataConfig) -> None:
    drawn, fixed = select(config), select(replace(config, train_positions="fixed"))
    assert fixed.curriculum is None
    assert [e.id for e in drawn.train] == [e.id for e in fixed.train]
    assert {len(e.passages) for e in fixed.train} == {4}
    assert drawn.val == fixed.val
    assert len(drawn.val) == 4  # two questions at two positions


def test_what_is_drawn_comes_from_the_config(config: DataConfig) -> None:
    told = replace(config, train_total_docs=5, train_min_docs=2, no_gold_rate=0.25, seed=9)
    assert select(told).curriculum == Curriculum(2, 5, 0.25, 9)
    assert select(replace(config, train_total_docs=3)).curriculum == Curriculum(3, 3)


def test_each_question_is_a_sample_an_epoch(config: DataConfig) -> None:
    said: list[str] = []
    few = select(replace(config, num_train_samples=3))
    assert len({example.id for example in few.train}) == len(few.train) == 3
    many = select_samples(replace(config, num_train_samples=30), EvalSplit.ALL, said.append)
    assert len(many.train) == 8
    assert said == ["30 training samples were asked for and there are 8; going on with all of them"]


@pytest.mark.parametrize("view", [EvalSplit.GOLD, EvalSplit.NO_GOLD, EvalSplit.CLOSED_BOOK])
def test_views_without_other_passages_are_placed_once(config: DataConfig, view: EvalSplit) -> None:
    selection = select(config, view)
    assert selection == select(replace(config, train_positions="fixed"), view)
    assert selection.curriculum is None


def test_one_file_of_lost_in_the_middle_gives_all_positions(tmp_path: Path) -> None:
    for position in (0, 4):
        name = f"nq-open-10_total_documents_gold_at_{position}.jsonl.gz"
        with gzip.open(tmp_path / name, "wt", encoding="utf-8") as file:
            for number in range(20):
                shown = [
                    {"title": f"P{at}", "text": "x", "isgold": at == position} for at in range(10)
                ]
                line = {"question": f"who is {number}", "answers": ["she"], "ctxs": shown}
                file.write(json.dumps(line) + "\n")
    config = DataConfig(
        data_dir=str(tmp_path),
        total_docs=10,
        gold_at=(4, 0),
        train_ratio=0.5,
        train_positions="uniform",
    )
    selection = select(config)
    assert selection.curriculum is not None
    plan = plan_epoch(selection.train, selection.curriculum, 0)
    assert sorted(placement.gold_at or 0 for placement in plan) == list(range(10))
    for example, placement in zip(selection.train, plan, strict=True):
        shown = place_drawn(example, placement)
        # The passages of the first file, its gold one (the fifth) moved.
        others = [f"P{at}" for at in range(10) if at != 4]
        at = placement.gold_at or 0
        assert titles(shown) == [*others[:at], "P4", *others[at:]]
