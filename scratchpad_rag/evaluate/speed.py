"""How fast answers came, and how long each would have taken alone.

Where prompts are answered together, the first bears what they share. Seconds then tell of the order
in which prompts were answered, not of methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from scratchpad_rag.records import Score

_FEWEST = 40  # scores that speeds are read from


class Speed(NamedTuple):
    """Seconds that a token of a prompt takes, and a pass behind it."""

    token_seconds: float
    pass_seconds: float


def speed_of(scores: Sequence[Score]) -> Speed | None:
    """The speeds that answers show, by least squares over distinct ones; None where they do not
    tell: too few of them, or backends that count no prefilled tokens or passes."""
    known = {
        (s.prefilled_tokens, s.forward_passes, s.wall_seconds)
        for s in scores
        if s.prefilled_tokens and s.forward_passes and s.wall_seconds
    }
    if len(known) < _FEWEST:
        return None
    table = np.array(sorted(known))
    (token, one_pass), *_ = np.linalg.lstsq(table[:, :2], table[:, 2], rcond=None)
    if token <= 0 or one_pass <= 0:
        return None
    return Speed(float(token), float(one_pass))


def as_if_alone(scores: Sequence[Score]) -> list[Score]:
    """The scores of one run with the seconds that each answer would have taken by itself: to its
    own are added those of the tokens that another prompt had computed, by the run's own speed.

    They stay as they are where nothing was shared or the speed is not known.
    """
    speed = speed_of(scores)
    if speed is None:
        return list(scores)
    return [
        replace(s, wall_seconds=s.wall_seconds + speed.token_seconds * _shared(s)) for s in scores
    ]


def _shared(score: Score) -> int:
    return max(0, score.prompt_tokens - score.prefilled_tokens) if score.prefilled_tokens else 0
