import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.data.place import VIEWS, order_support, place, show
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage


def example_of(titles: str, gold: tuple[int, ...]) -> Example:
    passages = tuple(Passage(title, f"text of {title}") for title in titles)
    return Example("q1", "Who?", ("she",), passages, gold)


def titles(example: Example) -> str:
    return "".join(passage.title for passage in example.passages)


ONE_GOLD = example_of("ABGCD", gold=(2,))
TWO_GOLD = example_of("AHBGC", gold=(3, 1))  # G is read before H


@pytest.mark.parametrize(
    ("example", "total_docs", "gold_at", "shown", "gold"),
    [
        (ONE_GOLD, 5, 0, "GABCD", (0,)),
        (ONE_GOLD, 5, 4, "ABCDG", (4,)),
        (ONE_GOLD, 3, 1, "AGB", (1,)),
        (ONE_GOLD, 1, 0, "G", (0,)),
        (ONE_GOLD, None, 3, "ABCGD", (3,)),
        (ONE_GOLD, None, None, "ABGCD", (2,)),
        (ONE_GOLD, 4, None, "ABGC", (2,)),
        (ONE_GOLD, 2, None, "AG", (1,)),
        (ONE_GOLD, 1, None, "G", (0,)),
        (TWO_GOLD, 5, 0, "GHABC", (0, 1)),
        (TWO_GOLD, 5, 3, "ABCGH", (3, 4)),
        (TWO_GOLD, 4, 1, "AGHB", (1, 2)),
        (TWO_GOLD, 2, 0, "GH", (0, 1)),
        (TWO_GOLD, 3, None, "AHG", (2, 1)),
        (example_of("ABC", ()), 2, None, "AB", ()),
    ],
)
def test_place(
    example: Example, total_docs: int | None, gold_at: int | None, shown: str, gold: tuple[int, ...]
) -> None:
    placed = place(example, total_docs, gold_at)
    assert titles(placed) == shown
    assert placed.gold == gold
    assert (placed.id, placed.question, placed.answers) == ("q1", "Who?", ("she",))


@pytest.mark.parametrize(
    ("example", "total_docs", "gold_at", "problem"),
    [
        (ONE_GOLD, 5, 5, r"gold_at 5 is outside 0\.\.4 .*total_docs 5 and 1 gold passage$"),
        (ONE_GOLD, 5, -1, r"gold_at -1 is outside 0\.\.4"),
        (ONE_GOLD, None, 5, r"gold_at 5 is outside 0\.\.4"),
        (TWO_GOLD, 4, 3, r"gold_at 3 is outside 0\.\.2 .*total_docs 4 and 2 gold passages"),
        (ONE_GOLD, 6, 0, "'q1' has 5 passages, fewer than total_docs 6"),
        (ONE_GOLD, 6, None, "'q1' has 5 passages, fewer than total_docs 6"),
        (ONE_GOLD, 0, None, "total_docs 0 is too few"),
        (ONE_GOLD, -1, 0, "total_docs -1 is too few"),
        (TWO_GOLD, 1, 0, "total_docs 1 is too few .* 2 gold passages"),
        (example_of("ABC", ()), 3, 1, "'q1' has no gold passage to put at gold_at 1"),
    ],
)
def test_place_names_the_numbers(
    example: Example, total_docs: int | None, gold_at: int | None, problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        place(example, total_docs, gold_at)


@st.composite
def placements(draw: st.DrawFn) -> tuple[Example, int, int]:
    size = draw(st.integers(1, 12))
    gold = draw(st.lists(st.sampled_from(range(size)), unique=True, min_size=1))
    total = draw(st.integers(len(gold), size))
    gold_at = draw(st.integers(0, total - len(gold)))
    return example_of("ABCDEFGHIJKL"[:size], tuple(gold)), total, gold_at


@given(placements())
def test_placed_gold_stands_where_asked(placement: tuple[Example, int, int]) -> None:
    example, total_docs, gold_at = placement
    placed = place(example, total_docs, gold_at)
    assert len(placed.passages) == total_docs
    assert len(set(placed.passages)) == total_docs
    assert placed.gold[0] == gold_at
    assert placed.gold_passages == example.gold_passages
    gold = set(example.gold_passages)
    ranked = [passage for passage in example.passages if passage not in gold]
    shown = [passage for passage in placed.passages if passage not in gold]
    assert shown == ranked[: total_docs - len(gold)]


@given(placements())
def test_trimmed_passages_keep_their_order(placement: tuple[Example, int, int]) -> None:
    example, total_docs, _ = placement
    placed = place(example, total_docs, None)
    assert len(placed.passages) == total_docs
    assert placed.gold_passages == example.gold_passages
    indices = [example.passages.index(passage) for passage in placed.passages]
    assert indices == sorted(indices)
    gold = set(example.gold)
    spare = [index for index in range(len(example.passages)) if index not in gold]
    assert [index for index in indices if index not in gold] == spare[: total_docs - len(gold)]


@given(placements(), st.data())
def test_moving_gold_moves_nothing_else(
    placement: tuple[Example, int, int], data: st.DataObject
) -> None:
    example, total_docs, gold_at = placement
    other = data.draw(st.integers(0, total_docs - len(example.gold)))
    there_and_back = place(place(example, total_docs, other), total_docs, gold_at)
    assert there_and_back == place(example, total_docs, gold_at)


@pytest.mark.parametrize("side", ["train", "val"])
def test_views(side: str) -> None:
    placed = place(TWO_GOLD, 4, 1)
    assert show(placed, f"{side}_anc") == placed
    positive = show(placed, f"{side}_pos")
    assert (titles(positive), positive.gold) == ("GH", (0, 1))
    negative = show(placed, f"{side}_neg")
    assert (titles(negative), negative.gold) == ("AB", ())
    closed = show(placed, f"{side}_closed_book")
    assert (closed.passages, closed.gold, closed.answers) == ((), (), ("she",))


def test_unknown_view_and_gold_view_without_gold() -> None:
    with pytest.raises(DataError, match=f"unknown split 'val'; choose from {VIEWS[0]}"):
        show(ONE_GOLD, "val")
    with pytest.raises(DataError, match="'q1' has no gold passage to show for split 'val_pos'"):
        show(example_of("AB", ()), "val_pos")


RANKED = Example("q", "Who?", ("she",), tuple(Passage(t, "...") for t in "ABGCHDE"), gold=(4, 2))


def test_orders_of_the_passages() -> None:
    """Gold H, then G, in the order of reasoning; the distractors are A B C D E."""
    assert titles(place(RANKED, 5, 1, "ranked")) == "AHGBC"
    assert titles(place(RANKED, 5, 1, "reversed")) == "CHGBA"
    assert titles(place(RANKED, 5, 1, "given")) == "ABGCH"
    shown = [titles(place(RANKED, 7, 0, "shuffled", seed)) for seed in range(20)]
    assert all(s.startswith("HG") and sorted(s) == list("ABCDEGH") for s in shown)
    assert len(set(shown)) > 5
    assert shown[3] == titles(place(RANKED, 7, 0, "shuffled", 3))


def test_retrieved_inserts_nothing() -> None:
    found = place(RANKED, 3, None, "retrieved")
    assert (titles(found), found.gold) == ("ABG", (2,))
    none = place(RANKED, 2, 1, "retrieved")
    assert (titles(none), none.gold) == ("AB", ())
    assert place(RANKED, 7, None, "retrieved").gold == (4, 2)
    with pytest.raises(DataError, match="'q' has 7 passages; total_docs is 8"):
        place(RANKED, 8, None, "retrieved")


def test_support_in_the_order_of_reasoning_or_of_the_page() -> None:
    assert order_support(RANKED, "given").gold == (4, 2)
    assert order_support(RANKED, "position").gold == (2, 4)
