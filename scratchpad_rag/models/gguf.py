"""A merged model as a GGUF file, for llama.cpp and Ollama.

Follows llama.cpp's own converter (`conversion/llama.py`, `conversion/qwen.py`), which is part of
no package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch

from scratchpad_rag.errors import ModelError
from scratchpad_rag.models.gguf_vocab import add_vocabulary, read_vocabulary
from scratchpad_rag.models.load import LoadedModel

_Type = gguf.GGMLQuantizationType
GGUF_TYPES = {"f16": _Type.F16, "bf16": _Type.BF16, "f32": _Type.F32, "q8_0": _Type.Q8_0}
_FILE_TYPES = {
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "f32": gguf.LlamaFileType.ALL_F32,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
# transformers' model type -> llama.cpp's architecture.
ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
ROPE_TYPES = ("default", "linear", "llama3", "yarn")


class About(NamedTuple):
    """What a GGUF file says of itself."""

    name: str
    license: str | None = None


def require_gguf(loaded: LoadedModel) -> None:
    """Raise ModelError for a model or tokenizer that llama.cpp would not read as it is."""
    config = loaded.model.config
    if config.model_type not in ARCHITECTURES:
        raise ModelError(
            f"no GGUF file is written of a {config.model_type} model; "
            f"choose one of {', '.join(ARCHITECTURES)}, or another --format"
        )
    rope = config.rope_parameters.get("rope_type", "default")
    if rope not in ROPE_TYPES:
        raise ModelError(
            f"no GGUF file is written of rotary positions of type {rope}; "
            f"known are {', '.join(ROPE_TYPES)}"
        )
    if config.hidden_act != "silu":
        raise ModelError(f"no GGUF file is written of a model with activation {config.hidden_act}")
    read_vocabulary(loaded.tokenizer, _rows(loaded.model))


def write_gguf(loaded: LoadedModel, path: Path, gguf_type: str, about: About) -> None:
    """Write a merged model with its vocabulary; tensors are converted one at a time.

    Raises ModelError for what llama.cpp would not read, OSError where it cannot be written.
    """
    require_gguf(loaded)
    architecture = ARCHITECTURES[loaded.model.config.model_type]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    try:
        _add_about(writer, about, gguf_type)
        _add_shape(writer, loaded)
        _add_rope(writer, loaded.model.config)
        add_vocabulary(writer, loaded.tokenizer, _rows(loaded.model), loaded.stop_token_ids)
        _write_tensors(writer, loaded.model, GGUF_TYPES[gguf_type])
    finally:
        writer.close()


def context_length(loaded: LoadedModel) -> int:
    """Tokens that llama.cpp reads as transformers does: it knows no sliding window here."""
    window = getattr(loaded.model.config, "sliding_window", None)
    return min(loaded.context_length, window) if window else loaded.context_length


def tensor_type(name: str, shape: tuple[int, ...], wanted: _Type) -> _Type:
    """Norms and biases are float32 in every file; rows that no block divides are float16.

    >>> tensor_type("blk.0.ffn_up.weight", (64, 48), _Type.Q8_0).name
    'F16'
    """
    if len(shape) == 1:
        return _Type.F32
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return wanted if shape[-1] % block == 0 else _Type.F16


def packed(weight: torch.Tensor, kind: _Type) -> np.ndarray[Any, Any]:
    """A tensor's values as the file holds them; bytes where numpy has no such type."""
    values = weight.detach().float().cpu().contiguous().numpy()
    with np.errstate(over="ignore"):  # reading the file again finds infinite logits
        return gguf.quantize(values, kind)


def _rows(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[0])


def _add_about(writer: gguf.GGUFWriter, about: About, gguf_type: str) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(about.name)
    if about.license:
        writer.add_license(about.license)
    writer.add_file_type(_FILE_TYPES[gguf_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_shape(writer: gguf.GGUFWriter, loaded: LoadedModel) -> None:
    config = loaded.model.config
    writer.add_context_length(context_length(loaded))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(_rows(loaded.model))


def _head_size(config: Any) -> int:
    return int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )


def _add_rope(writer: gguf.GGUFWriter, config: Any) -> None:
    """Rotary positions. Llama 3's own scaling is a tensor, not a setting."""
    rope = config.rope_parameters
    writer.add_rope_dimension_count(_head_size(config))
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope.get("rope_type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for key, add in (
            ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
            ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
        ):
            if rope.get(key) is not None:
                add(rope[key])


def rope_factors(config: Any) -> list[float]:
    """By what llama.cpp divides each rotary frequency of a model with Llama 3's scaling.

    Short waves are kept, waves longer than the original context are stretched by `factor`, and
    those between go smoothly from one to the other (Llama 3's `apply_scaling`).
    """
    rope, size = config.rope_parameters, _head_size(config)
    original = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    factors = []
    for index in range(0, size, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (index / size)
        smooth = (original / wavelength - low) / (high - low)
        smooth = min(1.0, max(0.0, smooth))
        factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return factors


def _write_tensors(writer: gguf.GGUFWriter, model: Any, wanted: _Type) -> None:
    kinds = {}
    for name, weight in tensors(model):
        kind = kinds[name] = tensor_type(name, tuple(weight.shape), wanted)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        shape = (*weight.shape[:-1], weight.shape[-1] // block * size)  # in bytes
        writer.add_tensor_info(name, shape, np.dtype(np.uint8), math.prod(shape), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, weight in tensors(model):
        writer.write_tensor_data(packed(weight, kinds[name]))


def tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """A model's tensors under llama.cpp's names and in its order of rows."""
    config = model.config
    architecture = ARCHITECTURES[config.model_type]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for key, weight in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue  # llama.cpp takes the embeddings where there is no output tensor
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ModelError(f"llama.cpp has no tensor for {key}")
        yield name, _reordered(key, weight, config)
    if config.rope_parameters.get("rope_type") == "llama3":
        yield "rope_freqs.weight", torch.tensor(rope_factors(config))


def _reordered(key: str, weight: torch.Tensor, config: Any) -> torch.Tensor:
    """Rows of queries and keys as llama.cpp's Llama rotates them: neighbours, not halves."""
    if ARCHITECTURES[config.model_type] is not gguf.MODEL_ARCH.LLAMA:
        return weight
    if ".q_proj." in key:
        return interleave(weight, config.num_attention_heads)
    if ".k_proj." in key:
        return interleave(weight, config.num_key_value_heads)
    return weight


def interleave(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows 0, 1, 2, 3 of a head become 0, 2, 1, 3: its first half is spread over the even rows.

    >>> interleave(torch.tensor([10, 11, 12, 13]), heads=1).tolist()
    [10, 12, 11, 13]
    """
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)
