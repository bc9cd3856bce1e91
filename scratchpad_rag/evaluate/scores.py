"""Score files, read without anything that answers questions."""

from __future__ import annotations

import json
from pathlib import Path

from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Score, score_from_json


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
