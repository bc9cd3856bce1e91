"""What trackers (TensorBoard, W&B, trackio) are told of a run: its metrics, and named settings.

transformers sends all of its arguments and the model's config, paths among them. Here a tracker
sees nothing but what is handed in, and neither weights nor checkpoints.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import integration_utils

PROJECT = "scratchpad-rag"


class SharedArguments(TrainingArguments):
    """Trainer's arguments, of which a tracker that asks for all gets the shared settings only."""

    shared: Mapping[str, Any] = {}

    def to_dict(self) -> dict[str, Any]:
        return dict(self.shared)

    def to_sanitized_dict(self) -> dict[str, Any]:
        return dict(self.shared)

    def to_json_string(self) -> str:
        return json.dumps(dict(self.shared), indent=2, default=str)


class ToTracker(TrainerCallback):
    """One of transformers' trackers, which sees no model and is told of no checkpoint."""

    def __init__(self, name: str) -> None:
        integrations: Any = integration_utils  # untyped in transformers
        (kind,) = integrations.get_reporting_integration_callbacks([name])
        self.tracker = kind()
        self.name = name

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.name == "wandb":
            _begin_wandb(self.tracker, state)
        self.tracker.on_train_begin(args, state, control, model=None)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self.tracker.on_log(args, state, control, model=None, logs=logs)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.tracker.on_train_end(args, state, control, model=None)


def _begin_wandb(tracker: Any, state: TrainerState) -> None:
    """W&B looks for the command line, the machine and the repository itself, and may be told by the
    environment to take the weights."""
    tracker._log_model = type(tracker._log_model)("false")
    wandb = tracker._wandb
    if state.is_world_process_zero and wandb.run is None:
        settings = wandb.Settings(
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_save_requirements=False,
            console="off",
        )
        wandb.init(project=os.getenv("WANDB_PROJECT", PROJECT), settings=settings)
