"""Texts that are nearly the same, found in time that grows with their number, not its square.

Two texts are near where their shingles (runs of words) overlap: Jaccard similarity, as Broder
(1997) compares documents. Candidates come from prefix filtering (Bayardo et al. 2007, Wang et al.
2012): with shingles in one order for all texts, rarest first, two sets of which a share `t` agrees
have members in common among the first `n - ceil(t * n) + 1`. Nothing is missed by chance.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]
Keys = npt.NDArray[np.uint64]
_WORD = re.compile(r"\w+")
_CHUNK = 1 << 14  # texts sorted at a time; their number has to fit the 16 bits above the others
_BLOCK = 1 << 20  # words hashed at a time
_COUNTERS = 1 << 24  # at most; shingles are counted by hash, and two of a counter only cost time
_LONG = 20  # texts of so many shingles have to share two rare ones, which few do by chance
# Of texts that share a rare shingle each is compared with so many of those behind it: a phrase
# that a million texts repeat would cost the square of a million.
_CROWD = 256


class Pair(NamedTuple):
    """Texts `first < second` by index, and the share of their shingles that both have (0..1)."""

    first: int
    second: int
    similarity: float


def near_pairs(
    texts: Sequence[str], threshold: float, size: int = 2, sides: Sequence[int] | None = None
) -> list[Pair]:
    """All pairs of texts at least `threshold` (above 0, to 1) alike in their runs of `size` words.

    With `sides`, one a text, only pairs of different sides. Case and marks do not count. Texts of
    fewer words than `size` are in no pair. In crowds of more than 256 texts around one phrase, a
    pair may be missed.

    >>> near_pairs(["who wrote the first book", "Who wrote the first book?", "who?"], 0.8)
    [Pair(first=0, second=1, similarity=1.0)]
    """
    words = _Words(texts)
    shingles = _shingles(words, size)
    rare, sizes = _rarest(shingles, words, size, threshold)
    found = []
    for first, second in _candidates(rare, sizes, threshold, sides):
        similarity = _jaccard(words.shingles(first, size), words.shingles(second, size))
        if similarity >= threshold:
            found.append(Pair(first, second, similarity))
    return found


class _Words:
    """The words of all texts, as numbers in one row; `starts[i]:starts[i + 1]` are text i's."""

    def __init__(self, texts: Iterable[str]) -> None:
        number_of: dict[str, int] = defaultdict(count().__next__)
        row, starts = array("I"), array("Q", [0])
        for text in texts:
            row.extend(map(number_of.__getitem__, _WORD.findall(text.casefold())))
            starts.append(len(row))
        self.row: Words = np.frombuffer(row, dtype=np.uint32) if row else np.zeros(0, np.uint32)
        self.starts = np.frombuffer(starts, dtype=np.uint64).astype(np.int64)
        self._cached: Any = lru_cache(maxsize=4096)(self._shingles)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def shingles(self, index: int, size: int) -> frozenset[tuple[int, ...]]:
        found: frozenset[tuple[int, ...]] = self._cached(index, size)
        return found

    def _shingles(self, index: int, size: int) -> frozenset[tuple[int, ...]]:
        own = self.row[self.starts[index] : self.starts[index + 1]].tolist()
        return frozenset(zip(*(own[begin:] for begin in range(size)), strict=False))


def _jaccard(one: frozenset[Any], other: frozenset[Any]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def _shingles(words: _Words, size: int) -> Words:
    """A hash of the run of `size` words that begins at each word, also where it leaves its text."""
    hashes = np.empty(len(words.row), dtype=np.uint32)
    for at in range(0, len(hashes), _BLOCK):
        behind = words.row[at : at + _BLOCK + size - 1].astype(np.uint64)
        mixed = behind[: min(_BLOCK, len(hashes) - at)]
        for step in range(1, size):
            following = np.zeros_like(mixed)  # the last words of all have none behind them
            part = behind[step : step + len(mixed)]
            following[: len(part)] = part
            mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + following
        mixed = mixed ^ (mixed >> np.uint64(31))
        mixed *= np.uint64(0xBF58476D1CE4E5B9)  # of splitmix64
        hashes[at : at + _BLOCK] = mixed >> np.uint64(32)
    return hashes


def _rarest(
    shingles: Words, words: _Words, size: int, threshold: float
) -> tuple[Keys, npt.NDArray[np.int64]]:
    """The rarest shingles of each text as `shingle << 32 | text`, sorted; its number of all."""
    ends = np.maximum(words.starts[1:] - size + 1, words.starts[:-1])  # of runs within the text
    counts = _count(shingles)
    chunks = [range(at, min(at + _CHUNK, len(words))) for at in range(0, len(words), _CHUNK)]
    sizes = np.zeros(len(words), dtype=np.int64)
    kept: list[Keys] = []
    for chunk in chunks:
        hashes, local = _of_chunk(shingles, words, ends, chunk)
        often = np.minimum(counts[hashes % np.uint32(len(counts))], 0xFFFF).astype(np.uint64)
        packed = (local << np.uint64(48)) | (often << np.uint64(32)) | hashes.astype(np.uint64)
        packed.sort()
        packed = packed[np.append(True, packed[1:] != packed[:-1])] if len(packed) else packed
        owner = (packed >> np.uint64(48)).astype(np.int64)
        number = np.bincount(owner, minlength=len(chunk))
        sizes[chunk.start : chunk.stop] = number
        rank = np.arange(len(packed)) - (np.cumsum(number) - number)[owner]
        wanted = number - np.ceil(threshold * number - 1e-9).astype(np.int64) + 1
        wanted += number >= _LONG
        shared = (packed >> np.uint64(32)) & np.uint64(0xFFFF) > 1
        rare = packed[(rank < wanted[owner]) & shared]
        text = (rare >> np.uint64(48)) + np.uint64(chunk.start)
        kept.append((rare << np.uint64(32)) | text)
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.uint64), sizes


def _count(shingles: Words) -> Words:
    """How often shingles occur, by hash; those that leave their text only make some look common."""
    counters = min(_COUNTERS, 1 << max(10, (4 * len(shingles)).bit_length()))
    counts = np.zeros(counters, dtype=np.uint32)
    for at in range(0, len(shingles), _COUNTERS):
        part = shingles[at : at + _COUNTERS] % np.uint32(counters)
        counts += np.bincount(part, minlength=counters).astype(np.uint32)
    return counts


def _of_chunk(
    shingles: Words, words: _Words, ends: npt.NDArray[np.int64], chunk: range
) -> tuple[Words, Keys]:
    """The shingles within the texts of a chunk, and the number of its text in the chunk."""
    begin, end = words.starts[chunk.start], words.starts[chunk.stop]
    starts = words.starts[chunk.start : chunk.stop]
    lengths = words.starts[chunk.start + 1 : chunk.stop + 1] - starts
    local = np.repeat(np.arange(len(chunk)), lengths)
    inside = np.arange(begin, end) < ends[chunk.start : chunk.stop][local]
    return shingles[begin:end][inside], local[inside].astype(np.uint64)


def _candidates(
    rare: Keys, sizes: npt.NDArray[np.int64], threshold: float, sides: Sequence[int] | None
) -> list[tuple[int, int]]:
    """Pairs that share as many rare shingles as they must, of sizes not too far apart."""
    shingle, text = rare >> np.uint64(32), (rare & np.uint64(0xFFFFFFFF)).astype(np.int64)
    side = None if sides is None else np.asarray(sides)
    found: list[Keys] = []
    at = np.arange(len(rare))
    for step in range(1, _CROWD + 1):
        at = at[at + step < len(rare)]
        at = at[shingle[at] == shingle[at + step]]
        if not len(at):
            break
        one, other = text[at], text[at + step]
        least, most = np.minimum(sizes[one], sizes[other]), np.maximum(sizes[one], sizes[other])
        possible = least >= math.floor(threshold * 1e9) / 1e9 * most - 1e-9
        if side is not None:
            possible &= side[one] != side[other]
        one, other = one[possible], other[possible]
        found.append((one.astype(np.uint64) << np.uint64(32)) | other.astype(np.uint64))
    if not found:
        return []
    pairs, shared = np.unique(np.concatenate(found), return_counts=True)
    first = (pairs >> np.uint64(32)).astype(np.int64)
    second = (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    needed = np.where(np.minimum(sizes[first], sizes[second]) >= _LONG, 2, 1)
    chosen = shared >= needed
    return list(zip(first[chosen].tolist(), second[chosen].tolist(), strict=True))
