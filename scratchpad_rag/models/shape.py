"""The shape of a model and of the adapter on it, without any of its weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from scratchpad_rag.config import ModelConfig, PeftConfig
from scratchpad_rag.errors import ModelError
from scratchpad_rag.models.adapters import add_lora
from scratchpad_rag.models.load import LoadedModel, choose_dtype, engine_model
from scratchpad_rag.models.lora import lora_config

# Bytes a weight: bitsandbytes' nf4 with its scales in blocks of 64, and int8 with a scale a row.
_PACKED = {"nf4": 0.5 + 4 / 64, "int8": 1.0}


@dataclass(frozen=True)
class ModelShape:
    """Sizes, in values where not said otherwise. Layers are taken to be alike."""

    parameters: int
    trainable: int
    weight_bytes: float  # of all weights as they are held
    value_bytes: int  # of a hidden value
    layers: int
    hidden: int
    heads: int
    key_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    adapted: frozenset[str]  # last names of the modules with an adapter, such as q_proj


def model_shape(config: ModelConfig, peft: PeftConfig | None) -> ModelShape:
    """What a model config comes to, by building it without memory for weights.

    Raises ModelError for a model that cannot be found, ConfigError for a LoRA config that does not
    fit it.
    """
    engine = engine_model(config)
    source = engine.config.pretrained_model_name_or_path
    try:
        model_config = AutoConfig.from_pretrained(
            source, trust_remote_code=config.trust_remote_code
        )
        with torch.device("meta"):
            make: Any = AutoModelForCausalLM  # untyped in transformers
            model = make.from_config(model_config, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"cannot read the shape of {source}: {error}") from error
    dtype = choose_dtype(config.torch_dtype)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    packed = _packed_values(model) if config.quantization in _PACKED else 0
    rate = _PACKED.get(config.quantization or "", 0.0)
    adapted, trainable = _adapted(engine, model, peft)
    text = model_config.get_text_config()
    heads = text.num_attention_heads
    return ModelShape(
        parameters=parameters,
        trainable=trainable,
        weight_bytes=packed * rate + (parameters - packed) * dtype.itemsize,
        value_bytes=dtype.itemsize,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=heads,
        key_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_size=getattr(text, "head_dim", None) or text.hidden_size // heads,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
        adapted=frozenset(adapted),
    )


def _packed_values(model: Any) -> int:
    """Quantized are the linear layers but the output layer."""
    head = model.get_output_embeddings()
    return sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not head
    )


def _adapted(engine: LoadedModel, model: Any, peft: PeftConfig | None) -> tuple[set[str], int]:
    """Last names of the adapted modules, and how many values train."""
    if peft is None:
        return set(), 0
    if peft.method == "none":
        return set(), sum(parameter.numel() for parameter in model.parameters())
    lora_config(peft.kwargs)
    # What initialises by values has none here; the shapes are the same.
    plain = replace(peft, kwargs={**peft.kwargs, "init_lora_weights": True})
    wrapped: Any = add_lora(engine.with_model(model), plain).model
    names = {
        name.rpartition(".")[2]
        for name, module in wrapped.named_modules()
        if isinstance(module, BaseTunerLayer)
    }
    return names, sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
