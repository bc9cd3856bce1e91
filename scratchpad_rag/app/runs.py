"""Run folders: what a run is called, what it holds, and whether it may be gone on with."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scratchpad_rag.config import RunConfig, bare_name, plain_config, read_yaml, save_plain
from scratchpad_rag.errors import UserError
from scratchpad_rag.records import Example, ScratchpadForm

RUNS = Path("runs")
_RUN_FILE = "run.json"
# Settings that change what is shown or who computes it, not what comes out: they do not make
# another run.
_WITHOUT_EFFECT = ("print_outputs", "last_answer_only", "executor", "num_actors", "ray_address")


def run_name(
    config: RunConfig,
    experiment: str,
    purpose: str,
    *checkpoints: Path | None,
    samples: Sequence[Sequence[Example]] = (),
    base_hash: str = "",
) -> str:
    """A name that is the same for the same work, so that the same command goes on with it.

    Checkpoints, samples and base weights count by what they hold: changed under the same path
    they are others.
    """
    plain = asdict(config)
    for key in _WITHOUT_EFFECT:
        plain["evaluate"].pop(key)
    marked: Sequence[object] = ()
    if plain["train"]["scratchpad_form"] in (None, ScratchpadForm.PASSAGE):
        del plain["train"]["scratchpad_form"]  # so are runs of before there was another one
    else:
        marked = [[example.support for example in part] for part in samples]
    held = hashlib.sha256((repr(samples) + (repr(marked) if marked else "")).encode()).hexdigest()
    digests = [digest_checkpoint(checkpoint) for checkpoint in checkpoints]
    parts = [plain, purpose, digests, held, base_hash]
    text = json.dumps(parts, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return "-".join([bare_name(experiment), config.model_name, purpose, digest])


def digest_checkpoint(checkpoint: Path | None) -> str | None:
    if checkpoint is None:
        return None
    weights = checkpoint / "adapter_model.safetensors" if checkpoint.is_dir() else checkpoint
    if not weights.is_file():
        return str(checkpoint)  # refused as soon as it is read
    with weights.open("rb") as file:
        return f"{checkpoint} {hashlib.file_digest(file, 'sha256').hexdigest()}"


def open_run(
    folder: Path,
    config: RunConfig | Mapping[str, Any],
    name: str,
    *,
    overwrite: bool,
    saved_as: str = "config.yaml",
) -> None:
    """Make the run's folder, or go on in it; `overwrite` begins anew. The config is saved in it.

    `name` is the run's, from `run_name`: a folder that holds another run is refused, since its
    adapters and scores are not this one's. Raises UserError before any expensive work.
    """
    described = folder / _RUN_FILE
    plain = config if isinstance(config, Mapping) else plain_config(config)
    try:
        if folder.is_dir() and any(folder.iterdir()):
            if not described.is_file():
                raise UserError(f"{folder} holds something else than a run; name another --run")
            if overwrite:
                shutil.rmtree(folder)
            elif _identity(read_json(described).get("name")) != _identity(name):
                raise UserError(
                    f"{folder} holds another run ({_changes(folder / saved_as, plain)}); "
                    "--overwrite begins anew, or name another --run"
                )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(described, {"name": name})  # first: it says that the folder is a run's
        save_plain(plain, folder / saved_as)
    except OSError as error:
        raise cannot_write(folder, error) from error


def holds_run(folder: Path, name: str) -> bool:
    """Whether a folder holds the run of this name."""
    described = folder / _RUN_FILE
    return described.is_file() and _identity(read_json(described).get("name")) == _identity(name)


def _identity(name: object) -> str:
    return str(name).rpartition("-")[2]


def _changes(saved: Path, config: Mapping[str, Any]) -> str:
    """Which keys of the saved config are others now."""
    before = flat(read_yaml(saved)) if saved.is_file() else {}
    now = flat(config)
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return f"changed: {', '.join(changed[:5])}" if changed else "of other data or checkpoints"


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys.

    >>> flat({"data": {"seed": 0}, "peft": None})
    {'data.seed': 0, 'peft': None}
    """
    pairs: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            pairs |= flat(value, f"{prefix}{key}.")
        else:
            pairs[f"{prefix}{key}"] = value
    return pairs


def cannot_write(path: Path, error: Exception) -> UserError:
    """One line for a full disk, a read-only folder and their like."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return UserError(f"cannot write to {path}: {reason}")


def refuse_inside(folder: Path, *checkpoints: Path | None) -> None:
    """Refuse to begin a run anew whose folder holds a checkpoint that it is to read."""
    for path in checkpoints:
        if path is not None and path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"--overwrite would remove {path}, which this run reads")


def require_shared(folder: Path) -> None:
    """Raise UserError where a run's folder, made by the main process, is not seen by this one."""
    if not (folder / _RUN_FILE).is_file():
        raise UserError(
            f"{folder} was made by the main process and is not on this machine; name a --run on a "
            "disk that all machines share"
        )


def require_writable(folder: Path) -> None:
    """Raise UserError now rather than after hours of training."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"cannot write to {folder}: {existing} is not a folder")
    if not os.access(existing, os.W_OK):
        raise UserError(f"cannot write to {folder}: {existing} is read-only")


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file of a run; UserError where it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged; --overwrite begins the run anew") from error
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as JSON under a temporary name and rename it: whole or absent.

    Raises UserError where it cannot be written.
    """
    work = path.with_name(path.name + ".partial")
    try:
        work.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str), "utf-8")
        work.replace(path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise cannot_write(path, error) from error
