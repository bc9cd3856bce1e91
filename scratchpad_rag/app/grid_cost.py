"""What a grid will take, known before it begins: prompts, tokens, passes, seconds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from scratchpad_rag.decode.schedule import shared_prefix, trie_order
from scratchpad_rag.evaluate.together import Answer, Task
from scratchpad_rag.prompts.template import format_passage
from scratchpad_rag.records import Method, Options, Request, Score
from scratchpad_rag.tokens.encode import encode_prompt

# What answers of readers measured took; only for what is told beforehand.
_ANSWER_TOKENS = 8
_PASSES = {"scratchpad": 9, "verbatim": 6, "answer": 6}
_CHARACTERS_A_TOKEN = 4.3
_TIMED_TOKENS = 24
_FEWEST_SCORES = 40  # from which speeds are read

Block = Sequence[Task]


class Speed(NamedTuple):
    """How fast this machine reads: seconds a token of a prompt, and seconds a pass behind it."""

    token_seconds: float
    pass_seconds: float


@dataclass(frozen=True)
class Cost:
    """What is left to do: `samples` answers are scored, from `prompts` completions.

    `prompt_tokens` are those of all prompts, `prefilled_tokens` what is computed of them where
    shared prefixes are computed once; `lengths` holds prompt tokens by `max_new_tokens`.
    """

    samples: int = 0
    prompts: int = 0
    prompt_tokens: int = 0
    prefilled_tokens: int = 0
    new_tokens: int = 0
    passes: int = 0
    lengths: tuple[tuple[int, int], ...] = ()  # (tokens, max_new_tokens) of every prompt

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.samples + other.samples,
            self.prompts + other.prompts,
            self.prompt_tokens + other.prompt_tokens,
            self.prefilled_tokens + other.prefilled_tokens,
            self.new_tokens + other.new_tokens,
            self.passes + other.passes,
            self.lengths + other.lengths,
        )

    def seconds(self, speed: Speed) -> float:
        """About how long it takes."""
        return self.prefilled_tokens * speed.token_seconds + self.passes * speed.pass_seconds


def count_cost(blocks: Iterable[Block], tokenizer: Any) -> Cost:
    """The cost of blocks of tasks that one adapter answers, in their order."""
    samples = prompts = prompt_tokens = prefilled = new_tokens = passes = 0
    lengths: list[tuple[int, int]] = []
    before: Sequence[int] = ()
    for block in blocks:
        requests = distinct(block)
        texts = {request.prompt.text: request.prompt for request, _ in requests}
        ids = {text: encode_prompt(prompt, tokenizer) for text, prompt in texts.items()}
        asked = [ids[request.prompt.text] for request, _ in requests]
        walk = [before, *(asked[number] for number in trie_order(asked))]
        prefilled += sum(len(b) - min(shared_prefix(a, b), len(b) - 1) for a, b in pairwise(walk))
        before = walk[-1]
        samples += len(block)
        prompts += len(requests)
        prompt_tokens += sum(map(len, asked))
        for (request, task), tokens in zip(requests, asked, strict=True):
            lengths.append((len(tokens), request.options.max_new_tokens))
            new_tokens += min(_expected_tokens(task), request.options.max_new_tokens)
            passes += _PASSES[_kind(task)]
    return Cost(samples, prompts, prompt_tokens, prefilled, new_tokens, passes, tuple(lengths))


def distinct(block: Block) -> list[tuple[Request, Task]]:
    """What the backend is asked for a block: each request once, with the first of its tasks."""
    found: dict[tuple[str, Options], tuple[Request, Task]] = {}
    for task in block:
        request = task.request
        found.setdefault((request.prompt.text, request.options), (request, task))
    return list(found.values())


def _kind(task: Task) -> str:
    if task.way.method is not Method.SCRATCHPAD or task.trial.forced:
        return "answer"
    return "verbatim" if task.options.verbatim else "scratchpad"


def _expected_tokens(task: Task) -> int:
    if _kind(task) == "answer":
        return _ANSWER_TOKENS
    quoted = task.trial.shown.gold_passages or task.trial.shown.passages[:1]
    characters = sum(len(format_passage(passage)) for passage in quoted)
    characters += len(task.trial.shown.question)
    return round(characters / _CHARACTERS_A_TOKEN) + _ANSWER_TOKENS


def measure_speed(answer: Answer, blocks: Sequence[Block]) -> Speed | None:
    """Time two prompts of about the median length; None where there is nothing to ask."""
    firsts = [max(block, key=lambda task: len(task.request.prompt.text)) for block in blocks]
    if not firsts:
        return None
    ordered = sorted((task.request.prompt for task in firsts), key=lambda prompt: len(prompt.text))
    options = Options(_TIMED_TOKENS)
    timed = None
    for prompt in (ordered[0], ordered[len(ordered) // 2]):  # the first one warms up
        for _, completion in answer([Request(prompt, options)]):
            timed = completion
    if timed is None or not timed.prefilled_tokens:
        return None
    rest = timed.wall_seconds - timed.first_token_seconds
    return Speed(
        timed.first_token_seconds / timed.prefilled_tokens,
        rest / max(1, timed.forward_passes - 1),
    )


def speed_of(scores: Sequence[Score]) -> Speed | None:
    """Speeds that earlier answers show, by least squares; None where there are too few."""
    known = [s for s in scores if s.prefilled_tokens and s.forward_passes and s.wall_seconds]
    if len(known) < _FEWEST_SCORES:
        return None
    took = np.array([score.wall_seconds for score in known])
    parts = np.array([(score.prefilled_tokens, score.forward_passes) for score in known], float)
    (token, one_pass), *_ = np.linalg.lstsq(parts, took, rcond=None)
    if token <= 0 or one_pass <= 0:
        return Speed(statistics.fmean(took) / statistics.fmean(parts[:, 0]), 0.0)
    return Speed(float(token), float(one_pass))


def as_weight(cost: Cost, speed: Speed | None) -> float:
    """Work in one unit for all stages."""
    return cost.seconds(speed or Speed(1.0, 40.0))
