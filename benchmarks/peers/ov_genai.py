"""Seconds an answer of OpenVINO GenAI, plain greedy and with its prompt lookup.

    optimum-cli export openvino --model MODEL_FOLDER --task text-generation-with-past \\
        --weight-format fp16 IR_FOLDER
    python benchmarks/peers/ov_genai.py --model IR_FOLDER --prompts FILE.json --setting lookup \\
        --num_tokens 10

Two environments, one to export and one to run, because optimum-intel wants an older transformers:

    export: pip install "optimum-intel[openvino]==2.2.0" torch==2.13.0
    run:    pip install openvino-genai==2026.4.1.0

It computes in bf16 with a bf16 cache of keys and values. The library's own default for that cache
is 8 bits wide (--kv_cache_precision u8), and it would keep the prompts' prefixes between requests.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import openvino
import openvino_genai as ov_genai
from peer import Clock, Prompt, measure, parse_flags


class Ticker(ov_genai.StreamerBase):
    """Tells the clock of every token."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def write(self, token: int | Sequence[int]) -> ov_genai.StreamingStatus:
        """Tokens come one by one, or those of a draft together."""
        self.clock.tick()
        return ov_genai.StreamingStatus.RUNNING

    def end(self) -> None:
        """Nothing is held back."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What only this library has."""
    parser.add_argument("--max_ngram_size", type=int, default=3)
    parser.add_argument("--precision", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--kv_cache_precision", choices=("bf16", "f32", "u8"), default="bf16")


def main() -> None:
    """Load the exported folder and answer each prompt."""
    flags = parse_flags(__doc__, add_flags)
    scheduler = ov_genai.SchedulerConfig()
    scheduler.enable_prefix_caching = False
    scheduler.max_num_batched_tokens = 8192  # a prompt is read in one piece
    pipeline = ov_genai.LLMPipeline(
        flags.model,
        "CPU",
        scheduler_config=scheduler,
        INFERENCE_NUM_THREADS=flags.threads,
        ENABLE_HYPER_THREADING=True,
        INFERENCE_PRECISION_HINT=flags.precision,
        KV_CACHE_PRECISION=flags.kv_cache_precision,
        **({"prompt_lookup": True} if flags.setting == "lookup" else {}),
    )
    config = ov_genai.GenerationConfig()
    config.do_sample = False
    config.apply_chat_template = False
    if flags.setting == "lookup":
        config.num_assistant_tokens = flags.num_tokens
        config.max_ngram_size = flags.max_ngram_size

    def generate(prompt: Prompt, clock: Clock) -> Sequence[int]:
        config.max_new_tokens = prompt.max_new_tokens
        config.stop_token_ids = set(prompt.stops)
        ids = openvino.Tensor(np.array([prompt.ids], dtype=np.int64))
        tokens: Sequence[int] = pipeline.generate(ids, config, Ticker(clock)).tokens[0]
        return tokens

    measure(flags, generate)


if __name__ == "__main__":
    main()
