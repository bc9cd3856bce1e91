"""The scores of a run for the card of a reader, held to be of this reader."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from scratchpad_rag.config import bare_name, read_yaml, resource
from scratchpad_rag.errors import CheckpointError, ConfigError, UserError
from scratchpad_rag.evaluate.score_file import read_scores
from scratchpad_rag.evaluate.summary import summarise
from scratchpad_rag.models.checkpoints import Adapter, AdapterMetadata, read_adapter
from scratchpad_rag.records import Method, Score
from scratchpad_rag.report.card import Measured


def read_measured(run: Path, adapter: Adapter, metadata: AdapterMetadata) -> Measured:
    """The table of a run and the row in it that is this reader.

    Raises UserError for a folder without scores, and for scores of another model or reader.
    """
    scores = read_scores(run / "scores.jsonl")
    if not scores:
        raise UserError(f"--run {run}: it holds no scores.jsonl, or one without scores")
    config = read_yaml(run / "config.yaml") if (run / "config.yaml").is_file() else {}
    measured_on = str(config.get("model_name") or metadata.model_name)
    if bare_name(measured_on) != bare_name(metadata.model_name):
        raise UserError(
            f"--run {run} measured {measured_on}, and the checkpoint is of {metadata.model_name}"
        )
    return Measured(
        run=run.resolve().name,
        summaries=summarise(scores),
        row=_own_row(run, scores, adapter, metadata),
        samples=_samples(config, scores),
    )


def _own_row(
    run: Path, scores: Sequence[Score], adapter: Adapter, metadata: AdapterMetadata
) -> str | None:
    """The method under which the run scored these very weights; None where it cannot be told."""
    method = Method(metadata.method)
    rows = {score.method for score in scores}
    ours, others = _digest(adapter), 0
    for row, other in _adapters(run, method, metadata.model_name):
        if row in rows:
            if _digest(other) == ours:
                return row
            others += 1
    if others or not any(row.startswith(method) for row in rows):
        raise UserError(f"--run {run} measured other readers, not {adapter.path}")
    return None


def _adapters(run: Path, method: Method, model_name: str) -> Iterator[tuple[str, Adapter]]:
    """The adapters that a run's rows of a method may have been read with."""
    for folder in (run / "adapter", run / method / "adapter"):
        if folder.is_dir():
            yield method.value, read_adapter(folder)
    file = {Method.SCRATCHPAD: "scratchpad_rag.pt", Method.SFT: "rag_sft.pt"}[method]
    try:
        yield f"{method}_shipped", read_adapter(resource(f"checkpoints/{model_name}/{file}"))
    except (ConfigError, CheckpointError):
        return  # nothing is shipped for this model


def _digest(adapter: Adapter) -> str:
    digest = hashlib.sha256()
    for key, weight in sorted(adapter.weights.items()):
        digest.update(key.encode())
        digest.update(weight.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _samples(config: Mapping[str, Any], scores: Sequence[Score]) -> dict[str, str]:
    """What was asked: of a path only its last part."""
    data = config.get("data") or {}
    name = data.get("path") or data.get("name")
    shown = {"data": Path(str(name)).name} if name else {}
    counts = sorted({score.num_documents for score in scores})
    positions = sorted({score.gold_positions[0] for score in scores if score.gold_positions})
    return {
        **shown,
        "documents shown": ", ".join(map(str, counts)),
        "positions of the gold passage": ", ".join(map(str, positions)) or "none shown",
    }
