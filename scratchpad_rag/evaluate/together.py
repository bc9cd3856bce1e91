"""Several ways of reading answered together, so that what their prompts share is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from scratchpad_rag.evaluate.run import ScoreFile, Trial, Way, score_completion, trial_key
from scratchpad_rag.evaluate.score_file import Key, read_scores, score_key
from scratchpad_rag.records import Completion, Options, Request, Score

# Completions with the numbers of their requests, in any order.
Answer = Callable[[Sequence[Request]], Iterator[tuple[int, Completion]]]
OnScore = Callable[[Score], None]


class Task(NamedTuple):
    """One answer to give: how it is read, what is shown, and what its completion may be."""

    way: Way
    trial: Trial
    options: Options

    @property
    def key(self) -> Key:
        """What its score is filed under."""
        return trial_key(self.way.name, self.trial)

    @property
    def request(self) -> Request:
        """What the backend is asked."""
        return Request(self.trial.prompt(self.way.wording), self.options)


def answer_blocks(
    blocks: Iterable[Sequence[Task]],
    answer: Answer,
    path: Path,
    on_score: OnScore = lambda _: None,
) -> None:
    """Answer and score block after block into `path`; what it holds already is not run again.

    A block goes to the backend in one call. Within it, requests that are the same letter for letter
    are answered once.
    """
    done = set(map(score_key, read_scores(path)))
    with ScoreFile(path) as file:
        for block in blocks:
            tasks = [task for task in block if task.key not in done]
            for task, completion in _answer_once_each(tasks, answer):
                score = score_completion(task.way, task.trial, completion)
                file.add(score, task.trial.shown)
                done.add(task.key)
                on_score(score)


def _answer_once_each(tasks: Sequence[Task], answer: Answer) -> Iterator[tuple[Task, Completion]]:
    asked: dict[tuple[str, Options], list[Task]] = {}
    requests: dict[tuple[str, Options], Request] = {}
    for task in tasks:
        request = task.request
        key = request.prompt.text, request.options
        requests.setdefault(key, request)
        asked.setdefault(key, []).append(task)
    keys = list(requests)
    for number, completion in answer(list(requests.values())) if requests else ():
        for task in asked[keys[number]]:
            yield task, completion
