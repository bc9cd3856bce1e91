"""What a training will hold in memory, told from shapes, and how to make it fit."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import torch

from scratchpad_rag.config import TrainConfig
from scratchpad_rag.errors import TrainingError
from scratchpad_rag.kernels.build import cpu_kernels
from scratchpad_rag.models.shape import ModelShape
from scratchpad_rag.train.loss import CHUNK_VALUES

# Python, PyTorch, transformers and PEFT, resident before a model is loaded; on a GPU what CUDA and
# its libraries take beside the tensors.
_CPU_RUNTIME = 0.47e9
_CUDA_RUNTIME = 0.8e9
# What gaps between tensors of ever other lengths add to a CPU's heap (train/memory.py bounds them).
_GAPS = 1.45
# Held back of what is free, for whatever else the machine does.
_SPARE = 0.05


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the moment of most memory."""

    runtime: float
    weights: float
    training: float  # float32 masters, gradients and AdamW's two moments
    activations: float  # kept from forward to backward
    passing: float  # what is held for a moment: logits, one layer on its way back

    @property
    def total(self) -> float:
        return self.runtime + self.weights + self.training + self.activations + self.passing


@dataclass(frozen=True)
class Fit:
    """A config that fits, and what it will hold."""

    config: TrainConfig
    estimate: MemoryEstimate
    available: float


def estimate_memory(
    shape: ModelShape, longest: int, config: TrainConfig, *, cuda: bool = False, shards: int = 1
) -> MemoryEstimate:
    """The peak of training on micro-batches of `config.batch_size` samples of `longest` tokens.

    With `shards` the model is spread over as many processes, and this is what one of them holds:
    its share, and whole for a moment both embeddings and two layers, one computed with, one coming.

    On a CPU it is meant for the process's resident memory, on a GPU for what its tensors and CUDA
    hold. Within 15% of what was measured (docs/training.md has the measurements).
    """
    tokens = config.batch_size * longest
    fused = not cuda and shape.value_bytes == 2 and cpu_kernels() is not None
    layer = _layer_values(shape, fused=fused) * shape.value_bytes
    between = shape.hidden * shape.value_bytes  # a layer's input
    if config.gradient_checkpointing:
        activations = tokens * (shape.layers * between + layer)
    else:
        activations = tokens * shape.layers * layer
    full = shape.trainable >= shape.parameters
    masters = 4 if shape.value_bytes < 4 and not full else 0
    # Gradients and both moments are float32, and so are the weights where all of them train.
    training = shape.trainable * (masters + 12) / shards
    weights = shape.parameters * 4.0 if full else shape.weight_bytes
    if shards > 1:
        weights = weights / shards + _whole_share(shape) * weights
    chunk = CHUNK_VALUES * (shape.value_bytes if fused else 3 * 4)
    widest = max(shape.intermediate, shape.heads * shape.head_size, shape.hidden)
    passing = chunk + tokens * shape.value_bytes * (4 * widest + 3 * shape.hidden)
    runtime = _CUDA_RUNTIME if cuda else _CPU_RUNTIME
    gaps = 1.0 if cuda or config.gradient_checkpointing else _GAPS
    return MemoryEstimate(runtime, weights, training, gaps * activations, gaps * passing)


def _whole_share(shape: ModelShape) -> float:
    """What is whole at once of a spread model, as a share of its weights."""
    embeddings = min(shape.parameters, 2 * shape.vocabulary * shape.hidden)
    layer = (shape.parameters - embeddings) / shape.layers
    return (embeddings + min(2, shape.layers) * layer) / shape.parameters


def _layer_values(shape: ModelShape, *, fused: bool) -> float:
    """Values that one token leaves in one layer for the way back."""
    hidden, inner = shape.hidden, shape.intermediate
    queries, keys = shape.heads * shape.head_size, shape.key_heads * shape.head_size
    adapted = shape.adapted
    full = shape.trainable >= shape.parameters
    # The inputs of both normalisations, which transformers' own keep in float32.
    kept = 2.0 * hidden * (1 if fused else 4 / shape.value_bytes)
    kept += hidden * (full or bool(adapted & {"q_proj", "k_proj", "v_proj", "qkv_proj"}))
    kept += hidden * (full or bool(adapted & {"gate_proj", "up_proj", "gate_up_proj"}))
    kept += 2 * queries + 2 * keys  # queries, output, keys, values
    kept += 2 * inner + inner * (full or "down_proj" in adapted)  # gate, up, and their product
    kept += 2 * shape.heads / shape.value_bytes
    return kept + inner * (not fused)  # transformers keeps the activated gate too


def available_memory(*, cuda: bool) -> float:
    """Bytes that this process may come to hold, with what it holds already."""
    if cuda:
        free, _ = torch.cuda.mem_get_info()
        return float(free + torch.cuda.memory_reserved()) * (1 - _SPARE)
    limits = [_available_on_machine(), *_container_limits()]
    return min(limits) * (1 - _SPARE)


def _available_on_machine() -> float:
    file = Path("/proc/meminfo")
    if not file.is_file():
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    lines = dict(line.split(":", 1) for line in file.read_text().splitlines())
    return float(lines["MemAvailable"].split()[0]) * 1024


def _container_limits() -> list[float]:
    """Memory limits of the control group, where one is set."""
    if sys.platform != "linux":
        return []
    files = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    texts = [Path(file).read_text().strip() for file in files if Path(file).is_file()]
    return [float(text) for text in texts if text.isdigit()]


def fit_memory(
    shape: ModelShape,
    longest: int,
    config: TrainConfig,
    *,
    cuda: bool,
    total_docs: int,
    available: float | None = None,
    shards: int = 1,
) -> Fit:
    """The config with micro-batch and checkpointing chosen so that it fits; as many samples an
    update as before.

    What the config says is kept, where it does. `available` bytes, or what there is, are those of
    one of the `shards` processes that a model is spread over. Raises TrainingError with the
    cheapest ways to make it fit where none of the choices does.
    """
    available = available_memory(cuda=cuda) if available is None else available
    for candidate in _choices(config):
        estimate = estimate_memory(shape, longest, candidate, cuda=cuda, shards=shards)
        if estimate.total <= available:
            return Fit(candidate, estimate, available)
    least = _choices(config)[-1]
    needed = estimate_memory(shape, longest, least, cuda=cuda, shards=shards).total
    ways = _ways(shape, longest, least, cuda, total_docs, available, shards)
    raise TrainingError(
        f"training on samples of {longest} tokens needs about {needed / 1e9:.1f} GB and "
        f"{available / 1e9:.1f} GB are free; {ways}"
    )


def _choices(config: TrainConfig) -> list[TrainConfig]:
    """Ever less memory: smaller micro-batches first, which cost little, then checkpointing."""
    sizes = [config.batch_size]
    while sizes[-1] % 2 == 0:
        sizes.append(sizes[-1] // 2)
    said = config.gradient_checkpointing
    return [
        replace(
            config,
            batch_size=size,
            gradient_accumulation_steps=config.gradient_accumulation_steps
            * (config.batch_size // size),
            gradient_checkpointing=checkpointing,
        )
        for checkpointing in ((False, True) if said is None else (said,))
        for size in sizes
    ]


def _ways(
    shape: ModelShape,
    longest: int,
    config: TrainConfig,
    cuda: bool,
    total_docs: int,
    available: float,
    shards: int,
) -> str:
    """The three cheapest ways that fit, by what each would need."""
    half = replace(shape, value_bytes=2, weight_bytes=shape.parameters * 2.0)
    found: list[tuple[str, float]] = []

    def consider(way: str, kind: ModelShape, tokens: int, settings: TrainConfig) -> None:
        total = estimate_memory(kind, tokens, settings, cuda=cuda, shards=shards).total
        if total <= available:
            found.append((way, total))

    if config.gradient_checkpointing is False:
        checkpointed = replace(config, gradient_checkpointing=True)
        consider("gradient_checkpointing: true", shape, longest, checkpointed)
    if config.batch_size > 1:
        consider("--batch_size 1", shape, longest, replace(config, batch_size=1))
    if shape.value_bytes > 2:
        consider("torch_dtype: bfloat16", half, longest, config)
    if shape.trainable >= shape.parameters:
        adapter = replace(
            shape, trainable=shape.parameters // 100, adapted=frozenset({"q_proj", "v_proj"})
        )
        consider("a LoRA --peft_config", adapter, longest, config)
    elif cuda and shape.weight_bytes > shape.parameters:
        packed = replace(shape, weight_bytes=0.65 * shape.parameters)
        consider("quantization: nf4", packed, longest, config)
    for documents in (total_docs * 3 // 4, total_docs // 2, total_docs // 4, 1):
        if 0 < documents < total_docs:
            tokens = ceil(longest * (documents + 1) / (total_docs + 1))
            consider(f"--total_docs {documents}", shape, tokens, config)
    if not found:
        return "take a smaller --model_config, or several GPUs with FSDP (docs/scale.md)"
    ways = [f"{way} ({total / 1e9:.1f} GB)" for way, total in found[:3]]
    return "cheapest first: " + ", or ".join(ways)
