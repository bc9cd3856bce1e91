"""`evaluate_nq_lim.py`: the same questions with more and more documents shown."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scratchpad_rag.app.flags import (
    SWEEP_WITHOUT,
    add_run_flags,
    config_from,
    existing_checkpoint,
    parse_positions,
    run_command,
    say,
)
from scratchpad_rag.app.grid_config import GridData
from scratchpad_rag.config import RunConfig
from scratchpad_rag.errors import ConfigError, UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for what the user can put right, 130 after Ctrl-C."""
    flags = vars(make_parser().parse_args(arguments))
    return run_command(lambda: run(flags))


def make_parser() -> argparse.ArgumentParser:
    """The flags of evaluate_nq_lim.py."""
    parser = argparse.ArgumentParser(prog="evaluate_nq_lim.py", description=__doc__)
    add_run_flags(parser, experiment="nq_lim_20_docs", without=SWEEP_WITHOUT)
    parser.add_argument("--eval_start", type=int, default=0, help="first validation question")
    parser.add_argument("--eval_end", type=int, help="the validation question to stop before")
    parser.add_argument("--docs", default="1,2,5,10,20", help="numbers of documents shown")
    parser.add_argument("--load_checkpoint", action="store_true", help="needs --checkpoint_path")
    parser.add_argument("--checkpoint_path", help="a .pt file or an adapter folder")
    parser.add_argument("--run", type=Path, help="the run's folder (default: named by its config)")
    parser.add_argument("--overwrite", action="store_true", help="begin anew")
    return parser


def run(flags: Mapping[str, Any]) -> None:
    """Answer the questions at every number of documents and draw accuracy against it."""
    config = config_from(flags)
    counts = sorted(set(parse_positions(flags["docs"])))
    start, end = flags["eval_start"], flags["eval_end"]
    if start < 0 or (end is not None and end <= start):
        raise UserError(f"--eval_start {start} --eval_end {end} names no question")
    if not counts or counts[0] < 1 or counts[-1] > config.data.total_docs:
        raise ConfigError(
            f"--docs {flags['docs']}: numbers of documents must be 1 to {config.data.total_docs}"
        )
    if bool(flags["load_checkpoint"]) != bool(flags["checkpoint_path"]):
        raise UserError("--load_checkpoint and --checkpoint_path belong together")
    checkpoint = existing_checkpoint(flags["checkpoint_path"])
    _sweep(config, counts, start, end, checkpoint, flags)


def _sweep(
    config: RunConfig,
    counts: Sequence[int],
    start: int,
    end: int | None,
    checkpoint: Path | None,
    flags: Mapping[str, Any],
) -> None:
    from rich.console import Console

    from scratchpad_rag.app.cluster import open_driver_model
    from scratchpad_rag.app.commands import evaluate_reader, refuse_long_prompts
    from scratchpad_rag.app.grid_cells import ask, placed
    from scratchpad_rag.app.runs import (
        RUNS,
        cannot_write,
        open_run,
        refuse_inside,
        require_writable,
        run_name,
        write_json,
    )
    from scratchpad_rag.backends.base import require_backend, require_verbatim_method
    from scratchpad_rag.backends.ray import require_executor
    from scratchpad_rag.config import generate_for
    from scratchpad_rag.evaluate.summary import summarise
    from scratchpad_rag.models.checkpoints import write_whole
    from scratchpad_rag.reader import load_reader
    from scratchpad_rag.records import Method, Score
    from scratchpad_rag.report.plots import document_curve, png_bytes
    from scratchpad_rag.report.tables import documents_table

    method: Method | None = None
    require_backend(config.generate)
    require_executor(config.evaluate)
    if checkpoint is None:
        require_verbatim_method(config.generate, None)
    require_writable(flags["run"] or RUNS)
    asked = ask("evaluate_nq_lim", _grid_data(config, counts, start, end), config.data.seed, start)
    for note in asked.left_out:
        say(note)
    # One question at all numbers of documents, then the next: what its prompts share is read once.
    rows = [placed(asked, k, config.data.seed, start) for k in range(len(asked.questions))]
    examples = [place.example for row in rows for place in row]
    loaded = open_driver_model(config, say)
    if checkpoint is not None:
        loaded, method = load_reader(loaded, checkpoint, config, notify=say)
    require_verbatim_method(config.generate, method)
    refuse_long_prompts(loaded, examples, generate_for(config.generate, method))
    name = run_name(
        config,
        flags["experiment_config"],
        f"sweep-{start}-{end}",
        checkpoint,
        samples=[examples],
        base_hash=loaded.base_hash,
    )
    folder: Path = flags["run"] or RUNS / name
    if flags["overwrite"]:
        refuse_inside(folder, checkpoint)
    open_run(folder, config, name, overwrite=flags["overwrite"])
    say(f"run folder: {folder}")
    scores = evaluate_reader(loaded, examples, method, config, folder, say)
    by_count: dict[int, list[Score]] = {shown: [] for shown in counts}
    for score in scores:
        by_count[score.num_documents].append(score)
    summaries = {shown: summarise(group)[0] for shown, group in by_count.items()}
    try:
        write_whole(folder / "document_curve.png", png_bytes(document_curve(summaries)))
    except OSError as error:
        raise cannot_write(folder, error) from error
    write_json(folder / "summary.json", {str(k): asdict(v) for k, v in summaries.items()})
    Console().print(documents_table(summaries))
    say(f"plot: {folder / 'document_curve.png'}")


def _grid_data(config: RunConfig, counts: Sequence[int], start: int, end: int | None) -> GridData:
    """The grid of this sweep: each question once at every number of documents, gold passages taking
    turns over their places."""
    return GridData(
        experiment="",
        data=config.data,
        total_docs=tuple(counts),
        gold_at=("turns",),
        passage_order=(config.data.passage_order,),
        no_gold=False,
        questions=None if end is None else end - start,
    )
