"""Whether runs asked the same questions; only then does a comparison of them mean anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Score

_NAMED = 3  # questions that a message names


def require_same_questions(runs: Mapping[str, Sequence[Score]]) -> None:
    """Raise DataError, with the difference, unless all runs asked the same questions.

    The same are those with the same data set, id and wording. Methods and cells may differ: what
    is compared is compared on the samples in common.
    """
    asked = {name: _asked(scores) for name, scores in runs.items()}
    for first, second in pairwise(asked):
        ours, theirs = asked[first], asked[second]
        if ours == theirs:
            continue
        reworded = [key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]]
        parts = [
            _part(ours.keys() - theirs.keys(), f"only in {first}"),
            _part(theirs.keys() - ours.keys(), f"only in {second}"),
            _part(reworded, "worded differently under the same id"),
        ]
        raise DataError(
            f"{first} and {second} answered different questions, so they cannot be compared: "
            + "; ".join(filter(None, parts))
        )


def _asked(scores: Iterable[Score]) -> dict[tuple[str, str], str]:
    """The wording of every question, by data set and id."""
    return {(score.dataset, score.example_id): score.question for score in scores}


def _part(keys: Iterable[tuple[str, str]], where: str) -> str:
    named = sorted(f"{dataset}/{question}".lstrip("/") for dataset, question in keys)
    if not named:
        return ""
    more = ", …" if len(named) > _NAMED else ""
    return f"{len(named):,} {where} ({', '.join(named[:_NAMED])}{more})"
