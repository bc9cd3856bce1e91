"""Several processes that train together, as torchrun and accelerate start them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from scratchpad_rag.errors import ConfigError, UserError

T = TypeVar("T")
# Processes wait for each other this long: for the slowest to read its weights, above all.
_PATIENCE = timedelta(minutes=30)
_SECONDS_FOR_MAIN = 3.0
_SECONDS_TO_LET_GO = 0.5


def process_count() -> int:
    """How many processes the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_number() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def processes_here() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", process_count()))


def is_main_process() -> bool:
    """The one that speaks and writes."""
    return process_number() == 0


def is_restarted() -> bool:
    """Whether the launcher lost a process and started all of them again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def joined_processes() -> Iterator[None]:
    """Take this process's place among the others, for a block: its GPU, and the group they talk in.

    Raises ConfigError where more processes were started than there are GPUs.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and processes_here() > gpus:
        raise ConfigError(
            f"{processes_here()} processes were started on a machine with {gpus} GPUs; "
            f"launch with --nproc_per_node {gpus} (accelerate: --num_processes)"
        )
    if process_count() == 1:
        yield
        return
    from accelerate.state import PartialState

    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    PartialState(cpu=not gpus, timeout=_PATIENCE)
    try:
        yield
    except Exception:  # said at once: the launcher ends the processes as soon as it notices
        raise
    except BaseException:
        leave_processes()
        raise
    leave_processes()


def leave_processes() -> None:
    """What is left to do is this process's alone; the others need not wait for it."""
    distributed = _group()
    if distributed is None:
        return
    if distributed.get_backend() == "gloo":
        # Its threads still let go of the last tensors, for which they need Python. An interpreter
        # that ends under them aborts.
        time.sleep(_SECONDS_TO_LET_GO)
    distributed.destroy_process_group()


def _group() -> Any:
    """torch.distributed where this process has joined others, else None."""
    if process_count() == 1:
        return None
    import torch

    distributed: Any = torch.distributed
    return distributed if distributed.is_initialized() else None


def from_main(value: T) -> T:
    """The main process's value, in all of them."""
    distributed = _group()
    if distributed is None:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def from_all(value: T) -> list[T]:
    """The values of all processes, in all of them."""
    distributed = _group()
    if distributed is None:
        return [value]
    values: list[T] = [value] * process_count()
    distributed.all_gather_object(values, value)
    return values


def do_in_main(action: Callable[[], None]) -> None:
    """Do something in the main process while the others wait; a UserError is raised in all."""
    problem: UserError | None = None
    if is_main_process():
        try:
            action()
        except UserError as error:
            problem = error
    problem = from_main(problem)
    if problem is not None:
        raise problem


def require_one_process(task: str) -> None:
    """Raise ConfigError where a launcher started several for what only one does."""
    if process_count() > 1:
        raise ConfigError(
            f"{task} takes one process and {process_count()} were started; run it without the "
            "launcher, or answer with --executor ray"
        )


def require_same_run(name: str) -> None:
    """Raise ConfigError where another process, on another machine, found other data or weights."""
    names = from_all(name)
    for number, other in enumerate(names):
        if other != names[0]:
            raise ConfigError(
                f"process {number} would train {other} and process 0 {names[0]}: data, weights and "
                "configs have to be the same on every machine"
            )


def let_main_speak_first() -> None:
    """Wait, where other processes may be about to say the same: the launcher ends all with the
    first that ends. The first process of each machine does not wait."""
    if process_count() > 1 and os.environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(_SECONDS_FOR_MAIN)


def is_lost_process(error: RuntimeError) -> bool:
    """Whether an error says that one of the others does not answer any more.

    Then the launcher is about to end this one too, which it does not let happen before it spoke.
    """
    import torch

    words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
    lost = process_count() > 1 and (
        isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in words)
    )
    if lost:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return lost
