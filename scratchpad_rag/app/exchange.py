"""`scratchpad-rag scores`: runs out of other tools' score files, and such files out of runs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from scratchpad_rag.app.runs import cannot_write, require_writable, write_json
from scratchpad_rag.config import read_yaml
from scratchpad_rag.data.lines import write_lines
from scratchpad_rag.errors import ConfigError, DataError, UserError
from scratchpad_rag.evaluate.exchange import FORMATS, answer_key, read_responses, to_responses
from scratchpad_rag.evaluate.score_file import read_scores
from scratchpad_rag.evaluate.sources import SOURCES_FILE, SourceFile, read_sources
from scratchpad_rag.records import Score

Notify = Callable[[str], None]
_SCORES = "scores.jsonl"


def import_scores(
    files: Sequence[Path],
    out: Path,
    notify: Notify,
    *,
    method: str | None = None,
    dataset: str = "",
    overwrite: bool = False,
) -> int:
    """Make a run's folder of response files of Lost in the Middle's scripts; how many scores.

    The folder is whole or absent. Raises DataError for bad lines and for an answer that two files
    hold, and UserError for a folder that exists, unless `overwrite` replaces a run.
    """
    _require_free_folder(out, overwrite)
    held: dict[tuple[object, ...], Path] = {}
    with replacing_folder(out) as work:
        sources = SourceFile(work / SOURCES_FILE)
        with (work / _SCORES).open("w", encoding="utf-8") as stream:
            for file in files:
                for score, passages in read_responses(file, method, dataset):
                    key = answer_key(score)
                    if held.setdefault(key, file) != file:
                        raise DataError(
                            f"{file}: question {score.question!r} is answered by {score.method} in "
                            f"{held[key]} too; tell them apart with --method or --dataset"
                        )
                    sources.add(passages)
                    stream.write(json.dumps(asdict(score), ensure_ascii=False) + "\n")
        write_json(work / "run.json", {"name": f"import-{out.name}"})
    notify(f"{len(held)} answers: {out}")
    return len(held)


def export_scores(
    run: Path,
    out: Path,
    notify: Notify,
    *,
    kind: str = "litm",
    method: str | None = None,
    dataset: str | None = None,
    overwrite: bool = False,
) -> int:
    """Write a run's answers of one method as a response file; how many.

    Raises UserError where the file exists, for a run without scores, and where it is open which
    method's or data set's are meant.
    """
    if kind not in FORMATS:
        raise ConfigError(f"unknown format {kind!r}; choose from {', '.join(FORMATS)}")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists; --overwrite replaces it")
    require_writable(out.parent)
    scores = read_scores(run / _SCORES)
    if not scores:
        raise UserError(f"{run}: it holds no {_SCORES}, or one without scores")
    chosen = _only(scores, "method", method, run)
    chosen = _only(chosen, "dataset", dataset, run)
    model = _model_of(run)
    named = f"{model}/{chosen[0].method}" if model else chosen[0].method
    written = to_responses(chosen, read_sources(run / SOURCES_FILE), named, kind)
    write_lines(written.lines, out)
    notify(f"{len(chosen)} answers, {100 * written.mean:.2f}% right by their rule: {out}")
    if abs(written.mean - written.ours) > 1e-12:
        notify(
            f"by ours {100 * written.ours:.2f}% are: an answer of nothing but articles and "
            "punctuation is always found by theirs, and never by ours"
            if kind == "litm"
            else f"by ours {100 * written.ours:.2f}% are: punctuation counts in theirs"
        )
    return len(chosen)


def _only(scores: list[Score], field: str, name: str | None, run: Path) -> list[Score]:
    """The scores of one method or data set, which need not be named where there is one only."""
    names = list(dict.fromkeys(str(getattr(score, field)) for score in scores))
    if name is None and len(names) > 1:
        shown = ", ".join(name or "(none)" for name in names)
        raise UserError(f"{run} holds several; say which with --{field}: {shown}")
    wanted = names[0] if name is None else name
    if wanted not in names:
        raise UserError(f"{run} has no {field} {wanted!r}; choose from {', '.join(names)}")
    return [score for score in scores if getattr(score, field) == wanted]


def _model_of(run: Path) -> str:
    config = run / "config.yaml"
    return str(read_yaml(config).get("model_name") or "") if config.is_file() else ""


def _require_free_folder(out: Path, overwrite: bool) -> None:
    require_writable(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "run.json").is_file():
        raise UserError(f"{out} holds something else than a run; name another --out")
    if not overwrite:
        raise UserError(f"{out} holds a run; --overwrite replaces it, or name another --out")


@contextmanager
def replacing_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name, and its place, if the block ends well."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        yield work
        work.chmod(0o755)  # mkdtemp makes folders that only their owner can enter
        if out.exists():
            shutil.rmtree(out)
        work.replace(out)
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
