"""`scratchpad-rag scores` and `data export_lm_eval`, through the command line."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scratchpad_rag.app.cli import main
from scratchpad_rag.evaluate.score_file import read_scores
from scratchpad_rag.evaluate.sources import read_sources
from scratchpad_rag.evaluate.summary import summarise

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """A command in a folder of its own: its exit code and what it says."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["scratchpad-rag", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        code = ended.value.code
        return (code if isinstance(code, int) else 0), said.err

    return run


def answers(gold_at: int, right: int, total: int = 4, **changes: Any) -> list[dict[str, Any]]:
    """`total` questions over three documents, of which the first `right` are answered rightly."""
    lines = []
    for number in range(total):
        documents = [{"title": f"T{k}", "text": f"Text {number} {k}."} for k in range(3)]
        shown = [{**d, "isgold": k == gold_at} for k, d in enumerate(documents)]
        lines.append(
            {
                "question": f"question {number}",
                "answers": [f"Name {number}"],
                "ctxs": shown,
                "model_documents": shown,
                "model_prompt": "...",
                "model_answer": f"name {number}!\nmore" if number < right else "no",
                "model": "org/llama",
                **changes,
            }
        )
    return lines


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def test_in_and_out_again(call: Call, tmp_path: Path) -> None:
    first = write(tmp_path / "gold_at_0.jsonl.gz", answers(0, right=3))
    second = write(tmp_path / "gold_at_2.jsonl", answers(2, right=1))
    code, said = call("scores", "import", first, second, "--out", "runs/llama", "--dataset", "nq")
    assert (code, said) == (0, "8 answers: runs/llama\n")
    run = tmp_path / "runs/llama"
    assert sorted(file.name for file in run.iterdir()) == [
        "passages.jsonl",
        "run.json",
        "scores.jsonl",
    ]
    scores = read_scores(run / "scores.jsonl")
    [summary] = summarise(scores)
    assert (summary.method, summary.samples, summary.questions) == ("org/llama", 8, 4)
    assert summary.subspan_exact_match.estimate == 4 / 8
    at = {p.position: p.subspan_exact_match.estimate for p in summary.by_position}
    assert at == {0: 3 / 4, 2: 1 / 4}
    assert {identity for score in scores for identity in score.shown} == set(
        read_sources(run / "passages.jsonl")
    )
    code, said = call("scores", "export", "runs/llama", "--out", "out.jsonl.gz")
    assert (code, said) == (0, "8 answers, 50.00% right by their rule: out.jsonl.gz\n")
    with gzip.open("out.jsonl.gz", "rt", encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream]
    assert [line["model_answer"] for line in lines[:4]] == ["name 0!", "name 1!", "name 2!", "no"]
    assert [document["isgold"] for document in lines[7]["ctxs"]] == [False, False, True]
    code, _ = call("scores", "import", "out.jsonl.gz", "--out", "runs/again")
    assert code == 0
    again = read_scores(Path("runs/again/scores.jsonl"))
    assert [(s.prediction, s.subspan_exact_match, s.dataset, s.gold_positions) for s in again] == [
        (s.prediction, s.subspan_exact_match, s.dataset, s.gold_positions) for s in scores
    ]


def test_what_differs_from_their_rule_is_said(call: Call, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", answers(0, right=1, total=2, answers=["The!"]))
    assert call("scores", "import", "a.jsonl", "--out", "run")[0] == 0
    code, said = call("scores", "export", "run", "--out", "b.jsonl")
    assert code == 0
    assert "100.00% right by their rule" in said
    assert "by ours 0.00% are: an answer of nothing but articles" in said


BAD: list[tuple[list[dict[str, Any]], str]] = [
    ([{"id": "q", "question": "a", "passages": []}], "one.jsonl:1: field 'answers' is missing"),
    ([{"doc": {}, "resps": []}], "one.jsonl:1: no line of Lost in the Middle's response files"),
    (answers(0, 1, 1) + answers(0, 1, 1, model="b", question="z"), "answers of model 'b'"),
    (answers(0, 1, 1, answers="Name"), "field 'answers' must be a list, not a string"),
    ([], "the file is empty"),
]


@pytest.mark.parametrize(("lines", "message"), BAD)
def test_bad_files_leave_nothing(
    call: Call, tmp_path: Path, lines: list[dict[str, Any]], message: str
) -> None:
    write(tmp_path / "one.jsonl", lines)
    code, said = call("scores", "import", "one.jsonl", "--out", "runs/bad")
    assert code == 2
    assert said.count("\n") == 1
    assert message in said
    assert list((tmp_path / "runs").iterdir()) == []


def test_files_cut_off_or_missing(call: Call, tmp_path: Path) -> None:
    path = write(tmp_path / "cut.jsonl.gz", answers(0, 1, 40))
    path.write_bytes(path.read_bytes()[:-30])
    code, said = call("scores", "import", path, "--out", "run")
    assert (code, "cut off or damaged" in said, Path("run").exists()) == (2, True, False)
    code, said = call("scores", "import", "none.jsonl", "--out", "run")
    assert (code, "none.jsonl: no such file" in said) == (2, True)


def test_the_same_answers_in_two_files(call: Call, tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / name, answers(0, 1))
    code, said = call("scores", "import", "a.jsonl", "b.jsonl", "--out", "run")
    assert code == 2
    assert "b.jsonl: question 'question 0' is answered by org/llama in a.jsonl too" in said


def test_what_exists_is_kept(call: Call, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", answers(0, 4))
    write(tmp_path / "b.jsonl", answers(0, 0))
    assert call("scores", "import", "a.jsonl", "--out", "run")[0] == 0
    code, said = call("scores", "import", "b.jsonl", "--out", "run")
    assert (code, "run holds a run; --overwrite replaces it" in said) == (2, True)
    assert len(read_scores(Path("run/scores.jsonl"))) == 4
    assert call("scores", "import", "b.jsonl", "--out", "run", "--overwrite")[0] == 0
    assert sum(s.subspan_exact_match for s in read_scores(Path("run/scores.jsonl"))) == 0
    code, said = call("scores", "export", "run", "--out", "a.jsonl")
    assert (code, "a.jsonl exists; --overwrite replaces it" in said) == (2, True)
    assert call("scores", "export", "run", "--out", "a.jsonl", "--overwrite")[0] == 0
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/diary.txt").write_text("mine")
    code, said = call("scores", "import", "b.jsonl", "--out", "notes", "--overwrite")
    assert (code, "notes holds something else than a run" in said) == (2, True)
    assert (tmp_path / "notes/diary.txt").read_text() == "mine"


def test_which_scores_are_meant(call: Call, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", answers(0, 4))
    write(tmp_path / "b.jsonl", answers(0, 0, model="other"))
    assert call("scores", "import", "a.jsonl", "b.jsonl", "--out", "run")[0] == 0
    code, said = call("scores", "export", "run", "--out", "out.jsonl")
    assert (code, "say which with --method: org/llama, other" in said) == (2, True)
    code, said = call("scores", "export", "run", "--out", "out.jsonl", "--method", "third")
    assert (code, "run has no method 'third'; choose from org/llama, other" in said) == (2, True)
    code, said = call("scores", "export", "run", "--out", "out.jsonl", "--method", "other")
    assert (code, "4 answers, 0.00% right" in said) == (0, True)


def test_runs_that_name_no_passages(call: Call, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", answers(0, 4))
    assert call("scores", "import", "a.jsonl", "--out", "run")[0] == 0
    (tmp_path / "run/passages.jsonl").unlink()
    code, said = call("scores", "export", "run", "--out", "out.jsonl")
    assert (code, "passages.jsonl, which stands beside the scores, lacks" in said) == (2, True)
    scores = tmp_path / "run/scores.jsonl"
    lines = [json.loads(line) for line in scores.read_text().splitlines()]
    scores.write_text("".join(json.dumps({**line, "shown": []}) + "\n" for line in lines))
    code, said = call("scores", "export", "run", "--out", "out.jsonl")
    assert (code, "the run was made by an older version" in said) == (2, True)
    code, said = call("scores", "export", "elsewhere", "--out", "out.jsonl")
    assert (code, "elsewhere: it holds no scores.jsonl" in said) == (2, True)
    assert not (tmp_path / "out.jsonl").exists()


def test_questions_as_tasks(call: Call, tmp_path: Path) -> None:
    ask = ("data", "export-lm-eval", "--experiment_config", "sample_5_docs", "--out", "tasks")
    code, said = call(*ask, "--num_val_samples", 4, "--gold_at", "0,3", "--max_new_tokens", 20)
    assert (code, said) == (0, "4 samples as 2 tasks: tasks\n")
    names = sorted(path.name for path in (tmp_path / "tasks").iterdir())
    assert names == [
        "README.md",
        "sample_5_docs.yaml",
        "sample_5_docs_5_shown_gold_at_0.jsonl",
        "sample_5_docs_5_shown_gold_at_0.yaml",
        "sample_5_docs_5_shown_gold_at_3.jsonl",
        "sample_5_docs_5_shown_gold_at_3.yaml",
        "utils.py",
    ]
    rows = (tmp_path / "tasks" / names[4]).read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["gold_positions"] for row in rows] == [[3], [3]]
    code, said = call(*ask)
    assert (code, "tasks holds tasks; --overwrite replaces them" in said) == (2, True)
    code, _ = call(*ask, "--overwrite", "--num_val_samples", 2, "--eval_split", "val_closed_book")
    assert code == 0
    # What it held before is gone: the harness would ask that too.
    names = sorted(path.name for path in (tmp_path / "tasks").iterdir())
    task = "sample_5_docs_closed_book"
    assert names == ["README.md", f"{task}.jsonl", f"{task}.yaml", "utils.py"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("dear")
    code, said = call(*ask[:-1], "mine", "--overwrite")
    assert (code, "mine holds something else than tasks" in said) == (2, True)
    code, said = call(*ask[:-1], "other", "--eval_split", "val_closed_book",
                      "--train_method", "scratchpad")  # fmt: skip
    assert (code, "shows no passages" in said) == (2, True)
    assert not (tmp_path / "other").exists()
