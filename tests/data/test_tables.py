from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from scratchpad_rag.data.readers import read_examples, read_passages, read_questions
from scratchpad_rag.data.tables import read_objects
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Passage
from tests.data.shapes.files import HUB_HOTPOT, MUSIQUE, squad_rows


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def write_parquet(path: Path, *rows: dict[str, Any]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


TABLE = """Question,answers,gold,id,split
Who wrote Dracula?,Bram Stoker|Stoker,Dracula,a,train
"Where, if at all, was he
born?","Clontarf",,b,val
"""


@pytest.mark.parametrize(
    ("name", "text", "encoding"),
    [
        ("t.csv", TABLE, "utf-8"),
        ("t.CSV", TABLE.replace("\n", "\r\n"), "utf-8-sig"),
        ("t.csv", TABLE.replace(", if at all,", "").replace(",", ";"), "utf-8"),
        ("t.tsv", TABLE.replace(", if at all,", "").replace(",", "\t"), "utf-8"),
    ],
)
def test_tables_of_text(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    first, second = read_questions(write(tmp_path / name, text, encoding))
    assert first.example.answers == ("Bram Stoker", "Stoker")
    assert [name.name for name in first.gold] == ["Dracula"]
    assert (first.example.id, first.split, first.where) == ("a", "train", f"{tmp_path / name}:2")
    assert second.example.question.split()[-2:] == ["he", "born?"]
    assert (second.gold, second.split, second.where) == ((), "val", f"{tmp_path / name}:3")


def test_a_zipped_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(TABLE.encode()))
    assert [question.example.id for question in read_questions(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ": the file is empty"),
        ("question,answers\n", ": the file has a header and no rows"),
        (
            "Who wrote Dracula?,Stoker\n",
            ":1: the first row must name the columns, among them 'question' and 'answers'",
        ),
        ("question,answers,answers\nWho?,a,b\n", ":1: a column is named twice"),
        ("question,answers\nWho?,a\nWhen?,b,c\n", ":3: 3 cells, but the header names 2 columns"),
        ("question,answers\nWho?,\n", ":2: unknown shape of file"),
        ("question,answers\nWho?,a\nWhen?,\n", ":3: field 'answers' is missing"),
        ('question,answers\nWho?,a\n"When?,b\n', ":3: malformed CSV: unexpected end of data"),
        ('question,answers\n"Who"?,a\n', ":2: malformed CSV"),
        ("id,question,answers\nx,Who?,a\n\nx,When?,b\n", ":4: id 'x' was given before, at"),
        ("question,answers\nWho?,a\nwho,b\n", ":3: id"),
    ],
)
def test_bad_tables_of_text(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(DataError) as caught:
        read_questions(path)
    message = str(caught.value)
    assert message.startswith(f"{path}{problem}")
    assert "\n" not in message


def test_tables_that_are_not_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv:1: not UTF-8"):
        read_questions(write(tmp_path / "t.csv", "question,answers\n", "utf-16"))
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        read_questions(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"none\.parquet: no such file"):
        read_questions(tmp_path / "none.parquet")


def test_parquet_of_a_table(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "t.parquet",
        {"question": "Who?", "answers": ["a", "b"], "gold": None, "id": "x"},
        {"question": "When?", "answers": ["c"], "gold": "Doc", "id": "y"},
    )
    first, second = read_questions(path)
    assert (first.example.answers, first.gold, first.where) == (("a", "b"), (), f"{path}: row 1")
    assert [name.name for name in second.gold] == ["Doc"]


def test_parquet_of_the_public_sets(tmp_path: Path) -> None:
    [hotpot] = read_examples(write_parquet(tmp_path / "h.parquet", HUB_HOTPOT))
    assert (hotpot.gold, len(hotpot.passages)) == ((2, 0), 3)
    [musique] = read_examples(write_parquet(tmp_path / "m.parquet", MUSIQUE))
    assert musique.gold == (4, 2, 0)
    squad = read_examples(write_parquet(tmp_path / "s.parquet", *squad_rows()))
    assert [len(example.passages) for example in squad] == [2, 2, 2, 1]


def test_damaged_and_empty_parquet(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "t.parquet", *({"question": "Who?"} for _ in range(3000)))
    whole = path.read_bytes()
    for damaged in (whole[:-200], b"PAR1" + whole[200:], b"question,answers\n", b""):
        path.write_bytes(damaged)
        with pytest.raises(DataError) as caught:
            read_questions(path)
        assert str(caught.value).startswith(f"{path}: cannot be read as Parquet: ")
        assert "\n" not in str(caught.value)
    table = pyarrow.Table.from_pylist([], pyarrow.schema([("question", pyarrow.string())]))
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(DataError, match="the file is empty"):
        read_questions(path)


def test_passages_in_tables(tmp_path: Path) -> None:
    # As DPR's Wikipedia has them.
    text = "id\ttext\ttitle\n1\tA novel.\tDracula\n2\tA writer.\tBram Stoker\n"
    passages = [Passage("Dracula", "A novel."), Passage("Bram Stoker", "A writer.")]
    assert read_passages(write(tmp_path / "psgs.tsv", text)) == passages
    rows = [{"title": p.title, "text": p.text} for p in passages]
    assert read_passages(write_parquet(tmp_path / "p.parquet", *rows)) == passages
    with pytest.raises(DataError, match=":2: field 'text' is missing"):
        read_passages(write(tmp_path / "p.csv", "title,text\nDracula,\n"))


def test_other_files_are_json(tmp_path: Path) -> None:
    [item] = read_objects(write(tmp_path / "t.txt", '{"question": "Who?"}'))
    assert item.where == f"{tmp_path / 't.txt'}:1"
