"""The public sets as samples of a run: by name, out of what was downloaded or a file named."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scratchpad_rag.config import DataConfig, build, load_experiment
from scratchpad_rag.data.catalogue import CATALOGUE
from scratchpad_rag.data.curriculum import place_drawn, plan_epoch
from scratchpad_rag.data.readers import SplitExample, read_passages, read_with_splits
from scratchpad_rag.data.select import Selection, select_samples
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import EvalSplit, Example
from tests.data.shapes.files import DPR, KILT, MUSIQUE, TWO_WIKI, dpr_passage, write_lines

SHARED = Path(__file__).parents[3] / "shared" / "data"


def configured(name: str, **changes: Any) -> DataConfig:
    sections, warnings = load_experiment(name)
    assert warnings == []
    return replace(build(DataConfig, sections["data"], name), **changes)


def select(config: DataConfig) -> tuple[Selection, list[str]]:
    said: list[str] = []
    return select_samples(config, EvalSplit.ALL, said.append), said


def wiki(number: int, **changes: Any) -> dict[str, Any]:
    question = f"Where was author {number} born?"
    return TWO_WIKI | {"_id": f"w{number}", "question": question} | changes


def put(folder: Path, name: str, split: str, *rows: object) -> Path:
    """A downloaded file of a set, as the Hub's rows."""
    path = CATALOGUE[name].places(split, folder)[-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_lines(path.with_suffix(""), *rows).rename(path)


@pytest.mark.parametrize("name", [n for n, entry in CATALOGUE.items() if not entry.needs_corpus])
def test_every_set_has_an_experiment_that_names_its_download(name: str, tmp_path: Path) -> None:
    config = configured(name, data_dir=str(tmp_path))
    assert config.name == name
    with pytest.raises(DataError) as caught:
        select(config)
    assert f"scratchpad-rag data download {name}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_positions_hold_as_many_gold_passages_as_a_set_has() -> None:
    for name, most in (("hotpotqa_distractor", 2), ("2wiki", 4), ("musique", 4)):
        config = configured(name)
        assert max(config.gold_at) + most <= config.total_docs


def test_the_official_splits_are_kept_apart(tmp_path: Path) -> None:
    put(tmp_path, "2wiki", "train", *(wiki(number) for number in range(4)))
    # The third is asked again, spelled otherwise.
    again = wiki(9, question="where was  author 2 born")
    put(tmp_path, "2wiki", "val", again, wiki(7))
    config = configured("2wiki", data_dir=str(tmp_path), total_docs=3, gold_at=(0, 1))
    selection, said = select(config)
    assert sorted(example.id for example in selection.train) == ["w0", "w1", "w3"]
    assert sorted({example.id for example in selection.val}) == ["w7", "w9"]
    assert said == ["1 training questions are among those to validate on: left out"]


def test_one_file_alone_is_split_by_question(tmp_path: Path) -> None:
    put(tmp_path, "2wiki", "val", *(wiki(number) for number in range(10)))
    config = configured("2wiki", data_dir=str(tmp_path), total_docs=3, gold_at=(1,))
    selection, said = select(config)
    assert (len(selection.train), len(selection.val), said) == (8, 2, [])
    assert {example.gold for example in selection.val} == {(1, 2)}


def test_a_download_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "2wiki", "val", *(wiki(number) for number in range(10)))
    entry = {"size": path.stat().st_size, "sha256": "0" * 64}
    (path.parent / "checksums.json").write_text(json.dumps({path.name: entry}))
    with pytest.raises(DataError, match="delete the file to download it again") as caught:
        select(configured("2wiki", data_dir=str(tmp_path)))
    assert str(caught.value).startswith(f"{path}: ")


def test_questions_that_fit_no_cell_are_left_out_and_said(tmp_path: Path) -> None:
    more = [dpr_passage(f"T{n}", f"text {n}") for n in range(5)]
    rows = [
        DPR | {"question": f"who is {n}", "hard_negative_ctxs": more, "negative_ctxs": []}
        for n in range(8)
    ]
    rows[1] = rows[1] | {"positive_ctxs": []}
    rows[2] = rows[2] | {"hard_negative_ctxs": more[:3]}
    path = tmp_path / "nq.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    config = configured("nq_dpr", path=str(path), total_docs=5, gold_at=(0,), train_ratio=0.5)
    selection, said = select(config)
    assert len(selection.train) + len(selection.val) == 6
    assert sum(int(line.split()[0]) for line in said) == 2
    assert all("have fewer than 5 passages or no gold one: left out" in line for line in said)
    retrieved, _ = select(replace(config, passage_order="retrieved"))
    assert len(retrieved.train) + len(retrieved.val) == 7
    with pytest.raises(DataError, match="no question of nq_dpr has 9 passages to show"):
        select(replace(config, total_docs=9))
    # A file of one's own is not sifted.
    with pytest.raises(DataError, match=r"has no gold passage|fewer than total_docs"):
        select(replace(config, name="examples"))


def test_more_gold_than_fit_behind_a_position_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "m.jsonl", *(MUSIQUE | {"id": str(n)} for n in range(4)))
    config = configured("musique", path=str(path), total_docs=5, gold_at=(3,))
    with pytest.raises(DataError, match=r"gold_at 3 is outside 0\.\.2 for example .* 3 gold"):
        select(config)


@pytest.mark.parametrize("support_order", ["given", "position"])
def test_a_curriculum_places_gold_in_the_order_of_reasoning(
    tmp_path: Path, support_order: str
) -> None:
    rows = [
        MUSIQUE | {"id": str(number), "question": f"Where did author {number} die?"}
        for number in range(10)
    ]
    config = configured(
        "musique",
        path=str(write_lines(tmp_path / "m.jsonl", *rows)),
        total_docs=5,
        gold_at=(0, 1, 2),
        train_positions="uniform",
        support_order=support_order,
    )
    drawn, _ = select(config)
    fixed, _ = select(replace(config, train_positions="fixed"))
    assert drawn.curriculum is not None

    def support(example: Example) -> list[str]:
        """Gold titles as they stand, which is as the scratchpad quotes them."""
        assert list(example.gold) == sorted(example.gold)
        return [passage.title for passage in example.gold_passages]

    plan = plan_epoch(drawn.train, drawn.curriculum, 0)
    shown = [place_drawn(q, placement) for q, placement in zip(drawn.train, plan, strict=True)]
    for example in (*shown, *fixed.train, *drawn.val):
        assert support(example) == ["Dracula", "Bram Stoker", "London"]


@pytest.mark.parametrize(
    ("order", "titles"),
    [("given", ["Dracula", "Bram Stoker"]), ("position", ["Bram Stoker", "Dracula"])],
)
def test_support_order_where_passages_keep_their_places(
    tmp_path: Path, order: str, titles: list[str]
) -> None:
    path = write_lines(tmp_path / "w.jsonl", *(wiki(number) for number in range(5)))
    config = configured("2wiki", path=str(path), total_docs=3, gold_at=(0,), support_order=order)
    for passage_order in ("given", "retrieved"):
        selection, _ = select(replace(config, passage_order=passage_order))
        for example in (*selection.train, *selection.val):
            assert [passage.title for passage in example.gold_passages] == titles
            assert [p.title for p in example.passages] == ["Bram Stoker", "Carmilla", "Dracula"]


def test_questions_without_passages_are_to_be_built_first(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "kilt.jsonl", KILT)
    config = configured("examples", path=str(path))
    with pytest.raises(DataError, match="the questions bring no passages; build a set of both"):
        select(config)


# --- the real files


def real(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def rows_of(name: str) -> list[SplitExample]:
    return read_with_splits(real(name))


def gold_counts(rows: list[SplitExample]) -> dict[int, int]:
    return dict(Counter(len(row.example.gold) for row in rows))


@pytest.mark.real_data
def test_real_nq() -> None:
    rows = rows_of("nq/nq-open-oracle.jsonl.gz")
    assert gold_counts(rows) == {1: 2144}
    assert {len(row.example.passages) for row in rows} == {1}


@pytest.mark.real_data
def test_real_key_values() -> None:
    rows = rows_of("kv/kv-retrieval-75_keys.jsonl.gz")
    assert gold_counts(rows) == {1: 200}
    assert {len(row.example.passages) for row in rows} == {75}
    assert all(
        example.gold_passages[0].text == example.answers[0] and example.id in example.question
        for example, _ in rows
    )


@pytest.mark.real_data
def test_real_hotpotqa() -> None:
    rows = rows_of("hotpotqa/hotpot_distractor.jsonl.gz")
    assert Counter(row.split for row in rows) == {"train": 793, "val": 1989}
    assert gold_counts(rows) == {2: 2782}
    assert {len(row.example.passages) for row in rows} == {10}
    # The order of reasoning is not that of the file: counted from the JSON by itself.
    assert sum(list(e.gold) != sorted(e.gold) for e, _ in rows) == 1447


@pytest.mark.real_data
def test_real_hotpotqa_fullwiki() -> None:
    rows = rows_of("hotpotqa/hotpot_fullwiki.jsonl.gz")
    assert gold_counts(rows) == {0: 105, 1: 382, 2: 198}
    assert Counter(row.example.gold_total for row in rows) == {2: 487, None: 198}
    assert sum(len(row.example.passages) == 10 for row in rows) == 673
    config = configured("hotpotqa_fullwiki", path=str(real("hotpotqa/hotpot_fullwiki.jsonl.gz")))
    selection, said = select(config)
    assert len(selection.train) + len(selection.val) == 673
    assert len(said) == 2


@pytest.mark.real_data
def test_real_musique() -> None:
    rows = rows_of("musique/musique_ans.jsonl.gz")
    assert gold_counts(rows) == {1: 16, 2: 229, 3: 84, 4: 38}
    assert Counter(row.example.gold_total for row in rows) == {None: 341, 2: 12, 3: 7, 4: 7}
    assert {len(row.example.passages) for row in rows} == {20}
    first = rows[0].example
    assert [passage.title for passage in first.gold_passages] == [
        "Journal of Psychotherapy Integration",
        "Adolescence",
    ]
    assert first.answers == ("G. Stanley Hall", "Stanley Hall")


@pytest.mark.real_data
def test_real_2wiki() -> None:
    rows = rows_of("2wiki/2wikimultihopqa.jsonl.gz")
    assert gold_counts(rows) == {2: 379, 4: 142}
    assert {len(row.example.passages) for row in rows} == {10}


@pytest.mark.real_data
def test_real_squad() -> None:
    rows = rows_of("squad/squad.json.gz")
    assert gold_counts(rows) == {1: 11877}
    passages = {passage for row in rows for passage in row.example.passages}
    assert len(passages) == 2429  # of 2,430 paragraphs one comes twice in its article
    assert len({passage.title for passage in passages}) == 44
    assert min(len(row.example.passages) for row in rows) == 21
    assert all("_" not in passage.title for passage in passages)
    answered = sum(any(a in e.gold_passages[0].text for a in e.answers) for e, _ in rows)
    assert answered == len(rows)


@pytest.mark.real_data
def test_real_passages() -> None:
    assert len(read_passages(real("passages/wikipedia_passages.jsonl.gz"))) == 58566


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "file", "train", "val"),
    [
        ("hotpotqa_distractor", "hotpotqa/hotpot_distractor.jsonl.gz", 793, 1989 * 5),
        ("musique", "musique/musique_ans.jsonl.gz", 294, 73 * 5),
        ("2wiki", "2wiki/2wikimultihopqa.jsonl.gz", 417, 104 * 4),
        ("squad", "squad/squad.json.gz", 9504, 2373 * 5),
        ("kv_75_keys", "kv/kv-retrieval-75_keys.jsonl.gz", 40, 160 * 4),
    ],
)
def test_real_experiments(name: str, file: str, train: int, val: int) -> None:
    config = configured(name, path=str(real(file)))
    selection, said = select(config)
    assert (len(selection.train), len(selection.val), said) == (train, val, [])
    assert {len(example.passages) for example in selection.val} == {config.total_docs}
