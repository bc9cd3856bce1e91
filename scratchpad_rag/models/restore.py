"""Checkpoints put back on the model that they were trained on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors import SafetensorError

from scratchpad_rag.config import PeftConfig
from scratchpad_rag.errors import CheckpointError
from scratchpad_rag.models.adapters import (
    adapter_weights,
    add_lora,
    base_weights,
    has_adapter,
    quantized,
    to_base_precision,
)
from scratchpad_rag.models.checkpoints import Adapter, AdapterMetadata
from scratchpad_rag.models.load import LoadedModel, loading_bars
from scratchpad_rag.models.lora import plain_lora


def load_adapter(
    loaded: LoadedModel, adapter: Adapter, peft: PeftConfig | None, name: str = "default"
) -> LoadedModel:
    """Put a checkpoint on the model it was trained for, under a name to read with it by.

    `peft` says the LoRA config of a bare state dict; where the file has metadata they win, and a
    `peft` that contradicts them is an error. Raises CheckpointError where base or rank differ.
    """
    metadata = adapter.metadata
    if metadata is None and peft is None:
        raise CheckpointError(f"{adapter.path} has no metadata; say its --peft_config")
    if metadata is not None:
        if metadata.base_hash != loaded.base_hash:
            raise CheckpointError(
                f"{adapter.path} was trained on {metadata.model_name}, and "
                f"{loaded.config.pretrained_model_name_or_path} has other weights"
            )
        if peft is not None:
            _refuse_other_training(metadata, peft, adapter.path)
        peft = PeftConfig(kwargs=metadata.lora)
    assert peft is not None
    if adapter.is_full:
        return _load_full(loaded, adapter, name)
    if peft.method != "lora":
        raise CheckpointError(f"{adapter.path} is a LoRA adapter; say its --peft_config")
    return _load_lora(loaded, adapter, plain_lora(peft.kwargs), name)


def _load_full(loaded: LoadedModel, adapter: Adapter, name: str) -> LoadedModel:
    if quantized(loaded):
        raise CheckpointError(
            f"{adapter.path} holds all weights of a model, and this one is quantized; choose "
            "quantization null"
        )
    base = loaded.model.get_base_model() if has_adapter(loaded) else loaded.model
    own = base_weights(base)
    weights = adapter.weights or _read_model(base, adapter.path)
    _refuse_other_shapes(own, weights, adapter.path)
    pairs = tuple((own[key], value) for key, value in weights.items())
    return replace(loaded, replacements={**loaded.replacements, name: pairs})


def _read_model(base: Any, path: Path) -> dict[str, torch.Tensor]:
    """The weights of a model folder as this version of transformers names them."""
    try:
        with loading_bars(shown=False):
            model, told = type(base).from_pretrained(
                str(path),
                config=copy.deepcopy(base.config),
                dtype=base.dtype,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} is for another base model: {reason}") from error
    if told["missing_keys"] or told["unexpected_keys"]:
        key = min([*told["missing_keys"], *told["unexpected_keys"]])
        raise CheckpointError(f"{path} is for another base model: {key} is in one of them only")
    return {key: value.detach() for key, value in base_weights(model).items()}


def _load_lora(
    loaded: LoadedModel, adapter: Adapter, kwargs: dict[str, Any], name: str
) -> LoadedModel:
    """Biases that were trained are the base's own: they are kept apart, for `use_adapter`."""
    bias = kwargs.get("bias", "none")
    present = has_adapter(loaded) and name in loaded.model.peft_config
    apart = PeftConfig(kwargs={**kwargs, "bias": "none"})
    with _without_biases(loaded):
        wrapped = loaded if present else add_lora(loaded, apart, name)
    model = wrapped.model
    model.peft_config[name].bias = "none"
    own = adapter_weights(model, name)
    model.peft_config[name].bias = bias
    expected = adapter_weights(model, name)
    weights = adapter.weights
    if adapter.metadata is None:  # a whole model's state dict holds the base's weights too
        weights = {key: v for key, v in weights.items() if key in expected or "lora_" in key}
    _refuse_other_shapes(expected, weights, adapter.path)
    set_peft_model_state_dict(
        model, {key: value for key, value in weights.items() if key in own}, adapter_name=name
    )
    parameters = dict(model.get_base_model().named_parameters())
    pairs = tuple(
        (parameters[key.removeprefix("base_model.model.")], value)
        for key, value in weights.items()
        if key not in own
    )
    if pairs:
        wrapped = replace(wrapped, replacements={**wrapped.replacements, name: pairs})
    to_base_precision(wrapped)
    return wrapped


@contextmanager
def _without_biases(loaded: LoadedModel) -> Iterator[None]:
    """PEFT takes one adapter with biases, since it would leave them all in the base."""
    configs = list(loaded.model.peft_config.values()) if has_adapter(loaded) else []
    before = [config.bias for config in configs]
    try:
        for config in configs:
            config.bias = "none"
        yield
    finally:
        for config, bias in zip(configs, before, strict=True):
            config.bias = bias


def precision_note(loaded: LoadedModel, adapter: Adapter) -> str | None:
    """A line to show where the base is quantized otherwise than it was in training."""
    if adapter.metadata is None or adapter.is_full:
        return None
    trained = adapter.metadata.training.get("quantization")
    if trained == loaded.config.quantization:
        return None
    before, here = trained or "unquantized", loaded.config.quantization or "unquantized"
    return (
        f"{adapter.path} was trained on {before} weights and reads with {here} ones; answers may "
        "differ"
    )


def _refuse_other_training(trained: AdapterMetadata, asked: PeftConfig, path: Path) -> None:
    if (trained.kind == "full") != (asked.method == "none"):
        what = "with all weights" if trained.kind == "full" else "as a LoRA adapter"
        raise CheckpointError(
            f"{path} was trained {what}, and --peft_config says method {asked.method}"
        )
    if trained.kind == "full":
        return
    wanted = plain_lora(asked.kwargs)
    for key in ("r", "target_modules"):
        ours, theirs = trained.lora.get(key), wanted.get(key)
        if ours is None or theirs is None or isinstance(ours, list) != isinstance(theirs, list):
            continue  # "all-linear" and the list of modules that it came to
        if (sorted(ours) if isinstance(ours, list) else ours) != (
            sorted(theirs) if isinstance(theirs, list) else theirs
        ):
            raise CheckpointError(
                f"{path} was trained with {key} {ours}, and --peft_config says {theirs}"
            )


def _refuse_other_shapes(
    expected: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], path: Path
) -> None:
    absent = [key for key in expected if key not in weights]
    foreign = [key for key in weights if key not in expected]
    if absent or foreign:
        which = f"misses {absent[0]}" if absent else f"holds {foreign[0]}"
        raise CheckpointError(f"{path} is for another base model or target: it {which}")
    for key, value in weights.items():
        if value.shape != expected[key].shape:
            raise CheckpointError(
                f"{path} is for another base model or rank: {key} is "
                f"{tuple(value.shape)}, here {tuple(expected[key].shape)}"
            )
