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
    """Where a step's checkpoint is written before it has its name; other halves are removed."""
    for half in folder.glob(f"{_PARTIAL}*"):
        if half.name != f"{_PARTIAL}{step}":
            shutil.rmtree(half, ignore_errors=True)
    return folder / f"{_PARTIAL}{step}"


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


def remove_old(folder: Path, keep: int, best: str | None) -> None:
    """Keep the newest `keep` checkpoints and the best one."""
    for path in all_checkpoints(folder)[:-keep]:
        if best is None or path.name != Path(best).name:
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
    def plain(value: Any) -> Any:
        return json.loads(json.dumps(value, default=str))

    return [
        f"{key} was {before.get(key)} and is {plain(now.get(key))}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != plain(now.get(key))
    ]
