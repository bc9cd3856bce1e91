"""Trainings that are killed, cut short or run out of disk, and what they go on from."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from scratchpad_rag.config import TrainConfig
from scratchpad_rag.errors import TrainingError
from scratchpad_rag.train import trainer as trainer_module
from scratchpad_rag.train.checkpoints import all_checkpoints, newest_checkpoint, remove_old
from scratchpad_rag.train.trainer import TrainResult
from tests.train.tiny import STEPWISE, AtPass, run, sample, tiny_lm, trained, with_lora

SIX = [sample(10 + number, 20 + number, scored_from=2) for number in range(6)]
EVERY_STEP = replace(STEPWISE, save_steps=1)
IDENTITY = {"method": "sft", "base weights": "abc", "peft": {"r": 4}, "training data": "d1"}


def model() -> Any:
    return with_lora(tiny_lm())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def interrupted(
    folder: Path, at: int, config: TrainConfig = EVERY_STEP, make: Any = model, **job: Any
) -> Any:
    """A run that crashed in its `at`-th forward pass; the model it was of."""
    made = make()

    def crash() -> None:
        raise MemoryError

    AtPass(made, at, crash)
    with pytest.raises(MemoryError):
        run(made, SIX, config, folder, **job)
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], TrainResult]:
    """The weights and the result of twelve updates that nothing stopped."""
    made = model()
    result = run(made, SIX, EVERY_STEP, tmp_path_factory.mktemp("whole"))
    return trained(made), result


def same(made: Any, expected: dict[str, torch.Tensor]) -> bool:
    found = trained(made)
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


# --- killed


_CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from tests.train.test_checkpoints import EVERY_STEP, SIX, model
from tests.train.tiny import run
print("ready", flush=True)
sys.stdin.readline()
run(model(), SIX, EVERY_STEP, Path(sys.argv[1]), resume=True)
print("done", flush=True)
"""


def child(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        **options,
    )


def test_killed_at_any_moment_it_goes_on_to_the_same_weights(
    tmp_path: Path, whole: tuple[dict[str, torch.Tensor], TrainResult]
) -> None:
    """Each update writes a checkpoint, so most kills fall into the writing of one."""
    generator = random.Random(0)
    furthest = 0
    with_one = 0
    for _ in range(3):
        process = child(_CHILD, str(tmp_path))
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        before = len(all_checkpoints(tmp_path)) and furthest
        deadline = time.monotonic() + 60
        # Another checkpoint has to be reached, so that the kills do not all fall into the start.
        while time.monotonic() < deadline and process.poll() is None:
            steps = [int(p.name.split("-")[1]) for p in all_checkpoints(tmp_path)]
            if steps and max(steps) > before:
                break
            time.sleep(0.001)
        time.sleep(generator.uniform(0.0, 0.12))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        newest = newest_checkpoint(tmp_path, _identity_of(tmp_path))
        assert newest is not None
        with_one += 1
        found = int(newest.name.split("-")[1])
        assert found >= furthest
        furthest = found
        state = json.loads((newest / "trainer_state.json").read_text())
        assert state["global_step"] == found
    assert with_one == 3
    made = model()
    result = run(made, SIX, EVERY_STEP, tmp_path, resume=True)
    assert result.steps == 12
    assert same(made, whole[0])
    assert names(tmp_path) == ["checkpoint-12"]
    assert curve(result) == curve(whole[1])


def _identity_of(folder: Path) -> dict[str, Any]:
    """What the newest checkpoint that can be read says that it is of."""
    for path in reversed(all_checkpoints(folder)):
        manifest = path / "manifest.json"
        if manifest.is_file():
            found: dict[str, Any] = json.loads(manifest.read_text())["identity"]
            return found
    return {}


def curve(result: TrainResult) -> list[dict[str, float]]:
    """The log without what the clock and the machine say."""
    measured = ("tokens_per_second", "peak_gigabytes")
    return [{k: v for k, v in entry.items() if k not in measured} for entry in result.log]


# --- damaged


def _cut(checkpoint: Path) -> None:
    path = checkpoint / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _lose_a_file(checkpoint: Path) -> None:
    (checkpoint / "optimizer.pt").unlink()


def _lose_the_manifest(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()


def _spoil_the_manifest(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").write_text('{"sizes": [], "identity": 3}')


@pytest.mark.parametrize("damage", [_cut, _lose_a_file, _lose_the_manifest, _spoil_the_manifest])
def test_the_one_before_a_damaged_checkpoint_is_used(
    tmp_path: Path,
    whole: tuple[dict[str, torch.Tensor], TrainResult],
    damage: Callable[[Path], None],
) -> None:
    config = replace(EVERY_STEP, save_total_limit=2)
    interrupted(tmp_path, 8, config)
    assert names(tmp_path) == ["checkpoint-6", "checkpoint-7"]
    damage(tmp_path / "checkpoint-7")
    said: list[str] = []
    again = model()
    assert run(again, SIX, config, tmp_path, resume=True, on_note=said.append).steps == 12
    assert [line.rpartition("/")[2] for line in said] == ["checkpoint-6"]
    assert same(again, whole[0])
    assert names(tmp_path) == ["checkpoint-11", "checkpoint-12"]


def test_without_a_whole_one_it_begins_anew(
    tmp_path: Path, whole: tuple[dict[str, torch.Tensor], TrainResult]
) -> None:
    interrupted(tmp_path, 4)
    _cut(tmp_path / "checkpoint-3")
    again = model()
    said: list[str] = []
    assert run(again, SIX, EVERY_STEP, tmp_path, resume=True, on_note=said.append).steps == 12
    assert said == []
    assert same(again, whole[0])


def test_a_damaged_newer_checkpoint_does_not_cost_the_whole_ones(tmp_path: Path) -> None:
    """A run that goes on from before it, and is killed again, has something to go on from."""
    interrupted(tmp_path, 6)
    (tmp_path / "checkpoint-9").mkdir()
    (tmp_path / "checkpoint-9/adapter_model.safetensors").write_bytes(b"half")
    interrupted(tmp_path, 3, resume=True)
    assert names(tmp_path) == ["checkpoint-7"]
    assert newest_checkpoint(tmp_path, _identity_of(tmp_path)) == tmp_path / "checkpoint-7"


@pytest.mark.parametrize(
    ("newest", "keep", "best", "left"),
    [
        (4, 1, None, [4]),
        (4, 2, None, [3, 4]),
        (4, 1, 2, [2, 4]),
        (4, 2, 4, [3, 4]),
        (2, 1, None, [2]),  # 3 and 4 are of a run before this one
        (4, 9, None, [1, 2, 3, 4]),
    ],
)
def test_the_newest_and_the_best_are_kept(
    tmp_path: Path, newest: int, keep: int, best: int | None, left: list[int]
) -> None:
    for step in (1, 2, 3, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-of-mine").mkdir()
    remove_old(tmp_path, newest, keep, best)
    expected = [*(f"checkpoint-{step}" for step in left), "checkpoint-of-mine"]
    assert names(tmp_path) == expected


# --- of another run


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "rate": ({"lr": 2e-2}, {}, "train.lr was 0.01 and is 0.02"),
    "batch": ({"batch_size": 2}, {}, "train.batch_size was 1 and is 2"),
    "epochs": ({"num_train_epochs": 3.0}, {}, "train.num_train_epochs was 2 and is 3.0"),
    "data": ({}, {"training data": "d2"}, "training data was d1 and is d2"),
    "peft": ({}, {"peft": {"r": 8}}, "peft.r was 4 and is 8"),
    "base": ({}, {"base weights": "x"}, "base weights was abc and is x"),
    "method": ({}, {"method": "scratchpad"}, "method was sft and is scratchpad"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_checkpoint_of_another_run_is_refused_by_name(tmp_path: Path, what: str) -> None:
    settings, identity, message = CHANGES[what]
    interrupted(tmp_path, 2, identity=IDENTITY)
    changed = replace(EVERY_STEP, **settings)
    with pytest.raises(TrainingError) as caught:
        run(model(), SIX, changed, tmp_path, resume=True, identity={**IDENTITY, **identity})
    text = str(caught.value)
    assert f"checkpoint-1 is of another run ({message}); --overwrite" in text
    assert "\n" not in text
    assert names(tmp_path) == ["checkpoint-1"]


def test_another_number_of_processes_is_another_run(tmp_path: Path) -> None:
    interrupted(tmp_path, 2)
    identity = {**_identity_of(tmp_path), "processes": 2}
    with pytest.raises(TrainingError, match=r"\(processes was 1 and is 2\)"):
        newest_checkpoint(tmp_path, identity)


def test_settings_without_effect_on_the_weights_may_change(
    tmp_path: Path, whole: tuple[dict[str, torch.Tensor], TrainResult]
) -> None:
    """Above all checkpointing, which is chosen by what memory is free at the time."""
    interrupted(tmp_path, 6)
    again = model()
    config = replace(
        EVERY_STEP,
        save_steps=4,
        save_total_limit=3,
        logging_steps=7,
        gradient_checkpointing=True,
    )
    assert run(again, SIX, config, tmp_path, resume=True).steps == 12
    assert same(again, whole[0])


def test_micro_batches_stay_those_it_began_with(tmp_path: Path) -> None:
    """Less memory is free the second time, and smaller ones are chosen: as many an update."""
    config = replace(EVERY_STEP, batch_size=4, gradient_accumulation_steps=1)
    expected = model()
    assert run(expected, SIX, config, tmp_path / "whole").steps == 4
    interrupted(tmp_path / "parts", 3, config)
    again = model()
    smaller = replace(config, batch_size=2, gradient_accumulation_steps=2)
    assert run(again, SIX, smaller, tmp_path / "parts", resume=True).steps == 4
    assert same(again, trained(expected))


# --- a full disk


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs a full device")
@pytest.mark.parametrize("values", [4, 1 << 20])  # that it can buffer, and that it cannot
def test_torchs_writer_does_not_say_that_the_disk_is_full_and_we_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: int
) -> None:
    real = torch.save

    def full(thing: Any, path: Any, **options: Any) -> None:
        if Path(path).name == "optimizer.pt" and "partial-5" in str(path):
            real(torch.zeros(values), "/dev/full")
        else:
            real(thing, path, **options)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="the disk may be full"):
        run(model(), SIX, EVERY_STEP, tmp_path)
    assert names(tmp_path) == ["checkpoint-4"]
    assert newest_checkpoint(tmp_path, _identity_of(tmp_path)) is not None


def test_any_failed_write_keeps_the_one_before_and_leaves_no_half(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: tuple[dict[str, torch.Tensor], TrainResult],
) -> None:
    real = trainer_module.publish

    def full(partial: Path, target: Path, identity: Any) -> None:
        if target.name == "checkpoint-5":
            raise OSError(28, "No space left on device")
        real(partial, target, identity)

    monkeypatch.setattr(trainer_module, "publish", full)
    with pytest.raises(OSError, match="No space left"):
        run(model(), SIX, EVERY_STEP, tmp_path)
    assert names(tmp_path) == ["checkpoint-4"]
    monkeypatch.setattr(trainer_module, "publish", real)
    again = model()
    assert run(again, SIX, EVERY_STEP, tmp_path, resume=True).steps == 12
    assert same(again, whole[0])


# --- what is counted over all starts


@pytest.mark.parametrize("logging_steps", [1, 5])
def test_the_curve_after_a_resume_is_that_of_one_run(tmp_path: Path, logging_steps: int) -> None:
    """Saved at 8, between the entries for 5 and 10: what was seen since 5 counts as well."""
    config = replace(EVERY_STEP, logging_steps=logging_steps)
    expected = run(model(), SIX, config, tmp_path / "whole")
    folder = tmp_path / "parts"
    interrupted(folder, 4, config)
    interrupted(folder, 6, config, resume=True)
    result = run(model(), SIX, config, folder, resume=True)
    assert [entry["step"] for entry in result.log] == list(range(logging_steps, 13, logging_steps))
    assert curve(result) == curve(expected)
    assert result.tokens == expected.tokens == 2 * sum(map(len, SIX))


def test_seconds_are_counted_over_all_starts(tmp_path: Path) -> None:
    interrupted(tmp_path, 4)
    tally = tmp_path / "checkpoint-3/tally.json"
    saved = json.loads(tally.read_text())
    assert saved["tokens"] > 0
    assert saved["seconds"] > 0
    changed = json.dumps({**saved, "seconds": 1000.0})
    tally.write_text(changed)
    manifest = tmp_path / "checkpoint-3/manifest.json"
    content = json.loads(manifest.read_text())
    content["sizes"]["tally.json"] = len(changed)
    manifest.write_text(json.dumps(content))
    result = run(model(), SIX, EVERY_STEP, tmp_path, resume=True)
    assert 1000 < result.wall_seconds < 1100
    assert result.tokens_per_second == pytest.approx(result.tokens / result.wall_seconds)


def test_dropout_goes_on_where_it_was(tmp_path: Path) -> None:
    def dropping() -> Any:
        return with_lora(tiny_lm(attention_dropout=0.1), lora_dropout=0.3)

    ends = []
    for number in range(2):
        made = dropping()
        run(made, SIX, EVERY_STEP, tmp_path / str(number))
        ends.append(trained(made))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    folder = tmp_path / "parts"
    interrupted(folder, 5, make=dropping)
    # Whatever was drawn in between.
    torch.manual_seed(99)
    again = dropping()
    run(again, SIX, EVERY_STEP, folder, resume=True)
    assert same(again, ends[0])
    plain = model()
    run(plain, SIX, EVERY_STEP, tmp_path / "plain")
    assert not same(plain, ends[0])


def test_a_moved_run_goes_on(
    tmp_path: Path, whole: tuple[dict[str, torch.Tensor], TrainResult]
) -> None:
    interrupted(tmp_path / "here", 5)
    shutil.move(tmp_path / "here", tmp_path / "there")
    again = model()
    assert run(again, SIX, EVERY_STEP, tmp_path / "there", resume=True).steps == 12
    assert same(again, whole[0])
