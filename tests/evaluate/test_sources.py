"""Passages beside the scores: each once, found again by id, whole after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from scratchpad_rag.errors import DataError
from scratchpad_rag.evaluate.sources import SourceFile, passage_id, read_sources
from scratchpad_rag.records import Passage

TOWN, RIVER = Passage("Marren", "A town."), Passage("Ilse", "A\nriver: ü.")


def test_each_passage_is_written_once_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "passages.jsonl"
    SourceFile(path).add([TOWN, RIVER, TOWN])
    SourceFile(path).add([RIVER])
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2
    assert read_sources(path) == {passage_id(TOWN): TOWN, passage_id(RIVER): RIVER}


def test_a_line_cut_off_by_a_kill_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "passages.jsonl"
    SourceFile(path).add([TOWN, RIVER])
    path.write_bytes(path.read_bytes()[:-5])
    assert list(read_sources(path).values()) == [TOWN]
    SourceFile(path).add([RIVER])
    assert list(read_sources(path).values()) == [TOWN, RIVER]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "passages.jsonl"
    path.write_text('{"id": "a"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"passages\.jsonl:1: not a line of passages"):
        read_sources(path)
    assert read_sources(tmp_path / "none.jsonl") == {}
