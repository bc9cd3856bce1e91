"""What a user can get wrong, through the real command line.

Each mistake is told in one line that begins with `error:` and names the value and the place, the
exit code is 2, and nothing half-written is left.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from scratchpad_rag.app.main import main

ROOT = Path(__file__).parent.parent
EVALUATE = ["--experiment_config", "examples", "--model_config", "tiny", "--eval_only"]
TRAIN = [
    *("--experiment_config", "examples", "--model_config", "tiny"),
    *("--peft_config", "lora_r8_a16_qv", "--train_method", "sft"),
]
SMALL = [
    "--data_path",
    "data.jsonl",
    "--total_docs",
    "3",
    "--gold_at",
    "0",
    "--max_new_tokens",
    "4",
]


class Refusal(NamedTuple):
    message: str
    err: str


Refuse = Callable[..., Refusal]


@pytest.fixture
def home(tiny_mistral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a model config called tiny and six good questions."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path, "tiny", tiny_mistral)
    write_data(tmp_path / "data.jsonl", [item(number) for number in range(6)])
    return tmp_path


def write_model(home: Path, name: str, folder: Path | str, **keys: str) -> None:
    (home / "configs/model").mkdir(parents=True, exist_ok=True)
    lines = {"pretrained_model_name_or_path": str(folder), "torch_dtype": "float32", **keys}
    text = "pretrained_config:\n" + "".join(f"  {k}: {v}\n" for k, v in lines.items())
    (home / f"configs/model/{name}.yaml").write_text(text, encoding="utf-8")


def item(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"q{number}",
        "question": f"when was bridge {number} built",
        "answers": [str(1850 + number)],
        "passages": [
            {"title": f"Bridge {number}", "text": f"Built in {1850 + number}.", "gold": True},
            {"title": "Town", "text": "It lies by the river."},
            {"title": "River", "text": "It is 90 miles long."},
        ],
        **changes,
    }


def write_data(path: Path, items: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(i, ensure_ascii=False) + "\n" for i in items), "utf-8")


def listing(home: Path) -> dict[str, int]:
    """Every file and folder, and the size of each file."""
    return {
        str(path.relative_to(home)): path.stat().st_size if path.is_file() else -1
        for path in sorted(home.rglob("*"))
    }


def error_lines(err: str) -> list[str]:
    return [line for line in err.splitlines() if "error" in line.lower()]


@pytest.fixture
def refuse(home: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Runs main.py, expects a refusal that leaves the folder as it was, and gives its message."""

    def run(*arguments: str, leaves: tuple[str, ...] = ()) -> Refusal:
        before = listing(home)
        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        assert code == 2, captured.err
        assert "Traceback" not in captured.err
        lines = error_lines(captured.err)
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("error: ")
        # The error is the last word.
        assert captured.err.strip().endswith(lines[0])
        assert captured.out == ""
        after = {name: size for name, size in listing(home).items() if name not in leaves}
        assert after == before
        return Refusal(lines[0], captured.err)

    return run


def succeed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Refusal:
    capsys.readouterr()
    code = main(list(arguments))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert error_lines(captured.err) == []
    return Refusal(captured.out, captured.err)


def scores(home: Path) -> list[dict[str, Any]]:
    (path,) = home.glob("runs/*/scores.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- data


def test_the_good_data_are_read(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the refusals below would prove nothing."""
    succeed(capsys, *EVALUATE, *SMALL)
    assert len(scores(home)) == 1


def test_a_missing_file(refuse: Refuse) -> None:
    assert "none.jsonl" in refuse(*EVALUATE, *SMALL, "--data_path", "none.jsonl").message
    assert "/none.jsonl" in refuse(*EVALUATE, *SMALL, "--data_path", "/none.jsonl").message


def test_files_of_lost_in_the_middle_that_are_not_there(
    home: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib.request

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    command = ["--experiment_config", "nq_lim_20_docs", "--model_config", "tiny", "--eval_only"]
    # The folder that a download would go to may have been made.
    said = refuse(*command, leaves=("data", "data/qa_data")).message
    assert "nq-open-20_total_documents_gold_at_0.jsonl.gz" in said
    assert "sample_20_docs" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "q9", "question": "who', "malformed JSON"),
        ("[1, 2, 3]", "must be an object"),
        ('"text"', "must be an object"),
        (json.dumps(item(9, answers=[])), "no answers"),
        (json.dumps(item(9, answers="1859")), "must be a list"),
        (json.dumps(item(9, passages=[])), "no passages"),
        (json.dumps(item(9, question="  ")), "'question' is empty"),
        (json.dumps(item(9, passages=[{"title": "", "text": "x"}])), "'title' is empty"),
        (json.dumps(item(9, passages=[{"title": "x", "text": " "}])), "'text' is empty"),
        (json.dumps(item(9, passages=[{"title": "x"}])), "'text' is missing"),
        (json.dumps(item(0)), "'q0' was given before"),
        (json.dumps({k: v for k, v in item(9).items() if k != "question"}), "'question'"),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number(
    home: Path, refuse: Refuse, line: str, said: str
) -> None:
    lines = (home / "data.jsonl").read_text("utf-8").splitlines()
    (home / "data.jsonl").write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n", "utf-8")
    message = refuse(*EVALUATE, *SMALL).message
    assert "data.jsonl:3" in message or ("given before" in message and "data.jsonl:" in message)
    assert said in message


def test_bytes_that_are_no_text(home: Path, refuse: Refuse) -> None:
    with (home / "data.jsonl").open("ab") as file:
        file.write(b'{"id": "q9", "question": "\xff\xfe"}\n')
    assert "data.jsonl:7: not UTF-8" in refuse(*EVALUATE, *SMALL).message


def test_a_gzip_file_that_is_cut_off(home: Path, refuse: Refuse) -> None:
    whole = gzip.compress((home / "data.jsonl").read_bytes())
    (home / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    assert "cut.jsonl.gz" in refuse(*EVALUATE, *SMALL, "--data_path", "cut.jsonl.gz").message


def test_an_empty_file(home: Path, refuse: Refuse) -> None:
    (home / "data.jsonl").write_bytes(b"")
    assert "data.jsonl: the file is empty" in refuse(*EVALUATE, *SMALL).message


def test_gold_positions_outside(refuse: Refuse) -> None:
    for position in ("3", "-1"):
        start = SMALL.index("--gold_at")
        command = [*EVALUATE, *SMALL[:start], f"--gold_at={position}", *SMALL[start + 2 :]]
        message = refuse(*command).message
        assert f"gold position {position} is outside" in message
        assert "0 to 2" in message


def test_more_documents_than_there_are(refuse: Refuse) -> None:
    command = [*EVALUATE, *SMALL]
    command[command.index("--total_docs") + 1] = "4"
    assert "3 passages, fewer than total_docs 4" in refuse(*command).message


def test_fewer_samples_than_asked_for_is_said_and_goes_on(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = succeed(capsys, *EVALUATE, *SMALL, "--num_val_samples", "500").err
    assert "500 validation samples were asked for and there are 1" in err
    assert len(scores(home)) == 1


# --- configs and flags


def test_an_unknown_config_name(refuse: Refuse) -> None:
    message = refuse("--experiment_config", "example", "--model_config", "tiny").message
    assert "did you mean 'examples'?" in message
    assert "nq_lim_20_docs" in message
    message = refuse("--experiment_config", "examples", "--model_config", "mistral7b").message
    assert "did you mean 'mistral_7b'?" in message
    message = refuse(*TRAIN, *SMALL, "--peft_config", "lora").message
    assert "lora_r8_a16_qv" in message


def test_an_unknown_key_in_a_config(home: Path, refuse: Refuse, tiny_mistral: Path) -> None:
    write_model(home, "tiny", tiny_mistral, torch_dtpe="float32")
    message = refuse(*EVALUATE, *SMALL).message
    assert "configs/model/tiny.yaml: unknown key 'torch_dtpe'" in message
    assert "did you mean 'torch_dtype'?" in message


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--lr", "0"], "lr is 0"),
        (["--lr", "nan"], "lr is nan"),
        (["--num_train_epochs", "0"], "num_train_epochs"),
        (["--max_new_tokens", "0"], "max_new_tokens"),
        (["--batch_size", "0"], "batch_size"),
        (["--num_train_samples", "0"], "0"),
        (["--num_train_samples", "-5"], "-5"),
        (["--backend", "vlm"], "transformers"),
        (["--gold_at", "first"], "'first'"),
        (["--train_positions", "uniform", "--train_min_docs", "4"], "train_min_docs is 4"),
        (["--train_positions", "uniform", "--no_gold_rate", "1"], "no_gold_rate is 1.0"),
        (["--no_gold_rate", "0.1"], "no_gold_rate needs train_positions uniform"),
        (["--train_positions", "uniform", "--eval_split", "val_pos"], "needs --eval_split val_anc"),
    ],
)
def test_a_flag_out_of_range(refuse: Refuse, flags: list[str], said: str) -> None:
    assert said in refuse(*TRAIN, *SMALL, *flags).message


def test_training_without_a_method_or_an_adapter(refuse: Refuse) -> None:
    start = ["--experiment_config", "examples", "--model_config", "tiny"]
    peft = ["--peft_config", "lora_r8_a16_qv"]
    assert "--train_method" in refuse(*start, *peft, *SMALL).message
    assert "--peft_config" in refuse(*start, "--train_method", "sft", *SMALL).message
    assert "--checkpoint_path" in refuse(*EVALUATE, *SMALL, "--load_checkpoint").message


# --- models


def test_a_sample_longer_than_the_context(home: Path, refuse: Refuse, tiny_mistral: Path) -> None:
    import shutil

    shutil.copytree(tiny_mistral, home / "short")
    config = json.loads((home / "short/config.json").read_text())
    config["max_position_embeddings"] = 64
    (home / "short/config.json").write_text(json.dumps(config))
    write_model(home, "short", home / "short")
    command = [*TRAIN, *SMALL, "--model_config", "short"]
    message = refuse(*command).message
    assert "context of 64 tokens" in message
    assert "the longest has" in message
    message = refuse(*EVALUATE, *SMALL, "--model_config", "short").message
    assert "context of 64 tokens" in message


def test_a_model_that_is_not_there(home: Path, refuse: Refuse) -> None:
    write_model(home, "gone", home / "gone")
    assert f"no model folder {home / 'gone'}" in (
        refuse(*EVALUATE, *SMALL, "--model_config", "gone").message
    )


def test_an_unreachable_hub(home: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    from scratchpad_rag.models import load

    monkeypatch.setattr(load, "is_offline_mode", lambda: False)
    monkeypatch.setattr(load, "ENDPOINT", "http://127.0.0.1:9")
    write_model(home, "far", "mistralai/Mistral-7B-v0.1", cache_dir=str(home / "cache"))
    message = refuse(*EVALUATE, *SMALL, "--model_config", "far").message
    assert "mistralai/Mistral-7B-v0.1" in message
    assert "Hub cannot be reached" in message


# --- checkpoints


@pytest.fixture(scope="module")
def checkpoint(tiny_mistral: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that a real training of one step made."""
    folder = tmp_path_factory.mktemp("trained")
    write_model(folder, "tiny", tiny_mistral)
    write_data(folder / "data.jsonl", [item(number) for number in range(6)])
    before = Path.cwd()
    os.chdir(folder)
    try:
        command = [*TRAIN, *SMALL, "--num_train_samples", "2", "--num_train_epochs", "1"]
        assert main([*command, "--train_only"]) == 0
    finally:
        os.chdir(before)
    return folder / "checkpoints/tiny/rag_sft.pt"


def reading(path: Path) -> list[str]:
    return [*EVALUATE, *SMALL, "--load_checkpoint", "--checkpoint_path", str(path)]


def test_the_good_checkpoint_is_read(
    home: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    succeed(capsys, *reading(checkpoint))
    assert scores(home)[0]["method"] == "sft"


def test_a_missing_checkpoint(refuse: Refuse) -> None:
    assert "there is no checkpoint none.pt" in refuse(*reading(Path("none.pt"))).message


def test_a_checkpoint_for_another_base(
    home: Path, refuse: Refuse, checkpoint: Path, tiny_chat_mistral: Path, tiny_mistral: Path
) -> None:
    import shutil

    import torch
    from transformers import AutoModelForCausalLM

    shutil.copytree(tiny_mistral, home / "other")
    model = AutoModelForCausalLM.from_pretrained(tiny_mistral)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    model.save_pretrained(home / "other")
    write_model(home, "other", home / "other")
    message = refuse(*reading(checkpoint), "--model_config", "other").message
    assert "was trained on tiny" in message
    write_model(home, "chat", tiny_chat_mistral)
    assert str(checkpoint) in refuse(*reading(checkpoint), "--model_config", "chat").message


def test_a_checkpoint_of_another_rank_or_method(refuse: Refuse, checkpoint: Path) -> None:
    message = refuse(*reading(checkpoint), "--peft_config", "lora_r16_a32_all").message
    assert "trained with r 8, and --peft_config says 16" in message
    message = refuse(*reading(checkpoint), "--train_method", "scratchpad").message
    assert "was trained as sft, and --train_method says scratchpad" in message


def test_a_bare_state_dict_without_its_flags(home: Path, refuse: Refuse, checkpoint: Path) -> None:
    import torch

    content = torch.load(checkpoint, weights_only=True)
    torch.save(content["model_state_dict"], home / "bare.pt")
    assert "--train_method" in refuse(*reading(Path("bare.pt"))).message
    message = refuse(*reading(Path("bare.pt")), "--train_method", "sft").message
    assert "--peft_config" in message


def test_truncated_and_foreign_checkpoints(home: Path, refuse: Refuse, checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    files = {
        "cut.pt": content[: len(content) // 2],
        "empty.pt": b"",
        "text.pt": b"these are not weights\n" * 20,
        "pickle.pt": pickle.dumps({"model_state_dict": {"x": 1}}),
    }
    for name, data in files.items():
        (home / name).write_bytes(data)
    for name in files:
        assert name in refuse(*reading(Path(name))).message


# --- writing


def test_a_file_where_a_folder_should_be(home: Path, refuse: Refuse) -> None:
    (home / "runs").write_text("a file")
    message = refuse(*EVALUATE, *SMALL).message
    assert message.startswith("error: cannot write to runs")
    (home / "runs").unlink()
    (home / "checkpoints").write_text("a file")
    assert "cannot write to checkpoints" in refuse(*TRAIN, *SMALL).message


def test_a_read_only_folder(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    # The permission bits do not hold the superuser back, so the question itself is answered.
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "read-only" in refuse(*EVALUATE, *SMALL).message


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


def check_full_disk(home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code = main(arguments)
    err = capsys.readouterr().err
    assert code == 2, err
    (line,) = error_lines(err)
    assert line.startswith("error: cannot write to ")
    assert "No space left on device" in line
    assert "Traceback" not in err
    assert not list(home.rglob("*.partial"))
    assert not list(home.rglob("*.pt"))


def test_a_full_disk_while_answers_are_scored(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def open_full(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        # What is appended to the scores goes to a device that is always full.
        place = Path("/dev/full") if path.name == "scores.jsonl" and "a" in mode else path
        return opened(place, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", open_full)
    check_full_disk(home, capsys, [*EVALUATE, *SMALL])
    assert not list(home.glob("runs/*/s*"))  # no scores and no summary


def test_a_full_disk_when_the_checkpoint_is_saved(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from scratchpad_rag.models import checkpoints

    monkeypatch.setattr(checkpoints.torch, "save", full_disk)
    command = [*TRAIN, *SMALL, "--num_train_samples", "2", "--num_train_epochs", "1"]
    check_full_disk(home, capsys, command)


def test_a_full_disk_when_the_summary_is_written(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Path.write_text

    def write_text(path: Path, *rest: Any, **named: Any) -> int:
        if "summary" in path.name:
            written(path, "{", *rest[1:], **named)
            full_disk()
        return written(path, *rest, **named)

    monkeypatch.setattr(Path, "write_text", write_text)
    check_full_disk(home, capsys, [*EVALUATE, *SMALL])
    assert not list(home.glob("runs/*/summary.json*"))


# --- stopped, and going wrong on the way


@pytest.fixture
def at_pass() -> Iterator[Callable[..., None]]:
    """Does something at the n-th forward pass of whichever model comes; if training, of those."""
    from transformers.models.mistral.modeling_mistral import MistralModel

    forward = MistralModel.forward
    passes = 0

    def arrange(number: int, action: Callable[[], None], *, training: bool = False) -> None:
        def counted(model: Any, *arguments: Any, **named: Any) -> Any:
            nonlocal passes
            passes += model.training or not training
            if passes == number and (model.training or not training):
                action()
            return forward(model, *arguments, **named)

        MistralModel.forward = counted

    yield arrange
    MistralModel.forward = forward


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_while_answering_keeps_what_is_scored(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    at_pass: Callable[..., None],
) -> None:
    command = [*EVALUATE, *SMALL, "--backend", "transformers", "--prompt_lookup_num_tokens", "0"]
    command[command.index("--gold_at") : command.index("--gold_at") + 2] = ["--gold_at", "0,1,2"]
    at_pass(6, interrupt)  # in the second of three answers of four tokens
    assert main(command) == 130
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "interrupted" in err
    assert "goes on from it" in err
    first = scores(home)
    assert len(first) == 1
    assert not list(home.glob("runs/*/summary.json"))

    err = succeed(capsys, *command).err
    assert "1 of 3 samples are scored already" in err
    assert scores(home)[0] == first[0]
    assert len(scores(home)) == 3


def test_ctrl_c_while_training_goes_on_to_the_same_weights(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    at_pass: Callable[..., None],
) -> None:
    import torch

    command = [*TRAIN, *SMALL, "--train_only", "--gradient_accumulation_steps", "1"]
    command += ["--lr", "0.01", "--num_train_epochs", "2"]
    path = home / "checkpoints/tiny/rag_sft.pt"
    succeed(capsys, *command, "--run", "whole")
    whole = torch.load(path, weights_only=True)["model_state_dict"]
    path.unlink()

    at_pass(4, interrupt, training=True)
    code = main(command)
    err = capsys.readouterr().err
    assert code == 130
    assert "Traceback" not in err
    assert "goes on from" in err
    assert not path.exists()
    assert not list(home.glob("runs/*/training.json"))

    err = succeed(capsys, *command).err
    assert "going on from" in err
    resumed = torch.load(path, weights_only=True)["model_state_dict"]
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_loss_that_is_not_a_number(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*TRAIN, *SMALL, "--gradient_accumulation_steps", "1", "--lr", "1e30"]
    code = main(command)
    err = capsys.readouterr().err
    assert code == 2, err
    (line,) = error_lines(err)
    assert line.startswith("error: the loss is nan at step 2")
    assert "--lr" in line
    assert "Traceback" not in err
    assert not list(home.rglob("*.pt"))
    assert not list(home.glob("runs/*/adapter"))
    assert not list(home.glob("runs/*/scores.jsonl"))


# --- text of every kind works


def test_any_script_goes_through_training_and_scoring(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [
        "מי בנה את הגשר",
        "من بنى الجسر",
        "誰が橋を建てたか",
        "кто построил 👩‍👩‍👧 🏳️‍🌈",
        "e\u0301a\u202eb",
        "q\u2028r",
    ]
    items = [
        item(
            number,
            question=text,
            answers=[f"{text} 1"],
            passages=[
                {"title": text, "text": f"{text}.\n\nAnswer: {text}", "gold": True},
                {"title": "</s>", "text": f"<s> {text}"},
                {"title": "x) y", "text": "\u200f\ufeff" + text},
            ],
        )
        for number, text in enumerate(texts)
    ]
    write_data(home / "data.jsonl", items)
    command = [*TRAIN, *SMALL, "--train_method", "scratchpad", "--num_train_epochs", "1"]
    out = succeed(capsys, *command, "--print_outputs").message
    (score,) = scores(home)
    assert score["question"] in texts
    assert score["question"][1:] in out
    assert score["parsed"] in (True, False)


# --- contradictions, and what has to work without them


def test_flags_that_contradict_each_other(home: Path, refuse: Refuse) -> None:
    checkpoint = ("--checkpoint_path", "data.jsonl")
    assert "--load_checkpoint" in refuse(*EVALUATE, *SMALL, *checkpoint).message
    assert "nothing to do" in refuse(*EVALUATE, *SMALL, "--train_only").message


def test_a_file_too_small_to_split(home: Path, refuse: Refuse) -> None:
    write_data(home / "data.jsonl", [item(0)])
    assert "no questions to evaluate on" in refuse(*TRAIN, *SMALL).message


def test_a_file_of_validation_questions_alone(
    home: Path, capsys: pytest.CaptureFixture[str], refuse: Refuse
) -> None:
    write_data(home / "data.jsonl", [item(number, split="val") for number in range(2)])
    assert "no questions to train on" in refuse(*TRAIN, *SMALL).message
    succeed(capsys, *EVALUATE, *SMALL)
    assert len(scores(home)) == 2


def test_data_changed_under_the_same_name_are_another_run(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    succeed(capsys, *EVALUATE, *SMALL)
    write_data(home / "data.jsonl", [item(number, answers=["1999"]) for number in range(6)])
    succeed(capsys, *EVALUATE, *SMALL)
    assert len(list(home.glob("runs/*/scores.jsonl"))) == 2
