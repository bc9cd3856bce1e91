"""What processes that train together tell each other; alone, each value is its own."""

from __future__ import annotations

from typing import Any

import torch


def any_process(flag: bool) -> bool:
    """Whether a flag is up in any of the processes that train together."""
    return bool(summed(torch.tensor([float(flag)])).item())


def summed(values: torch.Tensor) -> torch.Tensor:
    """The sums of all processes' values, which have to be on the CPU, in all of them."""
    distributed: Any = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    device = "cuda" if "nccl" in distributed.get_backend() else "cpu"
    total = values.to(device, copy=True)
    distributed.all_reduce(total)
    return total.cpu()
