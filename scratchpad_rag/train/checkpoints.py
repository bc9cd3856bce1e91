"""Checkpoints of a run: whole or absent, and only ever gone on with by the run that wrote them.

A checkpoint is written into a folder with a temporary name, flushed to the disk, and renamed; a
kill at any moment leaves the one before as it was.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scratchpad_rag.errors import TrainingError

_MANIFEST = "manifest.json"
_PARTIAL = "partial-"
_NAME = re.compile(r"checkpoint-(\d+)")


def partial_folder(folder: Path, step: int) -> Path:
    """Where a step's checkpoint is written before it has its name."""
    return folder / f"{_PARTIAL}{step}"


def remove_halves(folder: Path) -> None:
    """Remove what was written of checkpoints that never got their names."""
    for half in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(half, ignore_errors=True)


def publish(partial: Path, target: Path, identity: Mapping[str, Any]) -> None:
    """Give a written checkpoint its name. `identity` says which run it belongs to."""
    sizes = {
        str(path.relative_to(partial)): path.stat().st_size
        for path in sorted(partial.rglob("*"))
        if path.is_file()
    }
    manifest = {"identity": dict(identity), "sizes": sizes}
    (partial / _MANIFEST).write_text(json.dumps(manifest, indent=1, default=str), "utf-8")
    for path in [*partial.rglob("*"), partial]:
        _flush(path)
    if target.exists():  # of the same step, written before a resume
        shutil.rmtree(target)
    partial.rename(target)
    _flush(target.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def step_of(checkpoint: Path) -> int:
    """The number of updates behind a checkpoint."""
    found = _NAME.fullmatch(checkpoint.name)
    assert found is not None
    return int(found[1])


def all_checkpoints(folder: Path) -> list[Path]:
    """The folders that are named like checkpoints, the oldest first."""
    named = [path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return sorted(named, key=step_of)


def remove_old(folder: Path, newest: int, keep: int, best: int | None) -> None:
    """Keep the `keep` checkpoints up to the step `newest`, and that of the step `best`.

    Those of later steps are of a run that was begun anew here, or damaged: newest all the same,
    they would have those removed that this run needs.
    """
    mine = [path for path in all_checkpoints(folder) if step_of(path) <= newest]
    kept = {path.name for path in mine[-keep:]} | {f"checkpoint-{best}"}
    for path in all_checkpoints(folder):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def newest_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Path | None:
    """The newest whole checkpoint of this run, None where there is none.

    Raises TrainingError, naming what differs, where it is of a run with other settings or data.
    """
    for path in reversed(all_checkpoints(folder)):
        manifest = _manifest(path)
        if manifest is None:
            continue
        changed = _changes(manifest["identity"], identity)
        if changed:
            raise TrainingError(
                f"{path} is of another run ({'; '.join(changed)}); "
                "--overwrite begins anew, or name another --run"
            )
        return path
    return None


def newest_identity(folder: Path) -> Mapping[str, Any]:
    """Which run the newest whole checkpoint says that it belongs to; empty without one."""
    manifests = map(_manifest, reversed(all_checkpoints(folder)))
    return next((manifest["identity"] for manifest in manifests if manifest is not None), {})


def _manifest(path: Path) -> dict[str, Any] | None:
    """What a checkpoint says of itself; None where a file is missing or was cut."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text("utf-8"))
        whole = all(
            (path / name).stat().st_size == size for name, size in manifest["sizes"].items()
        )
        return manifest if whole and isinstance(manifest["identity"], dict) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    first, second = _flat(before), _flat(json.loads(json.dumps(dict(now), default=str)))
    return [
        f"{key} was {first.get(key)} and is {second.get(key)}"
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    ]


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            pairs |= _flat(value, f"{prefix}{key}.")
        else:
            pairs[f"{prefix}{key}"] = value
    return pairs
