from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchpad_rag.data.retrieve import MiningRules, mine, mine_distractors
from scratchpad_rag.data.retrieve.bm25 import BM25Retriever
from scratchpad_rag.data.retrieve.mine import with_distractors
from scratchpad_rag.data.retrieve.near import Pool
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage

WORDS = st.lists(
    st.sampled_from(["red", "blue", "green", "x", "the", "of", "tree", "river"]), max_size=8
)


def passages_of(*texts: str) -> list[Passage]:
    return [Passage(f"t{number}", text) for number, text in enumerate(texts)]


def asked(
    question: str, answers: Sequence[str] = ("nobody",), gold: Sequence[Passage] = ()
) -> Example:
    return Example("q", question, tuple(answers), tuple(gold), tuple(range(len(gold))))


def test_distractors_are_ranked_and_gold_is_left_out() -> None:
    pool = passages_of(
        "red tree", "blue tree river lake", "green", "blue tree", "the blue Tree!", "blue tree hill"
    )
    question = asked("blue tree", gold=[pool[3]])
    # 3 is the gold passage and 4 its equal but for article, case and mark; 5 and 1 hold both words
    # (5 is shorter), but 2 of the gold passage's 2 words are in either: nearly equal.
    assert mine_distractors([question], pool, 2) == [[0, 2]]
    other = asked("blue tree", gold=[Passage("G", "an ocean of other words")])
    assert mine_distractors([other], pool, 4) == [[3, 5, 1, 0]]


def test_a_text_is_taken_once() -> None:
    pool = [Passage("A", "blue tree"), Passage("B", "blue tree"), Passage("C", "blue river")]
    assert mine_distractors([asked("blue tree")], pool, 2) == [[0, 2]]


@pytest.mark.parametrize(
    ("shared", "left_out"),
    [(8, True), (7, False)],
)
def test_nearly_equal_means_four_fifths_of_the_shorter_text(shared: int, left_out: bool) -> None:
    gold = Passage("G", " ".join(f"w{n}" for n in range(30)))
    text = " ".join([f"w{n}" for n in range(shared)] + [f"x{n}" for n in range(10 - shared)])
    mined = mine_distractors([asked("w0", gold=[gold])], [gold, Passage("N", text)], 1)
    assert mined == [[] if left_out else [1]]


@pytest.mark.parametrize(
    ("answer", "text", "holds"),
    [
        ("Bram Stoker", "a novel by bram stoker, 1897", True),
        ("Stoker", "Stoker's novel", True),
        ("Stoker", "Stoker’s novel", True),
        ("Stoker", "the Stokers of Clontarf", False),
        ("art", "a party of three", False),
        ("The Hague", "in Hague", True),
        ("U.S.", "made in the US", True),
        ("U.S.", "made in the U. S.", True),
        ("x-ray", "an X ray", True),
        ("1999-2000", "from 1999–2000", True),
        ("yes", "yes, there was", False),
        ("no", "no one knows", False),
        ("the", "the tree", False),
        ("דרקולה", "הספר דרקולה, 1897", True),
    ],
)
def test_passages_that_hold_an_answer(answer: str, text: str, holds: bool) -> None:
    mined = mine_distractors([asked("tree", [answer])], [Passage("T", text)], 1)
    assert mined == [[] if holds else [0]]


def test_an_answer_in_the_title_counts() -> None:
    pool = [Passage("Bram Stoker", "tree"), Passage("Le Fanu", "tree tree")]
    assert mine_distractors([asked("tree", ["Stoker", "?"])], pool, 2) == [[1]]


def test_mining_goes_deeper_where_too_few_remain() -> None:
    pool = passages_of(*["blue answer"] * 30, *(f"blue river{n} lake" for n in range(30)))
    question = asked("blue", ["answer"])
    for depth in (1, 7, 100):
        assert mine_distractors([question], pool, 5, depth=depth) == [[30, 31, 32, 33, 34]]
    [everything] = mine_distractors([question], pool, 50)
    assert everything == list(range(30, 60))


def test_equal_scores_at_the_edge_are_taken_by_index() -> None:
    pool = passages_of(*(f"blue river{n}" for n in range(50)))
    for depth in (1, 3, 10, 60):
        assert mine_distractors([asked("blue")], pool, 3, depth=depth) == [[0, 1, 2]]


@settings(max_examples=50)
@given(st.lists(WORDS, min_size=1, max_size=12), WORDS, st.integers(1, 6), st.integers(1, 5))
def test_mined_passages_hold_no_answer_and_do_not_depend_on_depth(
    texts: list[list[str]], question_words: list[str], wanted: int, depth: int
) -> None:
    pool = [Passage(f"t{number}", " ".join(text) or "nil") for number, text in enumerate(texts)]
    question = asked(" ".join(question_words) or "?", ["river"], gold=pool[:1])
    [mined] = mine_distractors([question], pool, wanted, depth=depth)
    [whole] = mine_distractors([question], pool, wanted, depth=len(pool))
    assert mined == whole
    assert 0 not in mined
    assert len(set(mined)) == len(mined) <= wanted
    assert not any("river" in pool[index].text.split() for index in mined)


def keeping(question: Example, pool: list[Passage], rules: MiningRules) -> list[str]:
    """Titles of the example that is built."""
    (chosen,) = mine([question], Pool(pool), BM25Retriever(pool), rules)
    built = with_distractors(question, [pool[index] for index in chosen], rules)
    assert built.gold == tuple(range(len(question.gold)))
    return [passage.title for passage in built.passages]


def multi_hop() -> tuple[Example, list[Passage]]:
    own = [
        Passage("own A", "a river far from here"),
        Passage("gold 2", "the lake lies by the town"),
        Passage("own B", "blue tree at the old mill"),
        Passage("gold 1", "a tree grows in the town"),
    ]
    question = Example("q", "blue tree town", ("nobody",), tuple(own), (3, 1))
    pool = [
        *own,
        Passage("mined 2", "a blue door and many windows"),
        Passage("copy of own B", "Blue tree at an old mill!"),
        Passage("mined 1", "blue tree and a bird"),
        Passage("mined 3", "a hall with its very long list of rooms"),
    ]
    return question, pool


def test_own_distractors_stand_before_mined_ones() -> None:
    question, pool = multi_hop()
    rules = MiningRules(num_distractors=4, keep_distractors=True)
    # Gold in the order of the reasoning, own in that of the file, mined by rank: own B and its
    # copy would rank first.
    expected = ["gold 1", "gold 2", "own A", "own B", "mined 1", "mined 2"]
    assert keeping(question, pool, rules) == expected
    # Without them, own B may be mined like any other passage of the pool, but once.
    rules = MiningRules(num_distractors=2)
    assert keeping(question, pool, rules) == ["gold 1", "gold 2", "mined 1", "own B"]


@pytest.mark.parametrize(("total", "mined"), [(5, 1), (4, 0), (2, 0)])
def test_total_passages_count_gold_and_own(total: int, mined: int) -> None:
    question, pool = multi_hop()
    rules = MiningRules(total_passages=total, keep_distractors=True)
    titles = keeping(question, pool, rules)  # own ones are never thrown away
    assert titles == ["gold 1", "gold 2", "own A", "own B", "mined 1"][: 4 + mined]


def test_passages_that_hold_the_answer_too_are_no_distractors() -> None:
    question, pool = multi_hop()
    question = Example("q", "blue tree town", ("nobody",), question.passages, (3, 1), None, (2,))
    rules = MiningRules(num_distractors=2, keep_distractors=True)
    assert keeping(question, pool, rules) == ["gold 1", "gold 2", "own A", "mined 1"]


def test_the_threshold_of_near_equality_is_a_rule() -> None:
    gold = Passage("G", "one two three four five")
    near = Passage("N", "one two three six seven")  # 3 of 5 words
    for threshold, left_out in ((0.6, True), (0.61, False)):
        rules = MiningRules(1, near_duplicate=threshold)
        (mined,) = mine([asked("one", gold=[gold])], Pool([near]), BM25Retriever([near]), rules)
        assert mined == ([] if left_out else [0])


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, float("nan")])
def test_thresholds_outside_their_range_are_refused(threshold: float) -> None:
    with pytest.raises(DataError, match=r"near_duplicate .* is outside 0\.\.1"):
        MiningRules(near_duplicate=threshold)


@settings(max_examples=50)
@given(
    st.lists(WORDS, min_size=1, max_size=10),
    st.lists(WORDS, min_size=1, max_size=5),
)
def test_a_question_is_mined_alike_alone_and_among_others(
    texts: list[list[str]], asked_words: list[list[str]]
) -> None:
    pool = [Passage(f"t{number}", " ".join(text) or "nil") for number, text in enumerate(texts)]
    questions = [asked(" ".join(words) or "?", ["river"]) for words in asked_words]
    together = mine_distractors(questions, pool, 3, depth=2)
    assert together == [mine_distractors([one], pool, 3, depth=2)[0] for one in questions]
    assert mine_distractors(questions[::-1], pool, 3, depth=2) == together[::-1]
