from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from scratchpad_rag.errors import DataError
from scratchpad_rag.evaluate.run import Arm, Trial, evaluate, score_completion
from scratchpad_rag.evaluate.score_file import read_scores
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.records import (
    Completion,
    Example,
    Method,
    Passage,
    Rendered,
    Score,
    score_from_json,
)

BRIDGE = Passage("Bridge", "The bridge was built in 1895 by Ida Holm.")
TOWN = Passage("Town", "The town was founded in 1203.")
RIVER = Passage("River", "The river Ard is 90 miles long.")
EXAMPLE = Example(
    "q1", "when was the bridge built", ("1895", "in 1895"), (TOWN, BRIDGE, RIVER), (1,)
)
RESTATED = "\n\nQuestion: When was the bridge built?\n\nAnswer:"


def completion(text: str) -> Completion:
    return Completion(text, (1, 2), 100, 3, 2, 0.5, "stop")


class Fake:
    """A backend that says the same to every prompt and remembers what it was asked."""

    def __init__(self, text: str = " 1895", fail_after: int | None = None) -> None:
        self.text = text
        self.fail_after = fail_after
        self.asked: list[str] = []

    def generate(self, prompts: Sequence[Rendered]) -> Iterator[Completion]:
        for prompt in prompts:
            if self.fail_after is not None and len(self.asked) == self.fail_after:
                raise KeyboardInterrupt
            self.asked.append(prompt.text)
            yield completion(self.text)


def arm(backend: Fake, method: Method | None = None, name: str = "zero_shot") -> Arm:
    return Arm(name, method, Wording(), backend)


def trials(count: int, make_example: Callable[..., Example]) -> list[Trial]:
    examples = [make_example(number=number) for number in range(count)]
    return [Trial(example, example) for example in examples]


def score(text: str, method: Method | None, example: Example = EXAMPLE) -> Score:
    return score_completion(arm(Fake(), method), Trial(example, example), completion(text))


# --- scores of completions made by hand


def test_a_right_answer() -> None:
    scored = score(" It was in 1895.\n\nQuestion: And the town?", Method.SFT)
    assert scored.prediction == "It was in 1895."
    assert (scored.subspan_exact_match, scored.exact_match) == (1.0, 0.0)
    # "it was in 1895" against "in 1895": 2 words shared of 4 and 2, 2 * 2 / 6.
    assert scored.f1 == pytest.approx(2 / 3)
    assert scored.quote_precision is None
    assert scored.quote_recall is None
    assert scored.verbatim_rate is None
    assert scored.quotes == ()
    assert (scored.num_documents, scored.gold_positions) == (3, (1,))
    assert (scored.prompt_tokens, scored.new_tokens, scored.forward_passes) == (100, 3, 2)
    assert scored.wall_seconds == 0.5
    assert scored.parsed


def test_only_the_first_line_is_the_answer() -> None:
    scored = score(" 1203\n\nQuestion: When was the bridge built?\n\nAnswer: 1895", Method.SFT)
    assert scored.subspan_exact_match == 0.0
    assert scored.completion_subspan_exact_match == 1.0


def test_copying_the_right_passage_is_not_answering() -> None:
    scored = score(f" Document (Title: Bridge) {BRIDGE.text}{RESTATED} 1203", Method.SCRATCHPAD)
    assert scored.prediction == "1203"
    assert scored.subspan_exact_match == 0.0
    assert scored.completion_subspan_exact_match == 1.0
    assert (scored.quote_precision, scored.quote_recall, scored.verbatim_rate) == (1.0, 1.0, 1.0)


def test_quotes_of_gold_and_of_a_distractor_with_a_slip() -> None:
    scored = score(
        f" Document (Title: Bridge) {BRIDGE.text}\n\n"
        f"Document (Title: Town) The town was founded in 1204.{RESTATED} 1895",
        Method.SCRATCHPAD,
    )
    assert scored.exact_match == 1.0
    assert [quote.passage for quote in scored.quotes] == [1, 0]
    assert (scored.quote_precision, scored.quote_recall, scored.verbatim_rate) == (0.5, 1.0, 0.5)


def test_nothing_parsed() -> None:
    scored = score(" Document (Title: Bridge) The bridge was", Method.SCRATCHPAD)
    assert not scored.parsed
    assert (scored.prediction, scored.subspan_exact_match) == ("", 0.0)
    assert scored.quote_recall == 1.0
    empty = score("", Method.SCRATCHPAD)
    assert (empty.quotes, empty.verbatim_rate, empty.quote_recall) == ((), None, 0.0)


NOTHING = f" None of the documents supports an answer.{RESTATED} unanswerable"


def test_abstaining_where_gold_is_shown_misses_it() -> None:
    scored = score(NOTHING, Method.SCRATCHPAD)
    assert (scored.prediction, scored.quotes, scored.parsed) == ("unanswerable", (), True)
    assert scored.abstained
    assert (scored.subspan_exact_match, scored.exact_match, scored.f1) == (0.0, 0.0, 0.0)
    assert (scored.quote_precision, scored.quote_recall, scored.verbatim_rate) == (0.0, 0.0, None)


def test_abstaining_where_no_gold_is_shown_misses_nothing() -> None:
    without = Example("q1", EXAMPLE.question, EXAMPLE.answers, (TOWN, RIVER), ())
    scored = score(NOTHING, Method.SCRATCHPAD, without)
    assert (scored.quote_precision, scored.quote_recall, scored.verbatim_rate) == (1.0, 1.0, None)
    assert scored.subspan_exact_match == 0.0
    assert scored.gold_position is None


def test_abstaining_says_no_word_that_its_letters_hold() -> None:
    """Those of `unanswerable` and of the sentence before it: era, able, answer, one."""
    closed = Example("q1", "is it open", ("able",), (TOWN, BRIDGE), (0,))
    for method, text in ((Method.SCRATCHPAD, NOTHING), (Method.SFT, " unanswerable")):
        scored = score(text.replace("When was the bridge built", "Is it open"), method, closed)
        assert scored.parsed
        assert scored.subspan_exact_match == scored.completion_subspan_exact_match == 0.0
        assert scored.abstained
    assert score(" It is able to be", Method.SFT, closed).subspan_exact_match == 1.0
    nobody = Example("q1", "who is it", ("Unanswerable",), (TOWN, BRIDGE), (0,))
    assert score(" unanswerable", Method.SFT, nobody).subspan_exact_match == 1.0


def test_scores_of_before_there_was_abstaining_are_read() -> None:
    fields = asdict(score(" 1895", Method.SFT))
    del fields["abstained"]
    assert not score_from_json(json.loads(json.dumps(fields))).abstained


def test_a_method_that_picks_passages_is_scored_as_the_sample() -> None:
    """Shown two passages in another order, scored as the three of the sample."""
    shown = Example("q1", EXAMPLE.question, EXAMPLE.answers, (BRIDGE, RIVER), (0,))
    trial = Trial(EXAMPLE, shown)
    text = f" Document (Title: Bridge) {BRIDGE.text}{RESTATED} 1895"
    scored = score_completion(arm(Fake(), Method.SCRATCHPAD), trial, completion(text))
    assert (scored.num_documents, scored.gold_positions) == (3, (1,))
    assert [quote.passage for quote in scored.quotes] == [0]  # among the passages shown
    assert (scored.quote_precision, scored.quote_recall) == (1.0, 1.0)


# --- the file


def test_a_score_is_written_and_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    example = Example(
        "ü", "wer «baute» 🌉\u2028?", ("Ида",), (Passage("א", "ב\u2028ג"), TOWN), (0,)
    )
    text = " Document (Title: א) ב\u2028ג\n\nQuestion: Wer «baute» 🌉\u2028?\n\nAnswer: Ида"
    scores = evaluate(arm(Fake(text), Method.SCRATCHPAD), [Trial(example, example)], path)
    assert scores[0].exact_match == 1.0
    assert scores[0].quotes[0].verbatim
    assert read_scores(path) == scores
    assert score_from_json(json.loads(json.dumps(asdict(scores[0])))) == scores[0]
    assert path.read_bytes().count(b"\n") == 1


def test_scores_come_in_the_order_of_the_trials_and_one_by_one(
    tmp_path: Path, make_example: Callable[..., Example]
) -> None:
    path = tmp_path / "scores.jsonl"
    lines_seen = []

    def on_score(score: Score, prompt: Rendered, new: bool) -> None:
        assert new
        assert score.question[-7] in prompt.text
        lines_seen.append(path.read_bytes().count(b"\n"))

    asked = trials(4, make_example)
    scores = evaluate(arm(Fake()), asked, path, on_score)
    assert [score.example_id for score in scores] == ["q0", "q1", "q2", "q3"]
    assert lines_seen == [1, 2, 3, 4]  # on the disk before anything else is done


def test_scores_are_kept_as_answers_come_and_returned_in_the_order_of_the_trials(
    tmp_path: Path, make_example: Callable[..., Example]
) -> None:
    class Backwards(Fake):
        def generate_as_done(self, prompts: Sequence[Rendered]) -> Iterator[tuple[int, Completion]]:
            for number in reversed(range(len(prompts))):
                yield number, completion(f" {number}")

    asked = trials(3, make_example)
    asked = [*asked, Trial(replace(asked[0].sample, id="q3"), asked[0].shown)]  # q0's prompt again
    scores = evaluate(arm(Backwards()), asked, tmp_path / "scores.jsonl")
    assert [(s.example_id, s.prediction) for s in scores] == [
        *(("q0", "0"), ("q1", "1"), ("q2", "2"), ("q3", "0"))
    ]
    kept = read_scores(tmp_path / "scores.jsonl")
    assert [s.example_id for s in kept] == ["q2", "q1", "q0", "q3"]


def test_a_quote_of_a_passage_shown_twice_counts_as_gold(
    tmp_path: Path, make_example: Callable[..., Example]
) -> None:
    same = Passage("Ford", "Ida built it.")
    example = Example("q", "who built it?", ("Ida",), (same, TOWN, same), (2,))
    text = " Document (Title: Ford) Ida built it.\n\nQuestion: Who built it?\n\nAnswer: Ida"
    [score] = evaluate(
        arm(Fake(text), Method.SCRATCHPAD), [Trial(example, example)], tmp_path / "scores.jsonl"
    )
    assert (score.quote_precision, score.quote_recall) == (1.0, 1.0)


def test_a_finished_file_asks_nothing(tmp_path: Path, make_example: Callable[..., Example]) -> None:
    path = tmp_path / "scores.jsonl"
    asked = trials(3, make_example)
    first = evaluate(arm(Fake()), asked, path)
    before = path.read_bytes()
    backend = Fake(" something else")
    told: list[tuple[str, bool]] = []

    def on_score(score: Score, prompt: Rendered, new: bool) -> None:
        told.append((score.example_id, new))

    assert evaluate(arm(backend), asked, path, on_score) == first
    assert told == [("q0", False), ("q1", False), ("q2", False)]
    assert backend.asked == []
    assert path.read_bytes() == before


@pytest.mark.parametrize("cut", [1, 20, 400])
def test_a_killed_run_goes_on_without_repeating(
    tmp_path: Path, make_example: Callable[..., Example], cut: int
) -> None:
    asked = trials(5, make_example)
    whole = tmp_path / "whole.jsonl"
    expected = evaluate(arm(Fake()), asked, whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    path = tmp_path / "scores.jsonl"
    path.write_bytes(b"".join(lines[:2]) + lines[2][:-cut])  # killed in the third line
    backend = Fake()
    assert evaluate(arm(backend), asked, path) == expected
    assert len(backend.asked) == 3
    assert [prompt.count("bridge 2 built") for prompt in backend.asked] == [2, 0, 0]
    assert path.read_bytes() == whole.read_bytes()


def test_an_interrupted_run_keeps_what_is_scored(
    tmp_path: Path, make_example: Callable[..., Example]
) -> None:
    path = tmp_path / "scores.jsonl"
    asked = trials(4, make_example)
    with pytest.raises(KeyboardInterrupt):
        evaluate(arm(Fake(fail_after=2)), asked, path)
    assert [score.example_id for score in read_scores(path)] == ["q0", "q1"]
    backend = Fake()
    assert len(evaluate(arm(backend), asked, path)) == 4
    assert len(backend.asked) == 2


def test_a_cut_inside_a_character_is_passed_over(
    tmp_path: Path, make_example: Callable[..., Example]
) -> None:
    path = tmp_path / "scores.jsonl"
    (asked,) = trials(1, make_example)
    evaluate(arm(Fake(" é")), [asked], path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: whole.index("é".encode()) + 1])
    assert [score.completion for score in read_scores(path)] == [" é"]


def test_arms_share_a_file_and_are_told_apart(
    tmp_path: Path, make_example: Callable[..., Example]
) -> None:
    path = tmp_path / "scores.jsonl"
    asked = trials(2, make_example)
    evaluate(arm(Fake(" one"), name="sft", method=Method.SFT), asked, path)
    backend = Fake(" two")
    scores = evaluate(arm(backend), asked, path)
    assert len(backend.asked) == 2
    assert {score.completion for score in scores} == {" two"}
    assert len(read_scores(path)) == 4


def test_positions_and_numbers_of_documents_are_told_apart(
    tmp_path: Path, make_example: Callable[..., Example]
) -> None:
    path = tmp_path / "scores.jsonl"
    placed = [make_example(documents=4, gold=(0,)), make_example(documents=4, gold=(2,))]
    placed.append(make_example(documents=3, gold=(0,)))
    backend = Fake()
    scores = evaluate(arm(backend), [Trial(example, example) for example in placed], path)
    assert len(backend.asked) == 3
    assert [(s.num_documents, s.gold_positions) for s in scores] == [
        (4, (0,)),
        (4, (2,)),
        (3, (0,)),
    ]


def test_the_same_prompt_is_answered_once(tmp_path: Path) -> None:
    samples = [
        Example(f"q{number}", EXAMPLE.question, (str(number),), EXAMPLE.passages, (number,))
        for number in range(3)
    ]
    backend = Fake(" 1")
    path = tmp_path / "scores.jsonl"
    scores = evaluate(arm(backend), [Trial(sample, sample) for sample in samples], path)
    assert len(backend.asked) == 1
    assert [score.exact_match for score in scores] == [0.0, 1.0, 0.0]  # each by its own answers
    assert len(read_scores(path)) == 3


@pytest.mark.parametrize("bad", [b"not json\n", b"{}\n", b"[1]\n", b"\n", b'{"method": 3}\n'])
def test_a_bad_line_in_the_middle_is_named(
    tmp_path: Path, make_example: Callable[..., Example], bad: bytes
) -> None:
    path = tmp_path / "scores.jsonl"
    asked = trials(2, make_example)
    evaluate(arm(Fake()), asked, path)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + bad + second)
    backend = Fake()
    with pytest.raises(DataError, match=r"scores\.jsonl:2"):
        evaluate(arm(backend), asked, path)
    assert backend.asked == []
    assert path.read_bytes() == first + bad + second


def test_bytes_that_are_no_text_are_named(
    tmp_path: Path, make_example: Callable[..., Example]
) -> None:
    path = tmp_path / "scores.jsonl"
    evaluate(arm(Fake()), trials(1, make_example), path)
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n")
    with pytest.raises(DataError, match=r"scores\.jsonl:2"):
        read_scores(path)


def test_no_file_is_no_scores(tmp_path: Path) -> None:
    assert read_scores(tmp_path / "none.jsonl") == []
    assert evaluate(arm(Fake()), [], tmp_path / "empty.jsonl") == []
