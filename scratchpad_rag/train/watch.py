"""What can be seen of a training while it goes on: a bar, and each region's loss."""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from scratchpad_rag.records import Region
from scratchpad_rag.tokens.collate import CHOICE, REGIONS
from scratchpad_rag.train.loss import RegionLoss
from scratchpad_rag.train.together import any_process, summed


class Tally:
    """Tokens, seconds and losses of a run, over all its starts, without what validation took."""

    def __init__(self) -> None:
        self.tokens = 0  # of this process since `share`, of all before
        self._shared_tokens = 0
        self.seconds = 0.0  # of the starts before this one
        self.tokens_at_start = 0
        self.began = time.perf_counter()
        self._sums = torch.zeros(CHOICE + 1, dtype=torch.float64)
        self._counts = torch.zeros(CHOICE + 1, dtype=torch.float64)

    @property
    def wall_seconds(self) -> float:
        return self.seconds + time.perf_counter() - self.began

    @property
    def tokens_per_second(self) -> float:
        """Since this start."""
        elapsed = time.perf_counter() - self.began
        return (self.tokens - self.tokens_at_start) / elapsed if elapsed else 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Seconds within the block are not the training's."""
        begin = time.perf_counter()
        yield
        self.began += time.perf_counter() - begin

    def add(self, losses: RegionLoss, tokens: int) -> None:
        """Count a micro-batch."""
        self.tokens += tokens
        regions = losses.regions.cpu()
        self._sums.index_add_(0, regions, losses.token_losses.double().cpu())
        self._counts.index_add_(0, regions, torch.ones(len(regions), dtype=torch.float64))

    def share(self) -> None:
        """Count what the other processes did; all have to call it."""
        own = torch.tensor([self.tokens - self._shared_tokens])
        self.tokens = self._shared_tokens = self._shared_tokens + int(summed(own).item())

    def take_losses(self) -> dict[str, float]:
        """Mean loss a token since the last time, in all and by region, over all processes, which
        have to call it. Tokens that choose what is quoted are the scratchpad's, and have a mean of
        their own besides."""
        sums, counts = summed(torch.stack([self._sums, self._counts])).tolist()
        self._sums.zero_()
        self._counts.zero_()
        scratchpad = REGIONS.index(Region.SCRATCHPAD)
        by_region = {**dict(enumerate(REGIONS)), CHOICE: "choice"}
        parts = {number: [number] for number in by_region} | {scratchpad: [scratchpad, CHOICE]}
        losses = {
            f"loss_{name}": sum(sums[part] for part in parts[number]) / total
            for number, name in by_region.items()
            if (total := sum(counts[part] for part in parts[number]))
        }
        return {"loss": sum(sums) / sum(counts), **losses} if losses else {}

    def saved(self) -> dict[str, Any]:
        """What a checkpoint keeps of it; all processes have to ask."""
        sums, counts = summed(torch.stack([self._sums, self._counts])).tolist()
        return {
            "tokens": self.tokens,
            "seconds": self.wall_seconds,
            "sums": sums,
            "counts": counts,
        }

    def restore(self, saved: Mapping[str, Any], *, main: bool) -> None:
        """Go on counting from a checkpoint; `main` is the process that holds the sums of all."""
        self.tokens = self.tokens_at_start = self._shared_tokens = int(saved["tokens"])
        self.seconds = float(saved["seconds"])
        self.began = time.perf_counter()
        if main:
            # Checkpoints of before choices were counted apart hold a number less.
            self._sums[: len(saved["sums"])] = torch.tensor(saved["sums"], dtype=torch.float64)
            self._counts[: len(saved["counts"])] = torch.tensor(
                saved["counts"], dtype=torch.float64
            )


class Bar(ProgressCallback):
    """Trainer's bar with losses, tokens a second and memory at its end."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally
        self.losses: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)  # type: ignore[no-untyped-call]
        bar: Any = self.training_bar  # typed as None in transformers
        if bar is not None:
            # Where a resumed run begins does not count for the time left.
            bar.initial = bar.n = self.current_step = state.global_step
            bar.refresh()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        bar: Any = self.training_bar
        if bar is not None:
            speed, memory = f"{self.tally.tokens_per_second:,.0f}", resident_bytes() / 1e9
            bar.set_postfix(
                {**self.losses, "tokens/s": speed, "GB": f"{memory:.1f}"}, refresh=False
            )
        super().on_step_end(args, state, control, **kwargs)  # type: ignore[no-untyped-call]

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        found = {key: f"{value:.3f}" for key, value in (logs or {}).items() if "loss" in key}
        self.losses = found or self.losses
        bar: Any = self.training_bar
        validation = {
            key.removeprefix("eval_").replace("_", " "): value
            for key, value in (logs or {}).items()
            if key.startswith("eval_") and key != "eval_score"
        }
        if bar is not None and validation:
            shown = ", ".join(f"{name} {value:.1%}" for name, value in validation.items())
            bar.write(f"validation after {state.global_step} updates: {shown}", file=sys.stderr)

    def close(self) -> None:
        """End the bar's line where training did not, so that an error has a line of its own."""
        bar: Any = self.training_bar
        if bar is not None:
            bar.close()
            self.training_bar = None


class KnowBest(TrainerCallback):
    """Trainer forgets the best validation where its checkpoint was moved with the run."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.best_global_step:
            state.best_model_checkpoint = f"checkpoint-{state.best_global_step}"


class StopOnSignal(TrainerCallback):
    """Ctrl-C and SIGTERM end the step, save a checkpoint and stop; a second one is immediate."""

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
        self.asked = any_process(self.asked)  # all have to stop at the same step
        if self.asked:
            control.should_save = True
            control.should_training_stop = True

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def resident_bytes() -> int:
    """Memory held now: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    status = Path("/proc/self/statm")
    if status.is_file():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    return peak_bytes()


def peak_bytes() -> int:
    """The most memory held so far: allocated on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage tells begins with that of the process that started this
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
