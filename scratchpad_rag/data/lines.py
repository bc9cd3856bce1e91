"""JSON objects out of plain or gzipped files, each with the place that errors about it name."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from scratchpad_rag.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Item:
    """One JSON object of a file and where it stands (`path:line`, or `path: item n` in an array).

    Every getter raises DataError, naming the place, for a field that is missing or of a wrong type.
    """

    fields: dict[str, Any]
    where: str

    def error(self, problem: str) -> DataError:
        return DataError(f"{self.where}: {problem}")

    def has(self, key: str) -> bool:
        """Whether the field is there and not null."""
        return self.fields.get(key) is not None

    def text(self, key: str) -> str:
        """A string with something to read in it, unchanged."""
        if key not in self.fields:
            raise self.error(f"field {key!r} is missing")
        return self.checked_text(self.fields[key], f"field {key!r}")

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, each with something to read in it; the list may be empty."""
        return tuple(
            self.checked_text(value, f"field {key!r}, entry {number},")
            for number, value in enumerate(self.entries(key), 1)
        )

    def entries(self, key: str) -> list[Any]:
        if key not in self.fields:
            raise self.error(f"field {key!r} is missing")
        value = self.fields[key]
        if not isinstance(value, list):
            raise self.error(f"field {key!r} must be a list, not {json_type(value)}")
        return value

    def items(self, key: str) -> list[Item]:
        """A list of objects, each with its own number in the place."""
        children = []
        for number, value in enumerate(self.entries(key), 1):
            where = f"{self.where}: {key} {number}"
            if not isinstance(value, dict):
                raise DataError(f"{where}: must be an object, not {json_type(value)}")
            children.append(Item(value, where))
        return children

    def flag(self, key: str) -> bool:
        """A truth value; a missing one is false."""
        value = self.fields.get(key, False)
        if not isinstance(value, bool):
            raise self.error(f"field {key!r} must be true or false, not {json_type(value)}")
        return value

    def checked_text(self, value: Any, what: str) -> str:
        if not isinstance(value, str):
            raise self.error(f"{what} must be a string, not {json_type(value)}")
        if not value.strip():
            raise self.error(f"{what} is empty")
        try:
            value.encode()
        except UnicodeEncodeError as cause:  # half a surrogate pair, written as \\ud83d
            raise self.error(f"{what} holds half a character: {value[:40]!a}") from cause
        return value


def json_type(value: Any) -> str:
    """What JSON calls a value: `null`, `a number`, ..."""
    if value is None:
        return "null"
    names = {bool: "a truth value", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def read_items(path: Path) -> Iterator[Item]:
    """The objects of JSON lines, of one JSON array, or one object over many lines, one at a time.

    Blank lines are passed over; there is at least one object. Raises DataError naming file and
    line for a file that is missing, empty, not UTF-8, truncated or malformed.
    """
    lines = read_lines(path)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path}: the file is empty")
    number, line = first
    if line.lstrip().startswith("["):
        yield from _read_array(path, number, line, lines)
        return
    if line.strip() == "{":
        value = _parse_whole(path, number, line, lines)
        yield _as_item(value, f"{path}:{number}")
        return
    while True:
        where = f"{path}:{number}"
        yield _as_item(_parse(line, where), where)
        following = next(lines, None)
        if following is None:
            return
        number, line = following


def _read_array(
    path: Path, number: int, line: str, lines: Iterator[tuple[int, str]]
) -> Iterator[Item]:
    values = _parse_whole(path, number, line, lines)
    if not values:
        raise DataError(f"{path}: the file is empty")
    for index, value in enumerate(values, 1):
        where = f"{path}: item {index}"
        yield _as_item(value, where)


def _parse_whole(path: Path, number: int, line: str, lines: Iterator[tuple[int, str]]) -> Any:
    blank_before = "\n" * (number - 1)  # keeps the line numbers of json's errors right
    text = blank_before + line + "".join(line for _, line in lines)
    try:
        return json.loads(text)
    except json.JSONDecodeError as cause:
        raise DataError(f"{path}:{cause.lineno}: malformed JSON: {cause.msg}") from cause
    except (ValueError, RecursionError) as cause:
        raise DataError(f"{path}: malformed JSON: {cause}") from cause


def _parse(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as cause:
        place = f"malformed JSON: {cause.msg} (column {cause.colno})"
        raise DataError(f"{where}: {place}") from cause
    except (ValueError, RecursionError) as cause:  # a number of 5,000 digits, 2,000 open brackets
        raise DataError(f"{where}: malformed JSON: {cause}") from cause


def _as_item(value: Any, where: str) -> Item:
    if not isinstance(value, dict):
        raise DataError(f"{where}: must be an object, not {json_type(value)}")
    return Item(value, where)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that hold something, numbered from 1; gzip is told by content.

    Raises DataError for a file that is missing, not UTF-8, truncated or unreadable.
    """
    number = 0
    try:
        with _open(path) as stream:
            for number, raw in enumerate(stream, 1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as cause:
        raise DataError(f"{path}:{number}: not UTF-8 (byte {cause.start} of the line)") from cause
    except (EOFError, zlib.error, gzip.BadGzipFile) as cause:
        place = f"{path}: the gzip data are cut off or damaged after line {number}"
        raise DataError(f"{place}; get the file again") from cause
    except FileNotFoundError as cause:
        raise DataError(f"{path}: no such file") from cause
    except OSError as cause:
        raise DataError(f"{path}: cannot be read: {cause.strerror or cause}") from cause


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw:
        magic = raw.read(2)
        raw.seek(0)
        if magic != _GZIP_MAGIC:
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as unzipped, io.BufferedReader(unzipped) as stream:
            yield stream


def write_lines(lines: Iterable[str], path: Path) -> None:
    """Text lines to a file, gzipped if its name ends in `.gz`: the same bytes for the same lines.

    Written under a temporary name and then renamed, so that a killed run leaves no half file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as raw:
            if path.suffix != ".gz":
                _write(lines, raw)
                return
            # No name and no time in the header, and a fixed level: byte for byte reproducible.
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as stream:
                _write(lines, stream)
    except OSError as cause:
        raise DataError(f"{path}: cannot be written: {cause.strerror or cause}") from cause


def _write(lines: Iterable[str], stream: IO[bytes] | gzip.GzipFile) -> None:
    for line in lines:
        stream.write(line.encode() + b"\n")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file beside `path` that takes its name if the block ends well, else goes."""
    temporary = tempfile.NamedTemporaryFile(  # noqa: SIM115 (closed below, before the rename)
        dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
    )
    partial = Path(temporary.name)
    try:
        with temporary as stream:
            yield stream
        partial.chmod(0o644)  # NamedTemporaryFile makes files that only their owner can read
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
