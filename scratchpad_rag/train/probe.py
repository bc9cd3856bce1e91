"""A few steps of a training, timed, and what the whole of it will take by them.

The steps are those that training takes, with the same layers, loss and precision, on micro-batches
of typical length and on the one with the longest sample, which holds the most memory.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from scratchpad_rag.config import TrainConfig
from scratchpad_rag.records import Encoded
from scratchpad_rag.tokens.samples import EpochSamples, FixedSamples
from scratchpad_rag.train.plan import PlanShape, Visit, plan_run
from scratchpad_rag.train.trainer import TrainJob, packs, train
from scratchpad_rag.train.watch import peak_bytes

_STEPS = 3  # at least
_QUANTILES = (0.25, 0.5, 0.75)  # of the micro-batches, by tokens: those that are timed


@dataclass(frozen=True)
class Forecast:
    """What a training will take, from a few of its steps on this machine.

    `seconds` is without validations and checkpoints. `timed_tokens` of `timed_steps` micro-batches
    were measured; `peak_bytes` is the most memory that was held, with the longest sample.
    """

    micro_batches: int
    updates: int
    tokens: int  # of all micro-batches, padding included
    seconds: float
    tokens_per_second: float
    timed_steps: int
    timed_tokens: int
    peak_bytes: int


def forecast(model: Any, samples: EpochSamples, config: TrainConfig, job: TrainJob) -> Forecast:
    """Train a few steps in `job.folder`, a temporary one, and scale their time to the whole run.

    The model is trained a little by this: do not go on with it. Raises what training raises.
    """
    packed = packs(model, config)
    shape = PlanShape(config.batch_size, packed, config.seed, config.num_train_epochs)
    plan = plan_run(samples, shape)
    lengths = [samples.lengths(epoch) for epoch in range(ceil(config.num_train_epochs))]
    sizes = [_tokens([lengths[v.epoch][v.sample] for v in batch], packed) for batch in plan]
    chosen = _typical(sizes)
    probed = [_fetch(samples, plan[index]) for index in chosen]
    flat = FixedSamples([sample for batch in probed for sample in batch])
    ran: list[tuple[Visit, ...]] = []
    epochs = 0
    while len(ran) < _STEPS:  # the first step is not timed
        epochs += 1
        ran = plan_run(flat, replace(shape, epochs=epochs))
    short = replace(
        config,
        num_train_epochs=epochs,
        gradient_accumulation_steps=1,
        packing=packed,
        logging_steps=1_000_000,
        save_steps=1_000_000,
        eval_steps=None,
        early_stopping_patience=None,
        report_to=(),
    )
    own = flat.lengths(0)
    steps = [_tokens([own[visit.sample] for visit in batch], packed) for batch in ran]
    clock = _Clock()
    began = time.perf_counter()
    job = replace(job, resume=False, validate=None, callbacks=(*job.callbacks, clock))
    train(model, flat, short, job)
    return _scaled(clock, steps, sizes, config, began)


def _scaled(
    clock: _Clock, steps: Sequence[int], sizes: Sequence[int], config: TrainConfig, began: float
) -> Forecast:
    timed = list(zip(steps, clock.steps, clock.updates, strict=True))[1:]
    longest = max(range(len(timed)), key=lambda index: timed[index][0])
    # The longest step is there for its memory: by attention's share it is slower a token.
    typical = [step for index, step in enumerate(timed) if index != longest or len(timed) < 3]
    tokens = sum(count for count, _, _ in typical)
    update = sum(seconds for _, _, seconds in typical) / len(typical)
    a_token = sum(step - updating for _, step, updating in typical) / tokens
    updates = ceil(len(sizes) / config.gradient_accumulation_steps)
    startup = max(0.0, clock.first - began) + max(0.0, clock.steps[0] - steps[0] * a_token - update)
    seconds = startup + a_token * sum(sizes) + update * updates
    return Forecast(
        micro_batches=len(sizes),
        updates=updates,
        tokens=sum(sizes),
        seconds=seconds,
        tokens_per_second=sum(sizes) / seconds,
        timed_steps=len(typical),
        timed_tokens=tokens,
        peak_bytes=peak_bytes(),
    )


def _typical(sizes: Sequence[int]) -> list[int]:
    """Micro-batches to probe: the one of most tokens, and at quartiles and the middle of the rest.

    >>> _typical([5, 9, 1, 7, 3, 11])
    [5, 4, 0, 3, 1]
    """
    order = sorted(range(len(sizes)), key=lambda index: (sizes[index], index))
    rest = order[:-1]
    places = [round(quantile * (len(rest) - 1)) for quantile in (*_QUANTILES, 0.5)]
    chosen = list(dict.fromkeys([order[-1], *(rest[place] for place in places if rest)]))
    spare = [index for index in rest if index not in chosen]
    middle = sorted(spare, key=lambda index: abs(order.index(index) - len(order) / 2))
    return [*chosen, *middle[: 5 - len(chosen)]]


def _fetch(samples: EpochSamples, batch: Sequence[Visit]) -> list[Encoded]:
    return [samples.sample(visit.epoch, visit.sample) for visit in batch]


def _tokens(lengths: Sequence[int], packed: bool) -> int:
    """Tokens that a micro-batch computes, padding included."""
    return sum(lengths) if packed else max(lengths) * len(lengths)


class _Clock(TrainerCallback):
    """Seconds of every step, and of the optimizer's part of it; nothing is saved."""

    def __init__(self) -> None:
        self.first = 0.0
        self.steps: list[float] = []
        self.updates: list[float] = []
        self._began = 0.0
        self._updating = 0.0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._began = time.perf_counter()
        self.first = self.first or self._began

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._updating = _now()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        end = _now()
        self.steps.append(end - self._began)
        self.updates.append(end - self._updating)
        control.should_save = False
        return control


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
