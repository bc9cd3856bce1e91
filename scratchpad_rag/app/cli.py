"""`scratchpad-rag`: the verbs on one command line. Heavy imports wait until a verb runs."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from scratchpad_rag.app.flags import (
    COMPARE_WITHOUT,
    RUN_FLAGS,
    Flag,
    existing_checkpoint,
    run_command,
    say,
)

# Options are spelled with underscores, as in the paper repo's commands; dashes are accepted.
_CONTEXT = {
    "token_normalize_func": lambda name: name.replace("-", "_"),
    "help_option_names": ["--help", "-h"],
}
app = typer.Typer(
    name="scratchpad-rag",
    help="Readers that quote their evidence before they answer.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # its tables cut long option names short
    pretty_exceptions_enable=False,
    context_settings=_CONTEXT,
)
data_app = typer.Typer(
    help="Make, build and download data.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(data_app, name="data", context_settings=_CONTEXT)


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


def run_options(
    function: Callable[..., None], without: tuple[str, ...] = ()
) -> Callable[..., None]:
    """Give a verb the flags that all runs share, but those that it has no use for.

    They come from their one table; the verb takes them as keyword arguments beside its own.
    """
    own = [
        parameter
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    shared = [_parameter(flag.name, _option_type(flag), flag.help) for flag in RUN_FLAGS]
    configs = [
        _parameter("experiment_config", str, "a name in configs/experiment, or a YAML file", ...),
        _parameter("model_config", str, "a name in configs/model, or a YAML file", "smollm2_135m"),
        _parameter("peft_config", str | None, "a name in configs/peft, or a YAML file"),
    ]
    names = {parameter.name for parameter in own} | set(without)
    chosen = [p for p in (*configs, *shared) if p.name not in names]

    def verb(**flags: Any) -> None:
        function(**{key: getattr(value, "value", value) for key, value in flags.items()})

    verb.__name__ = function.__name__
    verb.__doc__ = function.__doc__
    verb.__signature__ = inspect.Signature([*own, *chosen])  # type: ignore[attr-defined]
    verb.__annotations__ = {p.name: p.annotation for p in (*own, *chosen)}
    return verb


def _option_type(flag: Flag) -> Any:
    if not flag.choices:
        return flag.type | None
    make: Any = StrEnum  # called with a name that is not a literal, which mypy cannot follow
    return make(flag.name, {choice: str(choice) for choice in flag.choices}) | None


def _parameter(name: str, kind: Any, text: str, default: Any = None) -> inspect.Parameter:
    required = default is ...
    option = typer.Option(f"--{name}", help=text, show_default=not required and default is not None)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else default,
        annotation=Annotated[kind, option],
    )


Checkpoint = Annotated[
    Path | None, typer.Option("--checkpoint_path", help="a .pt file or an adapter folder")
]
Run = Annotated[Path | None, typer.Option("--run", help="the run's folder")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="begin anew; replace files")]


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
@partial(
    run_options,
    without=COMPARE_WITHOUT,
)
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
    notes: Annotated[
        Path | None, typer.Option("--notes", help="Markdown text to show on the page")
    ] = None,
    title: Annotated[str, typer.Option("--title", help="of the page")] = "",
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

    from scratchpad_rag.app.compare import CompareJob, read_notes
    from scratchpad_rag.app.compare import compare as run_compare
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
    from scratchpad_rag.app.flags import parse_method

    existing_checkpoint(checkpoint_path)
    method = parse_method(train_method)

    from scratchpad_rag.app.export import ExportJob, Source
    from scratchpad_rag.app.export import export as run_export
    from scratchpad_rag.app.hub import Destination

    job = ExportJob(
        source=Source(checkpoint_path, model_config, torch_dtype, peft_config, method),
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
def doctor() -> None:
    """Show what is installed, the device, and which models fit it."""
    from scratchpad_rag.app.doctor import doctor as run_doctor

    run_doctor()


@data_app.command("sample")
def data_sample(
    out: Annotated[Path, typer.Option("--out", help="folder to write")],
    seed: Annotated[int, typer.Option("--seed", help="of every draw")] = 0,
    num_questions: Annotated[int, typer.Option("--num_questions", help="to ask")] = 3000,
    num_passages: Annotated[int, typer.Option("--num_passages", help="to write")] = 6000,
) -> None:
    """Make the sample set, a fictional encyclopedia, from a seed."""
    from scratchpad_rag.app.runs import cannot_write, require_writable
    from scratchpad_rag.data.sample import SampleConfig, build_sample, write_sample

    require_writable(out)
    sample = build_sample(
        SampleConfig(seed=seed, num_questions=num_questions, num_passages=num_passages)
    )
    try:
        write_sample(sample, out)
    except OSError as error:
        raise cannot_write(out, error) from error
    say(f"{len(sample.questions)} questions over {len(sample.passages)} passages: {out}")


@data_app.command("build")
def data_build(
    questions: Annotated[Path, typer.Option("--questions", help="questions with gold passages")],
    passages: Annotated[Path, typer.Option("--passages", help="JSON lines of title and text")],
    out: Annotated[Path, typer.Option("--out", help=".jsonl or .jsonl.gz to write")],
    num_distractors: Annotated[
        int, typer.Option("--num_distractors", help="a question, ranked best first")
    ] = 29,
) -> None:
    """Mine distractors with BM25 and write examples."""
    from scratchpad_rag.app.runs import cannot_write, require_writable
    from scratchpad_rag.data.retrieve import build_examples

    require_writable(out.parent)
    try:
        report = build_examples(questions, passages, out, num_distractors, progress=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    say(
        f"{report.questions} questions with {report.num_distractors} distractors each from "
        f"{report.pool_passages} passages in {report.seconds:.1f} s: {report.path}"
    )
    if report.short:
        say(f"{report.short} questions have fewer distractors: the pool holds no more")


@data_app.command("download")
def data_download(
    total_docs: Annotated[int, typer.Option("--total_docs", help="10, 20 or 30; 1: oracle")] = 20,
    gold_at: Annotated[
        str, typer.Option("--gold_at", help="positions of the gold passage")
    ] = "0,4,9,14,19",
    data_dir: Annotated[Path, typer.Option("--data_dir", help="folder for the files")] = Path(
        "data/qa_data"
    ),
) -> None:
    """Download the Lost in the Middle files."""
    from scratchpad_rag.app.flags import parse_positions
    from scratchpad_rag.data.download import ensure_lim_files

    for path in ensure_lim_files(data_dir, total_docs, parse_positions(gold_at)):
        say(str(path))


@data_app.command("audit")
def data_audit(
    files: Annotated[list[Path] | None, typer.Argument(help="further files of questions")] = None,
    data_path: Annotated[
        list[Path] | None,
        typer.Option("--data_path", help="questions with passages; several may follow"),
    ] = None,
    experiment_config: Annotated[
        str | None, typer.Option("--experiment_config", help="samples as it places them")
    ] = None,
    model_config: Annotated[
        str | None, typer.Option("--model_config", help="whose tokens count; not given: words")
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="what completions hold: scratchpad or sft")
    ] = "scratchpad",
    total_docs: Annotated[
        int | None, typer.Option("--total_docs", min=1, help="documents that a run would show")
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option("--max_length", min=1, help="longest sample; not given: the model's context"),
    ] = None,
    near: Annotated[
        float, typer.Option("--near", help="share of words or word pairs of near duplicates")
    ] = 0.8,
    out: Annotated[
        Path | None, typer.Option("--out", help="folder for audit.html and audit.json")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="exit code 1 where something is to be looked at")
    ] = False,
) -> None:
    """Check questions and passages for what spoils training or scores."""
    from rich.console import Console

    from scratchpad_rag.app.audit import AuditJob, run_audit
    from scratchpad_rag.app.flags import parse_method
    from scratchpad_rag.data.audit_records import Verdict
    from scratchpad_rag.records import Method
    from scratchpad_rag.report.audit_tables import audit_tables

    job = AuditJob(
        paths=(*(data_path or ()), *(files or ())),
        experiment=experiment_config,
        model=model_config,
        method=parse_method(method) or Method.SCRATCHPAD,
        total_docs=total_docs,
        max_length=max_length,
        near=near,
        out=out,
        command="scratchpad-rag " + shlex.join(sys.argv[1:]),
    )
    found = run_audit(job, say)
    Console(highlight=False).print(audit_tables(found))
    if strict and found.verdict is not Verdict.OK:
        raise typer.Exit(1)
