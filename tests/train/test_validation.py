"""Validation between updates: it changes nothing, and the best weights are kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from scratchpad_rag.train.trainer import TrainResult
from tests.train.tiny import SAMPLES, STEPWISE, AtPass, run, sample, tiny_lm, trained, with_lora

SIX = [sample(10 + number, 20 + number, scored_from=2) for number in range(6)]
EVERY_TWO = replace(STEPWISE, eval_steps=2)  # of twelve updates
IDS = torch.tensor([SAMPLES[0].input_ids])


def model(**options: Any) -> Any:
    return with_lora(tiny_lm(), **options)


class Judge:
    """Scores as they are given, one a validation, and what the model was at each."""

    def __init__(self, made: Any, scores: Sequence[float]) -> None:
        self.model = made
        self.scores = list(scores)
        self.seen: list[dict[str, torch.Tensor]] = []
        self.training: list[bool] = []

    def __call__(self) -> dict[str, float]:
        self.training.append(self.model.training)
        self.seen.append(trained(self.model))
        torch.rand(3)  # whatever it draws
        with torch.no_grad():
            self.model(input_ids=IDS)
        return {"score": self.scores[len(self.seen) - 1], "quote_recall": 0.5}


def judged(
    folder: Path,
    scores: Sequence[float],
    make: Callable[[], Any] = model,
    config: Any = EVERY_TWO,
    **job: Any,
) -> tuple[Any, Judge, TrainResult]:
    made = make()
    judge = Judge(made, scores)
    return made, judge, run(made, SIX, config, folder, validate=judge, **job)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    made, judge, result = judged(tmp_path, [0.1, 0.3, 0.9, 0.8, 0.9, 0.2])
    assert result.steps == 12
    assert result.best_step == 6  # of equals the first
    assert same(trained(made), judge.seen[2])
    assert not same(judge.seen[2], judge.seen[5])
    assert not made.training
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["checkpoint-12", "checkpoint-6"]
    assert judge.training == [False] * 6
    entries = [entry for entry in result.log if "eval_score" in entry]
    assert [entry["step"] for entry in entries] == [2, 4, 6, 8, 10, 12]
    assert [entry["eval_score"] for entry in entries] == [0.1, 0.3, 0.9, 0.8, 0.9, 0.2]
    assert all(entry["eval_quote_recall"] == 0.5 for entry in entries)


def test_the_last_weights_are_validated_too(tmp_path: Path) -> None:
    _, judge, result = judged(tmp_path, [0.1, 0.2, 0.7], config=replace(EVERY_TWO, eval_steps=5))
    assert len(judge.seen) == 3
    assert result.best_step == 12


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_validation_changes_nothing(tmp_path: Path, dropout: float) -> None:
    plain = model(lora_dropout=dropout)
    expected = run(plain, SIX, STEPWISE, tmp_path / "plain")
    made, _, result = judged(
        tmp_path / "judged", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], lambda: model(lora_dropout=dropout)
    )
    assert same(trained(made), trained(plain))
    losses = [entry["loss"] for entry in result.log if "loss" in entry]
    assert losses == [entry["loss"] for entry in expected.log]


def test_all_weights_are_kept_as_well(tmp_path: Path) -> None:
    made, judge, result = judged(
        tmp_path, [0.1, 0.9, 0.2, 0.1, 0.1, 0.1], lambda: tiny_lm().requires_grad_(True)
    )
    assert result.best_step == 4
    assert same(trained(made), judge.seen[1])


STOPPING = replace(EVERY_TWO, early_stopping_patience=2)


def test_early_stopping(tmp_path: Path) -> None:
    made, judge, result = judged(tmp_path, [0.1, 0.5, 0.4, 0.5], config=STOPPING)
    assert result.steps == 8
    assert result.best_step == 4
    assert not result.interrupted
    assert same(trained(made), judge.seen[1])


@pytest.mark.parametrize("moved", [False, True])
def test_the_best_before_a_crash_is_kept_by_the_run_that_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, moved: bool
) -> None:
    crashing = model()

    def crash() -> None:
        raise MemoryError

    AtPass(crashing, 8, crash)  # in the sixth update; its newest checkpoint is the best one
    first = Judge(crashing, [0.1, 0.5])
    folder = tmp_path / "run"
    with pytest.raises(MemoryError):
        run(crashing, SIX, EVERY_TWO, folder, validate=first)
    assert not caplog.records
    if moved:
        folder = folder.rename(tmp_path / "elsewhere")
    made, _, result = judged(folder, [0.4, 0.3, 0.2, 0.1], resume=True)
    assert result.best_step == 4
    assert same(trained(made), first.seen[1])
    assert moved or not caplog.records
    # All is done: started once more, it ends where it was.
    made, judge, result = judged(folder, [], resume=True)
    assert judge.seen == []
    assert (result.steps, result.best_step) == (12, 4)
    assert same(trained(made), first.seen[1])
    assert len([entry for entry in result.log if "loss" in entry]) == 12


def test_patience_is_counted_over_a_resume(tmp_path: Path) -> None:
    """One validation without a better one before the crash, one after it."""
    crashing = model()

    def crash() -> None:
        raise MemoryError

    # A pass at every update, and one at each validation: in the eighth update.
    AtPass(crashing, 11, crash)
    first = Judge(crashing, [0.1, 0.5, 0.4])
    with pytest.raises(MemoryError):
        run(crashing, SIX, STOPPING, tmp_path / "a", validate=first)
    assert len(first.seen) == 3
    shutil.move(tmp_path / "a", tmp_path / "b")  # and found elsewhere
    made, judge, result = judged(tmp_path / "b", [0.5], config=STOPPING, resume=True)
    assert len(judge.seen) == 1
    assert result.steps == 8
    assert result.best_step == 4
    assert same(trained(made), first.seen[1])
    scores = [entry["eval_score"] for entry in result.log if "eval_score" in entry]
    assert scores == [0.1, 0.5, 0.4, 0.5]


def test_patience_without_questions_to_validate_with(tmp_path: Path) -> None:
    assert run(model(), SIX, STOPPING, tmp_path).steps == 12


def test_what_is_found_is_said_beside_the_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged(tmp_path, [0.1, 0.25, 0.3, 0.4, 0.5, 0.625])
    err = capsys.readouterr().err
    assert "validation after 4 updates: quote recall 50.0%" in err
    assert "validation after 12 updates: quote recall 50.0%" in err
    assert "12/12" in err
    assert "loss_answer=" in err


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_is_left_as_whoever_loaded_it_knows_it(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    """Also where autocast was needed, since the head trains as well."""
    made = with_lora(tiny_lm(dtype=dtype), modules_to_save=["lm_head"])
    config = made.get_base_model().config
    assert config.use_cache
    low = dtype is torch.bfloat16
    run(made, SIX, STEPWISE, tmp_path, low_precision=low)
    assert config.use_cache
    assert config._attn_implementation == "sdpa"
    assert not [n for n, m in made.named_modules() if "forward" in m.__dict__]
    assert not [n for n, m in made.named_modules() if "_original_forward" in m.__dict__]
    made.to(dtype)
    assert made(input_ids=IDS).logits.dtype is dtype
