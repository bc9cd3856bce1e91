"""Which scores belong together, and comparisons worked out by hand."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from scratchpad_rag.evaluate.cells import (
    Cell,
    by_cell,
    cell_of,
    cells_of,
    compare_grid,
    compare_pooled,
)
from scratchpad_rag.evaluate.significance import detectable_difference, holm
from scratchpad_rag.records import Score
from tests.evaluate.test_statistics import a_score

PAIRS = [("scratchpad", "sft"), ("scratchpad", "closed_book")]


def grid() -> list[Score]:
    """Ten questions at two positions: scratchpad 9 and 8 right, SFT 3 and 4, closed-book 1."""
    scores = []
    for number in range(10):
        question = f"q{number}"
        scores += [
            a_score("scratchpad", question, 0, float(number < 9)),
            a_score("scratchpad", question, 4, float(number < 8)),
            a_score("sft", question, 0, float(number < 3)),
            a_score("sft", question, 4, float(number < 4)),
            a_score("closed_book", question, None, float(number == 9), documents=0),
        ]
    return scores


def test_cells_of_scores() -> None:
    placed = a_score("sft", "q1", 4)
    assert cell_of(placed) == Cell("", "ranked", 5, "inserted", 4)
    assert cell_of(a_score("sft", "q1", None)) == Cell("", "ranked", 5, "none", None)
    assert cell_of(replace(placed, passage_order="retrieved")) == Cell(
        "", "retrieved", 5, "retrieved"
    )
    assert cell_of(replace(placed, passage_order="given")) == Cell("", "given", 5, "inserted")
    # Of three gold passages that end a context the first does not stand at its end.
    assert cell_of(replace(placed, gold_positions=(2, 3, 4), place=4)) == cell_of(placed)
    assert cell_of(a_score("closed_book", "q1", None, documents=0)) is None
    assert cell_of(a_score("gold_only", "q1", 0, documents=1)) is None
    assert cell_of(a_score("sft", "q1", 0, documents=1)) == Cell("", "ranked", 1, "inserted", 0)


def test_cells_sort_by_numbers_and_need_no_position() -> None:
    cells = [
        Cell("nq", "ranked", 5, "inserted", 0),
        Cell("nq", "ranked", 20, "inserted", 4),
        Cell("nq", "ranked", 20, "inserted", 19),
        Cell("nq", "ranked", 20, "none"),
        Cell("nq", "retrieved", 5, "retrieved"),
        Cell("squad", "given", 5, "inserted"),
    ]
    mixed = cells.copy()
    random.Random(0).shuffle(mixed)
    assert sorted(mixed) == cells
    assert len({*cells, *mixed}) == len(cells)


def test_context_free_scores_stand_in_every_cell_of_their_questions() -> None:
    scores = [*grid(), replace(a_score("sft", "q0", 9), dataset="squad")]
    cells = by_cell(scores, "closed_book")
    assert [(cell.dataset, cell.position, len(found)) for cell, found in cells.items()] == [
        ("", 0, 10),
        ("", 4, 10),
    ]
    assert {score.method for found in cells.values() for score in found.values()} == {"closed_book"}
    assert list(by_cell(scores, "sft")) == [*cells, Cell("squad", "ranked", 5, "inserted", 9)]
    assert by_cell(scores, "absent") == {}


def placed(question: str, first: int, hops: int) -> Score:
    gold = tuple(range(first, first + hops))
    return replace(a_score("sft", question, 0, documents=20), gold_positions=gold)


def test_more_gold_passages_share_the_places_of_the_rest() -> None:
    scores = [
        *(placed(question, at, 2) for question in ("q1", "q2") for at in (0, 9, 18)),
        *(placed("q3", at, 4) for at in (16, 8, 0)),
    ]
    places = [cell and cell.position for cell in cells_of(scores)]
    assert places == [0, 9, 18] * 2 + [18, 9, 0]
    assert [len(found) for found in by_cell(scores, "sft").values()] == [3, 3, 3]
    killed = scores[:-1]  # q3 lacks its first place, so nobody knows which the others are
    assert [cell and cell.position for cell in cells_of(killed)][6:] == [16, 8]


def test_questions_that_take_turns_at_the_positions_are_one_cell() -> None:
    turns = [placed(f"q{number}", number, 1) for number in range(20)]
    assert list(by_cell(turns, "sft")) == [Cell("", "ranked", 20, "inserted", None)]
    (cell,) = by_cell([placed("q1", 7, 1), placed("q2", 7, 1)], "sft")
    assert cell.position == 7
    last = [placed("q1", 18, 2), placed("q2", 17, 3), placed("q3", 18, 2)]
    assert [cell.position for cell in by_cell(last, "sft")] == [18]


def test_grid_by_hand() -> None:
    found = compare_grid(grid(), PAIRS, resamples=500)
    assert [(c.cell and c.cell.position, c.baseline) for c in found] == [
        (0, "sft"), (0, "closed_book"), (4, "sft"), (4, "closed_book")
    ]  # fmt: skip
    first, second, third, fourth = found
    # 6 wins of 6; 9 wins and 1 loss; 4 wins of 4; 8 wins and 1 loss.
    p_values = [2 / 2**6, 2 * 11 / 2**10, 2 / 2**4, 2 * 10 / 2**9]
    assert [c.difference.p_value for c in found] == pytest.approx(p_values)
    assert [c.mcnemar_p for c in found] == pytest.approx(p_values)
    # Sorted: 22/1024, 32/1024, 40/1024, 128/1024, times 4, 3, 2 and 1; none below one before it.
    assert [c.adjusted_p for c in found] == pytest.approx(
        [96 / 1024, 88 / 1024, 128 / 1024, 96 / 1024]
    )
    assert first.difference.interval.estimate == pytest.approx(0.6)
    assert first.detectable == detectable_difference(10, 6)
    assert (first.method, first.dataset, first.questions) == ("scratchpad", "", 10)
    assert second.bootstrap_p < 0.05
    assert third.difference.interval.n == fourth.difference.interval.n == 10


def test_pooled_by_hand() -> None:
    sft, closed_book = compare_pooled(grid(), PAIRS, resamples=4000)
    assert (sft.cell, sft.mcnemar_p, sft.questions, sft.difference.interval.n) == (
        None,
        None,
        10,
        20,
    )
    assert sft.difference.interval.estimate == pytest.approx(0.5)
    assert closed_book.difference.interval.estimate == pytest.approx(0.75)
    # SFT: q3 gains at position 0 only, q4 to q7 at both, q8 at position 0.
    means = [0, 0, 0, 0.5, 1, 1, 1, 1, 0.5, 0]
    deviation = math.sqrt(sum((m - 0.5) ** 2 for m in means) / 9)
    assert sft.detectable == pytest.approx((1.959964 + 0.841621) * deviation / math.sqrt(10))
    # All six questions that differ differ in one direction: 2 of 2^6 exchanges.
    assert sft.difference.p_value == pytest.approx(2 / 2**6, abs=0.01)
    p_values = [sft.difference.p_value, closed_book.difference.p_value]
    assert (sft.adjusted_p, closed_book.adjusted_p) == holm(p_values)


def test_cells_without_gold_are_compared_only_if_asked_for() -> None:
    scores = [a_score(m, f"q{i}", None, r) for i in range(3) for m, r in (("a", 1.0), ("b", 0.0))]
    assert compare_grid(scores, [("a", "b")], resamples=10) == []
    (found,) = compare_grid(scores, [("a", "b")], gold=("none",), resamples=10)
    assert found.difference.wins == 3
    assert compare_grid(scores, [("a", "absent")], resamples=10) == []


def test_order_of_the_scores_makes_no_difference() -> None:
    scores = grid()
    mixed = scores.copy()
    random.Random(1).shuffle(mixed)
    assert compare_grid(mixed, PAIRS, resamples=50) == compare_grid(scores, PAIRS, resamples=50)
    assert compare_pooled(mixed, PAIRS, resamples=50) == compare_pooled(scores, PAIRS, resamples=50)
