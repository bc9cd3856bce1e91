"""`sweep`: every method at every gold position and number of documents, on the same questions."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchpad_rag.app.adapters import put_on
from scratchpad_rag.app.grid_cells import Asked, GridTrials, ask
from scratchpad_rag.app.grid_config import METHODS, Grid, find_checkpoint
from scratchpad_rag.app.grid_cost import (
    Block,
    PromptTokens,
    as_weight,
    count_cost,
    measure_speed,
)
from scratchpad_rag.app.grid_tables import cost_table, grid_table, summary_of
from scratchpad_rag.app.hardware import describe_hardware
from scratchpad_rag.app.processes import require_one_process
from scratchpad_rag.app.progress import Plan, above_bar, progress_bar
from scratchpad_rag.app.runs import (
    RUNS,
    cannot_write,
    digest_checkpoint,
    holds_run,
    open_run,
    refuse_inside,
    require_writable,
    write_json,
)
from scratchpad_rag.backends.base import (
    LOCAL_BACKENDS,
    Notify,
    open_model,
    require_backend,
)
from scratchpad_rag.backends.requests import RequestBackend, generate_with
from scratchpad_rag.config import RunConfig, bare_name
from scratchpad_rag.errors import ConfigError
from scratchpad_rag.evaluate.run import Way
from scratchpad_rag.evaluate.score_file import read_scores, score_key
from scratchpad_rag.evaluate.speed import Speed, speed_of
from scratchpad_rag.evaluate.together import Task, answer_blocks
from scratchpad_rag.models.adapters import merged_adapter
from scratchpad_rag.models.checkpoints import Adapter, read_adapter
from scratchpad_rag.models.load import LoadedModel
from scratchpad_rag.records import Method, Score
from scratchpad_rag.report.grid import write_grid_report
from scratchpad_rag.report.html import ReportContext
from scratchpad_rag.tokens.encode import require_fitting

SCORES = "scores.jsonl"
GRID_FILE = "grid.yaml"
# Prompts without passages are short, and answered side by side.
_SHORT_BLOCK = 64
# Questions handed over at a time where a GPU has room for many prompts side by side.
_GPU_QUESTIONS = 8


@dataclass(frozen=True)
class GridJob:
    """What is asked of one run of a grid beside its config."""

    name: str
    run: Path | None = None
    runs: Path = RUNS
    overwrite: bool = False
    dry_run: bool = False
    title: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """What one adapter reads, or the base model, block by block: blocks share no long prefix."""

    adapter: Method | None
    blocks: tuple[Block, ...]

    @property
    def name(self) -> str:
        return str(self.adapter or "base model")

    def left(self, done: set[Any]) -> Stage:
        """Without what is scored."""
        blocks = (tuple(t for t in block if t.key not in done) for block in self.blocks)
        return Stage(self.adapter, tuple(block for block in blocks if block))


def sweep(grid: Grid, job: GridJob, notify: Notify = print) -> list[Score]:
    """Answer every cell, resumably, and write tables and the report; the scores of all methods.

    With `job.dry_run` only the cost is told, and nothing is written. Raises UserError for what is
    wrong with the grid, its files or its checkpoints, before the first answer.
    """
    require_one_process("a sweep")
    _require_backend(grid)
    paths = {Method(key): find_checkpoint(path) for key, path in grid.checkpoints.items()}
    adapters = {method: read_adapter(path) for method, path in paths.items()}
    if not job.dry_run:
        require_writable(job.run or job.runs)
    asked = [ask(key, data, grid.seed, notify=notify) for key, data in grid.datasets.items()]
    for one in asked:
        for note in one.left_out:
            notify(f"{one.name}: {note}")
    loaded = open_model(grid.model, grid.generate, notify)
    loaded = with_adapters(loaded, adapters, grid)
    stages = list_stages(grid, asked, loaded)
    tokens = PromptTokens(loaded.tokenizer)
    _require_fitting(stages, loaded, grid, tokens)
    name = grid_name(grid, job.name, paths, asked, loaded.base_hash)
    folder = job.run or job.runs / name
    if job.overwrite:
        refuse_inside(folder, *paths.values())
    if not job.dry_run:
        plain = grid.plain()
        open_run(folder, plain, name, overwrite=job.overwrite, saved_as=GRID_FILE)
        notify(f"run folder: {folder}")
    # A dry run may look at a run that is under way: it neither mends its file nor trusts another's.
    known = not job.dry_run or holds_run(folder, name)
    scored = read_scores(folder / SCORES, mend=not job.dry_run) if known else []
    done = set(map(score_key, scored))
    left = [stage.left(done) for stage in stages]
    costs = [count_cost(stage.blocks, tokens) for stage in left] if loaded.tokenizer else []
    del tokens  # those of every prompt
    speed = speed_of(scored) or _timed(loaded, grid, left)
    _show(cost_table([stage.name for stage in left], costs, speed, asked))
    if job.dry_run:
        return scored
    weights = [as_weight(cost, speed) for cost in costs] or [float(len(s.blocks)) for s in left]
    plan = Plan(
        {stage.name: weight for stage, weight in zip(left, weights, strict=True) if stage.blocks}
    )
    for stage in left:
        if stage.blocks:
            with plan.stage(stage.name, notify):
                answer_stage(stage, loaded, grid, folder / SCORES, notify)
    return _finish(folder, grid, job, notify)


def answer_stage(stage: Stage, loaded: LoadedModel, grid: Grid, path: Path, notify: Notify) -> None:
    """Answer one adapter's blocks into `path`, with a bar."""
    with (
        reading(loaded, stage.adapter, grid) as reader,
        progress_bar(stage.name, sum(map(len, stage.blocks))) as bar,
    ):
        backend = RequestBackend(reader, grid.generate, above_bar(notify))

        def on_score(_: Score) -> None:
            bar.update(1)

        try:
            answer_blocks(stage.blocks, backend.answer, path, on_score)
        except OSError as error:
            raise cannot_write(path, error) from error
        except KeyboardInterrupt:
            notify(f"stopped; what is scored is kept in {path}. The same command goes on from it")
            raise


@contextmanager
def reading(loaded: LoadedModel, adapter: Method | None, grid: Grid) -> Iterator[LoadedModel]:
    """The model as one stage reads with it."""
    if grid.generate.backend not in LOCAL_BACKENDS:
        yield loaded
        return
    with merged_adapter(loaded, adapter.value if adapter else None):
        yield loaded


def list_stages(grid: Grid, asked: Sequence[Asked], loaded: LoadedModel) -> list[Stage]:
    """All answers to give, by adapter: first the base's, then in the order of the methods.

    One question's prompts stand together, of all cells and data sets that it is in: only they share
    more than the system sentence. Prompts without passages stand apart.
    """
    methods = {name: METHODS[name].method for name in grid.methods}
    ways = {
        name: Way(name, method, loaded.wording.writing(method)) for name, method in methods.items()
    }
    by_question: dict[str, list[Task]] = {}
    for one in asked:
        trials = GridTrials(one, grid)
        for number, example in enumerate(one.questions):
            of_question = by_question.setdefault(example.question, [])
            for name, trial in trials.of(number):
                of_question.append(Task(ways[name], trial, grid.options(name)))
    adapters = sorted(
        {METHODS[name].method for name in grid.methods},
        key=lambda adapter: -1 if adapter is None else list(Method).index(adapter),
    )
    together = _GPU_QUESTIONS if _on_gpu(loaded) else 1
    stages = []
    for adapter in adapters:
        own = [[t for t in tasks if t.way.method is adapter] for tasks in by_question.values()]
        short = [t for tasks in own for t in tasks if not t.trial.shown.passages]
        long = [[t for t in tasks if t.trial.shown.passages] for tasks in own]
        blocks = [*_joined([[task] for task in short], _SHORT_BLOCK), *_joined(long, together)]
        if blocks:
            stages.append(Stage(adapter, tuple(blocks)))
    return stages


def _joined(groups: Sequence[Sequence[Task]], count: int) -> list[tuple[Task, ...]]:
    full = [group for group in groups if group]
    starts = range(0, len(full), count)
    return [tuple(t for group in full[i : i + count] for t in group) for i in starts]


def _on_gpu(loaded: LoadedModel) -> bool:
    return loaded.model is not None and loaded.device.type == "cuda"


def with_adapters(
    loaded: LoadedModel, adapters: Mapping[Method, Adapter], grid: Grid
) -> LoadedModel:
    """The model with every adapter on it, under its method's name."""
    config = RunConfig(
        model=grid.model, peft=grid.peft, generate=grid.generate, model_name=grid.model_name
    )
    for method, adapter in adapters.items():
        loaded = put_on(loaded, adapter, method, config)
    return loaded


def _require_backend(grid: Grid) -> None:
    """Refuse what the backend cannot do for one of the methods."""
    asked = {name: (METHODS[name].method, grid.options(name)) for name in grid.methods}
    for _, options in asked.values():
        require_backend(generate_with(grid.generate, options))
    backend = grid.generate.backend
    adapted = [name for name, (adapter, _) in asked.items() if adapter is not None]
    if backend == "http" and adapted:
        raise ConfigError(
            f"backend http asks a server, which reads with its own weights; {', '.join(adapted)} "
            "need an adapter (closed_book and zero_shot need none)"
        )
    if backend not in LOCAL_BACKENDS and len(set(asked.values())) > 1:
        raise ConfigError(
            f"backend {backend} reads with one adapter and one length of answers at a time, and "
            f"{', '.join(asked)} differ in them; name methods that do not, or take native"
        )


def _require_fitting(
    stages: Sequence[Stage], loaded: LoadedModel, grid: Grid, tokens: PromptTokens
) -> None:
    """Refuse prompts that do not fit the model, and quotes that do not fit `max_new_tokens`, now
    rather than hours later."""
    if loaded.tokenizer is None:
        return  # a server refuses what is too long for it
    rooms: dict[int, list[int]] = {}
    fewest: dict[tuple[str, str], list[Task]] = {}
    for task in (task for stage in stages for block in stage.blocks for task in block):
        rooms.setdefault(task.options.max_new_tokens, []).append(len(tokens.of(task)))
        if task.options.verbatim:  # the shortest passage is longest where the fewest are shown
            shortest = fewest.setdefault((task.trial.dataset, task.trial.sample.id), [task])
            more = len(task.trial.shown.passages) - len(shortest[0].trial.shown.passages)
            if more <= 0 and task is not shortest[0]:
                shortest[:] = [task] if more < 0 else [*shortest, task]
    for room, lengths in rooms.items():
        require_fitting(lengths, loaded.context_length, room)
    held = [task.request for tasks in fewest.values() for task in tasks]
    RequestBackend(loaded, grid.generate).check(held)


def grid_name(
    grid: Grid,
    name: str,
    checkpoints: Mapping[Method, Path],
    asked: Sequence[Asked],
    base_hash: str,
) -> str:
    """A name that is the same for the same work: checkpoints, questions and weights count by what
    they hold."""
    plain = grid.plain()
    plain.pop("generate")  # who computes is no matter, but for what is quoted
    held = hashlib.sha256(repr([one.questions for one in asked]).encode()).hexdigest()
    digests = [digest_checkpoint(path) for path in checkpoints.values()]
    held_to = [grid.generate.quote, grid.generate.abstain]
    parts = [plain, held_to, digests, held, base_hash]
    text = json.dumps(parts, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return "-".join(["grid", bare_name(name), grid.model_name, digest])


def _timed(loaded: LoadedModel, grid: Grid, stages: Sequence[Stage]) -> Speed | None:
    """A short timing with the base's weights, where they are here."""
    if grid.generate.backend not in LOCAL_BACKENDS:
        return None
    blocks = [block for stage in stages for block in stage.blocks]
    with reading(loaded, None, grid) as reader:
        return measure_speed(RequestBackend(reader, grid.generate).answer, blocks)


def _show(table: Any) -> None:
    from rich.console import Console

    Console().print(table)


def _finish(folder: Path, grid: Grid, job: GridJob, notify: Notify) -> list[Score]:
    """Tables and the report, of all scores of the run."""
    scores = read_scores(folder / SCORES)
    write_json(folder / "summary.json", {"cells": summary_of(scores)})
    _show(grid_table(scores))
    try:
        page = write_grid_report([folder], folder, context=_context(grid, job))
    except OSError as error:
        raise cannot_write(folder, error) from error
    notify(f"report: {page}")
    return scores


def _context(grid: Grid, job: GridJob) -> ReportContext:
    """What the page says beside the scores and the resolved grid."""
    return ReportContext(
        title=job.title or f"{grid.model_name}: {', '.join(grid.datasets)}",
        subtitle="How each way of reading fares as the context grows and the gold passage moves",
        settings={
            "Gold only; Rerank, then read": "one passage (the gold one; BM25's first), read by "
            "SFT's adapter",
            "Hardware": describe_hardware(),
        },
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        notes=job.notes,
    )
