from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.data.retrieve.drawn import RandomRetriever
from scratchpad_rag.records import Example, Passage


def ask(identity: str) -> Example:
    return Example(identity, "who?", ("she",), (), ())


def pool(size: int) -> list[Passage]:
    return [Passage(str(number), "text") for number in range(size)]


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 3))
def test_a_shallow_draw_is_the_head_of_a_whole_permutation(
    size: int, depth: int, seed: int
) -> None:
    retriever = RandomRetriever(pool(size), seed)
    (whole,) = retriever.rank([ask("q")], size)
    (some,) = retriever.rank([ask("q")], depth)
    assert sorted(whole.indices) == list(range(size))
    assert some.indices == whole.indices[:depth]
    assert len(some.scores) == len(some.indices)


@given(st.permutations(["a", "b", "c", "d"]), st.integers(1, 4))
def test_a_question_draws_the_same_in_any_company(order: list[str], kept: int) -> None:
    retriever = RandomRetriever(pool(20), seed=1)
    alone = {name: retriever.rank([ask(name)], 5)[0] for name in "abcd"}
    together = retriever.rank([ask(name) for name in order[:kept]], 5)
    assert together == [alone[name] for name in order[:kept]]


def test_questions_and_seeds_have_draws_of_their_own() -> None:
    drawn = [
        tuple(RandomRetriever(pool(50), seed).rank([ask(name)], 50)[0].indices)
        for seed in (0, 1)
        for name in "ab"
    ]
    assert len(set(drawn)) == 4


def test_every_passage_is_as_likely_to_be_first() -> None:
    retriever = RandomRetriever(pool(5), 0)
    first = Counter(r.indices[0] for r in retriever.rank([ask(str(n)) for n in range(5000)], 1))
    # 1,000 each with a standard deviation of 28; six of them are 170.
    assert all(830 < first[number] < 1170 for number in range(5))
