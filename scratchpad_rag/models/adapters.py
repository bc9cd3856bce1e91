"""LoRA adapters in and out: a PEFT folder and the single `.pt` file hold the same weights."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file

from scratchpad_rag.config import PeftConfig
from scratchpad_rag.errors import CheckpointError, ConfigError
from scratchpad_rag.models.load import LoadedModel
from scratchpad_rag.records import Method

METADATA_FILE = "scratchpad_rag.json"
_FORMAT = 1
# Always in the metadata, also where they are PEFT's defaults, which another version may change.
_SHAPE = ("r", "lora_alpha", "lora_dropout", "target_modules")


@dataclass(frozen=True)
class AdapterMetadata:
    """What a checkpoint says of itself, so that no flag has to."""

    method: str  # sft | scratchpad
    model_name: str  # the model config it was trained with
    base_hash: str
    lora: dict[str, Any]
    prompt_format: str  # plain | chat
    training: dict[str, Any] = field(default_factory=dict)
    format: int = _FORMAT


@dataclass(frozen=True)
class Adapter:
    """Adapter weights with their metadata; None for a bare state dict."""

    weights: dict[str, torch.Tensor]
    metadata: AdapterMetadata | None
    path: Path


def add_lora(loaded: LoadedModel, config: PeftConfig, name: str = "default") -> LoadedModel:
    """Wrap the model with a fresh LoRA adapter; the base is frozen.

    Raises ConfigError where PEFT rejects the config or a target module does not exist.
    """
    kwargs = {"task_type": "CAUSAL_LM", **config.kwargs}
    try:
        lora = LoraConfig(**kwargs)
        with quiet_about_transformers():
            if isinstance(loaded.model, PeftModel):
                loaded.model.add_adapter(name, lora)
                loaded.model.set_adapter(name)
                return loaded
            model = get_peft_model(loaded.model, lora, adapter_name=name)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"PEFT rejects the LoRA config: {' '.join(str(error).split())[:300]}"
        ) from error
    return loaded.with_model(model)


@contextmanager
def quiet_about_transformers() -> Iterator[None]:
    """transformers warns of its own use of an attribute of its own, which helps nobody here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        yield


def has_adapter(loaded: LoadedModel) -> bool:
    """Whether the model carries a LoRA adapter."""
    return isinstance(loaded.model, PeftModel)


def to_training_precision(loaded: LoadedModel) -> None:
    """Float32 master weights of the adapter being trained: small updates vanish in bfloat16."""
    for parameter in loaded.model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


def to_base_precision(loaded: LoadedModel) -> None:
    """Adapters in the base's precision, as they are saved and used: half the size, no casts."""
    dtype = loaded.model.get_base_model().dtype
    for name, parameter in loaded.model.named_parameters():
        if "lora_" in name and dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.to(dtype)


@contextmanager
def use_adapter(loaded: LoadedModel, name: str | None) -> Iterator[None]:
    """Read with one of the model's adapters, or with none of them, for the length of a block."""
    if name is None:
        with loaded.model.disable_adapter() if has_adapter(loaded) else nullcontext():
            yield
    else:
        loaded.model.set_adapter(name)
        yield


def active_adapter(loaded: LoadedModel) -> str | None:
    """The name of the adapter that the model reads with; None without one."""
    return str(loaded.model.active_adapter) if has_adapter(loaded) else None


@contextmanager
def merged_adapter(loaded: LoadedModel, name: str | None) -> Iterator[None]:
    """Read with one adapter, or with none, for the length of a block, at the base's own speed.

    The adapter's product is added to the base's weights, which are put back afterwards, bit for
    bit. A quantized base is left as it is, since merging would round it once more.
    """
    with use_adapter(loaded, name):
        if name is None or _is_quantized(loaded):
            yield
            return
        model: Any = loaded.model
        layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        weights: list[Any] = [layer.get_base_layer().weight for layer in layers]
        before = [weight.detach().clone() for weight in weights]
        try:
            model.merge_adapter([name])
            yield
        finally:
            model.unmerge_adapter()
            with torch.no_grad():
                for weight, kept in zip(weights, before, strict=True):
                    weight.copy_(kept)


def merge_for_good(loaded: LoadedModel) -> LoadedModel:
    """The model with its adapter's product in its weights; the adapter is gone from it.

    A quantized base keeps its adapter apart.
    """
    if not has_adapter(loaded) or _is_quantized(loaded):
        return loaded
    return loaded.with_model(loaded.model.merge_and_unload())


def _is_quantized(loaded: LoadedModel) -> bool:
    """Quantized while loading, or by whoever made the weights."""
    config = loaded.model.get_base_model().config
    made_so = getattr(config, "quantization_config", None) is not None
    return loaded.config.quantization is not None or made_so


def lora_kwargs(model: PeftModel, name: str = "default") -> dict[str, Any]:
    """The adapter's own LoraConfig, as plain values: its shape, and what is not default."""
    config: Any = model.peft_config[name]
    plain_config: Any = LoraConfig()  # untyped in PEFT
    default = plain_config.to_dict()
    plain: dict[str, Any] = {}
    for key, value in config.to_dict().items():
        value = sorted(value) if isinstance(value, set) else value
        said = key in _SHAPE or value != default.get(key)
        if said and key not in ("base_model_name_or_path", "inference_mode"):
            plain[key] = getattr(value, "value", value)
    return plain


def save_adapter(model: PeftModel, metadata: AdapterMetadata, folder: Path) -> None:
    """Write a PEFT folder (safetensors), with the metadata beside the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(folder))
    write_whole(folder / METADATA_FILE, json.dumps(asdict(metadata), indent=2).encode())


def save_checkpoint(model: PeftModel, metadata: AdapterMetadata, path: Path) -> None:
    """Write the single `.pt` file: plain tensors and plain values, nothing to unpickle."""
    weights = get_peft_model_state_dict(model, adapter_name=model.active_adapter)
    content = {
        "model_state_dict": {key: value.detach().cpu() for key, value in weights.items()},
        "metadata": asdict(metadata),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(path.name + ".partial")
    try:
        torch.save(content, work)
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it, so that it is whole or absent."""
    work = path.with_name(path.name + ".partial")
    try:
        work.write_bytes(content)
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)


def read_adapter(path: Path) -> Adapter:
    """Read a `.pt` file or an adapter folder; nothing in it is executed.

    Raises CheckpointError where it is missing, truncated or something else.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a checkpoint of plain tensors; nothing in it was executed"
        ) from error
    except Exception as error:  # foreign bytes make the unpickler raise errors of any class
        raise CheckpointError(f"{path} is truncated or not a checkpoint") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no state dict")
    state = content.get("model_state_dict", content)
    metadata = content.get("metadata")
    return Adapter(_lora_weights(state, path), _read_metadata(metadata, path), path)


def _read_folder(path: Path) -> Adapter:
    file = path / "adapter_model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"{path} holds no adapter_model.safetensors")
    try:
        state = load_file(file)
        described = path / METADATA_FILE
        metadata = json.loads(described.read_text()) if described.is_file() else None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or not an adapter folder") from error
    return Adapter(_lora_weights(state, path), _read_metadata(metadata, path), path)


def _lora_weights(state: Any, path: Path) -> dict[str, torch.Tensor]:
    """The adapter's tensors under PEFT's own keys, whatever wrapper they were saved through."""
    weights = {}
    for key, value in state.items() if isinstance(state, Mapping) else ():
        if isinstance(value, torch.Tensor) and "lora_" in key:
            name = key.removeprefix("module.").replace(".default.", ".")
            weights[name if name.startswith("base_model.") else f"base_model.model.{name}"] = value
    if not weights:
        raise CheckpointError(f"{path} holds no LoRA weights")
    return weights


def _read_metadata(fields: Any, path: Path) -> AdapterMetadata | None:
    if fields is None:
        return None
    if not isinstance(fields, Mapping) or not isinstance(fields.get("format", _FORMAT), int):
        raise CheckpointError(f"{path}: its metadata are not understood")
    if fields.get("format", _FORMAT) > _FORMAT:
        raise CheckpointError(f"{path} was written by a newer version of scratchpad-rag")
    try:
        metadata = AdapterMetadata(**fields)
        Method(metadata.method)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its metadata are not understood ({error})") from error
    if not isinstance(metadata.lora, dict):
        raise CheckpointError(f"{path}: its metadata are not understood (lora: {metadata.lora!r})")
    return metadata


def load_adapter(
    loaded: LoadedModel, adapter: Adapter, peft: PeftConfig | None, name: str = "default"
) -> LoadedModel:
    """Put an adapter on the model it was trained for.

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
            _refuse_other_lora(metadata.lora, peft.kwargs, adapter.path)
        peft = PeftConfig(kwargs=metadata.lora)
    assert peft is not None
    present = has_adapter(loaded) and name in loaded.model.peft_config
    wrapped = loaded if present else add_lora(loaded, peft, name)
    expected = get_peft_model_state_dict(wrapped.model, adapter_name=name)
    _refuse_other_shapes(expected, adapter)
    set_peft_model_state_dict(wrapped.model, adapter.weights, adapter_name=name)
    to_base_precision(wrapped)
    return wrapped


def _refuse_other_lora(trained: Mapping[str, Any], asked: Mapping[str, Any], path: Path) -> None:
    for key in ("r", "target_modules"):
        ours, theirs = trained.get(key), asked.get(key)
        if ours is None or theirs is None or isinstance(ours, list) != isinstance(theirs, list):
            continue  # "all-linear" and the list of modules that it came to
        if (sorted(ours) if isinstance(ours, list) else ours) != (
            sorted(theirs) if isinstance(theirs, list) else theirs
        ):
            raise CheckpointError(
                f"{path} was trained with {key} {ours}, and --peft_config says {theirs}"
            )


def _refuse_other_shapes(expected: Mapping[str, torch.Tensor], adapter: Adapter) -> None:
    weights = adapter.weights
    absent = [key for key in expected if key not in weights]
    foreign = [key for key in weights if key not in expected]
    if absent or foreign:
        which = f"misses {absent[0]}" if absent else f"holds {foreign[0]}"
        raise CheckpointError(f"{adapter.path} is for another base model or target: it {which}")
    for key, value in weights.items():
        if value.shape != expected[key].shape:
            raise CheckpointError(
                f"{adapter.path} is for another base model or rank: {key} is "
                f"{tuple(value.shape)}, here {tuple(expected[key].shape)}"
            )
