"""`scratchpad-rag`: the verbs on one command line. Heavy imports wait until a verb runs."""

from __future__ import annotations

import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from scratchpad_rag.app.cli_data import data_app
from scratchpad_rag.app.cli_options import (
    CONTEXT,
    Checkpoint,
    Notes,
    Overwrite,
    Run,
    Title,
    demo_options,
    run_options,
)
from scratchpad_rag.app.cli_scores import scores_app
from scratchpad_rag.app.flags import (
    COMPARE_WITHOUT,
    DEFAULT_EXPERIMENT,
    existing_checkpoint,
    run_command,
    say,
)

app = typer.Typer(
    name="scratchpad-rag",
    help="Readers that quote their evidence before they answer.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # its tables cut long option names short
    pretty_exceptions_enable=False,
    context_settings=CONTEXT,
)
app.add_typer(data_app, name="data", context_settings=CONTEXT)
app.add_typer(scores_app, name="scores", context_settings=CONTEXT)


def main() -> None:
    """The entry point; exit code 2 and one line for what the user can put right."""
    sys.exit(run_command(lambda: _call(sys.argv[1:])))


def _call(arguments: list[str]) -> None:
    try:
        app(arguments)
    except SystemExit as ended:
        if ended.code == 130:  # Typer's silent end of a Ctrl-C; ours says so
            raise KeyboardInterrupt from ended
        raise


@app.command()
@run_options
def train(
    *,
    checkpoint_path: Checkpoint = None,
    run: Run = None,
    overwrite: Overwrite = False,
    preflight: Annotated[
        bool,
        typer.Option("--preflight", help="show a sample, tokens, memory and time, and stop"),
    ] = False,
    **flags: Any,
) -> None:
    """Train an adapter; a run that was stopped goes on."""
    from scratchpad_rag.app.main import run as run_main

    flags |= {"checkpoint_path": checkpoint_path, "run": run, "overwrite": overwrite}
    flags |= {"preflight": preflight}
    run_main({**flags, "train_only": True})


@app.command()
@run_options
def evaluate(
    *,
    checkpoint_path: Checkpoint = None,
    run: Run = None,
    overwrite: Overwrite = False,
    **flags: Any,
) -> None:
    """Answer and score a split, with a checkpoint or zero-shot."""
    from scratchpad_rag.app.main import run as run_main

    flags |= {"checkpoint_path": checkpoint_path, "run": run, "overwrite": overwrite}
    run_main({**flags, "eval_only": True})


@app.command()
@partial(run_options, without=COMPARE_WITHOUT)
def compare(
    *,
    scratchpad_checkpoint: Annotated[
        Path | None, typer.Option("--scratchpad_checkpoint", help="read instead of trained")
    ] = None,
    sft_checkpoint: Annotated[
        Path | None, typer.Option("--sft_checkpoint", help="read instead of trained")
    ] = None,
    answer_tokens: Annotated[
        int, typer.Option("--answer_tokens", min=1, help="longest answer without a scratchpad")
    ] = 32,
    shipped: Annotated[
        bool,
        typer.Option("--shipped/--no_shipped", help="also show the checkpoints that come along"),
    ] = True,
    notes: Notes = None,
    title: Title = "",
    run: Run = None,
    overwrite: Overwrite = False,
    **flags: Any,
) -> None:
    """Every way of reading on the same questions, with a report page."""
    from scratchpad_rag.app.flags import config_from

    config = config_from(flags)
    existing_checkpoint(scratchpad_checkpoint)
    existing_checkpoint(sft_checkpoint)

    from rich.console import Console

    from scratchpad_rag.app.compare import CompareJob
    from scratchpad_rag.app.compare import compare as run_compare
    from scratchpad_rag.app.notes import read_notes
    from scratchpad_rag.evaluate.summary import summarise
    from scratchpad_rag.report.tables import rich_table

    job = CompareJob(
        experiment=flags["experiment_config"],
        run=run,
        scratchpad_checkpoint=scratchpad_checkpoint,
        sft_checkpoint=sft_checkpoint,
        shipped=shipped,
        answer_tokens=answer_tokens,
        overwrite=overwrite,
        title=title,
        notes=read_notes(notes),
    )
    Console().print(rich_table(summarise(run_compare(config, job, say))))


@app.command()
def sweep(
    grid: Annotated[str, typer.Argument(help="a name in configs/grid, or a YAML file")],
    model_config: Annotated[
        str | None, typer.Option("--model_config", help="not given: the grid's")
    ] = None,
    methods: Annotated[
        str | None, typer.Option("--methods", help="only these, with commas between them")
    ] = None,
    total_docs: Annotated[
        str | None, typer.Option("--total_docs", help="numbers of documents: 5,10,20")
    ] = None,
    questions: Annotated[
        int | None, typer.Option("--questions", min=1, help="of each data set")
    ] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", help="native, transformers, vllm or http")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base_url", help="with --backend http: the server's address")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry_run", help="tell what it costs; answer and write nothing")
    ] = False,
    notes: Notes = None,
    title: Title = "",
    run: Run = None,
    overwrite: Overwrite = False,
) -> None:
    """Methods x gold positions x numbers of documents x data sets, from one YAML file."""
    from scratchpad_rag.app.flags import parse_positions
    from scratchpad_rag.app.grid_config import load_grid

    overrides = {
        "model": model_config,
        "methods": methods.replace(",", " ").split() if methods is not None else None,
        "total_docs": parse_positions(total_docs) if total_docs is not None else None,
        "questions": questions,
        "backend": backend,
        "base_url": base_url,
    }
    config = load_grid(grid, overrides)

    from scratchpad_rag.app.grid import GridJob
    from scratchpad_rag.app.grid import sweep as run_sweep
    from scratchpad_rag.app.notes import read_notes

    job = GridJob(
        name=grid,
        run=run,
        overwrite=overwrite,
        dry_run=dry_run,
        title=title,
        notes=read_notes(notes),
    )
    run_sweep(config, job, say)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="folders with scores.jsonl", metavar="RUN...")],
    out: Annotated[Path, typer.Option("--out", help="folder to write the page and figures to")],
    title: Title = "",
    notes: Notes = None,
) -> None:
    """Make the page of a sweep, or of several side by side, from their score files."""
    from scratchpad_rag.app.report import report as write_report

    say(f"report: {write_report(runs, out, title, notes)}")


class ExportFormat(StrEnum):
    """What a reader is written as."""

    MERGED = "merged"
    GGUF = "gguf"
    ADAPTER = "adapter"


class GgufType(StrEnum):
    """The precision of a GGUF file's matrices."""

    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"
    Q8_0 = "q8_0"


@app.command()
def export(
    checkpoint_path: Annotated[
        Path, typer.Option("--checkpoint_path", help="a .pt file or an adapter folder")
    ],
    out: Annotated[Path, typer.Option("--out", help="folder to write")],
    format: Annotated[
        list[ExportFormat], typer.Option("--format", help="what to write; may be given again")
    ],
    gguf_type: Annotated[
        GgufType, typer.Option("--gguf_type", help="precision of the GGUF file")
    ] = GgufType.F16,
    model_config: Annotated[
        str | None, typer.Option("--model_config", help="not given: the checkpoint's own")
    ] = None,
    torch_dtype: Annotated[
        str | None, typer.Option("--torch_dtype", help="not given: the model config's")
    ] = None,
    peft_config: Annotated[
        str | None, typer.Option("--peft_config", help="of a bare state dict")
    ] = None,
    train_method: Annotated[
        str | None, typer.Option("--train_method", help="of a bare state dict")
    ] = None,
    scratchpad_form: Annotated[
        str | None, typer.Option("--scratchpad_form", help="of a bare state dict")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="a run's folder, for the card's table")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option("--base_model", help="Hub id of the base, for the card")
    ] = None,
    license: Annotated[
        str | None, typer.Option("--license", help="for the card; not given: the base's, if known")
    ] = None,
    push_to_hub: Annotated[
        str | None, typer.Option("--push_to_hub", help="Hub repository to upload to: NAME/REPO")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="the repository is private")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry_run", help="list the files and their sizes; keep nothing")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write a trained reader for transformers, llama.cpp, Ollama or vLLM, with a model card."""
    from scratchpad_rag.app.flags import parse_form, parse_method

    existing_checkpoint(checkpoint_path)
    method, written = parse_method(train_method), parse_form(scratchpad_form)

    from scratchpad_rag.app.export import ExportJob, Source
    from scratchpad_rag.app.export import export as run_export
    from scratchpad_rag.app.hub import Destination

    job = ExportJob(
        source=Source(checkpoint_path, model_config, torch_dtype, peft_config, method, written),
        out=out,
        formats=tuple(format),
        gguf_type=gguf_type,
        run=run,
        base_model=base_model,
        license=license,
        overwrite=overwrite,
        destination=Destination(push_to_hub, private) if push_to_hub else None,
        dry_run=dry_run,
    )
    for file in run_export(job, say):
        print(f"{file.size:>15,}  {file.path}")


@app.command()
@demo_options
def demo(
    *,
    terminal: Annotated[bool, typer.Option("--terminal", help="ask in the terminal")] = False,
    **flags: Any,
) -> None:
    """A page on which quotes light up in the passages that they come from."""
    from scratchpad_rag.app.terminal import run as run_demo

    flags["experiment_config"] = flags["experiment_config"] or DEFAULT_EXPERIMENT
    run_demo({**flags, "web": not terminal})


@app.command()
def doctor() -> None:
    """Show what is installed, the device, and which models fit it."""
    from scratchpad_rag.app.doctor import doctor as run_doctor

    run_doctor()
