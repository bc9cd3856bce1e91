"""`main.py`: train a reader and evaluate it, or evaluate one that there is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from scratchpad_rag.app.flags import (
    add_run_flags,
    config_from,
    existing_checkpoint,
    run_command,
    say,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for what the user can put right, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="main.py", description=__doc__)
    add_run_flags(parser)
    parser.add_argument("--eval_only", action="store_true", help="do not train")
    parser.add_argument("--train_only", action="store_true", help="do not evaluate")
    parser.add_argument("--load_checkpoint", action="store_true")
    parser.add_argument("--checkpoint_path", help="a .pt file or an adapter folder")
    parser.add_argument("--run", type=Path, help="the run's folder (default: named by its config)")
    parser.add_argument("--overwrite", action="store_true", help="begin anew; replace files")
    flags = parser.parse_args(arguments)
    return run_command(lambda: _run(flags))


def _run(flags: argparse.Namespace) -> None:
    config = config_from(flags)
    if flags.load_checkpoint and not flags.checkpoint_path:
        parser_hint = "--load_checkpoint needs --checkpoint_path"
        raise SystemExit(parser_hint)
    checkpoint = existing_checkpoint(flags.checkpoint_path)

    from rich.console import Console

    from scratchpad_rag.app.commands import Job, train_and_evaluate
    from scratchpad_rag.report.tables import rich_table

    job = Job(
        experiment=flags.experiment_config,
        checkpoint=checkpoint,
        eval_only=flags.eval_only,
        train_only=flags.train_only,
        overwrite=flags.overwrite,
        run=flags.run,
    )
    outcome = train_and_evaluate(config, job, say)
    if outcome.summary is not None:
        Console().print(rich_table([outcome.summary]))
