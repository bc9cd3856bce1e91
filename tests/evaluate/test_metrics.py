"""Values worked by hand, and SQuAD's measures written a second time, letter by letter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.evaluate.metrics import (
    exact_match,
    normalize_answer,
    quote_precision_recall,
    subspan_exact_match,
    token_f1,
    verbatim_rate,
)
from scratchpad_rag.records import Quote

words = st.text(st.sampled_from("aAnteThE .,'-\"é1ßİ\n\t"), max_size=30)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Cat, the hat & an owl!", "cat hat owl"),
        ("  A\tB\n a ", "b"),
        ("theatre another banana", "theatre another banana"),
        ("a-b the-end", "ab theend"),
        ("U.S.A.", "usa"),
        ("“Röntgen”", "“röntgen”"),
        ("東京の駅", "東京の駅"),
        ("a, an; the.", ""),
        ("", ""),
    ],
)
def test_normalize_by_hand(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


def letterwise_normalize(text: str) -> str:
    """SQuAD's rules without regular expressions: words are runs of letters, digits and '_'."""
    kept = "".join(c for c in text.lower() if c not in r"""!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~""")
    pieces, word = [], ""
    for character in kept + " ":
        if character.isalnum() or character == "_":
            word += character
            continue
        pieces.append(" " if word in ("a", "an", "the") else word)
        pieces.append(character)
        word = ""
    return " ".join("".join(pieces).split())


@given(st.text(st.characters(codec="ascii"), max_size=40) | words.filter(lambda t: "İ" not in t))
def test_normalize_agrees_with_a_second_implementation(text: str) -> None:
    assert normalize_answer(text) == letterwise_normalize(text)


@given(words)
def test_normalizing_leaves_no_article_on_its_own(text: str) -> None:
    assert not {"a", "an", "the"} & set(normalize_answer(text).split(" "))


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("The answer is the Eiffel Tower, Paris.", ["eiffel tower"], 1.0),
        ("Paris", ["Paris, France"], 0.0),
        ("in 1901", ["1900", "1901"], 1.0),
        ("partying", ["art"], 1.0),
        ("anything at all", ["the", "...", ""], 0.0),
        ("", ["x"], 0.0),
        ("x", [], 0.0),
        ("STRASSE straße", ["Straße"], 1.0),
        ("🏛️ Athens 🇬🇷", ["🇬🇷"], 1.0),
        ("הבירה היא ירושלים", ["ירושלים"], 1.0),
    ],
)
def test_subspan(prediction: str, answers: list[str], expected: float) -> None:
    assert subspan_exact_match(prediction, answers) == expected


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("The Beatles", ["beatles!"], 1.0),
        ("Beatles band", ["Beatles"], 0.0),
        ("the", ["a"], 0.0),
        ("", [], 0.0),
    ],
)
def test_exact_match(prediction: str, answers: list[str], expected: float) -> None:
    assert exact_match(prediction, answers) == expected


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("blue whale calf", ["blue whale"], 0.8),  # P 2/3, R 1
        ("blue blue whale", ["blue whale whale"], 2 / 3),  # 2 shared of 3 and 3
        ("whale", ["shark", "blue whale"], 2 / 3),  # the better answer: P 1, R 1/2
        ("the", ["a"], 0.0),
        ("x", [], 0.0),
        ("same words", ["words same"], 1.0),
    ],
)
def test_f1(prediction: str, answers: list[str], expected: float) -> None:
    assert token_f1(prediction, answers) == pytest.approx(expected)


@given(words, words)
def test_f1_agrees_with_precision_and_recall_counted_one_by_one(said: str, answer: str) -> None:
    left, right = normalize_answer(said).split(), normalize_answer(answer).split()
    rest, shared = list(right), 0
    for word in left:
        if word in rest:
            rest.remove(word)
            shared += 1
    expected = 0.0
    if shared:
        precision, recall = shared / len(left), shared / len(right)
        expected = 2 * precision * recall / (precision + recall)
    assert token_f1(said, [answer]) == pytest.approx(expected)


@given(words, st.lists(words, max_size=3))
def test_measures_are_ordered(said: str, answers: list[str]) -> None:
    assert exact_match(said, answers) <= subspan_exact_match(said, answers)
    assert exact_match(said, answers) <= token_f1(said, answers) <= 1.0


@pytest.mark.parametrize(
    ("quoted", "gold", "precision", "recall"),
    [
        ([4], [4], 1.0, 1.0),
        ([4, 4, 4], [4], 1.0, 1.0),
        ([4, None], [4], 0.5, 1.0),
        ([None, None, 4], [4], 1 / 3, 1.0),
        ([1, 2], [2, 3, 5], 0.5, 1 / 3),
        ([], [2], 0.0, 0.0),
        ([None], [2], 0.0, 0.0),
        ([None], [], 0.0, 1.0),
        ([], [], 1.0, 1.0),
        ({0}, (0,), 1.0, 1.0),
    ],
)
def test_quotes(quoted: list[int | None], gold: list[int], precision: float, recall: float) -> None:
    assert quote_precision_recall(quoted, gold) == pytest.approx((precision, recall))


def test_verbatim_rate() -> None:
    def quote(verbatim: bool) -> Quote:
        return Quote("text", "title", 0, 0, 4, verbatim)

    assert verbatim_rate([]) is None
    assert verbatim_rate([quote(True), quote(False), quote(True), quote(True)]) == 0.75
    assert verbatim_rate([quote(False)]) == 0.0
