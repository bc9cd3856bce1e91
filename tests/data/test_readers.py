import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.data.readers import (
    has_splits,
    read_examples,
    read_passages,
    read_with_splits,
    write_examples,
)
from scratchpad_rag.data.shapes import join_sentences
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage

INLINE = {
    "id": "q1",
    "question": "Who wrote Dracula?",
    "answers": ["Bram Stoker", "Stoker"],
    "passages": [
        {"title": "Carmilla", "text": "A novella by Le Fanu."},
        {"title": "Dracula", "text": "A novel by Bram Stoker.", "gold": True},
    ],
}
LIM = {
    "question": "who wrote dracula",
    "answers": ["Bram Stoker"],
    "ctxs": [
        {"title": "Carmilla", "text": "By Le Fanu.", "isgold": False, "hasanswer": False},
        {"title": "Dracula", "text": "By Bram Stoker.", "isgold": True, "hasanswer": True},
    ],
    "nq_annotated_gold": {"title": "Dracula", "long_answer": "…", "chunked_long_answer": "…"},
}
HOTPOT = {
    "_id": "5a7a",
    "question": "Where was the author of Dracula born?",
    "answer": "Clontarf",
    "context": [
        ["Bram Stoker", ["Stoker was a writer.", " He was born in Clontarf."]],
        ["Carmilla", ["By Le Fanu."]],
        ["Dracula", ["A novel.", "By Bram Stoker."]],
    ],
    "supporting_facts": [["Dracula", 1], ["Bram Stoker", 1], ["Dracula", 0]],
}
POOL = [
    {"id": "p1", "title": "Carmilla", "text": "By Le Fanu."},
    {"id": "p2", "title": "Dracula", "text": "By Bram Stoker."},
    {"id": "p3", "title": "Bram Stoker", "text": "Born in Clontarf."},
]
COMPACT = {
    "id": "q1",
    "question": "Where was the author of Dracula born?",
    "answers": ["Clontarf"],
    "gold": ["p2", "p3"],
    "distractors": ["p1"],
}


def write_lines(path: Path, *rows: object) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_folder(folder: Path, questions: list[object], pool: list[object], end: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    write_lines(folder / f"passages.jsonl{end}", *pool)
    write_lines(folder / f"questions.jsonl{end}", *questions)
    return folder


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_own_inline(tmp_path: Path, name: str) -> None:
    [example] = read_examples(write_lines(tmp_path / name, INLINE))
    assert example == Example(
        id="q1",
        question="Who wrote Dracula?",
        answers=("Bram Stoker", "Stoker"),
        passages=(
            Passage("Carmilla", "A novella by Le Fanu."),
            Passage("Dracula", "A novel by Bram Stoker."),
        ),
        gold=(1,),
    )


def test_gzip_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    zipped = write_lines(tmp_path / "a.jsonl.gz", INLINE).rename(tmp_path / "a.jsonl")
    plain = write_lines(tmp_path / "b.jsonl", INLINE).rename(tmp_path / "b.jsonl.gz")
    assert read_examples(zipped) == read_examples(plain)


def test_gold_numbers_give_the_order_of_reasoning(tmp_path: Path) -> None:
    passages = [
        {"title": "B", "text": "second", "gold": 2},
        {"title": "C", "text": "third"},
        {"title": "A", "text": "first", "gold": 1},
    ]
    [example] = read_examples(write_lines(tmp_path / "a.jsonl", INLINE | {"passages": passages}))
    assert example.gold == (2, 0)


def test_a_question_may_have_no_gold_passage(tmp_path: Path) -> None:
    passages = [{"title": "A", "text": "x", "gold": False}, {"title": "B", "text": "y"}]
    [example] = read_examples(write_lines(tmp_path / "a.jsonl", INLINE | {"passages": passages}))
    assert example.gold == ()


@pytest.mark.parametrize("end", ["", ".gz"])
def test_own_compact_folder_puts_gold_first(tmp_path: Path, end: str) -> None:
    [example] = read_examples(write_folder(tmp_path / "set", [COMPACT], POOL, end))
    assert [passage.title for passage in example.passages] == ["Dracula", "Bram Stoker", "Carmilla"]
    assert example.gold == (0, 1)
    assert example.answers == ("Clontarf",)


def test_lost_in_the_middle(tmp_path: Path) -> None:
    other = LIM | {"question": "who wrote emma", "answers": ["Jane Austen"]}
    examples = read_examples(write_lines(tmp_path / "nq.jsonl.gz", LIM, other))
    assert [example.gold for example in examples] == [(1,), (1,)]
    assert examples[0].passages[1] == Passage("Dracula", "By Bram Stoker.")
    assert examples[0].id != examples[1].id


def test_lost_in_the_middle_id_is_the_same_at_every_gold_position(tmp_path: Path) -> None:
    moved = LIM | {"ctxs": LIM["ctxs"][::-1], "question": "Who wrote  Dracula?"}
    [one] = read_examples(write_lines(tmp_path / "gold_at_1.jsonl", LIM))
    [two] = read_examples(write_lines(tmp_path / "gold_at_0.jsonl", moved))
    assert (one.gold, two.gold) == ((1,), (0,))
    # sha256("who wrote dracula"), worked out with sha256sum
    assert one.id == two.id == "f2fc212ed8109913"


def test_hotpotqa_as_array_and_as_lines(tmp_path: Path) -> None:
    array = tmp_path / "dev.json"
    array.write_text(json.dumps([HOTPOT], indent=1), encoding="utf-8")
    [example] = read_examples(array)
    assert example.passages[0].text == "Stoker was a writer. He was born in Clontarf."
    assert example.passages[2].text == "A novel. By Bram Stoker."
    assert example.gold == (2, 0)
    assert example.answers == ("Clontarf",)
    assert [example] == read_examples(write_lines(tmp_path / "dev.jsonl.gz", HOTPOT))


def test_hotpotqa_fullwiki_marks_only_the_gold_that_was_found(tmp_path: Path) -> None:
    rows = [
        HOTPOT | {"_id": "half", "context": HOTPOT["context"][:2]},
        HOTPOT | {"_id": "none", "context": []},
    ]
    half, none = read_examples(write_lines(tmp_path / "fullwiki.jsonl", *rows))
    assert half.gold == (0,)
    assert (none.gold, none.passages) == ((), ())


def test_hotpotqa_without_ids_takes_them_from_the_question(tmp_path: Path) -> None:
    rows = [HOTPOT | {"_id": "None"}, HOTPOT | {"_id": None, "question": "Who is Le Fanu?"}]
    examples = read_examples(write_lines(tmp_path / "dev.jsonl", *rows))
    assert len({example.id for example in examples} - {"None"}) == 2


@pytest.mark.parametrize(
    ("sentences", "text"),
    [
        (["One.", " Two.", "Three."], "One. Two. Three."),
        (['On "Hey Mama!', '".'], 'On "Hey Mama!".'),
        (['It ended in 1981. "', 'Haywire" followed.'], 'It ended in 1981. "Haywire" followed.'),
        (['He said "no."', '"Yes" was hers.'], 'He said "no." "Yes" was hers.'),
        (["Creech (colloq.", ") is a base."], "Creech (colloq.) is a base."),
        ([" One.", "", "Two. "], "One. Two."),
        ([], ""),
    ],
)
def test_sentences_read_right(sentences: list[str], text: str) -> None:
    assert join_sentences(sentences) == text


def test_split_is_read_and_filters(tmp_path: Path) -> None:
    rows = [
        INLINE | {"id": "a", "split": "train"},
        INLINE | {"id": "b", "split": "dev"},
        INLINE | {"id": "c", "split": "val"},
    ]
    path = write_lines(tmp_path / "a.jsonl", *rows)
    assert has_splits(path)
    assert [row.split for row in read_with_splits(path)] == ["train", "val", "val"]
    assert [example.id for example in read_examples(path, "train")] == ["a"]
    assert [example.id for example in read_examples(path, "val")] == ["b", "c"]
    assert len(read_examples(path)) == 3


def test_file_without_splits(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", INLINE)
    assert not has_splits(path)
    assert not has_splits(write_folder(tmp_path / "set", [COMPACT], POOL))
    with pytest.raises(DataError, match=r"a\.jsonl: no question names a split"):
        read_examples(path, "val")
    with pytest.raises(DataError, match="unknown split 'best'"):
        read_examples(path, "best")


def test_split_of_some_questions_only(tmp_path: Path) -> None:
    rows = [INLINE | {"id": "a", "split": "train"}, INLINE | {"id": "b"}]
    with pytest.raises(DataError, match=r":2: field 'split' must be given for every question"):
        read_examples(write_lines(tmp_path / "a.jsonl", *rows))


def test_blank_lines_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    line = json.dumps(INLINE)
    path.write_bytes(b"\xef\xbb\xbf\r\n" + line.encode() + b"\r\n\n")
    assert [example.id for example in read_examples(path)] == ["q1"]


@pytest.mark.parametrize("text", ["מי כתב את דרקולה", "من كتب دراكولا؟", "🧛‍♂️ 👨‍👩‍👧 \u2028 é"])
def test_every_script_survives(tmp_path: Path, text: str) -> None:
    passages = [{"title": text, "text": text, "gold": True}]
    row = INLINE | {"question": text, "answers": [text], "passages": passages}
    path = write_lines(tmp_path / "a.jsonl", row)
    [example] = read_examples(path)
    assert example == Example("q1", text, (text,), (Passage(text, text),), (0,))
    write_examples([example], tmp_path / "b.jsonl.gz")
    assert read_examples(tmp_path / "b.jsonl.gz") == [example]


def passages_with(**fields: object) -> dict[str, object]:
    return {"passages": [{"title": "T", "text": "t"} | fields]}


def without(row: dict[str, object], key: str) -> dict[str, object]:
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (INLINE | {"answers": []}, "the question has no answers"),
        (INLINE | {"answers": [" "]}, "field 'answers', entry 1, is empty"),
        (INLINE | {"answers": "Stoker"}, "field 'answers' must be a list, not a string"),
        (INLINE | {"answers": [1876]}, "entry 1, must be a string, not a number"),
        (without(INLINE, "answers"), "field 'answers' is missing"),
        (INLINE | {"question": ""}, "field 'question' is empty"),
        (INLINE | {"question": None}, "field 'question' must be a string, not null"),
        (without(INLINE, "id"), "field 'id' is missing"),
        (INLINE | {"passages": []}, "the question has no passages"),
        (INLINE | {"passages": None}, "field 'passages' must be a list, not null"),
        (INLINE | {"passages": ["x"]}, "passages 1: must be an object, not a string"),
        (INLINE | passages_with(title=""), "passages 1: field 'title' is empty"),
        (INLINE | passages_with(text="\n"), "passages 1: field 'text' is empty"),
        (INLINE | passages_with(text=["t"]), "field 'text' must be a string, not a list"),
        (INLINE | passages_with(gold="yes"), "field 'gold' must be true, false or a number"),
        (INLINE | passages_with(gold=0), "field 'gold' must be true, false or a number from 1"),
        (INLINE | {"split": "test"}, "unknown split 'test'"),
        (LIM | {"answers": []}, "the question has no answers"),
        (LIM | {"ctxs": []}, "the question has no passages"),
        (
            LIM | {"ctxs": [{"title": "T", "text": "t", "isgold": 1}]},
            "ctxs 1: field 'isgold' must be true or false, not a number",
        ),
        (HOTPOT | {"answer": ""}, "field 'answer' is empty"),
        (HOTPOT | {"context": [["T", []]]}, "context 1: the text is empty"),
        (HOTPOT | {"context": [["", ["t"]]]}, "context 1: the title is empty"),
        (HOTPOT | {"context": [["T"]]}, "context 1: must be [title, [sentences]]"),
        (HOTPOT | {"context": [["T", [3]]]}, "context 1: a sentence must be a string"),
        (HOTPOT | {"supporting_facts": [[]]}, "supporting_facts 1: must be [title, sentence"),
        (
            HOTPOT | {"context": HOTPOT["context"] + [["Dracula", ["Another."]]]},
            "gold title 'Dracula' occurs twice",
        ),
        ({"question": "Who?"}, "unknown shape of file; known are"),
        ([1], "must be an object, not a list"),
    ],
)
def test_bad_question_names_file_line_and_problem(
    tmp_path: Path, row: object, problem: str
) -> None:
    path = tmp_path / "bad.jsonl"
    text = json.dumps(row) if isinstance(row, dict) else json.dumps([row])
    path.write_text(text, encoding="utf-8")
    place = f"{path}:1: " if isinstance(row, dict) else f"{path}: item 1: "
    with pytest.raises(DataError) as caught:
        read_examples(path)
    message = str(caught.value)
    assert message.startswith(place)
    assert problem in message
    assert "\n" not in message


def test_two_gold_passages_with_one_number(tmp_path: Path) -> None:
    twice = [{"title": "A", "text": "a", "gold": 1}, {"title": "B", "text": "b", "gold": 1}]
    mixed = [{"title": "A", "text": "a", "gold": 1}, {"title": "B", "text": "b", "gold": True}]
    with pytest.raises(DataError, match=":1: two gold passages carry the same number"):
        read_examples(write_lines(tmp_path / "a.jsonl", INLINE | {"passages": twice}))
    with pytest.raises(DataError, match=":1: field 'gold' must be true in all"):
        read_examples(write_lines(tmp_path / "a.jsonl", INLINE | {"passages": mixed}))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"gold": ["p9"]}, "passage 'p9' is not among the passages"),
        ({"gold": ["p2", "p2"]}, "passage 'p2' is named twice"),
        ({"distractors": ["p2"]}, "passage 'p2' is named twice"),
        ({"distractors": ["p1", "p1"]}, "passage 'p1' is named twice"),
        ({"gold": [], "distractors": []}, "the question has no passages"),
        ({"gold": "p2"}, "field 'gold' must be a list"),
    ],
)
def test_bad_compact_question(tmp_path: Path, change: dict[str, object], problem: str) -> None:
    folder = write_folder(tmp_path / "set", [COMPACT, COMPACT | {"id": "q2"} | change], POOL)
    with pytest.raises(DataError) as caught:
        read_examples(folder)
    assert str(caught.value).startswith(f"{folder / 'questions.jsonl'}:2: ")
    assert problem in str(caught.value)


def test_compact_folder_that_is_not_whole(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"passages\.jsonl is missing"):
        read_examples(tmp_path)
    folder = write_folder(tmp_path / "set", [COMPACT], POOL)
    write_lines(folder / "passages.jsonl.gz", *POOL)
    with pytest.raises(DataError, match="holds both"):
        read_examples(folder)
    twice = write_folder(tmp_path / "twice", [COMPACT], [*POOL, POOL[0]])
    with pytest.raises(DataError, match=r"passages\.jsonl:4: passage id 'p1' was given before"):
        read_examples(twice)


def test_duplicate_ids(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", INLINE, INLINE | {"id": "q2"}, INLINE)
    with pytest.raises(DataError, match=r":3: id 'q1' was given before, at .*a\.jsonl:1$"):
        read_examples(path)


def test_malformed_json(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(INLINE) + '\n{"id": "q2",\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl:2: malformed JSON") as caught:
        read_examples(path)
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)
    path.write_text('\n[\n{"_id": "a"},\n{"_id": }\n]', encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl:4: malformed JSON"):
        read_examples(path)
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(DataError, match="malformed JSON"):
        read_examples(path)


def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(INLINE | {"question": "\ud83d"}), encoding="ascii")
    with pytest.raises(DataError, match=":1: field 'question' holds half a character"):
        read_examples(path)


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(INLINE).encode() + b'\n{"id": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: not UTF-8"):
        read_examples(path)


def test_truncated_and_damaged_gzip(tmp_path: Path) -> None:
    rows = [INLINE | {"id": f"q{number}"} for number in range(2000)]
    path = write_lines(tmp_path / "a.jsonl.gz", *rows)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="gzip data are cut off or damaged after line"):
        read_examples(path)
    path.write_bytes(whole[:-8] + b"\0" * 8)
    with pytest.raises(DataError, match="gzip data are cut off or damaged"):
        read_examples(path)


def test_missing_empty_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        read_examples(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(DataError, match="the file is empty"):
        read_examples(tmp_path / "empty.jsonl")
    (tmp_path / "array.json").write_text("[]")
    with pytest.raises(DataError, match="the file is empty"):
        read_examples(tmp_path / "array.json")
    with pytest.raises(DataError, match="the file is empty"):
        has_splits(tmp_path / "array.json")


def test_read_passages(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "p.jsonl.gz", *POOL)
    assert read_passages(path)[2] == Passage("Bram Stoker", "Born in Clontarf.")
    write_lines(path, {"title": "A", "text": "a"}, {"title": "B"})
    with pytest.raises(DataError, match=":2: field 'text' is missing"):
        read_passages(path)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
PASSAGES = st.lists(st.builds(Passage, TEXTS, TEXTS), min_size=1, max_size=6)


@st.composite
def examples(draw: st.DrawFn, identity: str) -> Example:
    passages = draw(PASSAGES)
    gold = draw(st.lists(st.sampled_from(range(len(passages))), unique=True))
    answers = draw(st.lists(TEXTS, min_size=1, max_size=3))
    return Example(identity, draw(TEXTS), tuple(answers), tuple(passages), tuple(gold))


@given(st.tuples(examples("a"), examples("b")), st.sampled_from(["x.jsonl", "x.jsonl.gz"]))
def test_written_examples_read_the_same(
    tmp_path_factory: pytest.TempPathFactory, written: tuple[Example, ...], name: str
) -> None:
    path = tmp_path_factory.mktemp("round") / name
    write_examples(written, path)
    assert read_examples(path) == list(written)


def test_writing_is_reproducible_and_leaves_no_half_file(tmp_path: Path) -> None:
    [example] = read_examples(write_lines(tmp_path / "a.jsonl", INLINE))
    write_examples([example], tmp_path / "new" / "one.jsonl.gz", {"q1": "val"})
    write_examples([example], tmp_path / "new" / "two.jsonl.gz", {"q1": "val"})
    one, two = sorted((tmp_path / "new").iterdir())
    assert one.read_bytes() == two.read_bytes()
    [line] = gzip.decompress(one.read_bytes()).decode().splitlines()
    assert json.loads(line) == INLINE | {"split": "val"}
    nothing = Example("q2", "Who?", ("she",), (), ())
    with pytest.raises(DataError, match="'q2' has no passages and cannot be written"):
        write_examples([example, nothing], one)
    assert one.read_bytes() == two.read_bytes()
    assert sorted((tmp_path / "new").iterdir()) == [one, two]
