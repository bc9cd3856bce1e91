"""What a run shows while it works: bars with the time left, and samples one by one."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from scratchpad_rag.records import Rendered, Score


def progress_bar(title: str, total: int, done: int = 0) -> tqdm[Any]:
    """A bar on standard error, with samples, rate and time left."""
    return tqdm(total=total, initial=done, desc=title, unit="answer", file=sys.stderr)


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
