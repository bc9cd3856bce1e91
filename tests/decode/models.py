"""Tiny random models of several architectures, in float64."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen3Config,
)
from transformers.models.gemma2 import Gemma2ForCausalLM
from transformers.models.gemma3 import Gemma3ForCausalLM
from transformers.models.llama import LlamaForCausalLM
from transformers.models.mistral import MistralForCausalLM
from transformers.models.phi3 import Phi3ForCausalLM
from transformers.models.qwen3 import Qwen3ForCausalLM

WORDS = 48
WINDOW = 9  # far shorter than the prompts, so that a wrong mask changes the answer
_SHAPE: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    "initializer_range": 0.4,  # wide enough that completions are not one word over and over
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
_ATTENTION = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2}


def _hybrid(layers: int = 4) -> dict[str, Any]:
    return {**_SHAPE, **_ATTENTION, "num_hidden_layers": layers}


def _without_head_size() -> dict[str, Any]:
    return {**{key: value for key, value in _SHAPE.items() if key != "head_dim"}, "hidden_size": 32}


_KINDS: dict[str, Any] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_SHAPE)),
    "mistral_sliding": lambda: MistralForCausalLM(MistralConfig(**_SHAPE, sliding_window=WINDOW)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_SHAPE)),
    "qwen3_hybrid": lambda: Qwen3ForCausalLM(Qwen3Config(**_hybrid(), use_sliding_window=True)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**_hybrid(), query_pre_attn_scalar=8)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**_hybrid(), query_pre_attn_scalar=8)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**_without_head_size())),
}
ARCHITECTURES = tuple(_KINDS)


@cache
def tiny_model(kind: str, seed: int = 0) -> Any:
    """A model of `WORDS` words with random weights from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _KINDS[kind]()
    return model.double().eval()


def greedy(model: Any, ids: list[int], room: int, stops: tuple[int, ...]) -> list[int]:
    """Greedy decoding by hand: the whole sequence anew for every token, without a cache."""
    found: list[int] = []
    while len(found) < room:
        with torch.inference_mode():
            logits = model(torch.tensor([ids + found]), use_cache=False).logits[0, -1]
        found.append(int(logits.argmax()))
        if found[-1] in stops:
            break
    return found
