"""Training in lockstep: two trainers in two processes take steps in turn, so that noise is shared.

A trainer waits for a line on standard input before each step and answers with one when it is done.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


def peak_bytes() -> int:
    """The most resident memory that this process ever had; on a GPU the most allocated there."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage tells begins with that of the process that started this
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class _Lockstep(TrainerCallback):
    def __init__(self) -> None:
        self.begin = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        _say({"ready": True, "peak_bytes": peak_bytes()})

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if not sys.stdin.readline():
            raise SystemExit(1)  # whoever gave the steps is gone
        self.begin = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self.begin

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **__: Any) -> None:
        if logs and "loss" in logs:
            line = {"seconds": self.seconds, "loss": logs["loss"], "peak_bytes": peak_bytes()}
            _say(line | {"step": state.global_step})


def serve_steps() -> TrainerCallback:
    """A callback that takes a step for each line of standard input and reports on it."""
    return _Lockstep()


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)
