"""What a run shows while it works: bars with the time left, and samples one by one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from scratchpad_rag.records import Rendered, Score


def progress_bar(title: str, total: int, done: int = 0) -> tqdm[Any]:
    """A bar on standard error, with samples, rate and time left."""
    return tqdm(total=total, initial=done, desc=title, unit="answer", file=sys.stderr)


def above_bar(notify: Callable[[str], None]) -> Callable[[str], None]:
    """Lines that are said while a bar is shown stand above it, not behind it."""

    def say(line: str) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            notify(line)

    return say


def show_score(score: Score, prompt: Rendered, *, last_answer_only: bool) -> None:
    """Print prompt, output, truth and score of a sample."""
    headline = (
        score.subspan_exact_match if last_answer_only else score.completion_subspan_exact_match
    )
    scored = "answer" if last_answer_only else "whole completion"
    print(
        f"\n=== {score.method} · {score.example_id} · gold at {list(score.gold_positions)} ===\n"
        f"--- prompt\n{prompt.prompt}\n--- output\n{score.completion.strip()}\n"
        f"--- answer: {score.prediction}\n--- truth: {' | '.join(score.answers)}\n"
        f"--- score: {headline:.0f} ({scored})",
        flush=True,
    )


class Plan:
    """Stages of known work, to say how long the rest will take.

    `stages` maps a stage's name to its work in any unit, the same for all.
    """

    def __init__(self, stages: Mapping[str, float]) -> None:
        self.stages = dict(stages)
        self.done = 0.0
        self.seconds = 0.0
        self.count = 0

    @contextmanager
    def stage(self, name: str, notify: Callable[[str], None]) -> Iterator[None]:
        """Announce a stage, time it, and say how long the ones after it will take."""
        self.count += 1
        notify(f"[{self.count}/{len(self.stages)}] {name}{self._left()}")
        begin = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - begin
        self.done += self.stages[name]

    def _left(self) -> str:
        if not self.done:
            return ""
        rest = sum(self.stages.values()) - self.done
        return f" · about {format_seconds(rest * self.seconds / self.done)} left in all"


def format_seconds(seconds: float) -> str:
    """A duration as people say it.

    >>> format_seconds(48.2), format_seconds(312)
    ('50 seconds', '5 minutes')
    """
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} seconds"
    return f"{round(seconds / 60)} minutes"
