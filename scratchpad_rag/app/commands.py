"""The verbs, one function each: they wire the rooms together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scratchpad_rag.app.cluster import answering, open_driver_model
from scratchpad_rag.app.processes import (
    do_in_main,
    from_main,
    is_main_process,
    is_restarted,
    joined_processes,
    leave_processes,
    require_one_process,
    require_same_run,
)
from scratchpad_rag.app.progress import progress_bar, show_score
from scratchpad_rag.app.runs import (
    RUNS,
    cannot_write,
    open_run,
    refuse_inside,
    require_shared,
    require_writable,
    run_name,
    write_json,
)
from scratchpad_rag.app.training import (
    describe_adapter,
    prepare_lesson,
    require_spreadable,
    require_trackers,
    train_reader,
)
from scratchpad_rag.backends.base import (
    require_backend,
    require_local,
    require_verbatim_method,
)
from scratchpad_rag.backends.ray import require_executor, require_local_executor
from scratchpad_rag.config import GenerateConfig, RunConfig, generate_for, max_new_tokens_for
from scratchpad_rag.data.select import select_samples
from scratchpad_rag.errors import ConfigError, DataError
from scratchpad_rag.evaluate.run import Arm, Trial, evaluate, known_scores
from scratchpad_rag.evaluate.summary import MethodSummary, summarise
from scratchpad_rag.models.checkpoints import AdapterMetadata, read_adapter, save_checkpoint
from scratchpad_rag.models.load import LoadedModel, engine_model
from scratchpad_rag.models.sharded import is_sharded, loads_in_one_process
from scratchpad_rag.models.start import require_method, require_trainable
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.reader import load_reader
from scratchpad_rag.records import EvalSplit, Example, Method, Rendered, Score
from scratchpad_rag.tokens.encode import encode_prompt, require_fitting
from scratchpad_rag.train.trainer import TrainResult

Notify = Callable[[str], None]
CHECKPOINT_NAMES = {Method.SCRATCHPAD: "scratchpad_rag.pt", Method.SFT: "rag_sft.pt"}


@dataclass(frozen=True)
class Job:
    """What is asked of one run beside its config."""

    experiment: str
    checkpoint: Path | None = None
    eval_only: bool = False
    train_only: bool = False
    overwrite: bool = False
    runs: Path = RUNS
    checkpoints: Path = Path("checkpoints")
    run: Path | None = None  # the run's folder; None: named after the config


@dataclass(frozen=True)
class Headline:
    """The score asked for: of the final answers alone, or of whole completions."""

    scored: str
    subspan_exact_match: float


@dataclass(frozen=True)
class Outcome:
    """Where a run's files lie and what it found."""

    folder: Path
    summary: MethodSummary | None
    headline: Headline | None
    trained: TrainResult | None


def train_and_evaluate(config: RunConfig, job: Job, notify: Notify = print) -> Outcome:
    """Train unless told not to, then evaluate; what the paper repo's `main.py` does."""
    method = config.train_method
    if job.eval_only and job.checkpoint is None and config.generate.backend != "http":
        method = None  # a server may hold a trained reader; a model here does without a checkpoint
    require_flags(config, job)
    if job.eval_only:
        return _train_and_evaluate(config, job, method, notify)
    with joined_processes():
        speak = notify if is_main_process() else _silent
        return _train_and_evaluate(config, job, method, speak)


def _train_and_evaluate(
    config: RunConfig, job: Job, method: Method | None, notify: Notify
) -> Outcome:
    if job.checkpoint is None and not job.train_only:
        require_verbatim_method(config.generate, method)
    view = config.evaluate.eval_split
    purpose = "-".join([method or "zero_shot", view])
    require_writable(job.run or job.runs)
    if not job.eval_only:
        require_writable(job.checkpoints)
    selection = select_samples(config.data, view, notify)
    if not job.train_only:
        require_questions(selection.val)
    lesson = None
    if not job.eval_only and method is not None:  # before any weights are read
        lesson = prepare_lesson(engine_model(config.model), selection, method, config, notify)
    loaded = open_driver_model(config, notify)
    if loads_in_one_process():
        loaded = replace(loaded, base_hash=from_main(loaded.base_hash))
    if job.checkpoint is not None:
        loaded, method = load_reader(loaded, job.checkpoint, config, notify=notify)
    else:
        wording = loaded.wording.writing(method, config.train.scratchpad_form)
        loaded = replace(loaded, wording=wording)
    if config.peft is not None and not job.eval_only:
        require_trainable(loaded, config.peft)
    if not job.train_only:
        require_verbatim_method(config.generate, method)
    base, data = loaded.base_hash, (selection.train if not job.eval_only else (), selection.val)
    name = run_name(config, job.experiment, purpose, job.checkpoint, samples=data, base_hash=base)
    folder = job.run or job.runs / name
    if job.overwrite:
        refuse_inside(folder, job.checkpoint)
    if not job.eval_only and lesson is None:  # the checkpoint said the method
        assert method is not None
        lesson = prepare_lesson(loaded, selection, method, config, notify)
    if not job.train_only:
        refuse_long_prompts(loaded, selection.val, generate_for(config.generate, method))
    require_same_run(name)
    anew = job.overwrite and not is_restarted()
    do_in_main(lambda: open_run(folder, config, name, overwrite=anew))
    require_shared(folder)
    notify(f"run folder: {folder}")
    trained = None
    if lesson is not None and method is not None:
        earlier = _trainings(job.checkpoint)
        loaded, trained = train_reader(
            loaded, lesson, method, config, folder, notify, earlier=earlier
        )
        leave_processes()
        if not is_main_process():
            return Outcome(folder, None, None, trained)
        metadata = describe_adapter(loaded, method, config, earlier=earlier)
        _publish(loaded, folder, job, metadata, notify)
        if is_sharded() and not job.train_only:
            notify("the model is spread over processes; one alone evaluates it with --eval_only")
            return Outcome(folder, None, None, trained)
    if job.train_only:
        return Outcome(folder, None, None, trained)
    scores = evaluate_reader(loaded, selection.val, method, config, folder, notify)
    summary = summarise(scores)[0]
    last_only = config.evaluate.last_answer_only
    headline = Headline(
        "final answers" if last_only else "whole completions",
        summary.subspan_exact_match.estimate
        if last_only
        else summary.completion_subspan_exact_match,
    )
    write_json(folder / "summary.json", {"headline": asdict(headline), **asdict(summary)})
    return Outcome(folder, summary, headline, trained)


def _silent(line: str) -> None:
    """Of several processes one speaks."""


def require_flags(config: RunConfig, job: Job) -> None:
    """What a run needs and does not have is said before anything is read or loaded."""
    require_backend(config.generate)
    require_executor(config.evaluate)
    if job.eval_only and job.train_only:
        raise ConfigError("--eval_only and --train_only together leave nothing to do")
    if job.eval_only:
        require_one_process("evaluation")
        return
    require_local(config.generate, "training")
    require_local_executor(config.evaluate, "training")
    if config.train_method is None and job.checkpoint is None:
        raise ConfigError("training needs --train_method sft or --train_method scratchpad")
    if config.peft is None:
        raise ConfigError("training needs --peft_config, for example lora_r8_a16_qv")
    view = config.evaluate.eval_split
    if config.data.train_positions != "fixed" and view is not EvalSplit.ALL:
        raise ConfigError(
            f"train_positions {config.data.train_positions} needs --eval_split val_anc: with "
            f"{view} there are no other passages to place the gold one among"
        )
    require_method(config.peft, config.model)
    require_trackers(config.train.report_to)
    if is_sharded():
        require_spreadable(config)


def require_questions(examples: Sequence[Example]) -> None:
    """Refuse an evaluation of nothing."""
    if not examples:
        raise DataError("there are no questions to evaluate on; the file is too small to split")


def refuse_long_prompts(
    loaded: LoadedModel, examples: Sequence[Example], config: GenerateConfig
) -> None:
    """Prompts that do not fit are refused before the training, not after it."""
    if loaded.tokenizer is None:
        return  # a server refuses what is too long for it
    prompts = [render_prompt(example, loaded.wording) for example in examples]
    lengths = [len(encode_prompt(prompt, loaded.tokenizer)) for prompt in prompts]
    room = max_new_tokens_for(config, None)
    require_fitting(lengths, loaded.context_length, room)


def _trainings(checkpoint: Path | None) -> tuple[dict[str, Any], ...]:
    """The trainings that made a checkpoint, as far as it tells."""
    metadata = None if checkpoint is None else read_adapter(checkpoint).metadata
    return () if metadata is None else metadata.trainings


def _publish(
    loaded: LoadedModel,
    folder: Path,
    job: Job,
    metadata: AdapterMetadata,
    notify: Notify,
) -> None:
    """Put the `.pt` file where the commands look for it, unless one is there."""
    file_name = CHECKPOINT_NAMES[Method(metadata.method)]
    path = job.checkpoints / metadata.model_name / file_name
    if path.exists() and not job.overwrite:
        notify(f"{path} exists and is kept (--overwrite replaces it); this run's is in {folder}")
        path = folder / file_name
    try:
        save_checkpoint(loaded, metadata, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    notify(f"checkpoint: {path}")


def evaluate_reader(
    loaded: LoadedModel,
    examples: Sequence[Example],
    method: Method | None,
    config: RunConfig,
    folder: Path,
    notify: Notify,
) -> list[Score]:
    """Answer and score the examples into `folder/scores.jsonl`, with a progress bar."""
    trials = [Trial(example, example) for example in examples]

    def show(score: Score, prompt: Rendered) -> None:
        show_score(score, prompt, last_answer_only=config.evaluate.last_answer_only)

    shown = show if config.evaluate.print_outputs else None
    with answering(loaded, method, config, notify) as backend:
        arm = Arm(
            name=arm_name(method, config.evaluate.eval_split),
            method=method,
            wording=loaded.wording,
            backend=backend,
        )
        return answer_trials(arm, trials, folder / "scores.jsonl", notify, shown)


def answer_trials(
    arm: Arm,
    trials: Sequence[Trial],
    path: Path,
    notify: Notify,
    show: Callable[[Score, Rendered], None] | None = None,
) -> list[Score]:
    """Answer and score trials into `path`, with a bar; what it holds already is kept and shown."""
    known = len(known_scores(arm, trials, path))
    if known:
        notify(f"{arm.name}: {known} of {len(trials)} samples are scored already")
    with progress_bar(arm.name, len(trials), known) as bar:

        def on_score(score: Score, prompt: Rendered, new: bool) -> None:
            bar.update(int(new))
            if show is not None:
                bar.clear()  # else the sample's first line would stand behind the bar
                show(score, prompt)

        try:
            return evaluate(arm, trials, path, on_score)
        except OSError as error:
            raise cannot_write(path, error) from error
        except KeyboardInterrupt:
            notify(f"stopped; what is scored is kept in {path}. The same command goes on from it")
            raise


def arm_name(method: Method | None, view: EvalSplit) -> str:
    """What scores are filed under.

    >>> arm_name(None, EvalSplit.GOLD), arm_name(Method.SFT, EvalSplit.ALL)
    ('gold_only', 'sft')
    """
    if method is not None:
        return method.value
    names = {
        EvalSplit.ALL: "zero_shot",
        EvalSplit.GOLD: "gold_only",
        EvalSplit.NO_GOLD: "no_gold",
        EvalSplit.CLOSED_BOOK: "closed_book",
    }
    return names[view]
