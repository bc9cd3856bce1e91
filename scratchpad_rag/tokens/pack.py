"""Which samples share a row, so that no token is padding."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of samples by row, each row of at most `capacity` tokens.

    The longest first, each into the fullest row that still has room for it: within 11/9 of the
    fewest rows there can be (Johnson 1974). Rows come in the order in which they were begun, and
    their samples longest first. Raises ValueError for a sample longer than a row.

    >>> best_fit_decreasing([5, 3, 7, 2, 3], capacity=10)
    [[2, 1], [0, 4, 3]]
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (room, row), by room
    for index in order:
        length = lengths[index]
        if length > capacity:
            raise ValueError(f"a sample of {length} tokens does not fit a row of {capacity}")
        best = bisect_left(open_rows, (length, 0))
        if best == len(open_rows):
            rows.append([index])
            room, row = capacity - length, len(rows) - 1
        else:
            room, row = open_rows.pop(best)
            rows[row].append(index)
            room -= length
        insort(open_rows, (room, row))
    return rows
