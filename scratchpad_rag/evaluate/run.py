"""Completion -> Score, line by line into a file, so that a killed run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scratchpad_rag.backends.base import Backend, as_done
from scratchpad_rag.evaluate.metrics import (
    answer_match,
    exact_match,
    quote_precision_recall,
    subspan_exact_match,
    token_f1,
    verbatim_rate,
)
from scratchpad_rag.evaluate.score_file import Key, read_scores, score_key
from scratchpad_rag.evaluate.sources import SOURCES_FILE, SourceFile, passage_id
from scratchpad_rag.prompts.parse import parse_completion
from scratchpad_rag.prompts.render import render_forced, render_prompt
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.records import (
    Completion,
    Example,
    Method,
    Rendered,
    Score,
)

OnScore = Callable[[Score, Rendered, bool], None]  # the last: whether it is new


@dataclass(frozen=True, slots=True)
class Trial:
    """What a method is shown for one sample. `sample` is the placed example that it is scored as;
    `shown` is what the prompt holds, which differs where a method picks passages itself. The rest
    is what a Score says of the sample."""

    sample: Example
    shown: Example
    dataset: str = ""
    passage_order: str = "ranked"
    gold_total: int | None = None
    # Passages of `shown` whose scratchpad is written for the reader, who answers behind it.
    forced: tuple[int, ...] = ()
    place: int | None = None  # of Score

    def prompt(self, wording: Wording) -> Rendered:
        """What the reader goes on from."""
        if self.forced:
            return render_forced(self.shown, wording, self.forced)
        return render_prompt(self.shown, wording)

    def begun(self, wording: Wording) -> str:
        """What a completion holds already before a word of it is generated."""
        if not self.forced:
            return ""
        return self.prompt(wording).text.removeprefix(render_prompt(self.shown, wording).text)


@dataclass(frozen=True)
class Way:
    """A way of reading: a name for the tables, and what its completions hold."""

    name: str
    method: Method | None
    wording: Wording


@dataclass(frozen=True)
class Arm(Way):
    """A way of reading with who generates."""

    backend: Backend


def evaluate(
    arm: Arm, trials: Sequence[Trial], path: Path, on_score: OnScore = lambda *_: None
) -> list[Score]:
    """Answer and score every trial; scores are appended to `path` as they come.

    `on_score` is told of each, of those that `path` already held first.

    Trials that `path` already holds for this arm are not run again. Prompts that are the same
    letter for letter are answered once.
    """
    done = known_scores(arm, trials, path)
    for trial in trials:
        if trial_key(arm.name, trial) in done:
            known = done[trial_key(arm.name, trial)]
            on_score(known, trial.prompt(arm.wording), False)
    open_trials = [trial for trial in trials if trial_key(arm.name, trial) not in done]
    prompts = [trial.prompt(arm.wording) for trial in open_trials]
    with ScoreFile(path) as file:
        for number, completion in _answer_once_each(arm.backend, prompts):
            score = score_completion(arm, open_trials[number], completion)
            file.add(score, open_trials[number].shown)
            done[score_key(score)] = score
            on_score(score, prompts[number], True)
    return [done[trial_key(arm.name, trial)] for trial in trials]


class ScoreFile:
    """Scores appended to a file line by line, each with the passages that it names."""

    def __init__(self, path: Path) -> None:
        self._sources = SourceFile(path.with_name(SOURCES_FILE))
        self._file = path.open("a", encoding="utf-8")

    def add(self, score: Score, shown: Example) -> None:
        """Write a line; it is on its way to the disk when this returns."""
        self._sources.add(shown.passages)  # before the score that names them
        self._file.write(json.dumps(asdict(score), ensure_ascii=False) + "\n")
        self._file.flush()

    def __enter__(self) -> ScoreFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def known_scores(arm: Arm, trials: Sequence[Trial], path: Path) -> dict[Key, Score]:
    """The scores that `path` holds of these trials."""
    wanted = {trial_key(arm.name, trial) for trial in trials}
    return {score_key(score): score for score in read_scores(path) if score_key(score) in wanted}


def _answer_once_each(
    backend: Backend, prompts: Sequence[Rendered]
) -> Iterator[tuple[int, Completion]]:
    """A completion for the number of every prompt; many may share one."""
    numbers: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts):
        numbers.setdefault(prompt.text, []).append(number)
    distinct = [prompts[same[0]] for same in numbers.values()]
    for index, completion in as_done(backend, distinct):
        for number in numbers[distinct[index].text]:
            yield number, completion


def score_completion(arm: Way, trial: Trial, completion: Completion) -> Score:
    """Score one completion against the sample's answers and gold passages."""
    sample = trial.sample
    text = trial.begun(arm.wording) + completion.text
    reading = parse_completion(text, trial.shown, arm.method, arm.wording.form)
    quoting = arm.method is Method.SCRATCHPAD
    # Quotes are traced to the first of passages that are the same, and so is gold.
    first = {passage: index for index, passage in reversed([*enumerate(trial.shown.passages)])}
    gold = {first[passage] for passage in trial.shown.gold_passages}
    answered = answer_match(reading, sample.answers)
    fidelity = (
        quote_precision_recall([quote.passage for quote in reading.quotes], gold)
        if quoting
        else None
    )
    return Score(
        method=arm.name,
        example_id=sample.id,
        question=sample.question,
        answers=sample.answers,
        num_documents=len(sample.passages),
        gold_positions=sample.gold,
        prediction=reading.answer,
        completion=text,
        quotes=reading.quotes,
        parsed=reading.parsed,
        subspan_exact_match=answered,
        exact_match=exact_match(reading.answer, sample.answers),
        f1=token_f1(reading.answer, sample.answers),
        completion_subspan_exact_match=answered
        if reading.abstained
        else subspan_exact_match(text, sample.answers),
        quote_precision=fidelity.precision if fidelity else None,
        quote_recall=fidelity.recall if fidelity else None,
        verbatim_rate=verbatim_rate(reading.quotes) if quoting else None,
        prompt_tokens=completion.prompt_tokens,
        new_tokens=completion.new_tokens,
        forward_passes=completion.forward_passes,
        wall_seconds=completion.wall_seconds,
        prefilled_tokens=completion.prefilled_tokens,
        drafted_tokens=completion.drafted_tokens,
        accepted_tokens=completion.accepted_tokens,
        first_token_seconds=completion.first_token_seconds,
        abstained=reading.abstained,
        dataset=trial.dataset,
        passage_order=trial.passage_order,
        gold_total=trial.gold_total,
        place=trial.place,
        shown=tuple(map(passage_id, trial.shown.passages)),
    )


def trial_key(method: str, trial: Trial) -> Key:
    """The key that the score of a trial will have."""
    sample = trial.sample
    return (
        method,
        trial.dataset,
        sample.id,
        len(sample.passages),
        sample.gold,
        trial.passage_order,
    )
