import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchpad_rag.data.readers import read_examples, read_with_splits, write_examples
from scratchpad_rag.data.retrieve import (
    PassageRanker,
    build_examples,
    mine_distractors,
    rank_passages,
)
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage

SHARED = Path(__file__).parents[3] / "shared" / "data"
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


def asked(
    question: str, answers: Sequence[str] = ("nobody",), gold: Sequence[Passage] = ()
) -> Example:
    return Example("q", question, tuple(answers), tuple(gold), tuple(range(len(gold))))


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


def test_build_examples(tmp_path: Path) -> None:
    gold = [Passage("Dracula", "a novel by Stoker"), Passage("Emma", "a novel by Austen")]
    old = Passage("old", "a distractor of the questions' own")
    questions = [
        Example("q1", "who wrote Dracula", ("Stoker",), (old, gold[0]), (1,)),
        Example("q2", "who wrote Emma", ("Austen",), (gold[1],), (0,)),
    ]
    pool = [
        *gold,
        Passage("Carmilla", "a novella, older than Dracula"),
        Passage("Clueless", "a film after Emma"),
        Passage("Bram", "Stoker wrote Dracula"),
    ]
    write_examples(questions, tmp_path / "q.jsonl", {"q1": "train", "q2": "val"})
    lines = [json.dumps({"title": p.title, "text": p.text}) + "\n" for p in pool]
    (tmp_path / "p.jsonl").write_text("".join(lines))
    out = tmp_path / "new" / "built.jsonl.gz"
    report = build_examples(tmp_path / "q.jsonl", tmp_path / "p.jsonl", out, num_distractors=3)
    # q1 may take Carmilla, Emma and Clueless, of which only Carmilla matches; q2 all but Emma.
    assert (report.questions, report.pool_passages, report.short) == (2, 5, 0)
    first, second = read_with_splits(out)
    assert [p.title for p in first.example.passages] == ["Dracula", "Carmilla", "Emma", "Clueless"]
    assert (first.example.gold, first.split) == ((0,), "train")
    # "wrote" is in one passage of the pool, "Emma" in two, "who" in none.
    titles = [passage.title for passage in second.example.passages]
    assert titles == ["Emma", "Bram", "Clueless", "Dracula"]
    assert second.split == "val"
    deeper = build_examples(tmp_path / "q.jsonl", tmp_path / "p.jsonl", out, num_distractors=4)
    assert deeper.short == 1


def test_build_refuses_before_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    with pytest.raises(DataError, match="num_distractors must be 1 or more, not 0"):
        build_examples(path, path, tmp_path / "out.jsonl", num_distractors=0)
    with pytest.raises(DataError, match="cannot be the file to write"):
        build_examples(path, tmp_path / "p.jsonl", path)
    with pytest.raises(DataError, match="cannot be the file to write"):
        build_examples(path, path, tmp_path)


@pytest.mark.real_data
def test_build_from_nq_and_wikipedia(tmp_path: Path) -> None:
    questions = SHARED / "nq" / "nq-open-oracle.jsonl.gz"
    passages = SHARED / "passages" / "wikipedia_passages.jsonl.gz"
    if not (questions.exists() and passages.exists()):
        pytest.skip(f"{SHARED} is not there")
    report = build_examples(questions, passages, tmp_path / "nq.jsonl.gz")
    assert (report.questions, report.pool_passages, report.short) == (2144, 58566, 0)
    examples = read_examples(report.path)
    assert all(len(example.passages) == 20 and example.gold == (0,) for example in examples)
    for example in examples[:200]:
        gold, *distractors = example.passages
        assert gold not in distractors
        for answer in example.answers:
            pattern = re.compile(rf"(?<!\w){re.escape(answer.lower())}(?!\w)")
            assert not any(pattern.search(passage.text.lower()) for passage in distractors)
    ranker = PassageRanker(passage for example in examples for passage in example.passages)
    first = sum(ranker.rank(e.question, e.passages)[0] == 0 for e in examples)
    assert 0.55 < first / len(examples) < 0.65  # 0.611 when it was measured
