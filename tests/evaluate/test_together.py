"""Several ways of reading answered in one call, into one file that a killed run goes on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from scratchpad_rag.evaluate.run import Trial, Way
from scratchpad_rag.evaluate.score_file import read_scores
from scratchpad_rag.evaluate.together import Task, answer_blocks
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.records import Completion, Example, Method, Options, Request

MakeExample = Callable[..., Example]
SFT = Way("sft", Method.SFT, Wording())
GOLD_ONLY = Way("gold_only", Method.SFT, Wording())
SCRATCHPAD = Way("scratchpad", Method.SCRATCHPAD, Wording())
FORCED = Way("scratchpad_gold_forced", Method.SCRATCHPAD, Wording())
SHORT, LONG = Options(8), Options(90)


class Fake:
    """Answers in reverse order, and remembers what it was asked, call by call."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.calls: list[list[Request]] = []
        self.left = fail_after

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        self.calls.append(list(requests))
        for number in reversed(range(len(requests))):
            if self.left is not None:
                if not self.left:
                    raise KeyboardInterrupt
                self.left -= 1
            room = requests[number].options.max_new_tokens
            yield number, Completion(f" 18{room}", (1,), 10, 1, 1, 0.5, "stop")


def tasks(make_example: MakeExample, number: int = 8) -> list[Task]:
    example = make_example(number=number)
    trial = Trial(example, example, "nq", gold_total=1)
    forced = replace(trial, forced=(1,))
    return [
        Task(SFT, trial, SHORT),
        Task(GOLD_ONLY, trial, SHORT),
        Task(SCRATCHPAD, trial, LONG),
        Task(FORCED, forced, SHORT),
    ]


def test_equal_requests_are_answered_once(make_example: MakeExample, tmp_path: Path) -> None:
    backend = Fake()
    answer_blocks([tasks(make_example)], backend.answer, tmp_path / "scores.jsonl")
    [call] = backend.calls
    assert [request.options for request in call] == [SHORT, LONG, SHORT]
    assert call[2].prompt.text.startswith(call[0].prompt.text + " Document (Title: Bridge 8.1)")
    scores = {score.method: score for score in read_scores(tmp_path / "scores.jsonl")}
    assert {name: score.prediction for name, score in scores.items()} == {
        "sft": "188",
        "gold_only": "188",
        "scratchpad": "",  # it wrote no `Answer:`
        "scratchpad_gold_forced": "188",
    }
    assert {(s.dataset, s.gold_total) for s in scores.values()} == {("nq", 1)}


def test_a_forced_scratchpad_counts_as_written(make_example: MakeExample, tmp_path: Path) -> None:
    task = tasks(make_example, number=8)[3]
    answer_blocks([[task]], Fake().answer, tmp_path / "scores.jsonl")
    [score] = read_scores(tmp_path / "scores.jsonl")
    text = "Document (Title: Bridge 8.1) " + task.trial.shown.passages[1].text
    assert score.completion == (f" {text}\n\nQuestion: When was bridge 8 built?\n\nAnswer: 188")
    assert score.parsed
    assert [(quote.passage, quote.verbatim) for quote in score.quotes] == [(1, True)]
    assert (score.quote_precision, score.quote_recall) == (1.0, 1.0)
    assert score.new_tokens == 1  # what was generated, not what was given
    wrong = task._replace(trial=replace(task.trial, forced=(0,)))
    answer_blocks([[wrong]], Fake().answer, tmp_path / "wrong.jsonl")
    [score] = read_scores(tmp_path / "wrong.jsonl")
    assert (score.quote_precision, score.quote_recall) == (0.0, 0.0)


@pytest.mark.parametrize("answers", range(1, 6))
def test_goes_on_where_it_was_stopped(
    make_example: MakeExample, tmp_path: Path, answers: int
) -> None:
    path = tmp_path / "scores.jsonl"
    blocks = [tasks(make_example, number) for number in (8, 9)]
    with pytest.raises(KeyboardInterrupt):
        answer_blocks(blocks, Fake(fail_after=answers).answer, path)
    before = read_scores(path)
    assert 0 < len(before) < 8
    with path.open("a") as file:
        file.write('{"method": "sft", "exam')  # killed while it wrote
    told = []
    answer_blocks(blocks, Fake().answer, path, told.append)
    after = read_scores(path)
    assert after[: len(before)] == before
    assert len(after) == len({(s.method, s.example_id) for s in after}) == 8
    assert told == after[len(before) :]
    again = Fake()
    answer_blocks(blocks, again.answer, path)
    assert again.calls == []
