"""Readers of every form of scratchpad, trained, kept, read and compared through the commands."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from scratchpad_rag.app import cli
from scratchpad_rag.app.grid import GridJob, sweep
from scratchpad_rag.app.grid_config import load_grid
from scratchpad_rag.app.main import main
from scratchpad_rag.app.runs import run_name
from scratchpad_rag.config import GenerateConfig, RunConfig, TrainConfig
from scratchpad_rag.errors import CheckpointError, ConfigError
from scratchpad_rag.models.checkpoints import AdapterMetadata, read_adapter
from scratchpad_rag.reader import Reader, trained_form
from scratchpad_rag.records import Example, Method, Passage, ScratchpadForm
from tests.app.test_peft import write_peft
from tests.test_bad_input import item, succeed, write_data, write_model

FORMS = list(ScratchpadForm)
PASSAGES = [
    {"title": "Bridge", "text": "It is old. Built in a river. It fell.", "gold": True},
    {"title": "Town", "text": "It lies by the river."},
    {"title": "Sea", "text": "It is 90 miles long."},
]
RUN = [
    *("--experiment_config", "examples", "--model_config", "tiny", "--data_path", "data.jsonl"),
    *("--total_docs", "3", "--gold_at", "1", "--num_val_samples", "3", "--last_answer_only"),
]
TRAIN = [
    *("--peft_config", "plain", "--train_method", "scratchpad", "--num_train_samples", "4"),
    *("--num_train_epochs", "3", "--gradient_accumulation_steps", "2", "--lr", "0.01"),
    *("--loss_region", "completion", "--max_new_tokens", "60", "--run", "run"),
]
QUOTES = {
    ScratchpadForm.PASSAGE: r"Document \(Title: (Bridge|Town|Sea)\) [^\n]+\.",
    ScratchpadForm.TITLE: r"Document \(Title: (Bridge|Town|Sea)\)",
    ScratchpadForm.SENTENCE: r"Document \(Title: (Bridge|Town|Sea)\) [^\n]+\.",
    ScratchpadForm.INDEX: r"Document (\[1\]\(Title: Town|\[2\]\(Title: Bridge|\[3\]\(Title: Sea)\)"
    r" [^\n]+\.",
}


@pytest.fixture
def home(tiny_mistral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path, "tiny", tiny_mistral)
    rows = [item(n, answers=["river"], passages=PASSAGES) for n in range(12)]
    write_data(tmp_path / "data.jsonl", rows)
    write_peft(tmp_path, "plain", "{r: 8, target_modules: all-linear}")
    return tmp_path


def scores(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    [line] = [said for said in capsys.readouterr().err.splitlines() if said.startswith("error: ")]
    return line


@pytest.mark.parametrize("form", FORMS)
def test_a_reader_is_trained_kept_and_read_by_its_form(
    home: Path, capsys: pytest.CaptureFixture[str], form: ScratchpadForm
) -> None:
    chosen = ["--scratchpad_form", form.value]
    succeed(capsys, *RUN, *TRAIN, *chosen, "--verbatim")
    for score in scores(home / "run"):
        said = score["completion"].split("\n\nQuestion: ")[0]
        if "None of the documents" not in said:
            assert re.fullmatch(rf" {QUOTES[form]}(\n\n{QUOTES[form]})*", said)
            assert score["verbatim_rate"] == 1.0
            quoted = {quote["passage"] for quote in score["quotes"]}
            assert score["quote_recall"] == (1.0 if 1 in quoted else 0.0)
        else:
            assert score["abstained"]
    log = json.loads((home / "run/training.json").read_text())["log"]
    assert {"loss_scratchpad", "loss_choice", "loss_answer"} <= set(log[-1])
    checkpoint = home / "checkpoints/tiny/scratchpad_rag.pt"
    for path in (checkpoint, home / "run/adapter"):
        metadata = read_adapter(path).metadata
        assert metadata is not None
        assert metadata.scratchpad_form == form.value
        assert "scratchpad_form" not in metadata.training

    # No flag is needed to read it, and its prompts are those that it was trained with.
    read = [
        *RUN,
        "--load_checkpoint",
        "--checkpoint_path",
        str(checkpoint),
        "--eval_only",
        "--verbatim",
    ]
    succeed(capsys, *read, "--max_new_tokens", "60", "--run", "again")
    again = {score["example_id"]: score["completion"] for score in scores(home / "again")}
    assert again == {s["example_id"]: s["completion"] for s in scores(home / "run")}
    other = FORMS[FORMS.index(form) - 1]
    said = refused(capsys, *read, "--scratchpad_form", other.value, "--run", "other")
    assert said == (
        f"error: {checkpoint} was trained with scratchpad_form {form}, and --scratchpad_form says "
        f"{other}"
    )
    assert not (home / "other").exists()

    reader = Reader.load(checkpoint, verbatim=True, max_new_tokens=80)
    assert reader.loaded.wording.form is form
    documents = [(str(p["title"]), str(p["text"])) for p in PASSAGES]
    numbered = "Document [1](Title: Bridge)" in reader.prompt(asked()).prompt
    assert numbered is (form is ScratchpadForm.INDEX)
    reading = reader.answer("when was bridge 1 built", documents)
    assert reading.abstained or all(quote.verbatim for quote in reading.quotes)
    *pieces, last = reader.stream("when was bridge 1 built", documents)
    assert last == reading
    assert "".join(piece.text for piece in pieces if not isinstance(piece, type(last))) == (
        reading.completion
    )


def asked() -> Example:
    passages = tuple(Passage(str(p["title"]), str(p["text"])) for p in PASSAGES)
    return Example("q", "who", (), passages, ())


def test_an_sft_reader_has_no_form(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [part if part != "scratchpad" else "sft" for part in TRAIN]
    succeed(capsys, *RUN, *arguments, "--scratchpad_form", "index")
    checkpoint = home / "checkpoints/tiny/rag_sft.pt"
    assert (
        torch.load(checkpoint, weights_only=True)["metadata"].keys().isdisjoint({"scratchpad_form"})
    )
    reader = Reader.load(checkpoint)
    assert "Document (Title: Bridge)" in reader.prompt(asked()).prompt


def test_a_comparison_asks_each_reader_in_its_own_way(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*RUN[:-1], *TRAIN[:2], *TRAIN[4:], "--scratchpad_form", "index", "--no_shipped"]
    monkeypatch.setattr("sys.argv", ["scratchpad-rag", "compare", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    tokens = {score["method"]: score["prompt_tokens"] for score in scores(home / "run")}
    assert tokens["scratchpad"] > tokens["sft"] == tokens["zero_shot"]
    assert "of the form index" in (home / "run/report.html").read_text()


def test_a_grid_asks_each_reader_in_its_own_way(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for method in ("scratchpad", "sft"):
        arguments = [*RUN, *TRAIN[:-2], "--train_method", method, "--run", method, "--train_only"]
        succeed(capsys, *arguments, "--scratchpad_form", "index")
    grid = {
        "model": "tiny",
        "datasets": {"one": {"path": "data.jsonl", "total_docs": [3], "gold_at": ["middle"]}},
        "methods": ["zero_shot", "sft", "scratchpad_verbatim", "scratchpad_gold_forced"],
        "checkpoints": {"scratchpad": "scratchpad/adapter", "sft": "sft/adapter"},
        "questions": 2,
        "max_new_tokens": 90,
        "answer_tokens": 4,
    }
    (home / "grid.yaml").write_text(json.dumps(grid))
    for order in ("scratchpad sft", "sft scratchpad"):  # in which they are put on the model
        names = {"checkpoints": {name: f"{name}/adapter" for name in order.split()}}
        (home / "grid.yaml").write_text(json.dumps({**grid, **names}))
        found = sweep(load_grid("grid.yaml", {}), GridJob("grid.yaml", run=Path(order)))
        tokens = {score.method: score.prompt_tokens for score in found}
        assert tokens["scratchpad_verbatim"] > tokens["sft"] == tokens["zero_shot"]
        said = {s.method: s.completion for s in found if s.method.startswith("scratchpad")}
        assert said["scratchpad_gold_forced"].startswith(" Document [2](Title: Bridge) It is old.")
        quotes = [s.verbatim_rate for s in found if s.method == "scratchpad_verbatim"]
        assert set(quotes) <= {1.0, None}


@pytest.mark.parametrize("form", ["title", "sentence"])
def test_a_validation_answers_in_the_form(
    home: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    validated = ["--eval_steps", "2", "--eval_questions", "2", "--train_only"]
    succeed(capsys, *RUN, *TRAIN, "--scratchpad_form", form, *validated)
    log = json.loads((home / "run/training.json").read_text())["log"]
    assert any("eval_quote_recall" in entry for entry in log)


def test_titles_have_no_sentences(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    succeed(capsys, *RUN, *TRAIN, "--scratchpad_form", "title", "--train_only")
    checkpoint = str(home / "checkpoints/tiny/scratchpad_rag.pt")
    said = refused(
        capsys,
        *(*RUN, "--load_checkpoint", "--checkpoint_path", checkpoint, "--eval_only"),
        *("--verbatim", "--quote", "sentence", "--run", "run2"),
    )
    assert said == "error: --quote sentence: this reader's scratchpads hold titles alone"


def test_a_bare_state_dict_is_told_its_form(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    succeed(capsys, *RUN, *TRAIN, "--scratchpad_form", "index", "--train_only")
    content = torch.load(home / "checkpoints/tiny/scratchpad_rag.pt", weights_only=True)
    torch.save(content["model_state_dict"], home / "bare.pt")
    told = {"model": "tiny", "train_method": "scratchpad", "peft": "plain"}
    assert Reader.load("bare.pt", **told).form is ScratchpadForm.PASSAGE
    assert Reader.load("bare.pt", **told, scratchpad_form="index").form is ScratchpadForm.INDEX
    words = ["--checkpoint_path", "bare.pt", "--model_config", "tiny", "--peft_config", "plain"]
    succeed(
        capsys,
        *(*RUN, "--load_checkpoint", *words, "--eval_only", "--train_method", "scratchpad"),
        *("--scratchpad_form", "index", "--verbatim", "--max_new_tokens", "60", "--run", "bare"),
    )
    for score in scores(home / "bare"):
        assert score["abstained"] or score["completion"].startswith(" Document [")


def test_an_unknown_form(home: Path) -> None:
    with pytest.raises(SystemExit):
        main([*RUN, *TRAIN, "--scratchpad_form", "words"])
    with pytest.raises(ConfigError, match="unknown scratchpad_form 'words'; choose from passage"):
        Reader.load(model="tiny", scratchpad_form="words")


def test_a_form_in_an_experiment_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "mine.yaml").write_text(
        "dataset: {name: examples, dataset_config: {path: data.jsonl, total_docs: 3, gold_at: [1]}}"
        "\n"
        "train: {scratchpad_form: title}\n"
    )
    arguments = ["--experiment_config", "mine.yaml", "--model_config", "tiny", *TRAIN]
    succeed(capsys, *arguments, "--train_only")
    metadata = read_adapter(home / "run/adapter").metadata
    assert metadata is not None
    assert metadata.scratchpad_form == "title"


# --- what is kept of it


def of(method: str, **more: str) -> Any:
    from scratchpad_rag.models.checkpoints import Adapter

    metadata = AdapterMetadata(method, "tiny", "hash", {}, "plain", **more)
    return Adapter({}, metadata, Path("some.pt"))


def test_the_form_of_a_checkpoint() -> None:
    title, older, sft = of("scratchpad", scratchpad_form="title"), of("scratchpad"), of("sft")
    assert trained_form(title, None) is trained_form(title, ScratchpadForm.TITLE)
    assert trained_form(title, None) is ScratchpadForm.TITLE
    assert trained_form(older, None) is ScratchpadForm.PASSAGE
    with pytest.raises(CheckpointError, match=r"with scratchpad_form passage, and .* says title"):
        trained_form(older, ScratchpadForm.TITLE)
    trained_form(sft, ScratchpadForm.TITLE)  # it writes none


def test_a_run_keeps_its_name_where_no_other_form_is_asked_for() -> None:
    def name(form: ScratchpadForm | None, support: tuple[str, ...] = ()) -> str:
        example = Example("q", "who", ("x",), (Passage("A", "b."),), (0,), support=support)
        config = RunConfig(train=TrainConfig(scratchpad_form=form), train_method=Method.SCRATCHPAD)
        return run_name(config, "mine", "scratchpad", samples=[[example]], base_hash="")

    assert name(None) == name(ScratchpadForm.PASSAGE) == name(None, ("b.",))
    others = [name(form) for form in FORMS if form is not ScratchpadForm.PASSAGE]
    sentences = name(ScratchpadForm.SENTENCE, ("b.",))
    assert len({name(None), *others, sentences}) == 5
    assert "support" not in repr(Example("q", "who", (), (), (), support=("b.",)))
    assert "scratchpad_form" in asdict(TrainConfig())
    assert GenerateConfig().quote == "passage"


def test_a_training_that_goes_on_tells_of_the_one_before(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weighted, then with passages in their sentences; also where it is found finished."""
    weights = ("--choice_weight", "9", "--answer_weight", "2")
    succeed(capsys, *RUN, *TRAIN, "--train_only", *weights)
    checkpoint = home / "checkpoints/tiny/scratchpad_rag.pt"
    before = read_adapter(checkpoint).metadata
    assert before is not None
    assert before.earlier == ()
    assert (before.training["choice_weight"], before.training["data"]) == ("9.0", "data.jsonl")
    cut = ("--train_positions", "uniform", "--train_passages", "sentences")
    from_there = ("--load_checkpoint", "--checkpoint_path", str(checkpoint))
    for _ in range(2):
        succeed(capsys, *RUN, *TRAIN, "--train_only", *cut, *from_there, "--run", "on")
        for path in (home / "on/adapter", home / "on/scratchpad_rag.pt"):
            after = read_adapter(path).metadata
            assert after is not None
            assert after.earlier == (before.training,)
            assert after.training["train_passages"] == "sentences"
            assert after.training["choice_weight"] == "1.0"
    said = refused(capsys, *RUN, *TRAIN, "--train_passages", "sentences")
    assert said == "error: train_passages sentences needs train_positions uniform"
