"""`scratchpad-rag report`: the page of one or several runs, from their score files alone."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from scratchpad_rag.app.notes import read_notes
from scratchpad_rag.app.runs import cannot_write, require_writable
from scratchpad_rag.errors import UserError
from scratchpad_rag.report.grid import TITLE, write_grid_report
from scratchpad_rag.report.html import ReportContext


def report(runs: Sequence[Path], out: Path, title: str = "", notes: Path | None = None) -> Path:
    """Write the page of `runs` to the folder `out`; returns its path.

    Raises UserError for a run that is missing, notes that cannot be read, and a folder that cannot
    be written to, before any figure is drawn.
    """
    for run in runs:
        if not run.exists():
            raise UserError(f"{run}: no such run; name a folder that holds scores.jsonl")
    require_writable(out)
    context = ReportContext(
        title=title or TITLE,
        subtitle="",
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        notes=read_notes(notes),
    )
    try:
        return write_grid_report(runs, out, context=context)
    except OSError as error:
        raise cannot_write(out, error) from error
