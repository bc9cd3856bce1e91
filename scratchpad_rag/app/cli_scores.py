"""`scratchpad-rag scores`: answers that other tools wrote, or are to evaluate."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from scratchpad_rag.app.cli_options import Overwrite
from scratchpad_rag.app.flags import say

scores_app = typer.Typer(
    help="Exchange scores with other tools.", no_args_is_help=True, rich_markup_mode=None
)


class ResponseFormat(StrEnum):
    """Files of Lost in the Middle's scripts."""

    LITM = "litm"
    LITM_KV = "litm_kv"


FileUnder = Annotated[str | None, typer.Option("--method", help="what to file the scores under")]


@scores_app.command("import")
def scores_import(
    files: Annotated[list[Path], typer.Argument(help="response files of Lost in the Middle")],
    out: Annotated[Path, typer.Option("--out", help="the run's folder to write")],
    method: FileUnder = None,
    dataset: Annotated[str, typer.Option("--dataset", help="name of the data set")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Make a run of answers that Lost in the Middle's scripts wrote."""
    from scratchpad_rag.app.exchange import import_scores

    import_scores(files, out, say, method=method, dataset=dataset, overwrite=overwrite)


@scores_app.command("export")
def scores_export(
    run: Annotated[Path, typer.Argument(help="the run's folder")],
    out: Annotated[Path, typer.Option("--out", help=".jsonl or .jsonl.gz to write")],
    format: Annotated[
        ResponseFormat, typer.Option("--format", help="litm_kv: of key-value questions")
    ] = ResponseFormat.LITM,
    method: Annotated[
        str | None, typer.Option("--method", help="whose scores, where there are several")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="of which data set, where there are several")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a run's answers as a file that Lost in the Middle's scripts evaluate."""
    from scratchpad_rag.app.exchange import export_scores

    export_scores(
        run, out, say, kind=format.value, method=method, dataset=dataset, overwrite=overwrite
    )
