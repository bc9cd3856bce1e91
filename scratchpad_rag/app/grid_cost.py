"""What a grid will take, known before it begins: prompts, tokens, passes, seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, starmap
from typing import Any

import numpy as np
import numpy.typing as npt

from scratchpad_rag.decode.schedule import shared_prefix, trie_order
from scratchpad_rag.evaluate.speed import Speed
from scratchpad_rag.evaluate.together import Answer, Task
from scratchpad_rag.prompts.render import render_prompt, scratchpad_blocks
from scratchpad_rag.records import Method, Options, Rendered, Request
from scratchpad_rag.tokens.encode import encode_prompt

# What answers of readers measured took; only for what is told beforehand.
_ANSWER_TOKENS = 8
_PASSES = {"scratchpad": 9, "verbatim": 6, "answer": 6}
_CHARACTERS_A_TOKEN = 4.3
_TIMED_TOKENS = 24

Block = Sequence[Task]
IdArray = npt.NDArray[np.int32]


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


class PromptTokens:
    """Token ids of prompts, each made once: adapters read the same ones."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[bytes, IdArray] = {}

    def of(self, task: Task) -> IdArray:
        """(tokens,); those of a scratchpad that is written for the reader are counted apart from
        its prompt, which may be a token more or less than together."""
        wording, begun = task.way.wording, task.trial.begun(task.way.wording)
        prompt = self._of(render_prompt(task.trial.shown, wording))
        if not begun:
            return prompt
        return np.concatenate([prompt, self._of(Rendered(begun, len(begun), ()))])

    def _of(self, prompt: Rendered) -> IdArray:
        key = hashlib.sha256(prompt.text.encode()).digest()
        if key not in self._known:
            self._known[key] = np.array(encode_prompt(prompt, self._tokenizer), np.int32)
        return self._known[key]


def count_cost(blocks: Iterable[Block], tokens: PromptTokens) -> Cost:
    """The cost of blocks of tasks that one adapter answers, in their order."""
    cost = Cost()
    lengths: list[tuple[int, int]] = []
    before = np.array([], np.int32)
    for block in blocks:
        tasks = distinct(block)
        asked = [tokens.of(task) for task in tasks]
        walk = [before, *(asked[number] for number in trie_order([ids.tolist() for ids in asked]))]
        before = walk[-1]
        lengths += [
            (len(ids), t.options.max_new_tokens) for ids, t in zip(asked, tasks, strict=True)
        ]
        cost += Cost(
            samples=len(block),
            prompts=len(tasks),
            prompt_tokens=sum(map(len, asked)),
            prefilled_tokens=sum(starmap(_computed, pairwise(walk))),
            new_tokens=sum(min(_expected_tokens(t), t.options.max_new_tokens) for t in tasks),
            passes=sum(_PASSES[_kind(task)] for task in tasks),
        )
    return replace(cost, lengths=tuple(lengths))


def _computed(before: IdArray, ids: IdArray) -> int:
    """Tokens of a prompt that the one before it does not hold already; the last one always is."""
    shared = shared_prefix(before, ids)
    return len(ids) - min(shared, len(ids) - 1)


def distinct(block: Block) -> list[Task]:
    """What the backend is asked for a block: of equal requests the first task."""
    found: dict[tuple[object, ...], Task] = {}
    for task in block:
        shown = task.trial.shown
        key = shown.question, shown.passages, task.trial.forced, task.options
        found.setdefault(key, task)
    return list(found.values())


def _kind(task: Task) -> str:
    if task.way.method is not Method.SCRATCHPAD or task.trial.forced:
        return "answer"
    return "verbatim" if task.options.verbatim else "scratchpad"


def _expected_tokens(task: Task) -> int:
    if _kind(task) == "answer":
        return _ANSWER_TOKENS
    shown = task.trial.shown
    blocks = scratchpad_blocks(shown, shown.gold or (0,), task.way.wording.form)
    characters = sum(len(block.text) for block in blocks) + len(shown.question)
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
        for _, found in answer([Request(prompt, options)]):
            # Of one question the second prompt has little left to compute.
            if timed is None or 2 * found.prefilled_tokens > timed.prefilled_tokens:
                timed = found
    if timed is None or not timed.prefilled_tokens:
        return None
    rest = timed.wall_seconds - timed.first_token_seconds
    return Speed(
        timed.first_token_seconds / timed.prefilled_tokens,
        rest / max(1, timed.forward_passes - 1),
    )


def as_weight(cost: Cost, speed: Speed | None) -> float:
    """Work in one unit for all stages."""
    return cost.seconds(speed or Speed(1.0, 40.0))
