"""`data audit`: read a data set, check it, and tell what was found."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from scratchpad_rag.app.runs import cannot_write, require_writable
from scratchpad_rag.config import (
    DataConfig,
    build,
    load_experiment,
    load_model_config,
)
from scratchpad_rag.data.audit import audit
from scratchpad_rag.data.audit_lengths import count_words
from scratchpad_rag.data.audit_records import (
    Audit,
    AuditFile,
    AuditSettings,
    PartLengths,
    Ruler,
    Samples,
)
from scratchpad_rag.data.curriculum import place_drawn, plan_epoch
from scratchpad_rag.data.place import place
from scratchpad_rag.data.readers import read_with_splits
from scratchpad_rag.data.select import select_samples, source_files
from scratchpad_rag.errors import ConfigError, DataError
from scratchpad_rag.prompts.render import render_sample
from scratchpad_rag.prompts.template import ANSWER_LABEL, PASSAGE_START, QUESTION_LABEL
from scratchpad_rag.records import EvalSplit, Example, Method, Region
from scratchpad_rag.report.audit import AuditContext, write_audit

Notify = Callable[[str], None]
_LAYOUT = (PASSAGE_START, f"\n{QUESTION_LABEL}", f"\n{ANSWER_LABEL}")


@dataclass(frozen=True)
class AuditJob:
    """What is to be checked, and how."""

    paths: tuple[Path, ...] = ()
    experiment: str | None = None
    model: str | None = None  # a model config, whose tokenizer counts; not given: words
    method: Method = Method.SCRATCHPAD
    total_docs: int | None = None
    max_length: int | None = None  # tokens (words without a model); not given: the model's context
    near: float = 0.8
    out: Path | None = None  # folder of the page
    command: str = ""


def run_audit(job: AuditJob, notify: Notify) -> Audit:
    """Read the questions, check them, and write the page where one is asked for.

    Raises ConfigError where nothing or too much is named, and UserError for what cannot be read.
    """
    data = _data_config(job, notify)
    if job.out is not None:
        require_writable(job.out)
    ruler = _ruler(job)
    paths = list(job.paths) or source_files(_required(data))
    files = [AuditFile(str(path), read_with_splits(path)) for path in paths]
    samples = None if data is None else _samples(data, notify)
    settings = _settings(job, data)
    if samples is None and settings.total_docs is not None:
        shown = [_shown(row.example, settings.total_docs) for file in files for row in file.rows]
        samples = Samples([], shown)
    found = audit(files, settings, samples, ruler, notify)
    if job.out is not None:
        context = AuditContext(
            title=f"Audit of {job.experiment or ', '.join(path.name for path in paths)}",
            command=job.command,
            peak_bytes=peak_memory(),
            method=job.method,
        )
        try:
            notify(f"page: {write_audit(found, job.out, context)}")
        except OSError as error:
            raise cannot_write(job.out, error) from error
    return found


def _data_config(job: AuditJob, notify: Notify) -> DataConfig | None:
    if job.experiment is None:
        if not job.paths:
            raise ConfigError("name the questions: --data_path FILE, or --experiment_config")
        return None
    if len(job.paths) > 1:
        raise ConfigError("--experiment_config reads one --data_path; leave one of the two out")
    sections, warnings = load_experiment(job.experiment)
    for warning in warnings:
        notify(f"warning: {warning}")
    data = build(DataConfig, sections["data"], job.experiment)
    if job.paths:
        data = replace(data, name="examples", path=str(job.paths[0]))
    if job.total_docs is not None:
        kept = tuple(at for at in data.gold_at if at < job.total_docs)
        data = replace(data, total_docs=job.total_docs, gold_at=kept or (0,))
    return data


def _required(data: DataConfig | None) -> DataConfig:
    assert data is not None  # without paths there is an experiment
    return data


def _settings(job: AuditJob, data: DataConfig | None) -> AuditSettings:
    plain = AuditSettings(near=job.near, total_docs=job.total_docs, layout=_LAYOUT)
    if data is None:
        return plain
    return replace(
        plain,
        total_docs=data.total_docs,
        places_gold=data.passage_order not in ("given", "retrieved"),
        train_ratio=data.train_ratio,
        seed=data.seed,
    )


def _samples(data: DataConfig, notify: Notify) -> Samples | None:
    """The samples of a run. What a run would refuse has a finding of its own."""
    try:
        selection = select_samples(data, EvalSplit.ALL, notify)
        train = selection.train
        if selection.curriculum is not None:
            plan = plan_epoch(train, selection.curriculum, 0)
            train = [place_drawn(*pair) for pair in zip(train, plan, strict=True)]
    except DataError as error:
        notify(f"a run would refuse: {error}")
        return None
    return Samples(train, selection.val)


def _shown(example: Example, total_docs: int) -> Example:
    enough = len(example.gold) <= total_docs <= len(example.passages)
    return place(example, total_docs, None) if enough else example


def _ruler(job: AuditJob) -> Ruler:
    if job.model is None:

        def words(example: Example) -> PartLengths:
            return count_words(example, job.method)

        return Ruler(words, "words", job.max_length)
    config = load_model_config(job.model)

    from scratchpad_rag.models.load import engine_model
    from scratchpad_rag.tokens.encode import count_regions

    loaded = engine_model(config)

    def tokens(example: Example) -> PartLengths:
        rendered = render_sample(example, loaded.wording, job.method, abstain=not example.gold)
        regions = count_regions(rendered, loaded.tokenizer)
        return PartLengths(
            regions.prompt,
            regions.completion[Region.SCRATCHPAD],
            regions.completion[Region.ANSWER],
            regions.whole,
        )

    return Ruler(tokens, "tokens", job.max_length or loaded.context_length)


def peak_memory() -> int:
    """Bytes that this process held at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
