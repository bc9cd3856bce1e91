"""`--preflight`: what it tells, that nothing is written, and what it was told by."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from scratchpad_rag.app.main import main
from tests.app.test_cli import Call, call  # noqa: F401  a fixture
from tests.app.test_peft import write_peft
from tests.test_bad_input import (
    SMALL,
    Refuse,
    home,  # noqa: F401  a fixture
    item,
    listing,
    refuse,  # noqa: F401  a fixture
    write_data,
    write_model,
)

TRAIN = [
    *("--experiment_config", "examples", "--model_config", "tiny", "--peft_config", "plain"),
    *("--train_method", "scratchpad", "--loss_region", "completion", *SMALL),
    *("--gradient_accumulation_steps", "2", "--num_train_epochs", "3"),
]


@pytest.fixture
def place(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    write_peft(home, "plain", "{r: 8, target_modules: all-linear}")
    monkeypatch.setenv("COLUMNS", "100")
    return home


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    code = main([*TRAIN, *arguments])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def test_it_tells_sample_tokens_memory_and_time_and_writes_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(place)
    out = told(capsys, "--preflight")
    assert listing(place) == before
    assert re.search(r"^▌ scratchpad 0 +Document \(Title: Bridge \d\) Built in 185\d\.$", out, re.M)
    assert re.search(r"^▌ answer +185\d$", out, re.M)
    assert re.search(r"^  context 1 +Document \(Title: Town\) It lies by the river\.$", out, re.M)
    # Five of six questions train; system and context are not learnt, scratchpad and answer are.
    assert "Tokens by region, 5 samples an epoch" in out
    assert re.search(r"^ *context +[\d,]+ +\d+ +0 \(0%\)", out, re.M)
    assert re.search(r"^ *scratchpad +(\d+) +\d+ +\1 \(100%\)", out, re.M)
    assert re.search(r"^Memory: about \d\.\d GB of \d+\.\d free, by the shapes; ", out, re.M)
    assert re.search(
        r"^Time: about .+ for 3 epochs: [\d,]+ tokens in 8 updates of 15 micro", out, re.M
    )
    assert "\x1b" not in out  # a pipe gets no colours


def test_a_run_takes_the_steps_and_tokens_that_it_foretold(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = told(capsys, "--preflight")
    found = re.search(r"epochs: ([\d,]+) tokens in (\d+) updates", out)
    assert found is not None
    told(capsys, "--train_only", "--run", "run")
    done = json.loads((place / "run/training.json").read_text("utf-8"))
    assert done["tokens"] == int(found[1].replace(",", ""))
    assert done["steps"] == int(found[2])


@pytest.mark.parametrize(
    ("region", "bars"),
    [
        ("sample", {"system", "context", "question", "scaffold", "scratchpad", "answer"}),
        ("answer", {"answer"}),
    ],
)
def test_bars_stand_before_what_the_loss_region_says(
    place: Path, capsys: pytest.CaptureFixture[str], region: str, bars: set[str]
) -> None:
    out = told(capsys, "--preflight", "--loss_region", region)
    assert set(re.findall(r"^▌ ([a-z]+)", out, re.M)) == bars


def test_drawn_samples_of_a_curriculum(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, "--preflight", "--train_positions", "uniform", "--no_gold_rate", "0.4")
    assert "5 samples an epoch" in out


def test_the_verb_of_scratchpad_rag_does_the_same(place: Path, call: Call) -> None:  # noqa: F811
    before = listing(place)
    done = call("train", "--preflight", *TRAIN)
    assert done.code == 0, done.err
    assert "Tokens by region" in done.out
    assert listing(place) == before


def test_samples_that_would_be_cut_are_refused(
    place: Path,
    tiny_mistral: Path,
    refuse: Refuse,  # noqa: F811
) -> None:
    folder = place / "short"
    folder.mkdir()
    for path in tiny_mistral.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["max_position_embeddings"] = 100
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_model(place, "tiny", folder)
    refused = refuse(*TRAIN, "--preflight")
    assert "do not fit the model's context of 100 tokens" in refused.message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--eval_only",), "--eval_only and --train_only together"),
        (("--num_train_samples", "0"), "number of samples is 0"),
        (("--peft_config", "gone"), "unknown peft config 'gone'"),
    ],
)
def test_what_is_no_training_is_refused(
    place: Path,
    refuse: Refuse,  # noqa: F811
    arguments: tuple[str, ...],
    message: str,
) -> None:
    assert message in refuse(*TRAIN, "--preflight", *arguments).message


def test_without_questions_to_train_on(place: Path, refuse: Refuse) -> None:  # noqa: F811
    write_data(place / "data.jsonl", [item(n, split="val") for n in range(3)])
    assert "no questions to train on" in refuse(*TRAIN, "--preflight").message
