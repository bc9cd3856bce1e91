"""`compare`: every way of reading on the same questions, and the report about it."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scratchpad_rag.app.adapters import put_on
from scratchpad_rag.app.commands import (
    CHECKPOINT_NAMES,
    Notify,
    answer_trials,
    refuse_long_prompts,
    require_questions,
)
from scratchpad_rag.app.grid_cells import keep_best
from scratchpad_rag.app.hardware import describe_hardware
from scratchpad_rag.app.processes import require_one_process
from scratchpad_rag.app.progress import Plan
from scratchpad_rag.app.runs import (
    cannot_write,
    open_run,
    refuse_inside,
    require_writable,
    run_name,
)
from scratchpad_rag.app.training import (
    Lesson,
    is_trained,
    prepare_lesson,
    require_trackers,
    train_reader,
)
from scratchpad_rag.backends.base import load_backend, require_backend, require_local
from scratchpad_rag.backends.ray import require_local_executor
from scratchpad_rag.config import (
    GenerateConfig,
    PeftConfig,
    RunConfig,
    generate_for,
    max_new_tokens_for,
    resource,
)
from scratchpad_rag.data.place import show
from scratchpad_rag.data.retrieve import PassageRanker
from scratchpad_rag.data.select import select_samples
from scratchpad_rag.errors import CheckpointError, ConfigError
from scratchpad_rag.evaluate.run import Arm, Trial
from scratchpad_rag.evaluate.score_file import read_scores
from scratchpad_rag.models.adapters import merged_adapter
from scratchpad_rag.models.checkpoints import Adapter, read_adapter
from scratchpad_rag.models.load import LoadedModel, load_model
from scratchpad_rag.models.restore import load_adapter
from scratchpad_rag.models.start import require_method, require_trainable
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.reader import prompt_format, trained_form
from scratchpad_rag.records import EvalSplit, Example, Method, Score, ScratchpadForm
from scratchpad_rag.report.html import ReportContext, write_report
from scratchpad_rag.tokens.encode import encode_prompt

# A token generated on its own costs about as much as this many tokens of a prompt; only for the
# estimate of the time left.
_DECODE_WEIGHT = 40
_TRAIN_WEIGHT = 3


@dataclass(frozen=True)
class CompareJob:
    """What is compared. Checkpoints given are read instead of trained."""

    experiment: str
    run: Path | None = None
    runs: Path = Path("runs")
    scratchpad_checkpoint: Path | None = None
    sft_checkpoint: Path | None = None
    shipped: bool = True  # show the checkpoints that come with the project beside the new ones
    answer_tokens: int = 32  # max_new_tokens of the methods that write no scratchpad
    overwrite: bool = False
    title: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A row of the table: what the prompt shows and which adapter reads it."""

    name: str
    adapter: str | None
    method: Method | None
    trials: tuple[Trial, ...]
    form: ScratchpadForm = ScratchpadForm.PASSAGE  # of its scratchpads

    def asked(self, loaded: LoadedModel) -> LoadedModel:
        """The model with the wording that this method's prompts have."""
        return replace(loaded, wording=loaded.wording.writing(self.method, self.form))


def compare(config: RunConfig, job: CompareJob, notify: Notify = print) -> list[Score]:
    """Train what is not given, answer with every method, write the report; all resumable.

    SFT's adapter also reads for gold-only and rerank-then-read, so that those differ from SFT
    in the passages alone.
    """
    began = time.perf_counter()
    require_backend(config.generate)
    require_local(config.generate, "comparing adapters")
    require_local_executor(config.evaluate, "comparing")
    require_one_process("comparing")
    given = {
        Method.SCRATCHPAD: job.scratchpad_checkpoint,
        Method.SFT: job.sft_checkpoint,
    }
    read = {method: read_adapter(path) for method, path in given.items() if path is not None}
    form = config.train.scratchpad_form or ScratchpadForm.PASSAGE
    if Method.SCRATCHPAD in read:
        form = trained_form(read[Method.SCRATCHPAD], config.train.scratchpad_form)
    if config.peft is None and len(read) < len(given):
        raise ConfigError("training needs --peft_config, for example lora_r8_a16_qv")
    trained = config.peft if len(read) < len(given) else None
    if trained is not None:
        require_method(trained, config.model)
        require_trackers(config.train.report_to)
    require_writable(job.run or job.runs)
    selection = select_samples(config.data, EvalSplit.ALL, notify)
    require_questions(selection.val)
    loaded = load_model(config.model, notify)
    if trained is not None:
        require_trainable(loaded, trained)
    shipped = _shipped(config, loaded) if job.shipped else {}
    paths = [*given.values(), *(adapter.path for adapter in shipped.values())]
    name = run_name(
        config,
        job.experiment,
        "compare",
        *paths,
        samples=(selection.train, selection.val),
        base_hash=loaded.base_hash,
    )
    folder = job.run or job.runs / name
    if job.overwrite:
        refuse_inside(folder, *given.values())
    entries = list_entries(selection.val, shipped, form)
    for entry in entries:
        shown = [trial.shown for trial in entry.trials]
        refuse_long_prompts(entry.asked(loaded), shown, _generate(entry, config, job))
    to_train = {
        method: prepare_lesson(loaded, selection, method, config, notify)
        for method in given
        if method not in read
    }
    for method, adapter in read.items():  # refused now where base, rank or method are others
        loaded = put_on(loaded, adapter, method, config)
    open_run(folder, config, name, overwrite=job.overwrite)
    notify(f"run folder: {folder}")
    scores_path = folder / "scores.jsonl"
    resumed = bool(read_scores(scores_path))
    plan = _plan(loaded, entries, to_train, config, job, folder)
    if to_train:
        del loaded  # one model in memory at a time
        for method, lesson in to_train.items():
            with plan.stage(f"train {method}", notify):
                model = load_model(config.model)
                train_reader(model, lesson, method, config, folder / method, notify)
                del model
        loaded = load_model(config.model)
        for method in given:
            adapter = read[method] if method in read else read_adapter(folder / method / "adapter")
            loaded = put_on(loaded, adapter, method, config)
    for key, adapter in shipped.items():
        loaded = load_adapter(loaded, adapter, None, key)
    scores: list[Score] = []
    for entry in entries:
        with plan.stage(entry.name, notify):
            scores += answer(entry, loaded, config, job, scores_path, notify)
    seconds = None if resumed else time.perf_counter() - began
    try:
        page = write_report(scores, folder, context=_context(config, job, form, seconds))
    except OSError as error:
        raise cannot_write(folder, error) from error
    notify(f"report: {page}")
    return scores


def list_entries(
    examples: Sequence[Example], shipped: dict[str, Adapter], form: ScratchpadForm
) -> list[Entry]:
    """The methods in the order of the table, the scratchpad's own of a `form`. Scores of all are
    filed under the same samples."""
    ranker = PassageRanker([passage for e in examples for passage in e.passages])
    everything = tuple(Trial(e, e) for e in examples)
    none = tuple(Trial(e, show(e, EvalSplit.CLOSED_BOOK)) for e in examples)
    gold = tuple(Trial(show(e, EvalSplit.GOLD), show(e, EvalSplit.GOLD)) for e in examples)
    first = tuple(Trial(e, keep_best(e, ranker)) for e in examples)
    entries = [
        Entry("closed_book", None, None, _once(none)),
        Entry("zero_shot", None, None, everything),
        Entry("sft", "sft", Method.SFT, everything),
        Entry("scratchpad", "scratchpad", Method.SCRATCHPAD, everything, form),
        Entry("gold_only", "sft", Method.SFT, _once(gold)),
        Entry("rerank_then_read", "sft", Method.SFT, first),
    ]
    for name, adapter in shipped.items():
        assert adapter.metadata is not None
        method, own = Method(adapter.metadata.method), trained_form(adapter, None)
        entries.append(Entry(name, name, method, everything, own))
    return entries


def answer(
    entry: Entry,
    loaded: LoadedModel,
    config: RunConfig,
    job: CompareJob,
    path: Path,
    notify: Notify,
) -> list[Score]:
    """Answer one method's trials with its adapter; what `path` holds already is kept."""
    with merged_adapter(loaded, entry.adapter):
        backend = load_backend(loaded, _generate(entry, config, job), notify)
        arm = Arm(entry.name, entry.method, entry.asked(loaded).wording, backend)
        return answer_trials(arm, entry.trials, path, notify)


def _generate(entry: Entry, config: RunConfig, job: CompareJob) -> GenerateConfig:
    """Scratchpads have the room of the config, the answers of the other methods their own."""
    settled = generate_for(config.generate, entry.method)
    if entry.method is Method.SCRATCHPAD:
        return settled
    room = min(job.answer_tokens, config.generate.max_new_tokens or job.answer_tokens)
    return replace(settled, max_new_tokens=room)


def _once(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """One trial a question, for methods that no gold position reaches."""
    return tuple({trial.sample.id: trial for trial in trials}.values())


def _shipped(config: RunConfig, loaded: LoadedModel) -> dict[str, Adapter]:
    """Adapters that come with the project for this model and prompt format."""
    found = {}
    for method, file in CHECKPOINT_NAMES.items():
        try:
            path = resource(f"checkpoints/{config.model_name}/{file}")
            adapter = read_adapter(path)
        except (ConfigError, CheckpointError):
            continue
        metadata = adapter.metadata
        if (
            metadata is not None
            and metadata.base_hash == loaded.base_hash
            and metadata.prompt_format == prompt_format(loaded)
        ):
            found[f"{method.value}_shipped"] = adapter
    return found


def _plan(
    loaded: LoadedModel,
    entries: Sequence[Entry],
    to_train: Mapping[Method, Lesson],
    config: RunConfig,
    job: CompareJob,
    folder: Path,
) -> Plan:
    """Work by stage in units of one prompt token, to tell the time left."""
    stages: dict[str, float] = {}
    for method, lesson in to_train.items():
        finished = is_trained(folder / method)
        tokens = 0.0 if finished else sum(lesson.samples.lengths(0)) * config.train.num_train_epochs
        stages[f"train {method}"] = _TRAIN_WEIGHT * tokens
    scored = Counter(score.method for score in read_scores(folder / "scores.jsonl"))
    for entry in entries:
        wording = entry.asked(loaded).wording
        texts = {t.shown: render_prompt(t.shown, wording) for t in entry.trials}
        tokens = sum(len(encode_prompt(text, loaded.tokenizer)) for text in texts.values())
        passes = 8 if entry.method is Method.SCRATCHPAD else job.answer_tokens / 4
        rest = 1 - min(1.0, scored[entry.name] / len(entry.trials))
        stages[entry.name] = rest * (tokens + _DECODE_WEIGHT * passes * len(texts))
    return Plan(stages)


def _context(
    config: RunConfig, job: CompareJob, form: ScratchpadForm, seconds: float | None
) -> ReportContext:
    data, train = config.data, config.train
    training: dict[str, str] = {}
    if config.peft is not None:
        most = data.train_total_docs or data.total_docs
        shown = f"{most} documents each"
        if data.train_positions == "uniform":
            shown = f"{data.train_min_docs or most} to {most} documents, placed anew every epoch"
        if data.train_passages == "sentences":
            shown += ", each cut to the sentences that would support an answer"
        weights = f"tokens that choose ×{train.choice_weight:g}, answer ×{train.answer_weight:g}"
        samples = "all" if data.num_train_samples is None else str(data.num_train_samples)
        training = {
            "Training samples": f"{samples}, with {shown}",
            "Training": f"epochs: {train.num_train_epochs:g}, learning rate {train.lr:g}, loss "
            f"over the {train.loss_region}, {train.gradient_accumulation_steps} samples a step",
            **({} if train.choice_weight == train.answer_weight == 1 else {"Weights": weights}),
            **_trained_part(config.peft),
        }
    checkpoints = [str(p) for p in (job.scratchpad_checkpoint, job.sft_checkpoint) if p is not None]
    if checkpoints:
        training["Checkpoints"] = ", ".join(checkpoints)
    room = max_new_tokens_for(config.generate, Method.SCRATCHPAD)
    settings = {
        "Model": f"{config.model_name} ({config.model.pretrained_model_name_or_path})",
        "Questions": str(data.path or data.name),
        "Documents shown": f"{data.total_docs}, the gold one at {list(data.gold_at)}",
        **training,
        "Gold only; Rerank, then read": "one passage (the gold one; BM25's first), read by SFT's "
        "adapter",
        **({} if form is ScratchpadForm.PASSAGE else {"Scratchpads": f"of the form {form}"}),
        "Decoding": f"greedy, {config.generate.backend} backend; scratchpads of up to {room} "
        f"tokens{_held(config.generate)}, answers of up to {job.answer_tokens}",
        "Hardware": describe_hardware(),
    }
    title = job.title or f"{config.model_name}: {data.total_docs} documents"
    return ReportContext(
        title=title,
        subtitle="How each way of reading fares as the gold passage moves",
        settings=settings,
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        notes=job.notes,
        wall_seconds=seconds,
    )


def _trained_part(peft: PeftConfig) -> dict[str, str]:
    if peft.method == "none":
        return {"Trained": "all weights"}
    options = peft.kwargs
    return {
        "LoRA": f"rank {options.get('r')}, alpha {options.get('lora_alpha')}, "
        f"on {options.get('target_modules')}"
    }


def _held(generate: GenerateConfig) -> str:
    if not generate.verbatim:
        return ""
    return f" held to whole {generate.quote}s of the context"
