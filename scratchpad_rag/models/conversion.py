"""PiSSA and OLoRA as plain LoRA: their first weights are taken out of the base, and put back.

PiSSA (Meng et al., 2024) and OLoRA (Büyükakyüz, 2024) begin at A0, B0 made from a weight W, and
train A, B on W - s B0 A0, with s the LoRA's scaling. What was learned is s (B A - B0 A0), which is
a LoRA of twice the rank for the W that everybody has.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from scratchpad_rag.errors import TrainingError
from scratchpad_rag.models.adapters import adapter_weights

INITIAL_FILE = "initial_adapter.safetensors"
Weights = Mapping[str, torch.Tensor]


def initial_weights(model: PeftModel, name: str = "default") -> dict[str, torch.Tensor]:
    """A copy of an adapter's A and B, under the keys that they are saved under."""
    return {
        key: value.detach().cpu().clone().contiguous()
        for key, value in adapter_weights(model, name).items()
        if _side(key) is not None
    }


def as_plain_lora(
    weights: Weights, initial: Weights, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """The adapter for the unchanged base: s B' A' = s (B A - B0 A0), with twice the rank.

    A and B are (rank, in) and (out, rank). The difference is factorised anew, so that rounding to
    `dtype` is as small as the difference is: side by side, [B, -B0] and [A; A0] are as large as
    the base's weights, and so is their rounding. Tensors that are no A or B stay as they are.
    """
    plain = {key: value for key, value in weights.items() if _side(key) is None}
    for key, a in weights.items():
        if _side(key) != "A":
            continue
        other = key.replace("lora_A", "lora_B").replace("lora_embedding_A", "lora_embedding_B")
        up = torch.cat([weights[other].float().cpu(), -initial[other].float()], dim=1)
        down = torch.cat([a.float().cpu(), initial[key].float()], dim=0)
        new_up, new_down = _balanced(up, down)
        plain[key], plain[other] = new_down.to(dtype), new_up.to(dtype)
    return plain


def _balanced(up: torch.Tensor, down: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors of `up @ down` of the same shapes, both as large as the product's square root."""
    rank = up.shape[1]
    left, left_triangle = torch.linalg.qr(up)  # (out, k), (k, rank); k is at most rank
    right, right_triangle = torch.linalg.qr(down.T)
    u, values, v = torch.linalg.svd(left_triangle @ right_triangle.T, full_matrices=False)
    root = values.sqrt()
    new_up, new_down = (left @ u) * root, root[:, None] * (v @ right.T)
    missing = rank - len(root)  # where the weight is smaller than the rank
    return (
        torch.nn.functional.pad(new_up, (0, missing)).contiguous(),
        torch.nn.functional.pad(new_down, (0, 0, 0, missing)).contiguous(),
    )


def _side(key: str) -> str | None:
    for side in ("A", "B"):
        if f".lora_{side}." in key or key.endswith(f".lora_embedding_{side}"):
            return side
    return None


def draw_initial(model: Any, name: str) -> None:
    """Set A and B to A0 and B0, as PEFT makes them of the base's weights, which stay as they are.

    In a base of half precision PEFT itself takes out other factors than it then keeps.
    """
    first = model.peft_config[name].init_lora_weights
    for layer in _linear_layers(model, name):
        weight = layer.get_base_layer().weight
        before = weight.detach().clone()
        with torch.no_grad():
            if first == "olora":
                layer.olora_init(name)
            else:
                layer.pissa_init(name, first)
            weight.data = before


def take_out(model: Any, name: str) -> None:
    """Take s B0 A0 out of the base's weights, where A and B are A0 and B0."""
    with torch.no_grad():
        for layer in _linear_layers(model, name):
            weight = layer.get_base_layer().weight
            up, down = layer.lora_B[name].weight, layer.lora_A[name].weight
            weight.copy_(weight.float() - layer.scaling[name] * up.float() @ down.float())


def _linear_layers(model: Any, name: str) -> list[Any]:
    """Those that A0 and B0 are made for; embeddings begin at A = 0, as in plain LoRA."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    return [layer for layer in layers if name in layer.lora_A]


def write_initial(weights: Weights, path: Path) -> None:
    """Keep the first weights, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f"{path.name}.{os.getpid()}.partial")  # each process writes the same
    try:
        save_file(dict(weights), work)
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)


def read_initial(path: Path, expected: Weights) -> dict[str, torch.Tensor]:
    """First weights that were kept; TrainingError where they do not fit `expected`."""
    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path} is damaged; --overwrite trains anew") from error
    shapes = {key: value.shape for key, value in weights.items()}
    if shapes != {key: value.shape for key, value in expected.items()}:
        raise TrainingError(f"{path} holds another adapter's weights; --overwrite trains anew")
    return weights
