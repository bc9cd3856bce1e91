"""What a training begins with: a fresh adapter, one that goes on, or the whole model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import set_peft_model_state_dict

from scratchpad_rag.config import ModelConfig, PeftConfig
from scratchpad_rag.errors import ConfigError
from scratchpad_rag.models.adapters import (
    active_adapter,
    add_lora,
    has_adapter,
    quantized,
    settle,
)
from scratchpad_rag.models.conversion import (
    INITIAL_FILE,
    draw_initial,
    initial_weights,
    read_initial,
    take_out,
    write_initial,
)
from scratchpad_rag.models.load import LoadedModel
from scratchpad_rag.models.lora import changes_base, lora_config, require_modules

_PACKED = (
    "full finetuning trains the weights themselves, and these are quantized; choose quantization "
    "null, or a --peft_config with method lora"
)


def require_method(config: PeftConfig, model: ModelConfig) -> None:
    """Refuse what the configs alone tell, before the model is loaded. Raises ConfigError."""
    if config.method == "lora":
        lora_config(config.kwargs)
    elif model.quantization is not None:
        raise ConfigError(_PACKED)


def require_trainable(loaded: LoadedModel, config: PeftConfig) -> None:
    """Refuse, before any work, what cannot be trained as the config says. Raises ConfigError."""
    if config.method == "lora":
        if not has_adapter(loaded) and loaded.replacements:
            raise ConfigError(
                "the checkpoint holds all weights of a model; for LoRA on top of it name its "
                "folder in a model config, and train without --checkpoint_path"
            )
        if not has_adapter(loaded):
            require_modules(loaded, lora_config(config.kwargs))
        return
    if quantized(loaded):
        raise ConfigError(_PACKED)
    if has_adapter(loaded):
        raise ConfigError(
            "the checkpoint is a LoRA adapter, and --peft_config trains all weights; choose one "
            "with method lora"
        )


def begin_training(
    loaded: LoadedModel, config: PeftConfig, folder: Path, name: str = "default"
) -> LoadedModel:
    """The model with what the config trains, and that alone, requiring gradients.

    A checkpoint that is on the model goes on; else an adapter is drawn from torch's generator, or
    all weights train. `folder` keeps what a training stopped there has to begin with again.
    Raises ConfigError, and TrainingError where what `folder` keeps is damaged or another's.
    """
    require_trainable(loaded, config)
    if config.method == "none":
        settled = settle(loaded)
        settled.model.requires_grad_(True)
        return settled
    if has_adapter(loaded):
        return _continue_lora(loaded)
    return _begin_lora(loaded, config, folder, name)


def _continue_lora(loaded: LoadedModel) -> LoadedModel:
    """With the adapter, the biases train that it replaces in the base."""
    for parameter, _ in loaded.replacements.get(active_adapter(loaded) or "", ()):
        parameter.requires_grad_(True)
    return settle(loaded)


def _begin_lora(loaded: LoadedModel, config: PeftConfig, folder: Path, name: str) -> LoadedModel:
    """Where an adapter's first weights come out of the base they are kept in `folder`, and a
    training that goes on there begins at the same ones, so that the base is the same too."""
    lora: Any = lora_config(config.kwargs)
    if not changes_base(lora):
        return add_lora(loaded, config, name)
    plain = replace(config, kwargs={**config.kwargs, "init_lora_weights": True})
    wrapped = add_lora(loaded, plain, name)
    wrapped.model.peft_config[name].init_lora_weights = lora.init_lora_weights
    path = folder / INITIAL_FILE
    if path.is_file():
        initial = read_initial(path, initial_weights(wrapped.model, name))
        set_peft_model_state_dict(wrapped.model, dict(initial), adapter_name=name)
    else:
        draw_initial(wrapped.model, name)
        initial = initial_weights(wrapped.model, name)
        write_initial(initial, path)
    take_out(wrapped.model, name)
    return replace(wrapped, initial=initial)
