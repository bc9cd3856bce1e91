import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import bm25s
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.data.retrieve import PassageRanker, rank_passages
from scratchpad_rag.data.retrieve.bm25 import BM25Retriever
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Passage

# Lucene's English stop words, which bm25s leaves out by default.
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by for if in into is it no not of on or such that the their then"
        " there these they this to was will with",
    )
)


def words(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text.lower()) if word not in STOP_WORDS]


def naive_bm25(question: str, passages: Sequence[Passage]) -> list[float]:
    """Lucene's BM25, straight from the formula (Kamphuis et al. 2020, table 1), k1=1.5, b=0.75."""
    documents = [Counter(words(f"{passage.title} {passage.text}")) for passage in passages]
    mean_length = sum(sum(document.values()) for document in documents) / len(documents)
    scores = []
    for document in documents:
        norm = 1.5 * (1 - 0.75 + 0.75 * sum(document.values()) / mean_length)
        score = 0.0
        for word in words(question):
            holders = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - holders + 0.5) / (holders + 0.5))
            score += idf * document[word] / (document[word] + norm)
        scores.append(score)
    return scores


def passages_of(*texts: str) -> list[Passage]:
    return [Passage(f"t{number}", text) for number, text in enumerate(texts)]


COLOURS_AND_THINGS = ["red", "blue", "green", "x", "the", "of", "tree", "river"]
WORDS = st.lists(st.sampled_from(COLOURS_AND_THINGS), max_size=8)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=8))
def test_ranking_agrees_with_bm25_written_out(
    question_words: list[str], texts: list[list[str]]
) -> None:
    question = " ".join(question_words)
    passages = [Passage("title", " ".join(text)) for text in texts]
    scores = naive_bm25(question, passages)
    ranked = rank_passages(question, passages)
    assert sorted(ranked) == list(range(len(passages)))
    for better, worse in pairwise(ranked):
        assert scores[better] > scores[worse] - 1e-5
        if texts[better] == texts[worse]:
            assert better < worse


def test_ranker_counts_words_over_the_whole_collection() -> None:
    # Among the two shown each word occurs once; in the collection "cat" is in all but one.
    shown = passages_of("cat asleep", "dog asleep")
    collection = [*shown, *(Passage("other", f"cat number{n}") for n in range(8)), shown[0]]
    assert rank_passages("cat dog", shown) == [0, 1]
    assert PassageRanker(collection).rank("cat dog", shown) == [1, 0]
    assert PassageRanker(collection).rank("cat dog", shown[::-1]) == [0, 1]
    with pytest.raises(DataError, match="passage 'new' is not in the collection"):
        PassageRanker(collection).rank("cat", [Passage("new", "cat")])


@pytest.mark.parametrize("question", ["?", "the of", "unheard", "猫", ""])
def test_questions_that_match_nothing_keep_the_order(question: str) -> None:
    passages = passages_of("red tree", "blue river", "green tree")
    assert rank_passages(question, passages) == [0, 1, 2]
    assert rank_passages("tree", []) == []
    assert rank_passages("tree", [Passage("!", "?"), Passage("the", "of")]) == [0, 1]


TEXTS = st.lists(st.text("ab Ä_-'.\u0130\x00\n1the ", max_size=20), min_size=1, max_size=6)


@given(TEXTS, st.text("ab Ä_-'.\u0130\x00\n1the ", max_size=12))
def test_scores_are_those_of_bm25s_to_the_last_bit(texts: list[str], question: str) -> None:
    whole = [f"t{number} {text}" for number, text in enumerate(texts)]
    ours = BM25Retriever(passages_of(*texts)).scores(question)
    tokens = bm25s.tokenize(whole, token_pattern=r"(?u)\b\w+\b", show_progress=False)
    theirs = bm25s.BM25()
    theirs.index(tokens, show_progress=False)
    (asked,) = bm25s.tokenize(
        [question], token_pattern=r"(?u)\b\w+\b", return_ids=False, show_progress=False
    )
    known = [token for token in asked if token in theirs.vocab_dict]
    expected = theirs.get_scores(known) if known else np.zeros(len(texts), dtype=np.float32)
    assert ours.dtype == np.float32
    assert ours.tolist() == expected.tolist()
