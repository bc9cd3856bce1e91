"""What the peer scripts share: their flags, the clock and the lines that they print."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Prompt(NamedTuple):
    """One prompt of the file: token ids in, at most so many new ones out."""

    ids: list[int]
    max_new_tokens: int
    stops: list[int]


class Clock:
    """Notes when the first token arrived."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.first: float | None = None

    def tick(self) -> None:
        """Called with every token; only the first call counts."""
        if self.first is None:
            self.first = time.perf_counter() - self.begin


Generate = Callable[[Prompt, Clock], Sequence[int]]


def parse_flags(
    description: str, add: Callable[[argparse.ArgumentParser], Any] = lambda _: None
) -> argparse.Namespace:
    """The flags of every peer and those that `add` adds."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--setting", choices=("plain", "lookup"), required=True)
    parser.add_argument("--num_tokens", type=int, default=10, help="drafted at a time, at most")
    parser.add_argument("--threads", type=int, default=2)
    add(parser)
    return parser.parse_args()


def measure(flags: argparse.Namespace, generate: Generate) -> None:
    """Answer each prompt once, the first one twice, and print a JSON line for each."""
    rows = json.loads(flags.prompts.read_text(encoding="utf-8"))
    prompts = [Prompt(row["ids"], row["max_new_tokens"], row["stops"]) for row in rows]
    generate(prompts[0], Clock())  # a warm-up, which is not counted
    for prompt in prompts:
        clock = Clock()
        new = list(generate(prompt, clock))
        seconds = time.perf_counter() - clock.begin
        line = {
            "setting": flags.setting,
            "num_tokens": flags.num_tokens if flags.setting == "lookup" else 0,
            "seconds": round(seconds, 4),
            "first_token_seconds": None if clock.first is None else round(clock.first, 4),
            "prompt_tokens": len(prompt.ids),
            "token_ids": until_stop(new, prompt),
        }
        print(json.dumps(line), flush=True)


def until_stop(new: Sequence[int], prompt: Prompt) -> list[int]:
    """The new tokens before the first stop token."""
    end = next((n for n, token in enumerate(new) if token in prompt.stops), len(new))
    return [int(token) for token in new[: min(end, prompt.max_new_tokens)]]
