"""Several processes that train together, as torchrun and accelerate start them."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from scratchpad_rag.errors import ConfigError


def process_count() -> int:
    """How many processes the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """The one that speaks and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def join_processes() -> None:
    """Take this process's place among the others: its GPU, and the group they talk in.

    Raises ConfigError where more processes were started than there are GPUs.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", process_count()))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and here > gpus:
        raise ConfigError(
            f"{here} processes were started on a machine with {gpus} GPUs; "
            f"launch with --nproc_per_node {gpus} (accelerate: --num_processes)"
        )
    if process_count() == 1:
        return
    from accelerate.state import PartialState

    PartialState(cpu=not gpus)
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def wait_for_main(action: Callable[[], None]) -> None:
    """Do something in the main process while the others wait for it."""
    if process_count() > 1:
        from accelerate.state import PartialState

        with PartialState().main_process_first():
            if is_main_process():
                action()
    else:
        action()


def is_sharded() -> bool:
    """Whether the launcher spreads one model over the processes, so that none holds it whole."""
    return any(
        os.environ.get(name, "false").lower() in ("true", "1")
        for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    )
