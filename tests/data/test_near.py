"""Near duplicates against all pairs compared one by one."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchpad_rag.data.near import Pair, near_pairs


def by_hand(texts: list[str], threshold: float, size: int) -> dict[tuple[int, int], float]:
    """Every pair compared: the definition, without an index."""
    runs = []
    for text in texts:
        words = re.findall(r"\w+", text.casefold())
        runs.append({tuple(words[i : i + size]) for i in range(len(words) - size + 1)})
    found = {}
    for (i, one), (j, other) in itertools.combinations(enumerate(runs), 2):
        if one and other and len(one & other) / len(one | other) >= threshold:
            found[i, j] = len(one & other) / len(one | other)
    return found


# Few words make many overlaps, long texts reach the stricter sharing of two rare runs.
WORDS = st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h", "Ä", "ß", "ten"])
TEXTS = st.lists(st.lists(WORDS, max_size=40).map(" ".join), max_size=14)


@settings(deadline=None)
@given(TEXTS, st.sampled_from([0.3, 0.5, 0.8, 1.0]), st.sampled_from([1, 2, 3]))
def test_finds_what_comparing_all_pairs_finds(
    texts: list[str], threshold: float, size: int
) -> None:
    found = {(p.first, p.second): p.similarity for p in near_pairs(texts, threshold, size)}
    assert found == by_hand(texts, threshold, size)


@settings(deadline=None)
@given(st.lists(WORDS, min_size=30, max_size=60), st.data())
def test_long_texts_with_a_few_words_changed(words: list[str], data: st.DataObject) -> None:
    words = [f"{word}{place}" for place, word in enumerate(words)]
    texts = [" ".join(words)]
    for _ in range(4):
        changed = list(words)
        for place in data.draw(st.lists(st.integers(0, len(words) - 1), max_size=8)):
            changed[place] = "other"
        texts.append(" ".join(changed))
    for threshold in (0.6, 0.8, 0.9):
        found = {(p.first, p.second) for p in near_pairs(texts, threshold)}
        assert found == set(by_hand(texts, threshold, 2))


def test_similarity_is_shared_runs_over_all_runs() -> None:
    # Pairs of words: {ab, bc, cd} and {ab, bc, ce}: 2 shared of 4.
    (pair,) = near_pairs(["A b, c d!", "a b c e"], 0.5)
    assert pair == Pair(0, 1, 0.5)
    assert near_pairs(["A b, c d!", "a b c e"], 0.51) == []


def test_only_pairs_of_different_sides_are_asked_for() -> None:
    texts = ["who wrote it"] * 3
    assert [p[:2] for p in near_pairs(texts, 0.8, 1, sides=[0, 0, 1])] == [(0, 2), (1, 2)]


def test_a_crowd_around_one_phrase_does_not_take_the_square_of_its_size() -> None:
    # All pairs of 6,000 texts are 18 million, and each half of them alone is 4.5 million.
    texts = [f"all rights are reserved by the owner of this page {n % 2}" for n in range(6000)]
    pairs = near_pairs(texts, 0.8, 1)
    assert 0 < len(pairs) < 3_000_000


@pytest.mark.parametrize("texts", [[], [""], ["", "", "!"], ["one", "one"]])
def test_texts_without_a_run_are_in_no_pair(texts: list[str]) -> None:
    assert near_pairs(texts, 0.8, 2) == []
