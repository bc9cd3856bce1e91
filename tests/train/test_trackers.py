"""What a tracker is told: metrics and named settings, no path, no token, no environment."""

from __future__ import annotations

import json
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from scratchpad_rag.config import TrainConfig
from tests.train.tiny import SAMPLES, STEPWISE, run, tiny_lm, with_lora

SECRET = "hf_neverToBeSeen"


class Writer:
    """In the place of TensorBoard's, keeping what it is given."""

    made: list[Writer]

    def __init__(self, log_dir: str) -> None:
        self.log_dir = log_dir
        self.texts: dict[str, str] = {}
        self.scalars: list[tuple[str, float, int]] = []
        self.closed = False
        Writer.made.append(self)

    def add_text(self, name: str, text: str, step: int = 0) -> None:
        self.texts[name] = text

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed = True


class WandB(ModuleType):
    """In the place of W&B's package, keeping what it is given."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.run: Any = None
        self.config: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self.logged: list[dict[str, float]] = []

    def Settings(self, **settings: Any) -> dict[str, Any]:  # noqa: N802  W&B's name
        return settings

    def init(self, project: str, settings: dict[str, Any]) -> None:
        self.settings = {"project": project, **settings}
        self.run = SimpleNamespace(_label=lambda **_: None, summary={})

    def define_metric(self, *_: Any, **__: Any) -> None: ...

    def log(self, values: dict[str, float]) -> None:
        self.logged.append(values)


class _Config(dict[str, Any]):
    def update(self, values: dict[str, Any], allow_val_change: bool = False) -> None:  # type: ignore[override]
        super().update(values)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("WANDB_LOG_MODEL", "checkpoint")  # W&B's way to ask for the weights


def tracked(folder: Path, name: str) -> None:
    model = with_lora(tiny_lm())
    model.get_base_model().config._name_or_path = "/home/me/models/secret-name"
    config = replace(STEPWISE, report_to=(name,), num_train_epochs=1)
    assert run(model, SAMPLES, config, folder, shared={"model": "tiny", "method": "sft"}).steps == 4


def check_settings(told: dict[str, Any], folder: Path) -> None:
    assert set(told) == {field.name for field in fields(TrainConfig)} | {"model", "method"}
    assert told["model"] == "tiny"
    assert told["lr"] == 0.01
    assert told["loss_region"] == "sample"
    text = json.dumps(told)
    for hidden in (SECRET, str(folder), "/", "secret-name"):
        assert hidden not in text


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import integration_utils

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    Writer.made = []
    tracked(tmp_path, "tensorboard")
    (writer,) = Writer.made
    assert writer.closed
    assert writer.log_dir.startswith(str(tmp_path))  # it writes beside the run, and is told no path
    assert set(writer.texts) == {"args"}
    check_settings(json.loads(writer.texts["args"]), tmp_path)
    losses = [(name, step) for name, _, step in writer.scalars if name == "train/loss_answer"]
    assert losses == [("train/loss_answer", step) for step in (1, 2, 3, 4)]


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import integration_utils

    wandb = WandB()
    wandb.config = _Config()
    config_util = ModuleType("wandb.sdk.lib.config_util")
    config_util.ConfigError = ValueError  # type: ignore[attr-defined]
    for name in ("wandb.sdk", "wandb.sdk.lib"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "wandb.sdk.lib.config_util", config_util)
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: True)
    tracked(tmp_path, "wandb")
    check_settings(dict(wandb.config), tmp_path)
    assert wandb.settings == {
        "project": "scratchpad-rag",
        "disable_git": True,
        "disable_code": True,
        "x_disable_meta": True,
        "x_save_requirements": False,
        "console": "off",
    }
    losses = [values["train/loss"] for values in wandb.logged if "train/loss" in values]
    assert len(losses) == 4
