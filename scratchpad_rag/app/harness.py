"""`scratchpad-rag data export_lm_eval`: the questions of an experiment as a task folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from scratchpad_rag.app.exchange import replacing_folder
from scratchpad_rag.app.runs import require_writable
from scratchpad_rag.config import RunConfig, bare_name, max_new_tokens_for
from scratchpad_rag.data.select import select_samples
from scratchpad_rag.errors import UserError
from scratchpad_rag.evaluate.harness import HarnessConfig, task_files
from scratchpad_rag.records import EvalSplit, Example, ScratchpadForm

_VIEW_NAMES = {
    EvalSplit.GOLD: "gold only",
    EvalSplit.NO_GOLD: "no gold",
    EvalSplit.CLOSED_BOOK: "closed book",
}


def export_tasks(
    config: RunConfig,
    experiment: str,
    out: Path,
    notify: Callable[[str], None],
    *,
    prompt_format: str = "plain",
    overwrite: bool = False,
) -> list[str]:
    """Write the validation samples of a config as tasks, one a gold position; their file names.

    The folder is whole or absent. Raises UserError for one that holds something, unless `overwrite`
    replaces exported tasks.
    """
    require_writable(out)
    if out.is_dir() and any(out.iterdir()):
        if not (out / "utils.py").is_file():
            raise UserError(f"{out} holds something else than tasks; name another --out")
        if not overwrite:
            raise UserError(f"{out} holds tasks; --overwrite replaces them, or name another --out")
    samples = select_samples(config.data, config.evaluate.eval_split, notify).val
    settings = HarnessConfig(
        name=bare_name(experiment),
        method=config.train_method,
        max_new_tokens=max_new_tokens_for(config.generate, config.train_method),
        prompt_format=prompt_format,
        form=config.train.scratchpad_form or ScratchpadForm.PASSAGE,
    )
    files = task_files(_cells(samples, config), settings)
    with replacing_folder(out) as work:
        for name, text in files.items():
            (work / name).write_text(text, encoding="utf-8")
    notify(f"{len(samples)} samples as {sum(n.endswith('.jsonl') for n in files)} tasks: {out}")
    return sorted(files)


def _cells(samples: Sequence[Example], config: RunConfig) -> dict[str, list[Example]]:
    """Samples by what their task is called after its experiment."""
    cells: dict[str, list[Example]] = {}
    for sample in samples:
        cells.setdefault(_word(sample, config), []).append(sample)
    return cells


def _word(sample: Example, config: RunConfig) -> str:
    view, order = config.evaluate.eval_split, config.data.passage_order
    if view is not EvalSplit.ALL:
        return _VIEW_NAMES[view]
    shown = f"{len(sample.passages)} shown"
    if order in ("given", "retrieved") or not sample.gold:
        return f"{shown} {order}"
    return f"{shown} gold at {sample.gold[0]}"
