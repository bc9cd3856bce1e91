"""Which questions are asked in which cells, and what every method is shown there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchpad_rag.app.grid_cells import (
    GridTrials,
    ask,
    placed,
    position,
    wrong_passages,
)
from scratchpad_rag.app.grid_config import METHODS, Grid, GridData
from scratchpad_rag.config import DataConfig, GenerateConfig, ModelConfig
from scratchpad_rag.data.readers import write_examples
from scratchpad_rag.data.select import select_samples
from scratchpad_rag.errors import DataError
from scratchpad_rag.evaluate.run import Trial
from scratchpad_rag.records import EvalSplit, Example, Passage

PLAIN = GridData(
    "examples", DataConfig(name="examples"), (3, 5), ("first", "last"), ("ranked",), True, None
)


def question(number: int, gold: int = 1, others: int = 6, at: int | None = None) -> Example:
    """Gold passages G0, G1, ... before (or from `at` on among) the ranked A, B, C, ..."""
    golds = tuple(Passage(f"G{i}", f"Bridge {number} stands here: {i}.") for i in range(gold))
    rest = tuple(Passage("ABCDEFGHIJ"[i], f"Town {number}, {i} miles.") for i in range(others))
    at = 0 if at is None else at
    passages = rest[:at] + golds + rest[at:]
    return Example(
        f"q{number:02}",
        f"where is bridge {number}",
        ("here",),
        passages,
        tuple(range(at, at + gold)),
    )


def data(tmp_path: Path, examples: list[Example], **changes: Any) -> GridData:
    """All of them to validate on."""
    path = tmp_path / "examples.jsonl"
    write_examples(examples, path, {example.id: "val" for example in examples})
    return replace(PLAIN, data=DataConfig(name="examples", path=str(path)), **changes)


def titles(example: Example) -> str:
    return "".join(passage.title for passage in example.passages)


def grid(*methods: str, datasets: dict[str, GridData] | None = None) -> Grid:
    return Grid(
        "tiny", ModelConfig(), datasets or {}, methods, {}, None, 60, 8, GenerateConfig(), seed=0
    )


@pytest.mark.parametrize(
    ("at", "documents", "gold", "expected"),
    [
        ("first", 20, 1, 0),
        ("middle", 20, 1, 9),  # Lost in the Middle's 0, 4, 9, 14, 19
        ("last", 20, 1, 19),
        ("middle", 10, 1, 4),
        ("middle", 5, 1, 2),
        ("last", 5, 3, 2),  # the third of them is the fifth document
        ("last", 3, 3, 0),
        ("last", 3, 4, None),
        ("4", 5, 1, 4),
        ("4", 5, 2, None),
    ],
)
def test_places(at: str, documents: int, gold: int, expected: int | None) -> None:
    assert position(at, documents, gold) == expected


def test_turns_go_through_all_places() -> None:
    assert [position("turns", 4, 2, turn) for turn in range(5)] == [0, 1, 2, 0, 1]


def test_turns_show_what_an_evaluation_in_question_order_draws(tmp_path: Path) -> None:
    """`evaluate_nq_lim.py --eval_start 2 --eval_end 9`, question by question."""
    spec = data(tmp_path, [question(number) for number in range(11)], gold_at=("turns",))
    asked = ask("", replace(spec, total_docs=(1, 3), no_gold=False, questions=7), 4, skip=2)
    rows = [placed(asked, number, 4, 2) for number in range(7)]
    for column, shown in enumerate((1, 3)):
        config = replace(
            spec.data,
            total_docs=shown,
            gold_at=tuple(range(shown)),
            num_train_samples=1,
            num_val_samples=9,
            val_order="question",
            seed=4,
        )
        drawn = select_samples(config, EvalSplit.ALL, lambda _: None).val
        assert [row[column].example for row in rows] == drawn[2:]


def test_what_every_cell_shows(tmp_path: Path) -> None:
    asked = ask("nq", data(tmp_path, [question(1, gold=2)]), seed=0)
    shown = {str(cell): titles(example) for cell, example in placed(asked, 0, 0)}
    assert shown == {
        "3 documents, ranked, gold first": "G0G1A",
        "3 documents, ranked, gold last": "AG0G1",
        "5 documents, ranked, gold first": "G0G1ABC",
        "5 documents, ranked, gold last": "ABCG0G1",
        "3 documents, ranked, gold no gold": "ABC",
        "5 documents, ranked, gold no gold": "ABCDE",
    }


def test_as_retrieved_nothing_is_inserted(tmp_path: Path) -> None:
    """The gold passage of the second question is found at rank 4, and shown from 5 documents on."""
    examples = [question(1, at=1), question(2, at=4)]
    asked = ask("nq", data(tmp_path, examples, passage_order=("retrieved",)), seed=0)
    assert [cell.num_documents for cell in asked.cells] == [3, 5]  # none without gold is made
    trials = GridTrials(asked, grid("zero_shot", "scratchpad_gold_forced", "gold_only"))
    found = {}
    for number in range(2):
        for name, trial in trials.of(number):
            sample = trial.sample
            found[name, sample.id, len(sample.passages)] = (titles(sample), sample.gold)
            assert trial.gold_total == 1
            assert trial.passage_order == ("ranked" if name == "gold_only" else "retrieved")
    assert found == {
        ("zero_shot", "q01", 3): ("AG0B", (1,)),
        ("zero_shot", "q01", 5): ("AG0BCD", (1,)),
        ("zero_shot", "q02", 3): ("ABC", ()),
        ("zero_shot", "q02", 5): ("ABCDG0", (4,)),
        ("scratchpad_gold_forced", "q01", 3): ("AG0B", (1,)),
        ("scratchpad_gold_forced", "q01", 5): ("AG0BCD", (1,)),
        ("scratchpad_gold_forced", "q02", 5): ("ABCDG0", (4,)),
        ("gold_only", "q01", 1): ("G0", (0,)),
        ("gold_only", "q02", 1): ("G0", (0,)),
    }


def test_the_trials_of_every_method(tmp_path: Path) -> None:
    asked = ask("nq", data(tmp_path, [question(1)], total_docs=(3,)), seed=0)
    by_method: dict[str, list[Trial]] = {}
    for name, trial in GridTrials(asked, grid(*METHODS)).of(0):
        by_method.setdefault(name, []).append(trial)
    assert list(by_method) == list(METHODS)
    of_cells = [(titles(t.shown), t.sample.gold) for t in by_method["sft"]]
    assert of_cells == [("G0AB", (0,)), ("ABG0", (2,)), ("ABC", ())]
    for name in ("zero_shot", "scratchpad", "scratchpad_verbatim"):
        assert [(titles(t.shown), t.sample.gold) for t in by_method[name]] == of_cells
    [none] = by_method["closed_book"]
    assert (none.shown.passages, none.sample.passages, none.sample.gold) == ((), (), ())
    assert none.gold_total == 1
    [gold] = by_method["gold_only"]
    assert (titles(gold.shown), gold.sample) == ("G0", gold.shown)
    best = by_method["rerank_then_read"]
    assert [titles(t.sample) for t in best] == ["G0AB", "ABG0", "ABC"]
    assert [titles(t.shown) for t in best][:2] == ["G0", "G0"]  # it holds the question's words
    assert titles(best[2].shown) in "ABC"
    assert [(titles(t.shown), t.forced) for t in by_method["scratchpad_gold_forced"]] == [
        ("G0AB", (0,)),
        ("ABG0", (2,)),
    ]
    assert [(titles(t.shown), t.forced) for t in by_method["scratchpad_wrong_forced"]] == [
        ("G0AB", (1,)),  # A is ranked best
        ("ABG0", (0,)),
    ]


def test_questions_with_more_and_fewer_gold_passages_share_a_cell(tmp_path: Path) -> None:
    """Where they begin differs by question, and the cell they are filed under does not."""
    examples = [question(1, gold=1), question(2, gold=2), question(3, gold=3)]
    spec = data(tmp_path, examples, total_docs=(5,), gold_at=("first", "middle", "last"))
    trials = GridTrials(ask("multi", spec, 0), grid("sft", "closed_book", "gold_only"))
    found = [(name, trial) for number in range(3) for name, trial in trials.of(number)]
    places = {(t.place, t.sample.gold) for name, t in found if name == "sft"}
    assert places == {
        (0, (0,)),
        (0, (0, 1)),
        (0, (0, 1, 2)),
        (2, (2,)),
        (2, (1, 2)),
        (2, (1, 2, 3)),
        (4, (4,)),
        (4, (3, 4)),
        (4, (2, 3, 4)),
        (None, ()),  # without gold
    }
    assert {t.place for name, t in found if name != "sft"} == {None}
    turns = data(tmp_path, examples, gold_at=("turns",), no_gold=False)
    asked = ask("multi", turns, 0)
    assert {t.place for _, t in GridTrials(asked, grid("sft")).of(0)} == {None}


def test_the_wrong_passages_are_the_best_ranked_in_any_order() -> None:
    example = question(1, gold=2, at=1)
    shown = replace(example, passages=example.passages[::-1], gold=(5, 6))
    assert titles(shown) == "FEDCBG1G0A"
    assert wrong_passages(example, shown) == (7, 4)
    assert wrong_passages(example, replace(shown, passages=shown.passages[5:], gold=(0, 1))) == (2,)


def test_questions_that_not_every_cell_can_show_are_left_out_of_all(tmp_path: Path) -> None:
    examples = [
        question(1, gold=1),
        question(2, gold=3),  # in 3 documents it has one place for first and last
        question(3, gold=4, others=4),  # and this none
        question(4, gold=1, others=3),  # 4 passages
        question(5, gold=0),
        question(6, gold=2),
    ]
    asked = ask("multi", data(tmp_path, examples), seed=0)
    assert sorted(example.id for example in asked.questions) == ["q01", "q06"]
    assert sorted(asked.left_out) == [
        "1 questions are left out: their 3 gold passages have no two places in 3 documents",
        "1 questions are left out: their 4 gold passages do not fit (3 documents, ranked, gold "
        "first)",
        "1 questions are left out: they have fewer than 5 passages",
        "1 questions are left out: they have no gold passage",
    ]


def test_places_that_are_one_for_all_are_one_cell(tmp_path: Path) -> None:
    spec = data(tmp_path, [question(1)], total_docs=(1, 2), gold_at=("first", "middle", "last"))
    cells = [(c.num_documents, c.at) for c in ask("nq", spec, 0).cells if c.at != "no gold"]
    assert cells == [(1, "first"), (2, "first"), (2, "last")]


def test_a_cell_without_gold_needs_as_many_others(tmp_path: Path) -> None:
    asked = ask("nq", data(tmp_path, [question(1, others=4)]), 0)
    assert [c.num_documents for c in asked.cells if c.at == "no gold"] == [3]
    assert asked.left_out == ("no cell without gold at 5 documents: a question has only 4 others",)
    without = ask("nq", data(tmp_path, [question(1)], no_gold=False), 0)
    assert all(cell.at != "no gold" for cell in without.cells)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_docs": (3, 9)}, "total_docs 9 is more than the 7 passages that were found"),
        ({"gold_at": ("4",)}, "gold_at 4 has no example with 3 documents: .* begin at 0 to 2"),
    ],
)
def test_what_no_question_can_show_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=f"nq: {message}"):
        ask("nq", data(tmp_path, [question(1), question(2)], **changes), 0)


def test_no_question_is_left(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no question has a gold passage"):
        ask("nq", data(tmp_path, [question(1, gold=0)]), 0)
    pair = [question(1, gold=3), question(2, others=3)]
    with pytest.raises(DataError, match="nq: no question can be shown in every cell: 1 their 3"):
        ask("nq", data(tmp_path, pair), 0)
    spec = data(tmp_path, [question(1)])
    train = replace(spec, data=replace(spec.data, path=str(tmp_path / "train.jsonl")))
    write_examples([question(1)], tmp_path / "train.jsonl", {"q01": "train"})
    with pytest.raises(DataError, match="nq: there are no questions to validate on"):
        ask("nq", train, 0)


@settings(deadline=None)
@given(
    golds=st.lists(st.integers(1, 4), min_size=1, max_size=8),
    documents=st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
    at=st.lists(
        st.sampled_from(["first", "middle", "last", "0", "2"]), min_size=1, max_size=4, unique=True
    ),
)
def test_every_question_stands_in_every_cell_at_a_place_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, golds: list[int], documents: list[int], at: list[str]
) -> None:
    examples = [question(n, gold=gold, others=10) for n, gold in enumerate(golds)]
    folder = tmp_path_factory.mktemp("any")
    spec = data(folder, examples, total_docs=tuple(documents), gold_at=tuple(at))
    try:
        asked = ask("any", spec, 0)
    except DataError:
        return
    for number, raw in enumerate(asked.questions):
        places = placed(asked, number, 0)
        assert [cell for cell, _ in places] == list(asked.cells)
        keys = {(c.order, len(e.passages), e.gold) for c, e in places}
        assert len(keys) == len(places)
        for cell, shown in places:
            assert len(shown.passages) == cell.num_documents
            if cell.at == "no gold":
                assert not shown.gold
                assert not set(shown.passages) & set(raw.gold_passages)
            else:
                assert shown.gold_passages == raw.gold_passages
                assert list(shown.gold) == list(range(shown.gold[0], shown.gold[-1] + 1))
            if cell.at == "last":
                assert shown.gold[-1] == cell.num_documents - 1
            if cell.at == "first":
                assert shown.gold[0] == 0


def test_the_draw_is_that_of_the_seed(tmp_path: Path) -> None:
    examples = [question(number) for number in range(12)]
    few = ask("nq", data(tmp_path, examples, questions=4), 0)
    more = ask("nq", data(tmp_path, examples, questions=7), 0)
    assert [e.id for e in more.questions][:4] == [e.id for e in few.questions]
    other = ask("nq", data(tmp_path, examples, questions=4), 1)
    assert [e.id for e in other.questions] != [e.id for e in few.questions]
    all_of_them = ask("nq", data(tmp_path, examples, questions=20), 0)
    assert len(all_of_them.questions) == 12
    assert all_of_them.left_out == ("20 questions were asked for and there are 12",)
