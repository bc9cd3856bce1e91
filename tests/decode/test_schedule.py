"""The order of prompts that computes each of their prefixes once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchpad_rag.decode.schedule import shared_prefix, trie_order

# The same examples on every run, however busy the machine.
steady = settings(deadline=None, derandomize=True)

Prompt = list[int]
# Few different tokens, so that prompts begin alike, are equal, or are the beginning of another.
prompts = st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=8)


def count_alike(one: Prompt, other: Prompt) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return length


# --- by hand


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([], [], 0),
        ([], [1], 0),
        ([1], [2], 0),
        ([1, 2, 3], [1, 2, 3], 3),
        ([1, 2], [1, 2, 3], 2),
        ([1, 2, 3], [1, 3, 3], 1),
        ([7, 2, 3], [1, 2, 3], 0),
    ],
)
def test_shared_prefixes(one: Prompt, other: Prompt, expected: int) -> None:
    assert shared_prefix(one, other) == shared_prefix(other, one) == expected
    assert shared_prefix(tuple(one), other) == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], []),
        ([""], [0]),
        (["abc"], [0]),
        # Nothing is shared: the order given.
        (["c", "b", "a"], [0, 1, 2]),
        (["same", "same", "same"], [0, 1, 2]),
        # The branch of the first prompt comes first, and so within it.
        (["xb", "a", "xa", "xb", "a"], [0, 3, 2, 1, 4]),
        (["z", "abz", "y", "abc", "acd", "ab"], [0, 1, 3, 5, 4, 2]),
        # A prompt that another one begins with takes its turn among the branches.
        (["abc", "ab", "abd"], [0, 1, 2]),
        (["", "a", "", "ab"], [0, 1, 3, 2]),
        # Two levels: `pq` by its first prompt (0), `pr` by 1, and `p` alone behind both.
        (["pqx", "prx", "pqy", "s", "pry", "p"], [0, 2, 1, 4, 5, 3]),
    ],
)
def test_branches_come_in_the_order_of_their_first_prompt(
    texts: list[str], expected: list[int]
) -> None:
    assert trie_order([[ord(letter) for letter in text] for text in texts]) == expected


def test_two_readers_of_the_same_contexts() -> None:
    """Questions 0 and 2 over one context, 1 and 3 over another: each context is read once."""
    one, other = list(range(100)), [0, 1, *range(200, 300)]
    assert trie_order([[*one, 7], [*other, 7], [*one, 8], [*other, 8]]) == [0, 2, 1, 3]


# --- any prompts


@steady
@given(one=st.lists(st.integers(0, 2)), other=st.lists(st.integers(0, 2)))
def test_shared_prefix_counts(one: Prompt, other: Prompt) -> None:
    assert shared_prefix(one, other) == count_alike(one, other)


@steady
@given(some=prompts)
def test_each_prompt_comes_once(some: list[Prompt]) -> None:
    assert sorted(trie_order(some)) == list(range(len(some)))


@steady
@given(some=prompts)
def test_each_node_of_the_trie_is_computed_once(some: list[Prompt]) -> None:
    ordered = [some[number] for number in trie_order(some)]
    shared = sum(count_alike(one, other) for one, other in pairwise(ordered))
    nodes = {tuple(prompt[: end + 1]) for prompt in some for end in range(len(prompt))}
    assert sum(map(len, some)) - shared == len(nodes)


@steady
@given(some=prompts)
def test_no_prompt_shares_more_with_an_earlier_one_than_with_the_last(some: list[Prompt]) -> None:
    ordered = [some[number] for number in trie_order(some)]
    for place in range(1, len(ordered)):
        best = max(count_alike(ordered[place], before) for before in ordered[:place])
        assert count_alike(ordered[place], ordered[place - 1]) == best


@steady
@given(some=prompts)
def test_the_first_prompts_of_branches_are_in_order(some: list[Prompt]) -> None:
    """At every node: whoever comes first in a branch, branches come by the lowest number."""
    walk = trie_order(some)
    nodes = {tuple(prompt[:end]) for prompt in some for end in range(len(prompt) + 1)}
    for node in nodes:
        depth = len(node)
        under = [number for number in walk if tuple(some[number][:depth]) == node]
        branches: dict[object, list[int]] = {}
        for number in under:
            # A prompt that ends at the node is a branch of its own.
            ends = len(some[number]) == depth
            branches.setdefault(("end", number) if ends else some[number][depth], []).append(number)
        lowest = [min(branch) for branch in branches.values()]
        assert lowest == sorted(lowest)
