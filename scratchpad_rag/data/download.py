"""Files fetched once and then kept, and by it the question files of Lost in the Middle.

Those (Liu et al. 2023) come from the GitHub repository nelson-liu/lost-in-the-middle (MIT;
questions of NQ-open, CC BY-SA 3.0).
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


class Checksum(NamedTuple):
    """Bytes of a file, and their SHA-256; a size that is None is not compared."""

    size: int | None
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
    known = read_checksums(folder)
    for name in names:
        path = folder / name
        if not path.exists():
            subfolder = "" if total_docs == 1 else f"{total_docs}_total_documents/"
            url = f"{base_url.rstrip('/')}/{subfolder}{name}"
            known[name] = download_file(url, path, timeout_seconds, progress, known.get(name))
            write_checksums(folder, known)
        elif name in known:
            check_file(path, known[name])
    return [folder / name for name in names]


def download_file(
    url: str,
    path: Path,
    timeout_seconds: float = 30.0,
    progress: bool = True,
    expected: Checksum | None = None,
) -> Checksum:
    """One file; it is there whole or not at all.

    Raises DataError for a download that fails (no network, timeout, cut off, a web page in place of
    gzip or JSON) and for bytes that are not those `expected`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            checksum = _fetch(url, path.name, temporary, timeout_seconds, progress)
            _check_kind(temporary, path.suffix)
            if expected is not None and not _same(checksum, expected):
                raise DataError(
                    f"{url} has changed: {checksum.size} bytes with sha256"
                    f" {checksum.sha256[:12]}… came, not those with {expected.sha256[:12]}…"
                    f" that are known; nothing was kept. If it is to be so, remove the"
                    f" entry of {path.name} in {path.parent / CHECKSUMS}"
                )
    except urllib.error.HTTPError as cause:
        raise _failed(url, path, f"the server answered {cause.code} {cause.reason}") from cause
    except (EOFError, zlib.error, gzip.BadGzipFile) as cause:
        raise _failed(url, path, "what came is not a complete gzip file") from cause
    except _NotJsonError as cause:
        raise _failed(url, path, "what came is not JSON") from cause
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
) -> Checksum:
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
    return Checksum(size, digest.hexdigest())


class _NotJsonError(Exception):
    pass


def _check_kind(stream: IO[bytes], suffix: str) -> None:
    """A login page sent instead of the file must not be kept; gzip is decompressed to nowhere."""
    stream.flush()
    stream.seek(0)
    if suffix != ".gz":
        if stream.read(64).lstrip()[:1] not in (b"{", b"["):
            raise _NotJsonError
        return
    with gzip.GzipFile(fileobj=stream) as unzipped:
        while unzipped.read(_CHUNK_BYTES):
            pass


def _failed(url: str, path: Path, reason: str) -> DataError:
    return DataError(
        f"cannot download {url}: {reason}. Without a network, put {path.name} into {path.parent},"
        " use --experiment_config sample_20_docs, or build a set from your own passages with"
        " 'scratchpad-rag data build'"
    )


def checksum_of(path: Path) -> Checksum:
    """Of a file that is there; DataError where it cannot be read."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except OSError as cause:
        raise DataError(f"{path}: cannot be read: {cause.strerror or cause}") from cause
    return Checksum(size, digest.hexdigest())


def _same(found: Checksum, expected: Checksum) -> bool:
    sizes = found.size if expected.size is None else expected.size
    return found == Checksum(sizes, expected.sha256)


def check_file(path: Path, expected: Checksum) -> None:
    """Raise DataError where the file is not the one that was downloaded."""
    found = checksum_of(path)
    if not _same(found, expected):
        raise DataError(
            f"{path}: {found.size} bytes with sha256 {found.sha256[:12]}… are not the"
            f" {expected.size} bytes with {expected.sha256[:12]}… that were downloaded;"
            f" delete the file to download it again, or its entry in {CHECKSUMS} to keep it"
        )


def read_checksums(folder: Path) -> dict[str, Checksum]:
    """What `checksums.json` of a folder says by file name; DataError where it is not readable."""
    path = folder / CHECKSUMS
    if not path.exists():
        return {}
    try:
        entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: Checksum(int(entry["size"]), str(entry["sha256"]))
            for name, entry in entries.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise DataError(f"{path}: cannot be read as checksums; delete it to start anew") from cause


def write_checksums(folder: Path, checksums: dict[str, Checksum]) -> None:
    """Keep them as `checksums.json` in a folder."""
    entries = {name: checksum._asdict() for name, checksum in sorted(checksums.items())}
    text = json.dumps(entries, indent=2) + "\n"
    with replacing(folder / CHECKSUMS) as stream:
        stream.write(text.encode())
