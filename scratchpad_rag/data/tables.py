"""Tables (CSV, TSV, Parquet) as objects, one a row, each with the place that errors name."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scratchpad_rag.data.lines import Item, read_items, read_lines
from scratchpad_rag.errors import DataError

_DELIMITERS = {".csv": ",;", ".tsv": "\t"}  # Excel writes CSV with semicolons in half of the world
_FIELD_CHARACTERS = 1 << 24


def read_objects(path: Path) -> Iterator[Item]:
    """The objects of a file by its ending: `.csv`, `.tsv`, `.parquet`, else JSON.

    There is at least one. An empty cell of a CSV file is no field. Raises DataError for a file that
    is missing, empty, damaged or of another kind.
    """
    endings = [ending.lower() for ending in Path(path).suffixes]
    kind = endings[-2] if endings[-1:] == [".gz"] and len(endings) > 1 else "".join(endings[-1:])
    if kind in _DELIMITERS:
        return _read_csv(path, _DELIMITERS[kind])
    if kind == ".parquet":
        return _read_parquet(path)
    return read_items(path)


def _read_csv(path: Path, delimiters: str) -> Iterator[Item]:
    lines = [(number, line) for number, line in read_lines(path)]
    if not lines:
        raise DataError(f"{path}: the file is empty")
    header_line = lines[0][1]
    delimiter = max(delimiters, key=header_line.count)  # the first where none is there
    if "\0" in header_line:
        raise DataError(f"{path}: not a table of text")
    csv.field_size_limit(_FIELD_CHARACTERS)
    # Numbers are those of the file: blank lines are passed over only between rows.
    text = io.StringIO("".join(line for _, line in lines), newline="")
    rows = csv.reader(text, delimiter=delimiter, strict=True)
    header: list[str] = []
    found = False
    while True:
        start = lines[min(rows.line_num, len(lines) - 1)][0]
        try:
            row = next(rows, None)
        except csv.Error as cause:
            raise DataError(f"{path}:{start}: malformed CSV: {cause}") from cause
        if row is None:
            break
        if not header:
            header = _header(path, row)
            continue
        if len(row) != len(header):
            raise DataError(
                f"{path}:{start}: {len(row)} cells, but the header names {len(header)} columns"
            )
        cells = zip(header, row, strict=True)
        found = True
        yield Item({key: cell for key, cell in cells if cell.strip()}, f"{path}:{start}")
    if not found:
        raise DataError(f"{path}: the file has a header and no rows")


def _header(path: Path, row: list[str]) -> list[str]:
    header = [name.strip().lower() for name in row]
    if "question" not in header and not {"title", "text"} <= set(header):
        raise DataError(
            f"{path}:1: the first row must name the columns, among them 'question' and 'answers'"
            f" (of passages: 'title' and 'text'), not {', '.join(map(repr, row[:4]))[:80]}"
        )
    if len(set(header)) < len(header):
        raise DataError(f"{path}:1: a column is named twice: {', '.join(header)}")
    return header


def _read_parquet(path: Path) -> Iterator[Item]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if not file.metadata.num_rows:
                raise DataError(f"{path}: the file is empty")
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield Item(_present(row), f"{path}: row {number}")
    except FileNotFoundError as cause:
        raise DataError(f"{path}: no such file") from cause
    except (pyarrow.ArrowException, OSError, ValueError) as cause:
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise DataError(f"{path}: cannot be read as Parquet: {reason}") from cause


def _present(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None}
