"""Audits of questions made by hand, with the one mistake that each is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from scratchpad_rag.data.audit import audit
from scratchpad_rag.data.audit_lengths import count_words, measure_lengths
from scratchpad_rag.data.audit_records import (
    Audit,
    AuditFile,
    AuditSettings,
    Finding,
    PartLengths,
    Ruler,
    Samples,
    Verdict,
)
from scratchpad_rag.data.readers import SplitExample
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Method, Passage

FILLER = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "omicron",
    "pi",
    "rho",
    "sigma",
    "tau",
    "upsilon",
    "phi",
    "chi",
    "psi",
    "omega",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
]


def a_text(number: int) -> str:
    """Prose of 22 words that shares no two neighbouring words with that of another number."""
    return " ".join(f"{FILLER[place]}{number}" for place in range(22)) + "."


def a_question(number: int, **changes: object) -> Example:
    passages = (
        Passage(f"Gold {number}", f"It was built in {1800 + number} by hand. {a_text(number)}"),
        *(Passage(f"Other {number}.{i}", a_text(100 * number + i)) for i in range(1, 4)),
    )
    example = Example(
        id=f"q{number}",
        question=f"When was the {FILLER[number]} bridge of {FILLER[number + 9]} put up?",
        answers=(str(1800 + number),),
        passages=passages,
        gold=(0,),
    )
    return replace(example, **changes)  # type: ignore[arg-type]


def clean_set() -> list[Example]:
    return [a_question(number) for number in range(1, 9)]


def check(examples: list[Example], settings: AuditSettings | None = None, **more: object) -> Audit:
    """Audited with the first half to train on, as a file says it."""
    half = len(examples) // 2
    rows = [SplitExample(e, "train" if n < half else "val") for n, e in enumerate(examples)]
    return audit([AuditFile("set.jsonl", rows)], settings or AuditSettings(), **more)  # type: ignore[arg-type]


def of(found: Audit, name: str) -> Finding:
    (finding,) = (finding for finding in found.findings if finding.check == name)
    return finding


def test_a_clean_set_passes_every_check() -> None:
    found = check(clean_set(), AuditSettings(total_docs=4))
    assert {finding.check: finding.verdict for finding in found.findings} == dict.fromkeys(
        [f.check for f in found.findings], Verdict.OK
    )
    assert found.verdict is Verdict.OK
    assert len(found.findings) == 12
    assert (found.questions, found.passages, found.distinct_passages) == (8, 32, 32)
    assert (found.train_questions, found.val_questions) == (4, 4)
    assert [h.counts for h in found.histograms] == [{0: 8}, {4: 8}, {1: 8}, {1: 8}]


Spoil = Callable[[list[Example]], None]


def spoil_answer_in_distractor(examples: list[Example]) -> None:
    passages = list(examples[2].passages)
    passages[2] = Passage("Another", "Something else happened in 1803 there. " + a_text(77))
    examples[2] = replace(examples[2], passages=tuple(passages))


def spoil_gold_answer(examples: list[Example]) -> None:
    examples[3] = replace(examples[3], answers=("Ida Holm",))


def spoil_question_in_both(examples: list[Example]) -> None:
    examples[7] = replace(examples[7], question=examples[0].question.upper().rstrip("?") + " ?")


def spoil_question_nearly_in_both(examples: list[Example]) -> None:
    words = examples[0].question.rstrip("?")
    answers = (*examples[7].answers, *examples[0].answers)
    examples[7] = replace(examples[7], question=f"{words} then?", answers=answers)


def spoil_shared_gold(examples: list[Example]) -> None:
    shared = replace(examples[0].passages[0], title="Other title")
    passages = (shared, *examples[6].passages[1:])
    examples[6] = replace(examples[6], passages=passages, answers=examples[0].answers)


def spoil_repeated(examples: list[Example]) -> None:
    examples[1] = replace(examples[1], question=examples[0].question)


def spoil_same_twice(examples: list[Example]) -> None:
    passages = examples[4].passages
    again = replace(passages[1], title="Again", text=passages[1].text.upper() + " ")
    examples[4] = replace(examples[4], passages=(*passages, again))


def spoil_nearly_twice(examples: list[Example]) -> None:
    passages = examples[4].passages
    near = Passage("Near", passages[1].text.replace("omicron", "changed"))
    examples[4] = replace(examples[4], passages=(*passages, near))


def spoil_text(examples: list[Example]) -> None:
    passages = examples[5].passages
    odd = Passage("Odd", f"One\x07 bell and <b>markup</b> &amp; more.\n\n{a_text(88)}")
    examples[5] = replace(examples[5], passages=(*passages, odd))


def spoil_gold_mark(examples: list[Example]) -> None:
    examples[6] = replace(examples[6], gold=())


def spoil_number(examples: list[Example]) -> None:
    examples[6] = replace(examples[6], passages=examples[6].passages[:3])


@pytest.mark.parametrize(
    ("spoil", "name", "verdict", "told"),
    [
        (
            spoil_answer_in_distractor,
            "answers_in_distractors",
            Verdict.LOOK,
            "1 of 8 (12.5%) questions have an answer in a distractor, 1 distractor in all",
        ),
        (
            spoil_gold_answer,
            "gold_answers",
            Verdict.LOOK,
            "1 of 8 (12.5%) questions have it in no gold passage",
        ),
        (spoil_question_in_both, "overlap", Verdict.REFUSE, "1 of 4 (25.0%) are in both"),
        (
            spoil_question_nearly_in_both,
            "near_overlap",
            Verdict.LOOK,
            "1 of 4 (25.0%) have a training question that shares 80% of their words, "
            "1 of them with the same answer",
        ),
        (
            spoil_shared_gold,
            "shared_gold",
            Verdict.LOOK,
            "1 of 4 (25.0%) validation questions have a gold passage that is gold in training",
        ),
        (
            spoil_repeated,
            "repeated",
            Verdict.LOOK,
            "1 of 8 (12.5%) come again, 1 of them with another answer",
        ),
        (
            spoil_same_twice,
            "same_in_question",
            Verdict.LOOK,
            "1 of 8 (12.5%) questions show a text twice",
        ),
        (
            spoil_nearly_twice,
            "near_in_question",
            Verdict.LOOK,
            "1 of 8 (12.5%) questions have two that share 80% of their word pairs",
        ),
        (
            spoil_text,
            "odd_texts",
            Verdict.LOOK,
            "1 of 33 (3.0%) distinct passages hold something odd: a blank line 1, "
            "control characters 1, markup 1",
        ),
        (spoil_gold_mark, "no_gold", Verdict.REFUSE, "1 of 8 (12.5%) questions have none"),
        (
            spoil_number,
            "enough_passages",
            Verdict.REFUSE,
            "1 of 8 (12.5%) questions have fewer, or more gold ones than 4",
        ),
    ],
)
def test_one_mistake_is_found_and_no_other(
    spoil: Spoil, name: str, verdict: Verdict, told: str
) -> None:
    examples = clean_set()
    spoil(examples)
    found = check(examples, AuditSettings(total_docs=4))
    finding = of(found, name)
    assert finding.verdict is verdict
    assert sorted(finding.told) == sorted(told)  # kinds that are equally frequent change places
    assert finding.count == 1
    assert len(finding.instances) == 1
    others = {f.check for f in found.findings if f.verdict is not Verdict.OK}
    assert others == {name}


def test_a_question_of_the_same_pattern_about_something_else_is_no_leak() -> None:
    examples = clean_set()
    examples[7] = replace(examples[7], question=examples[0].question.rstrip("?") + " then?")
    finding = of(check(examples), "near_overlap")
    assert finding.verdict is Verdict.OK
    assert finding.told.endswith("0 of them with the same answer")
    assert finding.instances[0].shown[1] == ("in training", f"{examples[0].question} (q1)")


def test_a_distractor_that_nearly_equals_the_gold_is_said() -> None:
    examples = clean_set()
    gold = examples[4].passages[0]
    near = Passage("Near", gold.text.replace("omicron5", "changed"))
    examples[4] = replace(examples[4], passages=(*examples[4].passages, near))
    finding = of(check(examples), "near_in_question")
    assert finding.told.endswith("in 1 a distractor nearly equals the gold")
    assert [label for label, _ in finding.instances[0].shown] == ["gold 0", "passage 4"]


def test_passages_that_are_known_to_hold_the_answer_are_no_distractors() -> None:
    examples = clean_set()
    spoil_answer_in_distractor(examples)
    examples[2] = replace(examples[2], also_hold=(2,))
    assert of(check(examples), "answers_in_distractors").count == 0


def test_yes_and_no_are_left_aside() -> None:
    examples = [replace(example, answers=("yes",)) for example in clean_set()]
    finding = of(check(examples), "gold_answers")
    assert finding.verdict is Verdict.OK
    assert finding.total == 0


def test_where_nothing_is_placed_a_question_without_gold_is_to_be_known_only() -> None:
    examples = clean_set()
    spoil_gold_mark(examples)
    assert of(check(examples, AuditSettings(places_gold=False)), "no_gold").verdict is Verdict.LOOK


def test_words_of_the_layout_in_a_passage() -> None:
    examples = clean_set()
    extra = Passage("Odd", f"{a_text(91)} Document (Title: X) {a_text(92)}")
    examples[0] = replace(examples[0], passages=(*examples[0].passages, extra))
    settings = AuditSettings(layout=("Document (Title: ",))
    finding = of(check(examples, settings), "odd_texts")
    assert finding.told.endswith(": words of the layout 1")


# --- files and sides


def test_gold_at_files_are_held_to_their_names() -> None:
    at = {n: [replace(e, gold=(n,)) for e in clean_set()] for n in (0, 3)}
    at[3][5] = replace(at[3][5], gold=(1,))
    files = [
        AuditFile(
            f"data/nq-open-20_total_documents_gold_at_{n}.jsonl.gz",
            [SplitExample(e, None) for e in examples],
        )
        for n, examples in at.items()
    ]
    found = audit(files, AuditSettings())
    finding = of(found, "labelled_gold")
    assert finding.verdict is Verdict.REFUSE
    assert finding.told == "1 of 16 (6.2%) samples have it elsewhere"
    assert finding.instances[0].example_id == "q6"
    assert finding.instances[0].shown[1] == ("gold passage at", "1")
    assert found.questions == 8  # the same questions in both files count once
    assert found.histograms[0].counts == {0: 8, 1: 1, 3: 7}
    assert not [f for f in audit(files[:1], AuditSettings()).findings if f.verdict != Verdict.OK]


def test_sides_by_the_names_of_files() -> None:
    examples = clean_set()
    rows = [SplitExample(example, None) for example in examples]
    files = [AuditFile("x/hotpot_train.json", rows[:6]), AuditFile("x/hotpot_dev.json", rows[5:])]
    found = audit(files, AuditSettings())
    assert (found.train_questions, found.val_questions) == (6, 3)
    assert of(found, "overlap").told == "1 of 3 (33.3%) are in both"
    assert found.split_by == "the files' names"


def test_without_sides_those_of_a_run_are_taken() -> None:
    rows = [SplitExample(example, None) for example in clean_set()]
    found = audit([AuditFile("train.jsonl", rows)], AuditSettings(train_ratio=0.75, seed=3))
    assert (found.train_questions, found.val_questions) == (6, 2)
    assert found.split_by == "question, 75% to train on, seed 3"


@pytest.mark.parametrize("near", [0.0, -1.0, 1.5])
def test_a_similarity_out_of_range_is_refused(near: float) -> None:
    with pytest.raises(DataError, match="above 0 to 1"):
        audit([AuditFile("f", [SplitExample(a_question(1), None)])], AuditSettings(near=near))


def test_nothing_to_audit_is_refused() -> None:
    with pytest.raises(DataError, match="no questions"):
        audit([AuditFile("f", [])], AuditSettings())


# --- samples


def placed(gold_at: list[int]) -> list[Example]:
    return [replace(a_question(n % 8 + 1), gold=(at,)) for n, at in enumerate(gold_at)]


def test_training_with_the_gold_passage_in_one_place_is_seen() -> None:
    samples = Samples(placed([2] * 7 + [0] * 3), placed([0, 1]))
    found = check(clean_set(), samples=samples)
    finding = of(found, "gold_spread")
    assert finding.verdict is Verdict.LOOK
    assert finding.told == "2 places, 70% of 10 samples at index 2"
    places = {h.name: h.counts for h in found.histograms[:3]}
    assert places == {
        "gold_in_file": {0: 8},
        "gold_in_training": {0: 3, 2: 7},
        "gold_in_validation": {0: 1, 1: 1},
    }
    spread = Samples(placed([0, 1, 2, 3]), [])
    assert of(check(clean_set(), samples=spread), "gold_spread").verdict is Verdict.OK


def test_lengths_of_known_samples() -> None:
    samples = [a_question(n) for n in range(1, 9)]
    values = dict(zip([s.id for s in samples], [10, 20, 30, 40, 50, 60, 70, 80], strict=True))

    def count(example: Example) -> PartLengths:
        whole = values[example.id]
        return PartLengths(whole - 5, 3, 2, whole)

    found = measure_lengths(samples, Ruler(count, "tokens", 65))
    assert found.percentiles["whole"][0] == 10
    assert found.percentiles["whole"][100] == 80
    assert found.percentiles["answer"] == dict.fromkeys((0, 5, 25, 50, 75, 95, 99, 100), 2)
    assert (found.measured, found.total, found.too_long) == (8, 8, 2)


def test_the_few_that_are_too_long_are_found_though_only_some_are_drawn() -> None:
    many = [a_question(n % 8 + 1, id=f"q{n}") for n in range(2600)]
    long = Passage("Long", " ".join([a_text(3)] * 40))
    for n in (7, 901, 2599):
        many[n] = replace(many[n], passages=(*many[n].passages, long))

    asked = 0

    def count(example: Example) -> PartLengths:
        nonlocal asked
        asked += 1
        return count_words(example)

    found = measure_lengths(many, Ruler(count, "words", 400))
    assert found.too_long == 3
    assert found.measured == 2000
    assert asked <= 2000 + 600
    longest = max(count_words(e).whole for e in many)
    assert found.percentiles["whole"][100] == longest


def test_words_of_a_sample() -> None:
    example = Example(
        "q", "who built it", ("Ida Holm",), (Passage("A B", "c d e"), Passage("F", "g")), (1,)
    )
    # Context 5 + 2, question 3 twice in the prompt; scratchpad 2, question again, answer 2.
    assert count_words(example) == PartLengths(13, 2, 2, 20)
    assert count_words(example, Method.SFT) == PartLengths(13, 0, 2, 15)


def test_what_does_not_fit_is_refused() -> None:
    found = check(clean_set(), ruler=Ruler(count_words, "words", 60))
    finding = of(found, "lengths")
    assert finding.verdict is Verdict.REFUSE
    assert finding.told.startswith("8 of 8 samples are longer; the longest has ")
    assert found.lengths is not None
    assert found.lengths.limit == 60
