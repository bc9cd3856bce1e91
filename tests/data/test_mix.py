import random

from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.data.mix import mix, with_splits
from scratchpad_rag.data.normalise import normalise_question
from scratchpad_rag.data.readers import SplitExample
from scratchpad_rag.data.split import split_by_question
from scratchpad_rag.records import Example, Passage

LONG = "which of the two bridges over the river corvin was built first"  # 10 distinct words


def row(identity: str, question: str, split: str | None = None) -> SplitExample:
    example = Example(identity, question, ("a",), (Passage("t", "text"),), (0,))
    return SplitExample(example, split)


def test_ids_are_told_apart_and_splits_are_kept() -> None:
    mixture = mix(
        {
            "one": [row("q1", "who?", "train"), row("q2", "when?", "val")],
            "two": [row("q2", "where?", "train"), row("q3", "why?", "val")],
        },
        0.8,
        0,
    )
    assert mixture.splits == {"q1": "train", "q2@one": "val", "q2@two": "train", "q3": "val"}
    assert [example.id for example in mixture.examples] == list(mixture.splits)
    assert [example.question for example in mixture.examples] == ["who?", "when?", "where?", "why?"]
    assert (mixture.moved, mixture.near) == (0, 0)


def test_what_one_file_validates_on_no_file_trains_on() -> None:
    files = {
        "one": [row("a", "Who wrote Dracula?", "train"), row("b", "who wrote Emma", "val")],
        "two": [row("c", "who wrote  dracula", "val"), row("d", "Who wrote Emma?", "train")],
    }
    mixture = mix(files, 0.8, 0)
    assert mixture.splits == dict.fromkeys("abcd", "val")
    assert mixture.moved == 2
    assert (mixture.near, mixture.near_apart) == (2, 0)


def test_near_questions_of_two_files_are_counted_and_none_trains_beside_validation() -> None:
    files = {
        # 9 of 10 words, each of which occurs in all others too.
        "one": [row("a", LONG, "train"), row("b", LONG.replace("first", ""), "train")],
        "two": [row("c", LONG.upper() + "?", "val"), row("d", "who was first", "val")],
        "three": [row("e", LONG.replace("first", "last"), "train")],  # 9 of 11 words
    }
    mixture = mix(files, 0.8, 0)
    # a and c are one question, so that a goes to validation; b and c, and b and e (9 of 10).
    assert mixture.moved == 1
    assert (mixture.near, mixture.near_apart) == (3, 1)
    assert mixture.splits == {"a": "val", "c": "val", "d": "val", "e": "train"}  # without b
    assert [example.id for example in mixture.examples] == ["a", "c", "d", "e"]


def test_near_questions_on_two_sides_of_one_file_are_left_out_of_training() -> None:
    near = LONG.replace("first", "")
    files = {
        "one": [row("a", LONG, "val"), row("b", near, "train"), row("c", near, "train")],
        "two": [row("d", "who was first", "train")],
    }
    mixture = mix(files, 0.8, 0)
    assert mixture.splits == {"a": "val", "d": "train"}
    assert (mixture.near, mixture.near_apart) == (0, 2)


def test_each_file_gives_so_many_training_questions_at_most() -> None:
    numbers = range(40)
    sides = {number: "val" if number % 4 == 0 else "train" for number in numbers}
    files = {
        "large": [row(f"l{n}", f"large {n}", side) for n, side in sides.items()],
        "small": [row(f"s{n}", f"small {n}", "train") for n in range(5)],
    }
    mixture = mix(files, 0.8, 0, most_training=8)
    kept = [name for name, side in mixture.splits.items() if side == "train"]
    large = [name for name in kept if name.startswith("l")]
    assert (len(large), len(kept), mixture.surplus) == (8, 13, 22)
    assert list(mixture.splits.values()).count("val") == 10
    assert large != [f"l{n}" for n in numbers if n % 4][:8]  # drawn, not the first ones
    again = mix(files, 0.8, 0, most_training=8)
    assert again == mixture
    other = mix(files, 0.8, 1, most_training=8)
    assert other.splits.keys() != mixture.splits.keys()


def test_a_file_without_splits_is_split_as_it_is_when_read_alone() -> None:
    rows = [row(f"q{number}", f"question {number}") for number in range(10)]
    split = split_by_question([item.example for item in rows], 0.7, 3)
    sides = {item.example.id: item.split for item in with_splits(rows, 0.7, 3)}
    assert [name for name, side in sides.items() if side == "train"] == [e.id for e in split.train]
    assert [name for name, side in sides.items() if side == "val"] == [e.id for e in split.val]
    given_ones = [row("a", "?", "val"), row("b", "!", "val")]
    assert with_splits(given_ones, 1.0, 0) == given_ones


WORDS = st.lists(st.sampled_from("bcdefghijklmnopqrst"), min_size=8, max_size=24).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=8), st.integers(0, 2**32))
def test_near_questions_are_those_of_a_comparison_of_all(texts: list[str], seed: int) -> None:
    # Each text is in both files, in the second with two words changed.
    generator = random.Random(seed)
    changed = []
    for text in texts:
        words = text.split()
        for _ in range(2):
            words[generator.randrange(len(words))] = generator.choice("bcdefghijklmnopqrst")
        changed.append(" ".join(words))
    expected = 0
    for one in texts:
        for other in changed:
            mine, theirs = set(one.split()), set(other.split())
            expected += 10 * len(mine & theirs) >= 9 * len(mine | theirs)
    files = {
        "one": [row(f"a{n}", text, "train") for n, text in enumerate(texts)],
        "two": [row(f"b{n}", text, "train") for n, text in enumerate(changed)],
    }
    assert mix(files, 0.8, 0).near == expected


QUESTIONS = st.lists(
    st.tuples(st.sampled_from(["a b", "A b?", "b c", "c d", "e"]), st.booleans()), max_size=6
)


@given(QUESTIONS, QUESTIONS, st.integers(0, 3))
def test_no_question_is_on_both_sides_and_no_id_comes_twice(
    one: list[tuple[str, bool]], two: list[tuple[str, bool]], seed: int
) -> None:
    files = {
        "one": [row(f"q{n}", text, "val" if val else "train") for n, (text, val) in enumerate(one)],
        "two": [row(f"q{n}", text) for n, (text, _) in enumerate(two)],
    }
    mixture = mix(files, 0.5, seed)
    ids = {example.id for example in mixture.examples}
    assert len(ids) == len(mixture.examples) == len(one) + len(two) - mixture.near_apart
    by_side = {
        side: {
            normalise_question(example.question)
            for example in mixture.examples
            if mixture.splits[example.id] == side
        }
        for side in ("train", "val")
    }
    assert not by_side["train"] & by_side["val"]
    single = {normalise_question(text) for text, val in one if val}
    assert single <= by_side["val"]
