"""`main.py`: train a reader and evaluate it, or evaluate one that there is."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scratchpad_rag.app.flags import (
    add_run_flags,
    config_from,
    existing_checkpoint,
    run_command,
    say,
)
from scratchpad_rag.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for what the user can put right, 130 after Ctrl-C."""
    flags = vars(make_parser().parse_args(arguments))
    return run_command(lambda: run(flags))


def make_parser() -> argparse.ArgumentParser:
    """The flags of main.py."""
    parser = argparse.ArgumentParser(prog="main.py", description=__doc__)
    add_run_flags(parser)
    parser.add_argument("--eval_only", action="store_true", help="do not train")
    parser.add_argument("--train_only", action="store_true", help="do not evaluate")
    parser.add_argument(
        "--preflight",
        action="store_true",
        help="show a sample, tokens by region, memory and time of the training, and stop",
    )
    parser.add_argument(
        "--load_checkpoint",
        action="store_true",
        help="evaluate --checkpoint_path (--eval_only), or train on from it",
    )
    parser.add_argument("--checkpoint_path", help="a .pt file or an adapter folder")
    parser.add_argument("--run", type=Path, help="the run's folder (default: named by its config)")
    parser.add_argument("--overwrite", action="store_true", help="begin anew; replace files")
    return parser


def run(flags: Mapping[str, Any]) -> None:
    """Train and evaluate as the flags say, and print the table."""
    config = config_from(flags)
    if flags.get("load_checkpoint") and not flags.get("checkpoint_path"):
        raise UserError("--load_checkpoint needs --checkpoint_path")
    if flags.get("checkpoint_path") and flags.get("load_checkpoint") is False:
        raise UserError("--checkpoint_path needs --load_checkpoint beside it")
    checkpoint = existing_checkpoint(flags.get("checkpoint_path"))

    from rich.console import Console

    from scratchpad_rag.app.commands import Job, require_flags, train_and_evaluate
    from scratchpad_rag.report.tables import positions_table, rich_table

    job = Job(
        experiment=flags["experiment_config"],
        checkpoint=checkpoint,
        eval_only=bool(flags.get("eval_only")),
        train_only=bool(flags.get("train_only")),
        overwrite=bool(flags.get("overwrite")),
        run=flags.get("run"),
    )
    if flags.get("preflight"):
        from scratchpad_rag.app.preflight import preflight, show_preflight

        require_flags(config, replace(job, train_only=True))
        show_preflight(preflight(config, checkpoint, say), Console(highlight=False))
        return
    outcome = train_and_evaluate(config, job, say)
    if outcome.summary is not None and outcome.headline is not None:
        console = Console()
        console.print(rich_table([outcome.summary]))
        if len(outcome.summary.by_position) > 1:
            console.print(positions_table(outcome.summary))
        share = outcome.headline.subspan_exact_match
        console.print(f"Headline: {share:.1%} of {outcome.headline.scored} hold a true answer.")
