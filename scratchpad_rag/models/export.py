"""A trained reader for other programs: its adapter merged, written as plain weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from scratchpad_rag.errors import ModelError
from scratchpad_rag.models.adapters import has_adapter, merge_for_good
from scratchpad_rag.models.load import LoadedModel

Notify = Callable[[str], None]


def plain_weights(loaded: LoadedModel) -> LoadedModel:
    """The model with weights that a file can hold: a quantized one is dequantized.

    An adapter was trained on what the quantized weights stand for, so it goes on with these. Asked
    before the model has computed anything: on a CPU, bitsandbytes then packs 4-bit weights anew,
    and no longer dequantizes them rightly. Raises ModelError where transformers cannot dequantize.
    """
    if getattr(loaded.model.config, "quantization_config", None) is None:
        return loaded
    try:
        model = loaded.model.dequantize(dtype=_computed_in(loaded.model))
    except (ValueError, NotImplementedError, ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the weights of {loaded.config.pretrained_model_name_or_path} are quantized and "
            f"cannot be written as plain ones: {reason}"
        ) from error
    # Left in the config, it would be taken for packed weights.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return replace(loaded, model=model, config=replace(loaded.config, quantization=None))


def _computed_in(model: Any) -> torch.dtype:
    """The precision of what a quantized model leaves unquantized."""
    dtype: torch.dtype = model.get_input_embeddings().weight.dtype
    return dtype


def merged(loaded: LoadedModel) -> LoadedModel:
    """The model with its adapter in its weights, and the tokenizer that asks it as it was trained.

    A reader of plain prompts loses the chat template that its tokenizer came with: whoever loads
    the export would use it.
    """
    plain = merge_for_good(loaded)
    if has_adapter(plain):
        raise ModelError("the weights are quantized, and an adapter cannot be merged into them")
    return replace(plain, tokenizer=_tokenizer(loaded))


def _tokenizer(loaded: LoadedModel) -> Any:
    if loaded.wording.chat is not None or not loaded.tokenizer.chat_template:
        return loaded.tokenizer
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.chat_template = None
    return tokenizer


def write_merged(loaded: LoadedModel, folder: Path, max_new_tokens: int) -> None:
    """Write a merged model as transformers reads it: safetensors, tokenizer, greedy generation.

    Raises OSError or SafetensorError where it cannot be written.
    """
    model = loaded.model
    kept, model.generation_config = model.generation_config, _greedy(loaded, max_new_tokens)
    try:
        model.save_pretrained(folder)
    finally:
        model.generation_config = kept
    try:
        loaded.tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # tokenizers has no class of its own for a full disk
        raise OSError(" ".join(str(error).split())) from error


def _greedy(loaded: LoadedModel, max_new_tokens: int) -> Any:
    """What the reader does: the likeliest token, up to its own stop tokens."""
    pad = loaded.tokenizer.pad_token_id
    make: Any = GenerationConfig  # untyped in transformers
    return make(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        bos_token_id=loaded.tokenizer.bos_token_id,
        eos_token_id=list(loaded.stop_token_ids),
        pad_token_id=loaded.stop_token_ids[-1] if pad is None else pad,
    )
