from __future__ import annotations

from pathlib import Path

import pytest

from scratchpad_rag.data.own import needs_corpus, read_corpus, read_table, resolve_gold
from scratchpad_rag.data.readers import read_questions
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage
from tests.data.shapes.files import DPR, KILT, write_lines

NOVEL = Passage("Dracula", "Dracula is a novel by Bram Stoker of 1897.")
FILMS = Passage("Dracula", "Many films were made of it.")
CASTLE = Passage("Dracula", "Stoker never saw the castle in which it is set.")
WRITER = Passage("Bram Stoker", "He was born in Clontarf.")
ROAD = Passage("The_long road.txt", "It leads to Whitby.")
POOL = [FILMS, CASTLE, NOVEL, WRITER, ROAD]


def resolved(tmp_path: Path, *rows: object) -> list[Example]:
    questions = read_questions(write_lines(tmp_path / "t.jsonl", *rows))
    return [row.example for row in resolve_gold(questions, POOL)]


def ask(gold: object, answers: str = "Stoker", question: str = "Who wrote the novel?") -> object:
    return {"question": question, "answers": answers, "gold": gold, "id": "q"}


@pytest.mark.parametrize(
    ("gold", "found"),
    [
        (["Bram Stoker"], [WRITER]),
        (["bram_stoker.TXT"], [WRITER]),
        (["notes/Bram_Stoker.md"], [WRITER]),
        (["the long road"], [ROAD]),
        # Of the two passages that hold the answer, the one with more words of the question.
        (["Dracula"], [NOVEL]),
        (["Many films  were made\nof it."], [FILMS]),
        (["Bram Stoker", "Dracula"], [WRITER, NOVEL]),
        (["Bram Stoker", "Bram_Stoker.txt"], [WRITER]),
        ([], []),
    ],
)
def test_names_of_gold(tmp_path: Path, gold: list[str], found: list[Passage]) -> None:
    [example] = resolved(tmp_path, ask(gold))
    assert example.passages == tuple(found)
    assert example.gold == tuple(range(len(found)))


def test_answers_are_whole_words(tmp_path: Path) -> None:
    [example] = resolved(tmp_path, ask("Dracula", answers="189|7|1897"))
    assert example.passages == (NOVEL,)
    with pytest.raises(DataError, match="none of them holds an answer"):
        resolved(tmp_path, ask("Dracula", answers="189"))


def test_evidence_goes_before_answers(tmp_path: Path) -> None:
    spans = {"evidence_span": ["the castle in which"]}
    sources = [{"title": "Dracula", "meta": spans}]
    [example] = resolved(tmp_path, KILT | {"output": [{"answer": "1897", "provenance": sources}]})
    assert example.passages == (CASTLE,)


def test_a_name_that_is_not_there(tmp_path: Path) -> None:
    rows = [
        ask(["Emma"]) | {"id": "a"},
        ask(["Dracula"]) | {"id": "b"},
        ask(["Bram Stoker", "Emma"]) | {"id": "c"},
    ]
    with pytest.raises(DataError) as caught:
        resolved(tmp_path, *rows)
    assert str(caught.value) == (
        f"{tmp_path / 't.jsonl'}:1: gold 'Emma' of question 'a' is neither the title nor the text"
        " of a passage (and of 1 other question)"
    )
    questions = read_questions(tmp_path / "t.jsonl")
    kept = resolve_gold(questions, POOL, skip_missing=True)
    assert [row.example.id for row in kept] == ["b"]
    with pytest.raises(DataError, match="no question names a gold passage of the pool"):
        resolve_gold(questions[:1], POOL, skip_missing=True)


def test_a_document_without_the_answer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a document of 3 passages and none of them holds an"):
        resolved(tmp_path, ask(["Dracula"], answers="Austen"))
    # Where there is one passage only, it is meant.
    assert resolved(tmp_path, ask(["Bram Stoker"], answers="Austen"))[0].passages == (WRITER,)


def test_questions_with_passages_stay_as_they_are(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "dpr.jsonl", DPR)
    questions = read_questions(path)
    assert not needs_corpus(questions)
    assert resolve_gold(questions, POOL)[0].example == questions[0].example
    with pytest.raises(DataError, match="this is not a table"):
        read_table(path)


def test_a_table_over_a_folder(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "Dracula.txt").write_text(f"{NOVEL.text} {'It is read. ' * 60}")
    (tmp_path / "texts" / "Bram_Stoker.md").write_text(WRITER.text)
    table = tmp_path / "q.csv"
    table.write_text(
        "question,answers,gold,split\n"
        "Who wrote Dracula?,Bram Stoker|Stoker,Dracula.txt,train\n"
        "Where was he born?,Clontarf,Bram_Stoker.md,val\n"
    )
    questions = read_table(table)
    assert needs_corpus(questions)
    corpus = read_corpus(tmp_path / "texts")
    assert [passage.title for passage in corpus] == ["Bram Stoker", "Dracula", "Dracula"]
    first, second = resolve_gold(questions, corpus)
    assert (first.split, second.split) == ("train", "val")
    assert first.example.passages == (corpus[1],)
    assert second.example.passages == (WRITER,)
