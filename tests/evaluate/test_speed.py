"""Speeds read from answers, and what each answer would have taken alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scratchpad_rag.evaluate.speed import Speed, as_if_alone, speed_of
from scratchpad_rag.records import Score

ZERO = Score(
    "sft", "q", "Q?", (), 5, (0,), "", "", (), True, 0, 0, 0, 0, None, None, None, 100, 5, 4, 1.0
)


def made(count: int = 50, token: float = 0.01, one_pass: float = 0.2) -> list[Score]:
    """Of 1,000 tokens each, of which every third prompt had nothing shared, and the others 900."""
    scores = []
    for number in range(count):
        prefilled, passes = (1000 if number % 3 == 0 else 100), 2 + number % 5
        scores.append(
            replace(
                ZERO,
                example_id=str(number),
                prompt_tokens=1000,
                prefilled_tokens=prefilled,
                forward_passes=passes,
                wall_seconds=prefilled * token + passes * one_pass + number * 1e-9,
            )
        )
    return scores


def test_speeds_are_found_again() -> None:
    found = speed_of(made())
    assert found is not None
    assert found == pytest.approx(Speed(0.01, 0.2), rel=1e-4)


def test_answers_alone_bear_their_own_prompt() -> None:
    scores = made()
    alone = as_if_alone(scores)
    assert [s.wall_seconds for s in alone] == pytest.approx(
        [10 + s.forward_passes * 0.2 for s in scores], rel=1e-4
    )
    assert [replace(s, wall_seconds=0) for s in alone] == [
        replace(s, wall_seconds=0) for s in scores
    ]


def test_what_does_not_tell_is_left_alone() -> None:
    few = made(count=39)
    assert speed_of(few) is None
    assert as_if_alone(few) == few
    uncounted = [replace(score, prefilled_tokens=0) for score in made()]
    assert as_if_alone(uncounted) == uncounted
    # One answer that many cells share is one measurement.
    assert speed_of([made()[0]] * 200) is None
    # Seconds that fall with the tokens are noise.
    assert speed_of(made(token=-0.001, one_pass=5.0)) is None
