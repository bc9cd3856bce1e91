"""What a run was computed on, in words."""

from __future__ import annotations

import os
import platform

import torch


def describe_hardware() -> str:
    """The GPU, or the number of cores and the name of the processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpu = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or "CPU"
    return f"{os.cpu_count()} cores, {cpu}"
