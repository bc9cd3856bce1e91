"""Encoded -> adapter: thin on transformers' Trainer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK, TRAINER_STATE_NAME
from transformers.utils.import_utils import is_liger_kernel_available

from scratchpad_rag.config import TrainConfig
from scratchpad_rag.errors import TrainingError
from scratchpad_rag.models.adapters import quiet_about_transformers
from scratchpad_rag.models.sharded import allow_fsdp_on_cpu, gather_trained
from scratchpad_rag.records import Encoded, ScratchpadForm
from scratchpad_rag.tokens.collate import Collator, Weights
from scratchpad_rag.tokens.encode import IGNORED
from scratchpad_rag.tokens.samples import EpochSamples
from scratchpad_rag.train.apart import keeps_apart
from scratchpad_rag.train.checkpoints import (
    newest_checkpoint,
    newest_identity,
    partial_folder,
    publish,
    remove_halves,
    remove_old,
)
from scratchpad_rag.train.layers import fast_layers
from scratchpad_rag.train.loss import RegionLoss, scoring
from scratchpad_rag.train.memory import TrimHeap, tensor_heap
from scratchpad_rag.train.plan import PlanShape, Stream, Visit, plan_run
from scratchpad_rag.train.trackers import PROJECT, SharedArguments, ToTracker
from scratchpad_rag.train.watch import Bar, KnowBest, StopOnSignal, Tally, peak_bytes

SCORE = "score"  # what validation is judged by: the higher, the better
Validate = Callable[[], Mapping[str, float]]
_SCHEDULERS = {"none": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
_TALLY = "tally.json"
# Settings that change how a run is watched, kept and held in memory, not what it comes to.
_FREE = ("save_steps", "save_total_limit", "logging_steps", "report_to", "gradient_checkpointing")
# In the messages of torch.save where a file cannot be written, which tell no reason.
_TORCH_WRITER = ("inline_container", "iostream error")


@dataclass(frozen=True)
class TrainResult:
    """What a training run did, over all its starts. A loss is a mean over the tokens that were
    scored since the entry before."""

    steps: int
    tokens: int
    wall_seconds: float
    tokens_per_second: float
    interrupted: bool
    log: tuple[dict[str, float], ...]
    peak_bytes: int = 0
    best_step: int | None = None  # the weights kept, where validation chose them


@dataclass(frozen=True)
class TrainJob:
    """Where a run is kept, what it is and how it is watched."""

    folder: Path
    pad_token_id: int
    resume: bool = False
    identity: Mapping[str, Any] = field(default_factory=dict)  # of data and model: a resume's too
    low_precision: bool = False  # products in bfloat16, whatever the weights are held in
    validate: Validate | None = None  # answers questions; has to return SCORE among others
    shared: Mapping[str, Any] = field(default_factory=dict)  # what trackers see beside settings
    on_note: Callable[[str], None] = lambda _: None
    callbacks: tuple[TrainerCallback, ...] = ()  # further ones, in transformers' way


class _Visits(Dataset[Encoded]):
    """Samples by epoch and index, the silent ones without labels."""

    def __init__(self, samples: EpochSamples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, visit: Visit) -> Encoded:
        sample = self.samples.sample(visit.epoch, visit.sample)
        if not visit.silent:
            return sample
        nothing = (IGNORED,) * len(sample)
        return Encoded(sample.input_ids, nothing, sample.regions, sample.prompt_length)


class RegionTrainer(Trainer):
    """Trainer with the region's loss, normalised by scored tokens over the accumulated batch."""

    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, plan: list[tuple[Visit, ...]], job: TrainJob, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # so that Trainer counts the scored tokens
        self.plan = plan
        self.job = job
        self.identity = dict(job.identity)
        self.tally = Tally()

    def get_train_dataloader(self) -> DataLoader[Encoded]:
        """This process's micro-batches of the whole run; they are not spread a second time."""
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        stream: Any = Stream(self.plan, rank, processes)
        visits: Any = _Visits(self.train_dataset)  # type: ignore[arg-type]
        return DataLoader(
            visits,
            batch_sampler=stream,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        silent = bool((inputs["labels"] == IGNORED).all())
        tokens = 0 if silent else inputs["labels"].numel()
        losses = RegionLoss(*model(**inputs))
        if not torch.isfinite(losses.total):
            raise TrainingError(
                f"the loss is {losses.total.item()} at step {self.state.global_step + 1}; stopped. "
                "What was saved before is kept; try a lower --lr or torch_dtype float32"
            )
        self.tally.add(losses, tokens)
        loss = losses.total / (num_items_in_batch or max(1, len(losses.token_losses)))
        if self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        return (loss, None) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            # Trainer forgets at a resume what it saw since the last entry.
            logs |= self.tally.take_losses()
            self.tally.share()
            logs["tokens_per_second"] = round(self.tally.tokens_per_second, 1)
            logs["peak_gigabytes"] = round(peak_bytes() / 1e9, 3)
        super().log(logs, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Validation is answering questions, by whoever was handed in."""
        assert self.job.validate is not None
        model: Any = self.model
        model.eval()
        # What it draws does not change the training, and masters meet the base as in training.
        aside = torch.random.fork_rng(devices=[])
        with aside, self.accelerator.autocast(), self.tally.paused():
            found = self.job.validate()
        model.train()
        metrics = {f"eval_{key}": float(value) for key, value in found.items()}
        self.log(dict(metrics))
        handler = self.callback_handler
        self.control = handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _get_output_dir(self, trial: Any = None) -> str:
        """Checkpoints are written beside their place first; see `_save_checkpoint`."""
        return str(partial_folder(self.job.folder, self.state.global_step))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step, best = self.state.global_step, self.state.best_global_step
        self.tally.share()
        if self.args.should_save:
            remove_halves(self.job.folder)
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)
        except RuntimeError as error:
            if not any(name in str(error) for name in _TORCH_WRITER):
                raise
            raise OSError("a file could not be written whole; the disk may be full") from error
        tally = self.tally.saved()
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            target = self.job.folder / f"checkpoint-{step}"
            written = partial_folder(self.job.folder, step) / target.name
            if best:  # Trainer noted where it was written, which is not where it will be
                self.state.best_model_checkpoint = str(self._best_checkpoint())
                self.state.save_to_json(str(written / TRAINER_STATE_NAME))
            (written / _TALLY).write_text(json.dumps(tally), "utf-8")
            publish(written, target, self.identity)
            written.parent.rmdir()
            remove_old(self.job.folder, step, self.args.save_total_limit or 1, best)
        self.accelerator.wait_for_everyone()

    def _best_checkpoint(self) -> Path:
        return self.job.folder / f"checkpoint-{self.state.best_global_step}"

    def _load_best_model(self) -> None:
        best = self._best_checkpoint()
        if not best.is_dir():
            raise TrainingError(f"{best}, with the weights of the best validation, is gone")
        self.state.best_model_checkpoint = str(best)
        super()._load_best_model()


def train(model: Any, samples: EpochSamples, config: TrainConfig, job: TrainJob) -> TrainResult:
    """Train what of a model requires gradients, in place; checkpoints go to `job.folder`.

    With `job.validate` the weights of the best validation are kept in the end. Raises
    TrainingError where there is nothing to train on, the loss is not a number, or the folder's
    checkpoints are another run's.
    """
    if not len(samples):
        raise TrainingError("there are no samples to train on")
    stop = StopOnSignal()
    if job.resume:
        config = _as_begun(config, newest_identity(job.folder))
    packed = packs(model, config)
    weights = Weights(config.choice_weight, config.answer_weight)
    shape = PlanShape(config.batch_size, packed, config.seed, config.num_train_epochs)
    plan = plan_run(samples, shape)
    stopping = []
    if job.validate is not None and config.early_stopping_patience is not None:
        stopping.append(EarlyStoppingCallback(config.early_stopping_patience))
    with ExitStack() as stack:
        stack.enter_context(_left_as_it_was(model))
        stack.enter_context(quiet_about_transformers())
        stack.enter_context(tensor_heap(lasting=not config.gradient_checkpointing))
        stack.enter_context(scoring(model))
        layers = stack.enter_context(fast_layers(model))
        autocast = job.low_precision and not layers.complete
        arguments = _arguments(len(plan), config, job, autocast=autocast)
        allow_fsdp_on_cpu()
        trainer = RegionTrainer(
            model=model,
            args=arguments,
            train_dataset=samples,
            # Trainer asks for a set where it validates; how it does is ours.
            eval_dataset=samples if job.validate is not None else None,
            data_collator=Collator(job.pad_token_id, packed=packed, weights=weights),
            callbacks=[stop, KnowBest(), TrimHeap(), *stopping, *job.callbacks],
            plan=plan,
            job=job,
        )
        trainer.identity |= _settings(config, trainer.accelerator.num_processes)
        checkpoint = newest_checkpoint(job.folder, trainer.identity) if job.resume else None
        if checkpoint:
            job.on_note(f"going on from {checkpoint}")
            saved = json.loads((checkpoint / _TALLY).read_text("utf-8"))
            trainer.tally.restore(saved, main=trainer.accelerator.is_main_process)
        bar = Bar(trainer.tally)
        trainer.remove_callback(DEFAULT_PROGRESS_CALLBACK)  # another one in a notebook
        trainer.add_callback(bar)
        for name in config.report_to:
            trainer.add_callback(ToTracker(name))
        stack.callback(bar.close)
        stack.callback(stop.restore)
        stack.callback(remove_halves, job.folder)
        trainer.tally.began = time.perf_counter()
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    model.eval()
    trainer.tally.share()
    if not stop.asked:
        gather_trained(model, keep=trainer.is_world_process_zero())
    tally, state = trainer.tally, trainer.state
    seconds = tally.wall_seconds
    return TrainResult(
        steps=state.global_step,
        tokens=tally.tokens,
        wall_seconds=seconds,
        tokens_per_second=tally.tokens / seconds,
        interrupted=stop.asked,
        log=tuple(entry for entry in state.log_history if "loss" in entry or "eval_score" in entry),
        peak_bytes=peak_bytes(),
        best_step=state.best_global_step,
    )


@contextmanager
def _left_as_it_was(model: Any) -> Iterator[None]:
    """Take back what Trainer and Accelerate leave on it: no cache, and a forward in autocast."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = base.config.use_cache
    try:
        yield
    finally:
        base.config.use_cache = before
        if model.__dict__.pop("_original_forward", None) is not None:
            model.__dict__.pop("forward", None)


def packs(model: Any, config: TrainConfig) -> bool:
    """Whether samples share rows: as the config says, or where flash attention makes it pay.

    Raises TrainingError where they are to share rows and the model cannot keep them apart.
    """
    if config.packing is False:
        return False
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if config.packing is None:
        flash = torch.cuda.is_available() and "flash" in str(base.config._attn_implementation)
        return flash and keeps_apart(base)
    if not keeps_apart(base):
        raise TrainingError(
            f"packing is true, but {type(base).__name__} lets the samples of a row see each other; "
            "leave --packing out"
        )
    return True


def _as_begun(config: TrainConfig, identity: Mapping[str, Any]) -> TrainConfig:
    """With the micro-batches of the checkpoint that is gone on with, if as many samples an update:
    they are chosen by what memory is free, and others take other steps."""
    size = identity.get("train.batch_size")
    updates = identity.get("train.gradient_accumulation_steps")
    asked = config.batch_size * config.gradient_accumulation_steps
    if not isinstance(size, int) or not isinstance(updates, int) or size * updates != asked:
        return config
    return replace(config, batch_size=size, gradient_accumulation_steps=updates)


def _settings(config: TrainConfig, processes: int) -> dict[str, Any]:
    """What a checkpoint's run depends on; another number of processes takes other steps."""
    settings = {f"train.{key}": value for key, value in asdict(config).items() if key not in _FREE}
    if config.scratchpad_form is ScratchpadForm.PASSAGE:
        settings["train.scratchpad_form"] = None  # it is what is taken where none is given
    for key in ("train.choice_weight", "train.answer_weight"):
        if settings[key] == 1:
            del settings[key]  # as in checkpoints of before there were weights
    return settings | {"processes": processes}


def _arguments(
    batches: int, config: TrainConfig, job: TrainJob, *, autocast: bool
) -> TrainingArguments:
    on_cuda = torch.cuda.is_available()
    updates = max(1, batches // config.gradient_accumulation_steps)
    an_epoch = max(1, int(updates / config.num_train_epochs))
    validating = job.validate is not None and config.eval_steps is not None
    save_steps = config.save_steps or min(50, an_epoch)
    if validating and config.eval_steps is not None:
        save_steps = config.eval_steps  # the best one has to be on the disk
    arguments = SharedArguments(
        output_dir=str(job.folder),
        num_train_epochs=1,  # the plan holds all epochs in a row
        learning_rate=config.lr,
        weight_decay=config.weight_decay,
        lr_scheduler_type=_SCHEDULERS[config.scheduler],
        warmup_steps=config.warmup_ratio,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        gradient_checkpointing=bool(config.gradient_checkpointing),
        max_grad_norm=config.max_grad_norm,
        logging_steps=config.logging_steps,
        eval_strategy="steps" if validating else "no",
        eval_steps=config.eval_steps,
        metric_for_best_model=SCORE if validating else None,
        greater_is_better=True if validating else None,
        load_best_model_at_end=validating,
        restore_callback_states_from_checkpoint=True,  # how long the patience has lasted
        save_strategy="steps",
        save_steps=save_steps,
        save_total_limit=config.save_total_limit,
        seed=config.seed,
        data_seed=config.seed,
        # What trains is float32, also beside a bfloat16 base: autocast brings the products that
        # are not ours to bfloat16 while the master copies stay as they are.
        bf16=autocast,
        # Norms, rotary positions and SwiGLU; the loss is ours, in the model's forward.
        use_liger_kernel=on_cuda and is_liger_kernel_available(),
        liger_kernel_config={"cross_entropy": False, "fused_linear_cross_entropy": False},
        use_cpu=not on_cuda,
        dataloader_pin_memory=on_cuda,
        remove_unused_columns=False,
        report_to="none",  # trackers are ours to feed
        project=PROJECT,
        disable_tqdm=False,
        average_tokens_across_devices=True,
        ddp_find_unused_parameters=False,
    )
    arguments.shared = json.loads(json.dumps({**asdict(config), **job.shared}, default=str))
    if arguments.n_gpu > 1:
        # One process would spread each batch over the GPUs with nn.DataParallel, which cuts the
        # positions that are scored into pieces too. Several GPUs are for torchrun.
        arguments._n_gpu = 1
    return arguments
