from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.tokens.pack import best_fit_decreasing

LENGTHS = st.lists(st.integers(1, 40), max_size=60)


def first_fit_decreasing(lengths: list[int], capacity: int) -> int:
    """The number of rows that the textbook's method takes."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        for row, room in enumerate(rooms):
            if length <= room:
                rooms[row] -= length
                break
        else:
            rooms.append(capacity - length)
    return len(rooms)


def fewest(lengths: list[int], capacity: int) -> int:
    """The fewest rows there can be, over all subsets: (rows, tokens of the last)."""

    @cache
    def best(left: int) -> tuple[int, int]:
        if not left:
            return 0, capacity
        found = []
        for index, length in enumerate(lengths):
            if left >> index & 1:
                rows, used = best(left & ~(1 << index))
                fits = used + length <= capacity
                found.append((rows, used + length) if fits else (rows + 1, length))
        return min(found)

    return best((1 << len(lengths)) - 1)[0]


def test_by_hand() -> None:
    # 7 opens a row; 6 does not fit beside it, nor does 5 beside either; 4 goes to the fullest row
    # that has room for it, which is 6's; 3 to 7's; 2 to 5's.
    assert best_fit_decreasing([2, 3, 4, 5, 6, 7], 10) == [[5, 1], [4, 2], [3, 0]]
    assert best_fit_decreasing([], 10) == []
    assert best_fit_decreasing([10, 10], 10) == [[0], [1]]
    assert best_fit_decreasing([5, 5, 5], 10) == [[0, 1], [2]]


def test_a_sample_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="a sample of 11 tokens does not fit a row of 10"):
        best_fit_decreasing([3, 11], 10)


@given(LENGTHS, st.integers(0, 30))
def test_each_sample_once_and_no_row_too_full(lengths: list[int], spare: int) -> None:
    capacity = max(lengths, default=1) + spare
    rows = best_fit_decreasing(lengths, capacity)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(row for row in rows)
    assert all(sum(lengths[index] for index in row) <= capacity for row in rows)
    # Two rows that would fit into one would have been one.
    filled = sorted(sum(lengths[index] for index in row) for row in rows)
    assert len(filled) < 2 or filled[0] + filled[1] > capacity
    assert best_fit_decreasing(lengths, capacity) == rows


@given(LENGTHS, st.integers(0, 30))
def test_rows_are_few(lengths: list[int], spare: int) -> None:
    capacity = max(lengths, default=1) + spare
    rows = len(best_fit_decreasing(lengths, capacity))
    least = -(-sum(lengths) // capacity)
    assert rows >= least
    assert rows <= 11 / 9 * max(least, first_fit_decreasing(lengths, capacity)) + 1


@given(st.lists(st.integers(1, 20), max_size=9), st.integers(0, 12))
def test_rows_are_within_eleven_ninths_of_the_fewest(lengths: list[int], spare: int) -> None:
    capacity = max(lengths, default=1) + spare
    rows = len(best_fit_decreasing(lengths, capacity))
    assert rows <= 11 / 9 * fewest(lengths, capacity) + 6 / 9
