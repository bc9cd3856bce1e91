"""A fingerprint of weights, by which an adapter knows the base that it was trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open

_ONE_FILE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def weights_hash(model: torch.nn.Module) -> str:
    """A fingerprint of the weights: names, shapes, and 16 values of each parameter.

    Values are taken in bfloat16, so that the precision they were loaded in does not matter.
    An adapter records the fingerprint of its base and is refused by another.
    """
    return _digest(sorted(model.named_parameters()))


def stored_hash(model: torch.nn.Module, files: Sequence[Path]) -> str | None:
    """What `weights_hash` is of the same model loaded without quantization.

    Packed weights no longer hold the values, so these are read from the files they were loaded
    from. None where the files do not hold every parameter under the model's own name.
    """
    names = sorted(name for name, _ in model.named_parameters())
    held: dict[str, Path] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            held |= dict.fromkeys(opened.keys(), file)
    if not files or any(name not in held for name in names):
        return None

    def read(name: str) -> torch.Tensor:
        with safe_open(held[name], framework="pt") as opened:
            tensor: torch.Tensor = opened.get_tensor(name)
        return tensor

    return _digest((name, read(name)) for name in names)


def weight_files(source: str, hub: dict[str, Any]) -> list[Path]:
    """The safetensors files of a model folder, or of a Hub id that is in the local cache."""
    find = _finder(source, hub)
    whole = find(_ONE_FILE)
    if whole is not None:
        return [whole]
    index = find(_INDEX)
    if index is None:
        return []
    shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    found = [find(shard) for shard in shards]
    return [file for file in found if file is not None]


def _finder(source: str, hub: dict[str, Any]) -> Callable[[str], Path | None]:
    folder = Path(source)

    def in_folder(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    def in_cache(name: str) -> Path | None:
        options = {key: hub[key] for key in ("cache_dir", "revision") if hub.get(key)}
        cached = try_to_load_from_cache(source, name, **options)
        return Path(cached) if isinstance(cached, str) else None

    return in_folder if folder.is_dir() else in_cache


def _digest(parameters: Iterable[tuple[str, torch.Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, parameter in parameters:
        flat = parameter.detach().reshape(-1)
        step = max(1, flat.numel() // 16)
        values = flat[::step][:16].to("cpu", torch.bfloat16).float().tolist()
        digest.update(f"{name} {tuple(parameter.shape)} {values}".encode())
    return digest.hexdigest()
