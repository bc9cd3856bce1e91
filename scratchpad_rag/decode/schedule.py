"""In which order prompts share most of what is computed for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

IdArray = NDArray[np.signedinteger[Any]]


def shared_prefix(one: Sequence[int] | IdArray, other: Sequence[int] | IdArray) -> int:
    """The number of tokens that two sequences begin with alike.

    >>> shared_prefix([1, 2, 3, 4], [1, 2, 5])
    2
    """
    length = min(len(one), len(other))
    differs = np.not_equal(one[:length], other[:length])
    return int(differs.argmax()) if length and differs.any() else length


def trie_order(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Prompt numbers in the order of a walk through the trie of their tokens.

    In this order every prompt shares with the one before it as much as with any before that.
    Branches are taken in the order of their first prompt, so that results come early in order.

    >>> trie_order([[1, 2, 3], [7, 7], [1, 2, 4], [1, 5]])
    [0, 2, 3, 1]
    """
    ordered = sorted(range(len(prompts)), key=lambda number: (list(prompts[number]), number))
    shared = [shared_prefix(prompts[a], prompts[b]) for a, b in pairwise(ordered)]
    walk: list[int] = []
    # Pieces of `ordered` still to be walked, the next one last.
    pieces = [(0, len(ordered))] if ordered else []
    while pieces:
        begin, end = pieces.pop()
        if end - begin == 1:
            walk.append(ordered[begin])
            continue
        depth = min(shared[begin : end - 1])
        cuts = [i + 1 for i in range(begin, end - 1) if shared[i] == depth]
        branches = list(zip([begin, *cuts], [*cuts, end], strict=True))
        branches.sort(key=lambda branch: min(ordered[branch[0] : branch[1]]), reverse=True)
        pieces.extend(branches)
    return walk
