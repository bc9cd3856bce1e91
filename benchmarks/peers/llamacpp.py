"""Seconds an answer of llama.cpp's Python binding, plain greedy and with its prompt lookup.

    python benchmarks/peers/llama_gguf.py --model MODEL_FOLDER --out MODEL.gguf
    python benchmarks/peers/llamacpp.py --model MODEL.gguf --prompts FILE.json --setting lookup \\
        --num_tokens 10

The environment (PyPI has the source alone, which is compiled for this machine's processor):

    pip install llama-cpp-python==0.3.36

It computes with bf16 weights and, as is its default, an fp16 cache of keys and values. With prompt
lookup the binding computes and copies the scores of every token of the prompt as well.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import islice

from llama_cpp import Llama
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding
from peer import Clock, Prompt, measure, parse_flags


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What only this library has."""
    parser.add_argument("--max_ngram_size", type=int, default=3)


def main() -> None:
    """Load the GGUF file and answer each prompt."""
    flags = parse_flags(__doc__, add_flags)
    rows = json.loads(flags.prompts.read_text(encoding="utf-8"))
    room = max(len(row["ids"]) + row["max_new_tokens"] for row in rows) + flags.num_tokens
    draft = None
    if flags.setting == "lookup":
        draft = LlamaPromptLookupDecoding(flags.max_ngram_size, flags.num_tokens)
    model = Llama(
        str(flags.model),
        n_ctx=room,
        n_batch=room,  # with fewer, prompt lookup has no room for the scores of a long prompt
        n_threads=flags.threads,
        n_threads_batch=flags.threads,
        draft_model=draft,
        verbose=False,
    )

    def generate(prompt: Prompt, clock: Clock) -> Sequence[int]:
        model.reset()  # else the prefix that this prompt shares with the last one is kept
        new = []
        for token in islice(model.generate(prompt.ids, temp=0.0), prompt.max_new_tokens):
            clock.tick()
            if token in prompt.stops:
                break
            new.append(token)
        return new

    measure(flags, generate)


if __name__ == "__main__":
    main()
