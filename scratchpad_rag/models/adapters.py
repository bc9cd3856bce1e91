"""Adapters on the model: put on, trained, read with, merged, and taken out again."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer

from scratchpad_rag.config import PeftConfig
from scratchpad_rag.errors import ConfigError
from scratchpad_rag.models.load import LoadedModel, choose_dtype, is_quantized
from scratchpad_rag.models.lora import lora_config, rejection, require_modules, weight_owners

_LOW = (torch.bfloat16, torch.float16)
_OWN = ("lora_", "modules_to_save.", "trainable_tokens_")  # in the names of an adapter's tensors
_WRAPPERS = re.compile(r"\.(?:token_adapter\.base_layer|base_layer|original_module)\.")


def add_lora(loaded: LoadedModel, config: PeftConfig, name: str = "default") -> LoadedModel:
    """Wrap the model with a fresh LoRA adapter; the base is frozen.

    Raises ConfigError where PEFT rejects the config or a module that it names does not exist.
    """
    lora: Any = lora_config(config.kwargs)
    require_modules(loaded, lora)
    try:
        with quiet_about_transformers():
            if isinstance(loaded.model, PeftModel):
                loaded.model.add_adapter(name, lora)
                loaded.model.set_adapter(name)
                wrapped = loaded
            else:
                made = get_peft_model(loaded.model, lora, adapter_name=name)
                wrapped = loaded.with_model(made)
    except (TypeError, ValueError, LookupError, NotImplementedError, RuntimeError) as error:
        raise ConfigError(rejection(error)) from error
    return wrapped


@contextmanager
def quiet_about_transformers() -> Iterator[None]:
    """transformers warns of its own use of an attribute of its own, which helps nobody here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        yield


def has_adapter(loaded: LoadedModel) -> bool:
    """Whether the model carries a LoRA adapter."""
    return isinstance(loaded.model, PeftModel)


def adapter_weights(model: Any, name: str) -> dict[str, torch.Tensor]:
    """One adapter's tensors under the keys that PEFT saves them under."""
    with _quiet():  # PEFT takes the biases of lora_bias for matrices that were cut
        weights: dict[str, torch.Tensor] = get_peft_model_state_dict(
            model,
            adapter_name=name,
            save_embedding_layers=False,  # the base's own, which every user of the adapter has
        )
    return weights


def base_weights(model: Any) -> dict[str, torch.Tensor]:
    """The base's parameters and persistent buffers, under the names that they have without an
    adapter; of tied ones the first name."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    persistent = base.state_dict().keys()
    tensors = {**dict(base.named_parameters()), **dict(base.named_buffers())}
    return {
        _WRAPPERS.sub(".", key): value
        for key, value in tensors.items()
        if key in persistent and not any(part in key for part in _OWN)
    }


def to_training_precision(loaded: LoadedModel) -> None:
    """Float32 master weights of what is being trained: small updates vanish in bfloat16."""
    for parameter in loaded.model.parameters():
        if parameter.requires_grad and parameter.dtype in _LOW:
            parameter.data = parameter.data.float()


def to_base_precision(loaded: LoadedModel) -> None:
    """What was trained in the base's precision, as it is saved and used: half the size, no casts.

    An adapter that began at weights of the base stays in float32 until it is saved: only its
    difference from them is small enough to be rounded.
    """
    if loaded.initial is not None:
        return
    lora = has_adapter(loaded)
    dtype = loaded.model.get_base_model().dtype if lora else choose_dtype(loaded.config.torch_dtype)
    if dtype not in _LOW:
        return
    for name, parameter in loaded.model.named_parameters():
        if parameter.dtype is torch.float32 and (
            parameter.requires_grad or any(part in name for part in _OWN)
        ):
            parameter.data = parameter.data.to(dtype)


@contextmanager
def use_adapter(loaded: LoadedModel, name: str | None) -> Iterator[None]:
    """Read with one of the model's adapters, or with none of them, for the length of a block."""
    with ExitStack() as stack:
        if has_adapter(loaded):
            if name in loaded.model.peft_config:
                loaded.model.set_adapter(name)
            else:
                stack.enter_context(_quiet())  # of biases, which are put back here
                stack.enter_context(loaded.model.disable_adapter())
        if name is not None:
            if name not in _names(loaded):
                raise KeyError(f"the model has no adapter {name!r}")
            stack.enter_context(_replaced(loaded.replacements.get(name, ())))
        yield


def _names(loaded: LoadedModel) -> list[str]:
    return [*(loaded.model.peft_config if has_adapter(loaded) else ()), *loaded.replacements]


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _replaced(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[None]:
    before = [parameter.detach().cpu().clone() for parameter, _ in pairs]
    try:
        _put(pairs)
        yield
    finally:
        _put([(parameter, kept) for (parameter, _), kept in zip(pairs, before, strict=True)])


def _put(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    with torch.no_grad():
        for parameter, value in pairs:
            parameter.copy_(value)


def active_adapter(loaded: LoadedModel) -> str | None:
    """The name of the adapter that the model reads with; None without one."""
    if has_adapter(loaded):
        return str(loaded.model.active_adapter)
    return next(reversed(list(loaded.replacements)), None)


@contextmanager
def merged_adapter(loaded: LoadedModel, name: str | None) -> Iterator[None]:
    """Read with one adapter, or with none, for the length of a block, at the base's own speed.

    The adapter's product is added to the base's weights, which are put back afterwards, bit for
    bit. What cannot be merged stays apart: see `can_merge`.
    """
    with use_adapter(loaded, name):
        if name is None or not can_merge(loaded, name):
            yield
            return
        model: Any = loaded.model
        layers: list[Any] = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
        held = {id(p): p for layer in layers for p in layer.get_base_layer().parameters(False)}
        before = [(parameter, parameter.detach().clone()) for parameter in held.values()]
        try:
            model.merge_adapter([name])
            yield
        finally:
            with _quiet():  # of layers that this adapter is not on
                model.unmerge_adapter()
            _put(before)


def can_merge(loaded: LoadedModel, name: str) -> bool:
    """Whether an adapter's product can be added to the weights.

    A quantized base would be rounded once more. A weight that two modules share, as input and
    output embeddings often do, would change in both. A bias needs one to be added to.
    """
    if not has_adapter(loaded) or name not in loaded.model.peft_config or quantized(loaded):
        return False
    owners = weight_owners(loaded.model)
    for module in loaded.model.modules():
        if not isinstance(module, BaseTunerLayer) or name not in module._get_available_adapters():
            continue
        layer = module.get_base_layer()
        if any(len(owners[id(parameter)]) > 1 for parameter in layer.parameters(False)):
            return False
        biased = isinstance(module, LoraLayer) and module.lora_bias.get(name)
        if biased and getattr(layer, "bias", None) is None:
            return False
    return True


def settle(loaded: LoadedModel) -> LoadedModel:
    """The model with what its adapter replaces in the base replaced for good."""
    name = active_adapter(loaded)
    if name is None or not loaded.replacements:
        return loaded
    _put(loaded.replacements.get(name, ()))
    return replace(loaded, replacements={})


def merge_for_good(loaded: LoadedModel) -> LoadedModel:
    """The model with its adapter's product in its weights; the adapter is gone from it.

    What cannot be merged is kept apart: see `can_merge`.
    """
    name = active_adapter(loaded)
    settled = settle(loaded)
    if name is None or not can_merge(settled, name):
        return settled
    with _quiet():  # of embeddings that are no longer tied, which PEFT then writes in the config
        return settled.with_model(settled.model.merge_and_unload())


def quantized(loaded: LoadedModel) -> bool:
    """Whether the base is quantized: while loading, or by whoever made the weights."""
    return loaded.config.quantization is not None or is_quantized(loaded.model)
