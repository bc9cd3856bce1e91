"""Run folders: what a run is called, what it holds, and whether it may be gone on with."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scratchpad_rag.config import RunConfig, save_config
from scratchpad_rag.errors import UserError

RUNS = Path("runs")
# Settings that change what is shown, not what comes out: they do not make another run.
_SHOWN_ONLY = ("print_outputs", "last_answer_only")


def run_name(config: RunConfig, experiment: str, purpose: str, checkpoint: str | None) -> str:
    """A name that is the same for the same work, so that the same command goes on with it."""
    plain = asdict(config)
    for key in _SHOWN_ONLY:
        plain["evaluate"].pop(key)
    text = json.dumps([plain, purpose, checkpoint], sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return "-".join([Path(experiment).stem, config.model_name, purpose, digest])


def open_run(folder: Path, config: RunConfig, *, overwrite: bool) -> None:
    """Make the run's folder, or go on in it; `overwrite` begins anew.

    Raises UserError, before any expensive work, where the folder cannot be written.
    """
    try:
        if overwrite and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_config(config, folder / "config.yaml")
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(path: Path, error: Exception) -> UserError:
    """One line for a full disk, a read-only folder and their like."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return UserError(f"cannot write to {path}: {reason}")


def require_writable(folder: Path) -> None:
    """Raise UserError now rather than after hours of training."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"cannot write to {folder}: {existing} is not a folder")
    if not os.access(existing, os.W_OK):
        raise UserError(f"cannot write to {folder}: {existing} is read-only")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as JSON under a temporary name and rename it."""
    work = path.with_name(path.name + ".partial")
    work.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str), "utf-8")
    work.replace(path)
