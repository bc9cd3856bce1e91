"""Compare two ways of reading, of two runs or of one, on the samples that both answered.

    python docs/howto/paired.py runs/local:scratchpad runs/api:zero_shot

A run is a folder with scores.jsonl; its methods are named as there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scratchpad_rag.errors import DataError, UserError
from scratchpad_rag.evaluate.score_file import read_scores
from scratchpad_rag.evaluate.statistics import PairedDifference, paired_difference

Key = tuple[str, str, str, int, int | None]


def accuracy(run: str) -> dict[Key, float]:
    """The samples of `folder:method` by question and cell, with 1 for right and 0 for wrong."""
    folder, _, method = run.rpartition(":")
    path = Path(folder) / "scores.jsonl"
    scores = read_scores(path, mend=False)
    found = {
        (s.example_id, s.dataset, s.passage_order, s.num_documents, s.place): s.subspan_exact_match
        for s in scores
        if s.method == method
    }
    if not found:
        methods = ", ".join(sorted({score.method for score in scores})) or "no scores at all"
        raise DataError(f"{path} holds no scores of {method!r}; it has {methods}")
    return found


def describe(difference: PairedDifference) -> str:
    """One line, in points."""
    interval = difference.interval
    return (
        f"{100 * interval.estimate:+.1f} points ({100 * interval.low:+.1f} to "
        f"{100 * interval.high:+.1f}; p = {difference.p_value:.3f}, {difference.test}; "
        f"{interval.n} samples, {difference.wins} better, {difference.losses} worse)"
    )


def main() -> int:
    """Print the first minus the second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", help="FOLDER:METHOD")
    parser.add_argument("second", help="FOLDER:METHOD")
    flags = parser.parse_args()
    try:
        difference = paired_difference(accuracy(flags.first), accuracy(flags.second))
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{flags.first} - {flags.second}: {describe(difference)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
