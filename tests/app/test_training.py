"""Training through the command line: validated by answering, refused, and what it leaves."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch

from scratchpad_rag.app import training
from scratchpad_rag.app.main import main
from scratchpad_rag.records import Region
from tests.app.test_peft import write_peft
from tests.test_bad_input import (
    SMALL,
    error_lines,
    item,
    succeed,
    write_data,
    write_model,
)
from tests.train.tiny import tiny_lm

TRAIN = [
    *("--experiment_config", "examples", "--model_config", "tiny", "--train_method", "sft"),
    *("--peft_config", "plain", "--lr", "0.02", "--gradient_accumulation_steps", "2"),
    *("--last_answer_only", "--run", "run"),
]
# Every question has the same answer, which a tiny model learns to give.
ANSWER = {
    "answers": ["river"],
    "passages": [
        {"title": "Bridge", "text": "Built in a river.", "gold": True},
        {"title": "Town", "text": "It lies by the river."},
        {"title": "Sea", "text": "It is 90 miles long."},
    ],
}


@pytest.fixture
def home(tiny_mistral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a model, its bfloat16 twin, questions and PEFT configs."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path, "tiny", tiny_mistral)
    write_model(tmp_path, "low", tiny_mistral, torch_dtype="bfloat16")
    write_data(tmp_path / "data.jsonl", [item(number, **ANSWER) for number in range(10)])
    write_peft(tmp_path, "plain", "{r: 8, target_modules: all-linear}")
    write_peft(tmp_path, "head", "{r: 8, target_modules: [q_proj], modules_to_save: [lm_head]}")
    write_peft(tmp_path, "full", "{}", method="none")
    return tmp_path


def finished(home: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((home / "run/training.json").read_text("utf-8"))
    return content


def weights(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path / "adapter_model.safetensors")


# --- validated by answering


def test_validation_answers_like_the_evaluation_and_keeps_the_best(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = succeed(capsys, *TRAIN, *SMALL, "--num_train_epochs", "10", "--eval_steps", "10").err
    result = finished(home)
    assert result["steps"] == 40
    found = {e["step"]: e for e in result["log"] if "eval_score" in e}
    assert list(found) == [10, 20, 30, 40]
    best = max(found, key=lambda step: found[step]["eval_score"])
    assert result["best_step"] == best
    assert found[best]["eval_score"] > 0.5  # it was learnt; else nothing is shown here
    # The same questions, asked by the evaluation of what was kept.
    summary = json.loads((home / "run/summary.json").read_text("utf-8"))
    headline = summary["headline"]["subspan_exact_match"]
    assert headline == found[best]["eval_subspan_exact_match"]
    assert f"validation after {best} updates: subspan exact match {headline:.1%}" in err
    kept, checkpoint = (home / "run/adapter", home / f"run/trainer/checkpoint-{best}")
    ours, theirs = weights(kept), weights(checkpoint)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_worse_end_is_not_what_is_kept(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores that fall on purpose; and the losses are those of a training without validation."""
    scores = iter([0.2, 0.9, 0.5, 0.1])
    real = training._validation

    def falling(*arguments: Any) -> Any:
        answer = real(*arguments)
        return answer and (lambda: {**answer(), "score": next(scores)})

    monkeypatch.setattr(training, "_validation", falling)
    arguments = [*TRAIN, *SMALL, "--train_only", "--num_train_epochs", "2"]
    succeed(capsys, *arguments, "--eval_steps", "2")
    judged = finished(home)
    assert judged["best_step"] == 4
    ours = weights(home / "run/adapter")
    theirs = weights(home / "run/trainer/checkpoint-4")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    last = weights(home / "run/trainer/checkpoint-8")
    assert any(not torch.equal(ours[name], last[name]) for name in last)
    succeed(capsys, *arguments, "--overwrite")
    plain = finished(home)
    assert plain["best_step"] is None
    losses = [[e["loss"] for e in r["log"] if "loss" in e] for r in (judged, plain)]
    assert losses[0] == losses[1]
    plainly = weights(home / "run/adapter")
    assert all(torch.equal(plainly[name], last[name]) for name in last)


@pytest.mark.parametrize("peft", ["plain", "head", "full"])
def test_in_bfloat16_masters_and_base_answer_together(
    home: Path, capsys: pytest.CaptureFixture[str], peft: str
) -> None:
    arguments = [*TRAIN, *SMALL, "--num_train_epochs", "1", "--eval_steps", "2"]
    succeed(capsys, *arguments, "--model_config", "low", "--peft_config", peft)
    result = finished(home)
    assert [e["step"] for e in result["log"] if "eval_score" in e] == [2, 4]
    assert result["best_step"] in (2, 4)


def test_a_scratchpads_quotes_count_a_little(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*TRAIN, *SMALL, "--train_only", "--num_train_epochs", "1", "--eval_steps", "4"]
    succeed(capsys, *arguments, "--train_method", "scratchpad")
    (entry,) = (e for e in finished(home)["log"] if "eval_score" in e)
    recall = entry["eval_quote_recall"]
    assert entry["eval_score"] == pytest.approx(entry["eval_subspan_exact_match"] + recall / 100)


# --- what a training leaves


def test_training_json_and_the_plot(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*TRAIN, *SMALL, "--train_only", "--num_train_epochs", "5"]
    succeed(capsys, *arguments, "--train_method", "scratchpad")
    result = finished(home)
    assert {"steps", "tokens", "wall_seconds", "tokens_per_second", "interrupted"} < set(result)
    assert result["steps"] == 20
    assert result["tokens_per_second"] == pytest.approx(result["tokens"] / result["wall_seconds"])
    assert result["peak_bytes"] > 1e8
    assert result["interrupted"] is False
    assert [entry["step"] for entry in result["log"]] == [5, 10, 15, 20]
    regions = {f"loss_{region.value}" for region in Region}
    for entry in result["log"]:
        scored = regions & set(entry)
        assert {"loss_scratchpad", "loss_answer", "loss_question", "loss_context"} <= scored
        assert min(entry[name] for name in scored) <= entry["loss"]
        assert entry["loss"] <= max(entry[name] for name in scored)
    root = ET.parse(home / "run/loss.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


# --- a full disk


def test_a_full_disk_is_one_line_and_keeps_what_there_was(home: Path) -> None:
    """No file may be larger than a checkpoint's optimizer state."""
    arguments = [*TRAIN, *SMALL, "--train_only", "--num_train_epochs", "1", "--save_steps", "2"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(root / "main.py"), *arguments],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = error_lines(done.stderr)
    assert line.startswith("error: cannot write to run: ")
    assert done.stderr.strip().endswith(line)
    assert list((home / "run/trainer").iterdir()) == []
    assert not (home / "run/training.json").exists()
    assert not (home / "checkpoints").exists()


# --- refused before any weights are read


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    (line,) = error_lines(err)
    assert err.strip().endswith(line)
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--report_to", "mlflow"], "unknown tracker 'mlflow'; choose from tensorboard, "),
        (["--early_stopping_patience", "2"], "early_stopping_patience needs eval_steps"),
        (["--eval_steps", "0"], "eval_steps is 0; it must be 1 or more"),
        (["--save_steps", "0"], "save_steps is 0; it must be 1 or more"),
    ],
)
def test_settings_that_cannot_be(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in refusal(capsys, *TRAIN, *SMALL, *arguments)
    assert not (home / "run").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_tracker_that_is_not_installed(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(training, "find_spec", lambda _: None)
    line = refusal(capsys, *TRAIN, *SMALL, "--report_to", name)
    assert line == f"error: report_to {name} needs its package: pip install {name}"
    assert not (home / "run").exists()


def test_packing_for_a_model_whose_samples_would_see_each_other(
    home: Path, capsys: pytest.CaptureFixture[str], byte_level_tokenizer: Any
) -> None:
    model = tiny_lm(
        "Lfm2", vocab_size=len(byte_level_tokenizer), layer_types=["conv", "full_attention"]
    )
    model.save_pretrained(home / "lfm2")
    byte_level_tokenizer.save_pretrained(home / "lfm2")
    write_model(home, "lfm2", home / "lfm2")
    line = refusal(capsys, *TRAIN, *SMALL, "--model_config", "lfm2", "--packing")
    assert "Lfm2ForCausalLM lets the samples of a row see each other" in line
