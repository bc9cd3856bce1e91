"""`compare`: every way of reading on the same questions, and the report about it."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from scratchpad_rag.app.commands import (
    CHECKPOINT_NAMES,
    Notify,
    encode_samples,
    train_reader,
)
from scratchpad_rag.app.progress import Plan, progress_bar
from scratchpad_rag.app.runs import cannot_write, open_run, require_writable, run_name
from scratchpad_rag.backends.base import load_backend
from scratchpad_rag.config import RunConfig, resource
from scratchpad_rag.data.place import show
from scratchpad_rag.data.retrieve import PassageRanker
from scratchpad_rag.data.select import select_samples
from scratchpad_rag.errors import CheckpointError, ConfigError, UserError
from scratchpad_rag.evaluate.run import Arm, Trial, evaluate, read_scores
from scratchpad_rag.models.adapters import Adapter, load_adapter, read_adapter, use_adapter
from scratchpad_rag.models.load import LoadedModel, load_model
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.reader import prompt_format
from scratchpad_rag.records import Encoded, EvalSplit, Example, Method, Rendered, Score
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
    answer_batch_size: int = 8
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


def compare(config: RunConfig, job: CompareJob, notify: Notify = print) -> list[Score]:
    """Train what is not given, answer with every method, write the report; all resumable.

    SFT's adapter also reads for gold-only and rerank-then-read, so that those differ from SFT
    in the passages alone.
    """
    began = time.perf_counter()
    checkpoints = (job.scratchpad_checkpoint, job.sft_checkpoint)
    name = run_name(config, job.experiment, "compare", *checkpoints)
    folder = job.run or job.runs / name
    require_writable(folder)
    given = [path for path in checkpoints if path is not None]
    for path in given:  # all that can be refused is refused before the expensive work
        read_adapter(path)
    if config.peft is None and len(given) < 2:
        raise ConfigError("training needs --peft_config, for example lora_r8_a16_qv")
    selection = select_samples(config.data, EvalSplit.ALL, notify)
    open_run(folder, config, name, overwrite=job.overwrite)
    notify(f"run folder: {folder}")
    adapters = {
        "scratchpad": job.scratchpad_checkpoint or folder / "scratchpad" / "adapter",
        "sft": job.sft_checkpoint or folder / "sft" / "adapter",
    }
    loaded = load_model(config.model, notify)
    to_train = {
        Method(key): encode_samples(loaded, selection.train, Method(key), config)
        for key, path in adapters.items()
        if path == folder / key / "adapter"
    }
    shipped = _shipped(config, loaded) if job.shipped else {}
    entries = list_entries(selection.val, shipped)
    plan = _plan(loaded, entries, to_train, config, job)
    for method, samples in to_train.items():
        with plan.stage(f"train {method}", notify):
            train_reader(
                load_model(config.model),
                samples,
                method,
                config,
                folder / method.value,
                notify,
            )
    read = {key: read_adapter(path) for key, path in adapters.items()} | shipped
    for key, adapter in read.items():
        loaded = load_adapter(loaded, adapter, None, key)
    scores: list[Score] = []
    for entry in entries:
        with plan.stage(entry.name, notify):
            scores += answer(entry, loaded, config, job, folder / "scores.jsonl")
    page = write_report(scores, folder, context=_context(config, job, time.perf_counter() - began))
    notify(f"report: {page}")
    return scores


def list_entries(examples: Sequence[Example], shipped: dict[str, Adapter]) -> list[Entry]:
    """The methods in the order of the table. Scores of all are filed under the same samples."""
    ranker = PassageRanker([passage for e in examples for passage in e.passages])
    everything = tuple(Trial(e, e) for e in examples)
    none = tuple(Trial(e, show(e, EvalSplit.CLOSED_BOOK)) for e in examples)
    gold = tuple(Trial(show(e, EvalSplit.GOLD), show(e, EvalSplit.GOLD)) for e in examples)
    first = tuple(Trial(e, keep_best(e, ranker)) for e in examples)
    entries = [
        Entry("closed_book", None, None, _once(none)),
        Entry("zero_shot", None, None, everything),
        Entry("sft", "sft", Method.SFT, everything),
        Entry("scratchpad", "scratchpad", Method.SCRATCHPAD, everything),
        Entry("gold_only", "sft", Method.SFT, _once(gold)),
        Entry("rerank_then_read", "sft", Method.SFT, first),
    ]
    for name, adapter in shipped.items():
        assert adapter.metadata is not None
        entries.append(Entry(name, name, Method(adapter.metadata.method), everything))
    return entries


def keep_best(example: Example, ranker: PassageRanker) -> Example:
    """The example with only the passage that BM25 ranks first."""
    best = ranker.rank(example.question, example.passages)[0]
    gold = (0,) if best in example.gold else ()
    return replace(example, passages=(example.passages[best],), gold=gold)


def answer(
    entry: Entry, loaded: LoadedModel, config: RunConfig, job: CompareJob, path: Path
) -> list[Score]:
    """Answer one method's trials with its adapter; what `path` holds already is kept."""
    generate = config.generate
    if entry.method is not Method.SCRATCHPAD:  # short answers: batches beat prompt lookup
        generate = replace(
            generate,
            max_new_tokens=min(job.answer_tokens, generate.max_new_tokens),
            batch_size=job.answer_batch_size,
        )
    known = sum(score.method == entry.name for score in read_scores(path))
    with (
        use_adapter(loaded, entry.adapter),
        progress_bar(entry.name, len(entry.trials), known) as bar,
    ):
        arm = Arm(entry.name, entry.method, loaded.wording, load_backend(loaded, generate))
        try:

            def tick(_: Score, __: Rendered, new: bool) -> None:
                bar.update(int(new))

            return evaluate(arm, entry.trials, path, tick)
        except OSError as error:
            raise cannot_write(path, error) from error


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
    to_train: Mapping[Method, Sequence[Encoded]],
    config: RunConfig,
    job: CompareJob,
) -> Plan:
    """Work by stage in units of one prompt token, to tell the time left."""
    stages: dict[str, float] = {}
    for method, samples in to_train.items():
        tokens = sum(map(len, samples)) * config.train.num_train_epochs
        stages[f"train {method}"] = _TRAIN_WEIGHT * tokens
    for entry in entries:
        texts = {t.shown: render_prompt(t.shown, loaded.wording) for t in entry.trials}
        tokens = sum(len(encode_prompt(text, loaded.tokenizer)) for text in texts.values())
        passes = 20 if entry.method is Method.SCRATCHPAD else job.answer_tokens / 4
        stages[entry.name] = tokens + _DECODE_WEIGHT * passes * len(texts)
    return Plan(stages)


def _context(config: RunConfig, job: CompareJob, seconds: float) -> ReportContext:
    data, train = config.data, config.train
    peft = config.peft.kwargs if config.peft else {}
    shown = data.train_total_docs or data.total_docs
    settings = {
        "Model": f"{config.model_name} ({config.model.pretrained_model_name_or_path})",
        "Questions": str(data.path or data.name),
        "Documents shown": f"{data.total_docs}, the gold one at {list(data.gold_at)}",
        "Training samples": f"{data.num_train_samples} with {shown} documents each",
        "Training": f"epochs: {train.num_train_epochs:g}, learning rate {train.lr:g}, "
        f"loss over the {train.loss_region}, {train.gradient_accumulation_steps} samples a step",
        "LoRA": f"rank {peft.get('r')}, alpha {peft.get('lora_alpha')}, "
        f"on {peft.get('target_modules')}",
        "Gold only; Rerank, then read": "one passage (the gold one; BM25's first), read by SFT's "
        "adapter",
        "Decoding": f"greedy; scratchpads of up to {config.generate.max_new_tokens} tokens with "
        f"prompt lookup of {config.generate.prompt_lookup_num_tokens}, answers of up to "
        f"{job.answer_tokens} tokens in batches of {job.answer_batch_size}",
        "Hardware": _hardware(),
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


def _hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpu = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or "CPU"
    return f"{os.cpu_count()} cores, {cpu}"


def read_notes(path: Path | None) -> tuple[str, ...]:
    """Paragraphs and list items of a text file, as the report page shows them.

    A paragraph ends at a blank line; a line that begins with "- " is an item of a list.
    """
    if path is None:
        return ()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    notes: list[str] = []
    for block in text.split("\n\n"):
        for line in block.strip().splitlines():
            if line.startswith("- ") or not notes or line == block.strip().splitlines()[0]:
                notes.append(line.strip())
            else:
                notes[-1] += " " + line.strip()
    return tuple(note for note in notes if note)
