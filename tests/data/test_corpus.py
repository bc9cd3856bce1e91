from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.data.corpus import read_corpus, split_passages
from scratchpad_rag.data.readers import read_passages
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Passage


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_files_become_passages(tmp_path: Path) -> None:
    write(tmp_path / "b" / "Ada_Lovelace.txt", "\ufeffShe wrote notes.\n\nOn an engine.")
    write(tmp_path / "a.MD", "# Heading\n\nA text.")
    write(tmp_path / "empty.txt", " \n")
    write(tmp_path / "table.csv", "not,text")
    write(tmp_path / ".git" / "notes.txt", "hidden")
    assert read_corpus(tmp_path) == [
        Passage("a", "# Heading A text."),
        Passage("Ada Lovelace", "She wrote notes. On an engine."),
    ]
    assert read_passages(tmp_path) == read_corpus(tmp_path)


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder / "notes.txt", f"Of {folder}.")
    assert [passage.title for passage in read_corpus(tmp_path)] == ["a/notes.txt", "b/notes.txt"]


def test_passages_end_where_sentences_do() -> None:
    sentence = "The " + " ".join(["word"] * 28) + " end."  # 30 words
    pieces = split_passages(" ".join([sentence] * 7))
    # 90 words are nearer to 100 than 120; the last sentence has as many as a piece must have.
    assert [len(piece.split()) for piece in pieces] == [90, 90, 30]
    assert all(piece.endswith("end.") for piece in pieces)


def test_a_short_rest_joins_the_passage_before_it() -> None:
    text = " ".join(["word"] * 99) + " end. Just five more words here."
    assert [len(piece.split()) for piece in split_passages(text)] == [105]


def test_a_text_without_stops_is_cut() -> None:
    assert [len(p.split()) for p in split_passages("word " * 250)] == [100, 100, 50]


@given(st.text(alphabet="ab .!\n", max_size=400), st.integers(1, 20))
def test_no_word_is_lost(text: str, words: int) -> None:
    pieces = split_passages(text, words)
    assert " ".join(pieces).split() == text.split()
    assert all(pieces)
    assert all(len(piece.split()) <= 3 * words for piece in pieces)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no text \(\.md or \.txt\)"):
        read_corpus(tmp_path)
    write(tmp_path / "empty.txt", "\n")
    with pytest.raises(DataError, match="holds no text"):
        read_passages(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        read_corpus(tmp_path / "none")
    (tmp_path / "old.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"old\.txt: not UTF-8 \(byte 3\)"):
        read_corpus(tmp_path)
