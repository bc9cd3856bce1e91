"""The question files of Lost in the Middle (Liu et al. 2023), fetched once and then kept.

They come from the GitHub repository nelson-liu/lost-in-the-middle (MIT; questions of NQ-open,
CC BY-SA 3.0).
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from scratchpad_rag.data.lines import replacing
from scratchpad_rag.errors import DataError

BASE_URL = "https://raw.githubusercontent.com/nelson-liu/lost-in-the-middle/main/qa_data"
# Number of documents -> gold positions for which a file exists; one document is the oracle file.
LIM_POSITIONS = {
    1: (0,),
    10: (0, 4, 9),
    20: (0, 4, 9, 14, 19),
    30: (0, 4, 9, 14, 19, 24, 29),
}
CHECKSUMS = "checksums.json"
_CHUNK_BYTES = 1 << 18


class _Checksum(NamedTuple):
    size: int
    sha256: str


def lim_file_name(total_docs: int, gold_at: int) -> str:
    """The name that Lost in the Middle gave a file; DataError where it has none.

    >>> lim_file_name(20, 4)
    'nq-open-20_total_documents_gold_at_4.jsonl.gz'
    """
    if total_docs not in LIM_POSITIONS:
        known = ", ".join(map(str, LIM_POSITIONS))
        raise DataError(
            f"Lost in the Middle has no files of {total_docs} documents; choose from {known}"
        )
    if gold_at not in LIM_POSITIONS[total_docs]:
        known = ", ".join(map(str, LIM_POSITIONS[total_docs]))
        raise DataError(
            f"Lost in the Middle has no file of {total_docs} documents with the gold one at"
            f" {gold_at}; choose from {known}"
        )
    if total_docs == 1:
        return "nq-open-oracle.jsonl.gz"
    return f"nq-open-{total_docs}_total_documents_gold_at_{gold_at}.jsonl.gz"


def ensure_lim_files(
    folder: Path,
    total_docs: int,
    gold_at: Sequence[int],
    base_url: str = BASE_URL,
    timeout_seconds: float = 30.0,
    progress: bool = True,
) -> list[Path]:
    """The files for `gold_at`, in its order, after downloading those that `folder` lacks.

    Size and SHA-256 of every download are kept in `checksums.json` beside the files, and files
    listed there are checked against it. Raises DataError for a file that has changed, a position
    without a file, and a download that fails (no network, timeout, cut off, not gzip).
    """
    names = [lim_file_name(total_docs, position) for position in gold_at]
    known = _read_checksums(folder)
    for name in names:
        path = folder / name
        if not path.exists():
            subfolder = "" if total_docs == 1 else f"{total_docs}_total_documents/"
            url = f"{base_url.rstrip('/')}/{subfolder}{name}"
            known[name] = _download(url, path, timeout_seconds, progress)
            _write_checksums(folder, known)
        elif name in known:
            _check(path, known[name])
    return [folder / name for name in names]


def _download(url: str, path: Path, timeout_seconds: float, progress: bool) -> _Checksum:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            checksum = _fetch(url, path.name, temporary, timeout_seconds, progress)
            _check_gzip(temporary)
    except urllib.error.HTTPError as cause:
        raise _failed(url, path, f"the server answered {cause.code} {cause.reason}") from cause
    except (EOFError, zlib.error, gzip.BadGzipFile) as cause:
        raise _failed(url, path, "what came is not a complete gzip file") from cause
    except http.client.IncompleteRead as cause:
        missing = f", {cause.expected} bytes short" if cause.expected else ""
        raise _failed(url, path, f"the download was cut off{missing}") from cause
    except TimeoutError as cause:
        raise _failed(url, path, f"no answer within {timeout_seconds:g} seconds") from cause
    except urllib.error.URLError as cause:
        raise _failed(url, path, str(cause.reason)) from cause
    except (OSError, ValueError, http.client.HTTPException) as cause:
        raise _failed(url, path, str(cause) or type(cause).__name__) from cause
    if progress:
        tqdm.write(f"{path}: {checksum.size:,} bytes, sha256 {checksum.sha256}")
    return checksum


def _fetch(
    url: str, name: str, target: IO[bytes], timeout_seconds: float, progress: bool
) -> _Checksum:
    digest, size = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=timeout_seconds) as response:
        length = response.headers.get("Content-Length")
        expected = int(length) if length is not None else None
        with tqdm(
            total=expected, desc=name, unit="B", unit_scale=True, leave=False, disable=not progress
        ) as bar:
            while chunk := response.read(_CHUNK_BYTES):
                target.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                bar.update(len(chunk))
    # Read in chunks, http.client takes a connection that closes early for the end of the file.
    if expected is not None and size < expected:
        raise http.client.IncompleteRead(b"", expected - size)
    return _Checksum(size, digest.hexdigest())


def _check_gzip(stream: IO[bytes]) -> None:
    """Decompress to nowhere: a login page sent instead of the file must not be kept."""
    stream.flush()
    stream.seek(0)
    with gzip.GzipFile(fileobj=stream) as unzipped:
        while unzipped.read(_CHUNK_BYTES):
            pass


def _failed(url: str, path: Path, reason: str) -> DataError:
    return DataError(
        f"cannot download {url}: {reason}. Without a network, put {path.name} into {path.parent},"
        " use --experiment_config sample_20_docs, or build a set from your own passages with"
        " 'scratchpad-rag data build'"
    )


def _check(path: Path, expected: _Checksum) -> None:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except OSError as cause:
        raise DataError(f"{path}: cannot be read: {cause.strerror or cause}") from cause
    found = _Checksum(size, digest.hexdigest())
    if found != expected:
        raise DataError(
            f"{path}: {found.size} bytes with sha256 {found.sha256[:12]}… are not the"
            f" {expected.size} bytes with {expected.sha256[:12]}… that were downloaded;"
            f" delete the file to download it again, or its entry in {CHECKSUMS} to keep it"
        )


def _read_checksums(folder: Path) -> dict[str, _Checksum]:
    path = folder / CHECKSUMS
    if not path.exists():
        return {}
    try:
        entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: _Checksum(int(entry["size"]), str(entry["sha256"]))
            for name, entry in entries.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise DataError(f"{path}: cannot be read as checksums; delete it to start anew") from cause


def _write_checksums(folder: Path, checksums: dict[str, _Checksum]) -> None:
    entries = {name: checksum._asdict() for name, checksum in sorted(checksums.items())}
    text = json.dumps(entries, indent=2) + "\n"
    with replacing(folder / CHECKSUMS) as stream:
        stream.write(text.encode())
