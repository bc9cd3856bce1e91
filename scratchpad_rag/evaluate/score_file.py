"""The file of scores of a run: a line a score, whole but for a last one that a kill cut off."""

from __future__ import annotations

import json
from pathlib import Path

from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Score, score_from_json

# Method, data set, question, documents, gold positions, order of the passages.
Key = tuple[str, str, str, int, tuple[int, ...], str]


def read_scores(path: Path, *, mend: bool = True) -> list[Score]:
    """All whole lines of a score file; a last line cut off by a kill is removed from the file,
    unless it is not to `mend` it: who writes the line may be at it.

    Raises DataError for a line in the middle that is not a score.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content and mend:
        path.write_bytes(whole)
    scores = []
    for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
        try:
            scores.append(score_from_json(json.loads(line.decode("utf-8"))))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}:{number}: not a line of scores") from error
    return scores


def score_key(score: Score) -> Key:
    """What a score is filed under: its method, and the sample that was answered."""
    return (
        score.method,
        score.dataset,
        score.example_id,
        score.num_documents,
        score.gold_positions,
        score.passage_order,
    )
