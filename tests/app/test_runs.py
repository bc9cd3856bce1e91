from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from scratchpad_rag.app.runs import (
    cannot_write,
    open_run,
    refuse_inside,
    require_writable,
    run_name,
    write_json,
)
from scratchpad_rag.config import EvaluateConfig, RunConfig, TrainConfig
from scratchpad_rag.errors import UserError
from scratchpad_rag.records import Example, Passage

CONFIG = RunConfig(model_name="tiny")


def name(
    config: RunConfig = CONFIG, purpose: str = "sft-val_anc", checkpoint: Path | None = None
) -> str:
    return run_name(config, "configs/nq_lim_20_docs.yaml", purpose, checkpoint)


def test_the_name_is_the_same_for_the_same_work() -> None:
    assert name() == name(RunConfig(model_name="tiny"))
    assert name().startswith("nq_lim_20_docs-tiny-sft-val_anc-")
    shown_only = EvaluateConfig(print_outputs=True, last_answer_only=True)
    assert name(replace(CONFIG, evaluate=shown_only)) == name()
    elsewhere = EvaluateConfig(executor="ray", num_actors=8, ray_address="10.0.0.1:6379")
    assert name(replace(CONFIG, evaluate=elsewhere)) == name()


@pytest.mark.parametrize(
    "other",
    [
        {"config": replace(CONFIG, train=TrainConfig(lr=1e-3))},
        {"config": replace(CONFIG, train=TrainConfig(seed=1))},
        {"config": replace(CONFIG, data=replace(CONFIG.data, gold_at=(0,)))},
        {"config": replace(CONFIG, model=replace(CONFIG.model, torch_dtype="float32"))},
        {"config": replace(CONFIG, generate=replace(CONFIG.generate, max_new_tokens=5))},
        {"config": replace(CONFIG, model_name="other")},
        {"purpose": "scratchpad-val_anc"},
        {"checkpoint": Path("a.pt")},
    ],
)
def test_other_work_has_another_name(other: dict[str, Any]) -> None:
    assert name(**other) != name()


def test_a_checkpoint_counts_by_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"weights")
    before = name(checkpoint=path)
    assert name(checkpoint=path) == before
    path.write_bytes(b"weights trained anew")
    assert name(checkpoint=path) != before


def test_samples_and_base_weights_count_by_what_they_hold() -> None:
    def named(answer: str, base_hash: str) -> str:
        example = Example("q", "Who?", (answer,), (Passage("T", "Ada."),), (0,))
        arguments = (CONFIG, "nq_lim_20_docs", "sft-val_anc")
        return run_name(*arguments, samples=[[example]], base_hash=base_hash)

    assert named("Ada", "a") == named("Ada", "a")
    assert len({named("Ada", "a"), named("Ida", "a"), named("Ada", "b")}) == 3


def test_overwriting_spares_the_checkpoint_that_is_read(tmp_path: Path) -> None:
    refuse_inside(tmp_path / "run", None, tmp_path / "other/adapter")
    with pytest.raises(UserError, match="would remove"):
        refuse_inside(tmp_path / "run", tmp_path / "run/adapter")


def test_a_run_is_opened_and_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "runs/one"
    open_run(folder, CONFIG, name(), overwrite=False)
    saved = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert saved["model_name"] == "tiny"
    assert saved["train"]["lr"] == 1e-4
    (folder / "scores.jsonl").write_text("kept")
    open_run(folder, CONFIG, name(), overwrite=False)
    assert (folder / "scores.jsonl").read_text() == "kept"
    open_run(folder, CONFIG, name(), overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "run.json"]


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    open_run(folder, CONFIG, name(), overwrite=False)
    (folder / "scores.jsonl").write_text("kept")
    other = replace(CONFIG, train=TrainConfig(lr=1e-3))
    with pytest.raises(UserError, match=r"holds another run \(changed: train\.lr\)"):
        open_run(folder, other, name(other), overwrite=False)
    assert (folder / "scores.jsonl").read_text() == "kept"
    checkpoint = tmp_path / "a.pt"
    checkpoint.write_bytes(b"weights")
    with pytest.raises(UserError, match="of other data or checkpoints"):
        open_run(folder, CONFIG, name(checkpoint=checkpoint), overwrite=False)


def test_a_folder_that_is_no_run_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(UserError, match="something else than a run"):
        open_run(tmp_path, CONFIG, name(), overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "dear"


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    for folder in (file, file / "below", file / "far/below"):
        with pytest.raises(UserError, match="cannot write to") as caught:
            require_writable(folder)
        assert str(file) in str(caught.value)
    with pytest.raises(UserError, match="cannot write to"):
        open_run(file / "below", CONFIG, name(), overwrite=False)
    require_writable(tmp_path)
    require_writable(tmp_path / "not/yet/there")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The permission bits do not hold the superuser back, so the question itself is answered.
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match="read-only"):
        require_writable(tmp_path / "runs")


def test_the_reason_is_the_system_s_own() -> None:
    error = cannot_write(Path("runs/x"), OSError(28, "No space left on device"))
    assert str(error) == "cannot write to runs/x: No space left on device"


def test_json_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"name": "Röntgen 🌍", "folder": Path("a/b")})
    assert json.loads(path.read_text("utf-8")) == {"name": "Röntgen 🌍", "folder": "a/b"}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]

    before = path.read_bytes()
    written = Path.write_text

    def full(self: Path, data: str, *rest: Any, **named: Any) -> int:
        written(self, data[:5], *rest, **named)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"cannot write to .*summary\.json: No space left"):
        write_json(path, {"name": "other"})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]
