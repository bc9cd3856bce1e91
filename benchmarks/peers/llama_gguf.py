"""Write a merged model folder as a GGUF file, for llama.cpp, in the precision it is saved in.

    python benchmarks/peers/llama_gguf.py --model MODEL_FOLDER --out MODEL.gguf

Run by the project's own python (gguf 0.19.0, safetensors, torch): llama.cpp's own converter is
part of no package. Only what greedy decoding from token ids needs is written: a Llama model with
plain rotary positions, with its vocabulary.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import load_file


def main() -> None:
    """Copy the configuration, the vocabulary and the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    config = json.loads((flags.model / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "llama" or config["rope_parameters"]["rope_type"] != "default":
        parser.error("only Llama models with plain rotary positions are written")
    writer = gguf.GGUFWriter(flags.out, "llama")
    add_shape(writer, config)
    add_vocabulary(writer, config, json.loads((flags.model / "tokenizer.json").read_bytes()))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, weight in load_file(flags.model / "model.safetensors").items():
        written = names.get_name(name, try_suffixes=(".weight",))
        if written is None:
            parser.error(f"llama.cpp has no tensor for {name}")
        if name.endswith("q_proj.weight"):
            weight = interleave(weight, config["num_attention_heads"])
        elif name.endswith("k_proj.weight"):
            weight = interleave(weight, config["num_key_value_heads"])
        add_weight(writer, written, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """What the model looks like."""
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])


def add_vocabulary(
    writer: gguf.GGUFWriter, config: dict[str, Any], tokenizer: dict[str, Any]
) -> None:
    """The vocabulary with its merges; special tokens are control tokens."""
    texts = {index: text for text, index in tokenizer["model"]["vocab"].items()}
    special = {token["id"] for token in tokenizer["added_tokens"] if token["special"]}
    texts |= {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([texts.get(n, f"[PAD{n}]") for n in range(config["vocab_size"])])
    writer.add_token_types(
        [
            gguf.TokenType.CONTROL if n in special else gguf.TokenType.NORMAL
            for n in range(config["vocab_size"])
        ]
    )
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])


def interleave(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a head as llama.cpp rotates them, in neighbouring pairs instead of halves."""
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def add_weight(writer: gguf.GGUFWriter, name: str, weight: torch.Tensor) -> None:
    """bf16 matrices as they are, norms as float32, which is what llama.cpp computes with."""
    if weight.ndim == 1 or weight.dtype != torch.bfloat16:
        writer.add_tensor(name, weight.float().numpy())
        return
    array = weight.contiguous().view(torch.uint8).numpy()
    writer.add_tensor(name, array, raw_dtype=gguf.GGMLQuantizationType.BF16)


if __name__ == "__main__":
    main()
