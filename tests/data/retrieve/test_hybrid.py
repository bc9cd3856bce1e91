from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.data.retrieve.base import Ranking
from scratchpad_rag.data.retrieve.hybrid import HybridRetriever, fuse
from scratchpad_rag.records import Example


class Fixed:
    """A retriever that always gives the same ranking."""

    def __init__(self, *indices: int) -> None:
        self.indices = list(indices)

    def rank(self, questions: Sequence[Example], depth: int) -> list[Ranking]:
        cut = self.indices[:depth]
        return [Ranking(cut, [0.0] * len(cut)) for _ in questions]


QUESTION = Example("q", "?", ("!",), (), ())


def test_fusion_worked_out_by_hand() -> None:
    fused = fuse([[10, 20, 30], [30, 10, 40]])
    # 10: 1/61 + 1/62, 30: 1/63 + 1/61, 20: 1/62, 40: 1/63.
    assert fused.indices == [10, 30, 20, 40]
    assert fused.scores == [1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 62, 1 / 63]


def test_equal_sums_are_ranked_by_index() -> None:
    assert fuse([[5, 3], [3, 5]]).indices == [3, 5]


def test_passages_in_no_ranking_follow_by_index() -> None:
    retriever = HybridRetriever([Fixed(4, 1), Fixed(1)], size=6)
    (ranking,) = retriever.rank([QUESTION], 6)
    assert ranking.indices == [1, 4, 0, 2, 3, 5]
    assert ranking.scores == [1 / 61 + 1 / 62, 1 / 61, 0, 0, 0, 0]
    (head,) = retriever.rank([QUESTION], 3)
    assert head.indices == [1, 4, 0]


@given(st.permutations(range(7)), st.permutations(range(7)), st.integers(1, 7))
def test_a_shallow_ranking_is_the_head_of_a_deep_one(
    one: list[int], other: list[int], depth: int
) -> None:
    retriever = HybridRetriever([Fixed(*one), Fixed(*other)], size=7)
    (deep,) = retriever.rank([QUESTION], 7)
    (shallow,) = retriever.rank([QUESTION], depth)
    assert sorted(deep.indices) == list(range(7))
    assert shallow.indices == deep.indices[:depth]
