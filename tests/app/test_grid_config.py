"""A grid's YAML: what it may say, and what is refused by reading it alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from scratchpad_rag.app.grid_config import METHODS, Grid, find_checkpoint, load_grid
from scratchpad_rag.config import config_names
from scratchpad_rag.errors import ConfigError
from scratchpad_rag.records import Options

GRID: dict[str, Any] = {
    "datasets": {"nq": {"path": "nq.jsonl"}},
    "methods": ["zero_shot", "scratchpad"],
    "checkpoints": {"scratchpad": "s.pt"},
    "total_docs": [5, 10],
    "gold_at": ["first", 3],
}


def load(tmp_path: Path, grid: dict[str, Any], **overrides: Any) -> Grid:
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(grid), encoding="utf-8")
    return load_grid(str(path), overrides)


def test_a_data_set_s_own_keys_win_over_the_grid_s_and_those_over_the_experiment_s(
    tmp_path: Path,
) -> None:
    datasets = {
        "one": {"path": "one.jsonl", "gold_at": 2, "seed": 7, "support_order": "position"},
        "two": {"experiment": "sample_5_docs", "total_docs": 3, "no_gold": True, "questions": 4},
        "three": None,
    }
    grid = load(tmp_path, {**GRID, "datasets": datasets, "gold_at": None, "questions": 9})
    one, two, three = (grid.datasets[name] for name in ("one", "two", "three"))
    assert (one.total_docs, one.gold_at, one.no_gold, one.questions) == ((5, 10), ("2",), False, 9)
    assert (one.data.path, one.data.seed, one.data.support_order) == ("one.jsonl", 7, "position")
    assert (two.total_docs, two.no_gold, two.questions) == ((3,), True, 4)
    assert two.gold_at == ("0", "1", "2", "3", "4")  # configs/experiment/sample_5_docs.yaml
    assert two.data.path == "data/qa_data/sample"
    assert three.experiment == "examples"
    assert three.passage_order == ("ranked",)


def test_flags_win_over_all(tmp_path: Path) -> None:
    datasets = {"one": {"total_docs": [2], "questions": 50}}
    grid = load(
        tmp_path, {**GRID, "datasets": datasets}, questions=3, total_docs=[7], methods=["zero_shot"]
    )
    assert (grid.datasets["one"].total_docs, grid.datasets["one"].questions) == ((7,), 3)
    assert grid.methods == ("zero_shot",)
    assert grid.checkpoints == {}  # nothing reads with it


def test_what_completions_of_each_method_may_be(tmp_path: Path) -> None:
    checkpoints = {"scratchpad": "s.pt", "sft": "a"}
    grid = load(tmp_path, {**GRID, "methods": list(METHODS), "checkpoints": checkpoints})
    held = Options(320, verbatim=True, quote="passage", abstain=True)
    long = {"scratchpad": Options(320), "scratchpad_verbatim": held}
    assert {name: grid.options(name) for name in METHODS} == {
        name: long.get(name, Options(32)) for name in METHODS
    }


@pytest.mark.parametrize("name", config_names("grid"))
def test_the_grids_that_come_along(name: str) -> None:
    grid = load_grid(name, {})
    assert grid.datasets
    for path in grid.checkpoints.values():
        assert find_checkpoint(path).exists()


def test_the_resolved_grid_is_plain_and_holds_no_key_of_training(tmp_path: Path) -> None:
    plain = load(tmp_path, GRID).plain()
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain
    data = plain["datasets"]["nq"]
    assert data["gold_at"] == ["first", "3"]
    assert not {"num_train_samples", "gold_at", "val_order"} & set(data["data"])


NQ = GRID["datasets"]["nq"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": ["sft"]}, "unknown key 'method'; did you mean 'methods'?"),
        ({"methods": ["scratchpads"]}, "unknown method 'scratchpads'; did you mean 'scratchpad'?"),
        ({"methods": []}, "methods is empty; name one or more of closed_book, "),
        ({"methods": ["zero_shot", "zero_shot"]}, "method zero_shot is named twice"),
        (
            {"methods": ["gold_only"]},
            "method gold_only is read by the adapter of sft, and checkpoints names none",
        ),
        ({"checkpoints": {"scratch": "s.pt"}}, "checkpoints: unknown key 'scratch'; did you mean"),
        ({"datasets": {}}, "datasets is empty"),
        ({"datasets": "nq"}, "datasets: "),
        ({"datasets": {"nq": "nq.jsonl"}}, "datasets: nq: a data set is keys and values, not 'nq."),
        (
            {"datasets": {"nq": {"total_doc": 5}}},
            "datasets: nq: unknown key 'total_doc'; did you mean 'total_docs'?",
        ),
        (
            {"datasets": {"nq": {"num_train_samples": 5}}},
            "datasets: nq: unknown key 'num_train_samples'",
        ),
        ({"datasets": {"nq": {"experiment": "nq_lim"}}}, "unknown experiment config 'nq_lim'; did"),
        ({"datasets": {"nq": {"questions": "many"}}}, "datasets: nq: questions: "),
        ({"datasets": {"nq": {"seed": "x"}}}, "datasets: nq: seed: "),
        ({"total_docs": []}, "datasets: nq: total_docs is empty, so there is no cell"),
        ({"gold_at": []}, "datasets: nq: gold_at is empty, so there is no cell"),
        ({"passage_order": []}, "datasets: nq: passage_order is empty, so there is no cell"),
        ({"total_docs": [0]}, "total_docs is 0; it must be 1 or more"),
        ({"total_docs": ["five"]}, "total_docs: "),
        ({"total_docs": [5, 5]}, "total_docs names 5 twice"),
        ({"gold_at": ["begin"]}, "gold_at 'begin' is neither a number from 0 nor one of first, "),
        ({"gold_at": [-1]}, "gold_at '-1' is neither"),
        ({"gold_at": ["turns", "last"]}, "gold_at turns is already every place; name it alone"),
        ({"passage_order": ["rank"]}, "unknown passage_order 'rank'; did you mean 'ranked'?"),
        (
            {
                "datasets": {"nq": {"experiment": "nq_lim_20_docs"}},
                "passage_order": ["ranked", "retrieved"],
            },
            "the gold passage was put at its place",
        ),
        ({"questions": 0}, "questions is 0; it must be 1 or more"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be 1 or more"),
        ({"model": "smollm"}, "unknown model config 'smollm'; did you mean"),
    ],
)
def test_what_the_file_shows_to_be_wrong(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, {**GRID, **changes})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_grid_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown grid config 'sampel'; did you mean 'sample'"):
        load_grid("sampel", {})


def test_a_missing_checkpoint() -> None:
    with pytest.raises(ConfigError, match=r"there is no checkpoint no/such\.pt"):
        find_checkpoint("no/such.pt")
