"""Encoded -> adapter: thin on transformers' Trainer."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import (
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from scratchpad_rag.config import TrainConfig
from scratchpad_rag.errors import TrainingError
from scratchpad_rag.models.adapters import quiet_about_transformers
from scratchpad_rag.records import Encoded
from scratchpad_rag.tokens.collate import REGIONS, Collator
from scratchpad_rag.train.loss import RegionLoss, region_loss

_SCHEDULERS = {"none": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


@dataclass(frozen=True)
class TrainResult:
    """What a training run did. Losses are means over the last logged steps, by region."""

    steps: int
    tokens: int
    wall_seconds: float
    tokens_per_second: float
    interrupted: bool
    log: tuple[dict[str, float], ...]


class _Samples(Dataset[Encoded]):
    def __init__(self, samples: Sequence[Encoded]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Encoded:
        return self.samples[index]


class RegionTrainer(Trainer):
    """Trainer with the region's loss, normalised by scored tokens over the accumulated batch."""

    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # so that Trainer counts the scored tokens
        self.region_sums = torch.zeros(len(REGIONS))
        self.region_counts = torch.zeros(len(REGIONS))
        self.tokens_seen = 0

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        labels, regions = inputs.pop("labels"), inputs.pop("regions")
        losses = region_loss(model, inputs, labels, regions)
        self._note(losses, labels.numel())
        loss = losses.total / (num_items_in_batch or len(losses.token_losses))
        if self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        return (loss, None) if return_outputs else loss

    def _note(self, losses: RegionLoss, tokens: int) -> None:
        if not torch.isfinite(losses.total):
            raise TrainingError(
                f"the loss is {losses.total.item()} at step {self.state.global_step + 1}; stopped. "
                "What was saved before is kept; try a lower --lr or torch_dtype float32"
            )
        self.tokens_seen += tokens
        regions = losses.regions.cpu()
        self.region_sums.index_add_(0, regions, losses.token_losses.float().cpu())
        self.region_counts.index_add_(0, regions, torch.ones(len(regions)))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        for number, region in enumerate(REGIONS):
            if self.region_counts[number] and "loss" in logs:
                logs[f"loss_{region}"] = float(
                    self.region_sums[number] / self.region_counts[number]
                )
        if "loss" in logs:
            self.region_sums.zero_()
            self.region_counts.zero_()
        super().log(logs, start_time)


class _Bar(ProgressCallback):
    """Trainer's bar with the losses at its end, instead of a line of figures now and then."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        losses = {key: value for key, value in (logs or {}).items() if key.startswith("loss")}
        bar: Any = self.training_bar  # typed as None in transformers
        if bar is not None and losses:
            bar.set_postfix({key: f"{value:.3f}" for key, value in losses.items()})

    def close(self) -> None:
        """End the bar's line where training did not, so that an error has a line of its own."""
        bar: Any = self.training_bar
        if bar is not None:
            bar.close()
            self.training_bar = None


class _StopOnSignal(TrainerCallback):
    """Ctrl-C and SIGTERM end the step, save a checkpoint and stop; a second Ctrl-C is immediate."""

    def __init__(self) -> None:
        self.asked = False
        self.previous: dict[int, Any] = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, self.previous[number])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self.previous[number] = signal.signal(number, self._ask)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.asked:
            control.should_save = True
            control.should_training_stop = True

    def restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def train(
    model: Any,
    samples: Sequence[Encoded],
    config: TrainConfig,
    folder: Path,
    *,
    pad_token_id: int,
    resume: bool = False,
    on_note: Callable[[str], None] = lambda _: None,
) -> TrainResult:
    """Train a PeftModel in place; checkpoints go to `folder`, the newest one is kept.

    Raises TrainingError where there is nothing to train on or the loss is not a number.
    """
    if not samples:
        raise TrainingError("there are no samples to train on")
    stop = _StopOnSignal()
    trainer = RegionTrainer(
        model=model,
        args=_arguments(model, len(samples), config, folder),
        train_dataset=_Samples(samples),
        data_collator=Collator(pad_token_id),
        callbacks=[stop],
    )
    bar = _Bar()
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(bar)
    checkpoint = _last_checkpoint(folder) if resume else None
    if checkpoint:
        on_note(f"going on from {checkpoint}")
    begin = time.perf_counter()
    try:
        with quiet_about_transformers():
            trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        stop.restore()
        bar.close()
    seconds = time.perf_counter() - begin
    model.eval()
    return TrainResult(
        steps=trainer.state.global_step,
        tokens=trainer.tokens_seen,
        wall_seconds=seconds,
        tokens_per_second=trainer.tokens_seen / seconds,
        interrupted=stop.asked,
        log=tuple(entry for entry in trainer.state.log_history if "loss" in entry),
    )


def _last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint: Trainer writes its state file last."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    newest = max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    return None if newest is None else str(newest)


def _arguments(model: Any, samples: int, config: TrainConfig, folder: Path) -> TrainingArguments:
    on_cuda = torch.cuda.is_available()
    # bfloat16 weights with float32 adapters: autocast does the adapters' products in bfloat16
    # while their master copies stay float32.
    low_precision = next(model.parameters()).dtype is torch.bfloat16
    steps = max(1, samples // (config.batch_size * config.gradient_accumulation_steps))
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.num_train_epochs,
        learning_rate=config.lr,
        weight_decay=config.weight_decay,
        lr_scheduler_type=_SCHEDULERS[config.scheduler],
        warmup_steps=config.warmup_ratio,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        max_grad_norm=config.max_grad_norm,
        logging_steps=config.logging_steps,
        save_strategy="steps",
        save_steps=min(50, steps),
        save_total_limit=1,
        seed=config.seed,
        data_seed=config.seed,
        bf16=low_precision,
        use_cpu=not on_cuda,
        dataloader_pin_memory=on_cuda,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=False,
        average_tokens_across_devices=True,
    )
    if arguments.n_gpu > 1:
        # One process would spread each batch over the GPUs with nn.DataParallel, which cuts the
        # positions that are scored into pieces too. Several GPUs are for torchrun.
        arguments._n_gpu = 1
    return arguments
