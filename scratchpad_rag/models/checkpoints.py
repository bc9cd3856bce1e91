"""Checkpoints in and out: a folder and the single `.pt` file hold the same weights.

A LoRA adapter's folder is PEFT's, a finetuned model's is transformers'; either has the metadata
beside its weights.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from scratchpad_rag.errors import CheckpointError
from scratchpad_rag.models.adapters import adapter_weights, base_weights, has_adapter
from scratchpad_rag.models.conversion import as_plain_lora
from scratchpad_rag.models.load import LoadedModel
from scratchpad_rag.models.lora import changes_base, lora_kwargs
from scratchpad_rag.records import Method, ScratchpadForm

METADATA_FILE = "scratchpad_rag.json"
_LORA_FILE = "adapter_model.safetensors"
_FORMAT = 1
_KINDS = ("lora", "full")


@dataclass(frozen=True)
class AdapterMetadata:
    """What a checkpoint says of itself, so that no flag has to."""

    method: str  # sft | scratchpad
    model_name: str  # the model config it was trained with
    base_hash: str
    lora: dict[str, Any]  # empty where all weights were trained
    prompt_format: str  # plain | chat
    training: dict[str, Any] = field(default_factory=dict)
    format: int = _FORMAT
    kind: str = "lora"  # lora | full (all weights of the model)
    scratchpad_form: str = ScratchpadForm.PASSAGE.value  # what its scratchpads hold
    earlier: tuple[dict[str, Any], ...] = ()  # of the trainings that it went on from, first to last

    @property
    def trainings(self) -> tuple[dict[str, Any], ...]:
        """The settings of all trainings that made it, first to last."""
        return (*self.earlier, self.training)


@dataclass(frozen=True)
class Adapter:
    """Trained weights with their metadata; None for a bare state dict.

    `weights` is empty for the folder of a whole model, which transformers reads.
    """

    weights: dict[str, torch.Tensor]
    metadata: AdapterMetadata | None
    path: Path

    @property
    def is_full(self) -> bool:
        """Whether it holds all weights of a model, not a LoRA adapter."""
        return self.metadata is not None and self.metadata.kind == "full"


def save_adapter(loaded: LoadedModel, metadata: AdapterMetadata, folder: Path) -> None:
    """Write the folder of what was trained (safetensors), with the metadata beside the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    if has_adapter(loaded):
        _save_lora(loaded, folder)
    else:
        loaded.model.save_pretrained(str(folder))
        loaded.tokenizer.save_pretrained(str(folder))
    write_whole(folder / METADATA_FILE, json.dumps(_plain(metadata), indent=2).encode())


def _save_lora(loaded: LoadedModel, folder: Path) -> None:
    """As PEFT writes it: weights, config and model card, of the plain LoRA where it is another."""
    model, name = loaded.model, loaded.model.active_adapter
    make: Any = LoraConfig  # untyped in PEFT
    config = make(**{"task_type": "CAUSAL_LM", **lora_kwargs(model, name)})
    config.base_model_name_or_path = model.peft_config[name].base_model_name_or_path
    config.inference_mode = True
    model.create_or_update_model_card(str(folder))
    save_file(trained_weights(loaded), folder / _LORA_FILE, metadata={"format": "pt"})
    config.save_pretrained(str(folder))


def save_checkpoint(loaded: LoadedModel, metadata: AdapterMetadata, path: Path) -> None:
    """Write the single `.pt` file: plain tensors and plain values, nothing to unpickle."""
    content = {"model_state_dict": trained_weights(loaded), "metadata": _plain(metadata)}
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


def _plain(metadata: AdapterMetadata) -> dict[str, Any]:
    """What is new is only said where it is needed, so that older versions read the rest."""
    plain = asdict(metadata)
    if metadata.kind == "lora":
        del plain["kind"]
    if metadata.scratchpad_form == ScratchpadForm.PASSAGE:
        del plain["scratchpad_form"]
    if not metadata.earlier:
        del plain["earlier"]
    return plain


def trained_weights(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    """What a checkpoint holds: the active adapter under PEFT's keys, or every weight once."""
    if not has_adapter(loaded):
        return {
            key: value.detach().cpu().contiguous()
            for key, value in base_weights(loaded.model).items()
        }
    name = loaded.model.active_adapter
    weights = adapter_weights(loaded.model, name)
    if changes_base(loaded.model.peft_config[name]):
        assert loaded.initial is not None, "an adapter of a changed base is saved with its start"
        weights = as_plain_lora(weights, loaded.initial, loaded.model.get_base_model().dtype)
    # Copies, since embeddings that are tied may share one tensor, which safetensors refuses.
    return {key: value.detach().cpu().clone().contiguous() for key, value in weights.items()}


def read_adapter(path: Path) -> Adapter:
    """Read a `.pt` file, or the folder of an adapter or a finetuned model; nothing in it is
    executed.

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
    metadata = _read_metadata(content.get("metadata"), path)
    if metadata is not None and metadata.kind == "full":
        return Adapter(_tensors(state, path), metadata, path)
    return Adapter(_lora_weights(state, path), metadata, path)


def _read_folder(path: Path) -> Adapter:
    described = path / METADATA_FILE
    try:
        content = json.loads(described.read_text()) if described.is_file() else None
        metadata = _read_metadata(content, path)
        if metadata is not None and metadata.kind == "full":
            _require_whole_model(path)
            return Adapter({}, metadata, path)
        if not (path / _LORA_FILE).is_file():
            raise CheckpointError(f"{path} holds no {_LORA_FILE}")
        return Adapter(_lora_weights(load_file(path / _LORA_FILE), path), metadata, path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or not an adapter folder") from error


def _require_whole_model(path: Path) -> None:
    files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise CheckpointError(f"{path} holds no model.safetensors")
    for file in files:
        with safe_open(file, framework="pt") as opened:  # raises where the file is cut short
            opened.keys()


def _tensors(state: Any, path: Path) -> dict[str, torch.Tensor]:
    if not isinstance(state, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise CheckpointError(f"{path} holds no state dict")
    return dict(state)


def _lora_weights(state: Any, path: Path) -> dict[str, torch.Tensor]:
    """The adapter's tensors under PEFT's own keys, whatever wrapper they were saved through."""
    weights = {}
    for key, value in state.items() if isinstance(state, Mapping) else ():
        if isinstance(value, torch.Tensor) and not key.endswith(".base_layer.weight"):
            weights[_saved_key(key)] = value
    if not any("lora_" in key for key in weights):
        raise CheckpointError(f"{path} holds no LoRA weights")
    return weights


def _saved_key(key: str) -> str:
    """A key of a model's own state dict as PEFT saves it: without the adapter's name.

    >>> _saved_key("module.model.q.lora_A.default.weight")
    'base_model.model.model.q.lora_A.weight'
    >>> _saved_key("base_model.model.lm_head.modules_to_save.default.weight")
    'base_model.model.lm_head.weight'
    """
    name = key.removeprefix("module.").replace(".modules_to_save.", ".")
    name = name.replace(".default.", ".").removesuffix(".default")
    if name.endswith("lora_magnitude_vector.weight"):
        name = name.removesuffix(".weight")
    return name if name.startswith("base_model.") else f"base_model.model.{name}"


def _read_metadata(fields: Any, path: Path) -> AdapterMetadata | None:
    if fields is None:
        return None
    if not isinstance(fields, Mapping) or not isinstance(fields.get("format", _FORMAT), int):
        raise CheckpointError(f"{path}: its metadata are not understood")
    if fields.get("format", _FORMAT) > _FORMAT:
        raise CheckpointError(f"{path} was written by a newer version of scratchpad-rag")
    try:
        metadata = AdapterMetadata(**{**fields, "earlier": tuple(fields.get("earlier", ()))})
        Method(metadata.method)
        ScratchpadForm(metadata.scratchpad_form)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its metadata are not understood ({error})") from error
    for key, understood in (
        ("lora", isinstance(metadata.lora, dict)),
        ("kind", metadata.kind in _KINDS),
        ("earlier", all(isinstance(training, dict) for training in metadata.earlier)),
    ):
        if not understood:
            said = getattr(metadata, key)
            raise CheckpointError(f"{path}: its metadata are not understood ({key}: {said!r})")
    return metadata
