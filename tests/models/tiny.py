"""Tiny models with biases and tied embeddings, and adapters whose weights all differ from the
first ones."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from scratchpad_rag.models.checkpoints import AdapterMetadata
from scratchpad_rag.models.load import LoadedModel
from scratchpad_rag.models.lora import lora_kwargs

IDS = torch.arange(3, 43)[None]


def save_tiny_qwen(folder: Path, tokenizer: Any, tied: bool = True, width: int = 32) -> Path:
    """A two-layer Qwen2: its attention has biases, and its embeddings are tied."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.2,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = Qwen2ForCausalLM(config)
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def fresh(base: LoadedModel) -> LoadedModel:
    """The same with weights of its own, so that a test may change them."""
    return base.with_model(copy.deepcopy(base.model))


def logits(loaded: LoadedModel) -> torch.Tensor:
    """(1, 40, vocabulary), of ids that stay the same."""
    loaded.model.eval()
    with torch.inference_mode():
        out: torch.Tensor = loaded.model(IDS).logits
    return out


def shake(loaded: LoadedModel, seed: int = 3, scale: float = 0.25) -> None:
    """Change everything that trains, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator) * scale
                parameter.add_(noise.to(parameter.dtype))


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every tensor that is no adapter's own, by the base's name of it."""
    from scratchpad_rag.models.adapters import base_weights

    return {key: value.detach().clone() for key, value in base_weights(model).items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def describe(loaded: LoadedModel, **changes: Any) -> AdapterMetadata:
    """Metadata as training writes them."""
    from scratchpad_rag.models.adapters import has_adapter

    lora = has_adapter(loaded)
    fields: dict[str, Any] = {
        "method": "scratchpad",
        "model_name": "tiny",
        "base_hash": loaded.base_hash,
        "lora": lora_kwargs(loaded.model, loaded.model.active_adapter) if lora else {},
        "prompt_format": "plain",
        "training": {"lr": "0.0001"},
        "kind": "lora" if lora else "full",
    }
    return AdapterMetadata(**{**fields, **changes})
