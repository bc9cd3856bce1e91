"""The model's choice among the tokens that a draft's grammar allows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from scratchpad_rag.decode.draft import Draft
from scratchpad_rag.errors import ModelError


def choose(
    logits: torch.Tensor, drafts: Sequence[Draft], asked: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Greedy choices, among the allowed tokens where a draft says which.

    `logits[r, place]` (rows, places, words) are those behind the first `asked[r][place]` tokens
    of draft r. Raises ModelError where they are no numbers.
    """
    highest, words = (found.tolist() for found in logits.max(-1))  # one transfer for all rows
    chosen = []
    for row, (draft, places) in enumerate(zip(drafts, asked, strict=True)):
        if any(map(math.isnan, highest[row][: len(places)])):
            raise ModelError(
                "the model computes what is no number (NaN); its weights are damaged, or their "
                "precision is too low: try torch_dtype float32"
            )
        choices = [
            next(iter(allowed)) if allowed is not None and len(allowed) == 1 else -1
            for allowed in draft.allowed or [None] * (len(draft.tokens) + 1)
        ]
        for place, k in enumerate(places):
            allowed = draft.allowed[k] if draft.allowed else None
            if allowed is None:
                choices[k] = words[row][place]
            elif len(allowed) > 1:
                among = sorted(allowed)
                choices[k] = among[int(logits[row, place, among].argmax())]
        chosen.append(choices)
    return chosen


def needed_places(draft: Draft) -> list[int]:
    """Where the model is asked: not where only one token is allowed."""
    allowed = draft.allowed or [None] * (len(draft.tokens) + 1)
    return [k for k, tokens in enumerate(allowed) if tokens is None or len(tokens) > 1]
