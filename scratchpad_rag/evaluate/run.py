"""Completion -> Score, line by line into a file, so that a killed run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scratchpad_rag.backends.base import Backend, as_done
from scratchpad_rag.errors import DataError
from scratchpad_rag.evaluate.metrics import (
    answer_match,
    exact_match,
    quote_precision_recall,
    subspan_exact_match,
    token_f1,
    verbatim_rate,
)
from scratchpad_rag.evaluate.sources import SOURCES_FILE, SourceFile, passage_id
from scratchpad_rag.prompts.parse import parse_completion
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.records import (
    Completion,
    Example,
    Method,
    Rendered,
    Score,
    score_from_json,
)

# Method, data set, question, documents, gold positions, order of the passages.
Key = tuple[str, str, str, int, tuple[int, ...], str]
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


@dataclass(frozen=True)
class Arm:
    """A way of reading: a name for the tables, what its completions hold, and who generates."""

    name: str
    method: Method | None
    wording: Wording
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
        if _trial_key(arm, trial) in done:
            known = done[_trial_key(arm, trial)]
            on_score(known, render_prompt(trial.shown, arm.wording), False)
    open_trials = [trial for trial in trials if _trial_key(arm, trial) not in done]
    prompts = [render_prompt(trial.shown, arm.wording) for trial in open_trials]
    sources = SourceFile(path.with_name(SOURCES_FILE))
    with path.open("a", encoding="utf-8") as file:
        for number, completion in _answer_once_each(arm.backend, prompts):
            score = score_completion(arm, open_trials[number], completion)
            sources.add(open_trials[number].shown.passages)  # before the score that names them
            file.write(json.dumps(asdict(score), ensure_ascii=False) + "\n")
            file.flush()
            done[_key(score)] = score
            on_score(score, prompts[number], True)
    return [done[_trial_key(arm, trial)] for trial in trials]


def known_scores(arm: Arm, trials: Sequence[Trial], path: Path) -> dict[Key, Score]:
    """The scores that `path` holds of these trials."""
    wanted = {_trial_key(arm, trial) for trial in trials}
    return {_key(score): score for score in read_scores(path) if _key(score) in wanted}


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


def score_completion(arm: Arm, trial: Trial, completion: Completion) -> Score:
    """Score one completion against the sample's answers and gold passages."""
    sample = trial.sample
    reading = parse_completion(completion.text, trial.shown, arm.method)
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
        completion=completion.text,
        quotes=reading.quotes,
        parsed=reading.parsed,
        subspan_exact_match=answered,
        exact_match=exact_match(reading.answer, sample.answers),
        f1=token_f1(reading.answer, sample.answers),
        completion_subspan_exact_match=answered
        if reading.abstained
        else subspan_exact_match(completion.text, sample.answers),
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
        shown=tuple(map(passage_id, trial.shown.passages)),
    )


def read_scores(path: Path) -> list[Score]:
    """All whole lines of a score file; a last line cut off by a kill is removed from the file.

    Raises DataError for a line in the middle that is not a score.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    scores = []
    for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
        try:
            scores.append(score_from_json(json.loads(line.decode("utf-8"))))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}:{number}: not a line of scores") from error
    return scores


def _key(score: Score) -> Key:
    return (
        score.method,
        score.dataset,
        score.example_id,
        score.num_documents,
        score.gold_positions,
        score.passage_order,
    )


def _trial_key(arm: Arm, trial: Trial) -> Key:
    sample = trial.sample
    return (
        arm.name,
        trial.dataset,
        sample.id,
        len(sample.passages),
        sample.gold,
        trial.passage_order,
    )
