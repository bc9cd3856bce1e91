"""Public sets brought to this machine: the publishers' files, or the Hub's rows.

Beside the files of a set, `checksums.json` keeps what came at first and `source.json` from where
and under which licence. Other bytes under the same name are refused; another licence is said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from scratchpad_rag.data.catalogue import DATA_DIR, HubSource, PublicSet, hub_file_name
from scratchpad_rag.data.download import (
    CHECKSUMS,
    Checksum,
    check_file,
    checksum_of,
    download_file,
    read_checksums,
    write_checksums,
)
from scratchpad_rag.data.lines import replacing, write_lines
from scratchpad_rag.errors import DataError

SOURCE = "source.json"
Notify = Callable[[str], None]


def obtain(
    chosen: PublicSet,
    split: str,
    notify: Notify,
    data_dir: Path = DATA_DIR,
    from_hub: bool = False,
    timeout_seconds: float = 30.0,
    progress: bool = True,
) -> Path:
    """The file of a split (train, val), after downloading it where it is not there.

    The publisher's file is taken, or with `from_hub` (and where there is no plain file) the Hub's
    rows as JSON lines. Raises DataError for a split that the set has not, a download that fails,
    and bytes that are not those expected: the catalogue's, or those of the first download.
    """
    if split not in chosen.splits:
        raise DataError(f"{chosen.name} has no {split} questions")
    hub = chosen.hub if from_hub or split not in chosen.files else None
    if from_hub and (hub is None or split not in hub.splits):
        raise DataError(f"the Hub has no {split} questions of {chosen.name}; leave out --hub")
    folder = chosen.folder(data_dir)
    known = read_checksums(folder)
    name = hub_file_name(split) if hub else chosen.files[split].name
    path = folder / name
    if path.exists():
        if name in known:
            check_file(path, known[name])
    else:
        if hub:
            _download_rows(hub, split, path, known.get(name))
            known[name] = checksum_of(path)
        else:
            url, size, sha256 = chosen.files[split]
            expected = Checksum(size, sha256) if sha256 else known.get(name)
            known[name] = download_file(url, path, timeout_seconds, progress, expected)
        write_checksums(folder, known)
    _compare_licence(chosen, hub, folder, notify)
    return path


def _download_rows(hub: HubSource, split: str, path: Path, expected: Checksum | None) -> None:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    what = f"{hub.repo} ({hub.splits[split]})"
    try:
        rows = load_dataset(
            hub.repo, hub.config, split=hub.splits[split], revision=hub.revision, streaming=False
        )
        lines = _json_lines(rows)
        fresh = path.with_name(f".{path.name}.new.gz")
        write_lines(lines, fresh)
    # The Hub's own errors are OSErrors and ValueErrors of many classes.
    except (DatasetsError, OSError, ValueError, KeyError, RuntimeError, TypeError) as cause:
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise DataError(
            f"cannot download {what} from the Hub: {reason}. Without a network, put the"
            f" publisher's file into {path.parent}"
        ) from cause
    try:
        if expected is not None and checksum_of(fresh) != expected:
            raise DataError(
                f"{what} has changed since it was first downloaded: other rows came than those"
                f" of {path.name} in {path.parent / CHECKSUMS}; remove that entry to take them"
            )
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _json_lines(rows: Any) -> Iterator[str]:
    for row in rows:
        yield json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    """What JSON has no word for, in the columns that no reader looks at."""
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


def _compare_licence(
    chosen: PublicSet, hub: HubSource | None, folder: Path, notify: Notify
) -> None:
    """Say in one line where a licence is not the one of the first download, and keep the first."""
    now = (hub_licence(hub.repo) if hub else None) or chosen.licence
    path = folder / SOURCE
    source = hub.repo if hub else chosen.page
    if not path.exists():
        text = json.dumps({"licence": now, "source": source}, indent=2) + "\n"
        with replacing(path) as stream:
            stream.write(text.encode())
        first = chosen.licence
    else:
        try:
            first = str(json.loads(path.read_text(encoding="utf-8"))["licence"])
        except (OSError, ValueError, KeyError, TypeError) as cause:
            raise DataError(f"{path}: cannot be read; delete it to start anew") from cause
    if first.lower() != now.lower():
        notify(
            f"the licence of {chosen.name} changed: it was {first}, {source} now names {now};"
            f" look at it before you go on"
        )


def hub_licence(repo: str) -> str | None:
    """The licence that a data set's card names now (SPDX, lower case), None where there is no card
    or none is named."""
    from huggingface_hub import DatasetCard
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        local = Path(repo) / "README.md"
        card = DatasetCard.load(local if Path(repo).is_dir() else repo)
    except (EntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        return None  # the rows are there already; a card that cannot be had says nothing
    named = card.data.get("license")
    if isinstance(named, list):
        return " and ".join(map(str, named)) or None
    return str(named) if named else None
