"""Every kind of adapter through the command line: trained, stopped, read again, compared."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from scratchpad_rag.app.main import main
from tests.test_bad_input import (
    EVALUATE,
    SMALL,
    error_lines,
    item,
    listing,
    succeed,
    write_data,
    write_model,
)

TRAIN = ["--experiment_config", "examples", "--model_config", "tiny", "--train_method", "sft"]
SHORT = ["--lr", "0.01", "--num_train_epochs", "1", "--gradient_accumulation_steps", "1"]
CHECKPOINT = ["--load_checkpoint", "--checkpoint_path"]
KINDS = {
    "rslora": "{r: 4, use_rslora: true, target_modules: all-linear}",
    "dora": "{r: 4, use_dora: true, target_modules: [q_proj, v_proj]}",
    "pissa": "{r: 4, init_lora_weights: pissa_niter_4, target_modules: all-linear}",
    "saved": "{r: 4, target_modules: [q_proj], modules_to_save: [lm_head, embed_tokens]}",
}


@pytest.fixture
def home(tiny_mistral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a model, questions, and a PEFT config of each kind."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path, "tiny", tiny_mistral)
    write_data(tmp_path / "data.jsonl", [item(number) for number in range(8)])
    for kind, kwargs in KINDS.items():
        write_peft(tmp_path, kind, kwargs)
    return tmp_path


def write_peft(home: Path, name: str, kwargs: str, method: str = "lora") -> None:
    (home / "configs/peft").mkdir(parents=True, exist_ok=True)
    text = f"method: {method}\nkwargs: {kwargs}\n"
    (home / f"configs/peft/{name}.yaml").write_text(text, encoding="utf-8")


def texts(folder: Path) -> list[str]:
    """The answers of a run, as they were generated."""
    lines = (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["completion"] for line in lines]


def weights(path: Path) -> dict[str, Any]:
    import torch

    held: dict[str, Any] = torch.load(path, weights_only=True)["model_state_dict"]
    return held


@pytest.mark.parametrize("kind", [*KINDS, "full"])
def test_what_trains_answers_alike_from_its_files(
    home: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    kinds = ["--peft_config", kind]
    succeed(capsys, *TRAIN, *kinds, *SMALL, *SHORT, "--run", "trained")
    trained = texts(home / "trained")
    succeed(capsys, *EVALUATE, *SMALL, "--run", "base")
    for number, path in enumerate(("checkpoints/tiny/rag_sft.pt", "trained/adapter")):
        command = [*EVALUATE, *SMALL, *kinds, *CHECKPOINT, path, "--run", f"again{number}"]
        succeed(capsys, *command)
        assert texts(home / f"again{number}") == trained
    assert trained != texts(home / "base")
    # Started again, it goes on from what it finished.
    err = succeed(capsys, *TRAIN, *kinds, *SMALL, *SHORT, "--run", "trained").err
    assert "is trained already" in err
    assert texts(home / "trained") == trained


@pytest.mark.parametrize("kind", ["pissa", "saved", "full"])
def test_stopped_and_started_again_it_comes_to_the_same_weights(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import torch
    from transformers.models.mistral.modeling_mistral import MistralModel

    command = [*TRAIN, "--peft_config", kind, *SMALL, *SHORT, "--train_only"]
    succeed(capsys, *command, "--run", "whole")
    path = home / "checkpoints/tiny/rag_sft.pt"
    whole = weights(path)
    path.unlink()

    forward, passes = MistralModel.forward, 0

    def counted(model: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal passes
        passes += model.training
        if passes == 3 and model.training:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(model, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(MistralModel, "forward", counted)
        assert main([*command, "--run", "stopped"]) == 130
    assert not path.exists()
    torch.manual_seed(99)  # another process draws other numbers
    assert "going on from" in succeed(capsys, *command, "--run", "stopped").err
    resumed = weights(path)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_finetuned_model_goes_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    command = [*TRAIN, "--peft_config", "full", *SMALL, *SHORT, "--train_only", "--overwrite"]
    succeed(capsys, *command, "--run", "first")
    first = weights(home / "checkpoints/tiny/rag_sft.pt")
    succeed(capsys, *command, "--run", "second", *CHECKPOINT, "first/adapter")
    second = weights(home / "checkpoints/tiny/rag_sft.pt")
    assert any(not torch.equal(first[key], second[key]) for key in first)
    # It still says the base that both began from, and reads on it.
    read = [*EVALUATE, *SMALL, *CHECKPOINT, "checkpoints/tiny/rag_sft.pt"]
    succeed(capsys, *read)


def test_full_finetuning_beside_lora(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Compared on one model, each reads with its own weights, and zero-shot with the base's."""
    from scratchpad_rag.app.compare import CompareJob, compare
    from scratchpad_rag.config import load_config

    data = {"path": "data.jsonl", "total_docs": 3, "gold_at": [0]}
    train = {"lr": 0.01, "num_train_epochs": 1, "gradient_accumulation_steps": 1}
    overrides = {"data": data, "train": train, "generate": {"max_new_tokens": 4}}
    paths = {}
    for kind, method in (("full", "sft"), ("saved", "scratchpad")):
        command = [*TRAIN, "--peft_config", kind, *SMALL, *SHORT]
        succeed(capsys, *command, "--train_method", method, "--run", kind)
        paths[method] = home / kind / "adapter"
    succeed(capsys, *EVALUATE, *SMALL, "--run", "base")
    config, _ = load_config("examples", "tiny", None, overrides)
    job = CompareJob(
        "examples",
        run=home / "compared",
        scratchpad_checkpoint=paths["scratchpad"],
        sft_checkpoint=paths["sft"],
        shipped=False,
        answer_tokens=4,
    )
    found: dict[str, list[str]] = {}
    for score in compare(config, job, lambda _: None):
        found.setdefault(score.method, []).append(score.completion)
    wanted = {"sft": "full", "scratchpad": "saved", "zero_shot": "base"}
    for method, run in wanted.items():
        assert found[method] == texts(home / run)
    assert len({tuple(found[method]) for method in wanted}) == 3


def test_both_methods_are_finetuned_and_compared(home: Path) -> None:
    from scratchpad_rag.app.compare import CompareJob, compare
    from scratchpad_rag.config import load_config

    data = {"path": "data.jsonl", "total_docs": 3, "gold_at": [0]}
    data |= {"train_positions": "uniform", "train_passages": "sentences"}
    train = {"lr": 0.01, "num_train_epochs": 1, "gradient_accumulation_steps": 1}
    train |= {"choice_weight": 30}
    overrides = {"data": data, "train": train, "generate": {"max_new_tokens": 4}}
    config, _ = load_config("examples", "tiny", "full", overrides)
    job = CompareJob("examples", run=home / "compared", shipped=False, answer_tokens=4)
    assert compare(config, job, lambda _: None)
    page = (home / "compared/report.html").read_text(encoding="utf-8")
    assert "all weights" in page
    assert "rank None" not in page
    assert "each cut to the sentences that would support an answer" in page
    assert "tokens that choose ×30, answer ×1" in page


def test_the_reader_loads_each(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from scratchpad_rag import Reader

    for kind in ("pissa", "full"):
        command = [*TRAIN, "--peft_config", kind, *SMALL, *SHORT, "--train_only", "--run", kind]
        succeed(capsys, *command)
        reader = Reader.load(f"{kind}/adapter", max_new_tokens=4)
        assert isinstance(reader.answer("when was it built", ["Built in 1850."]).answer, str)


def test_qlora(
    home: Path,
    byte_level_tokenizer: Any,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("bitsandbytes")
    from tests.models.tiny import save_tiny_qwen

    folder = tmp_path_factory.mktemp("wide") / "qwen"
    save_tiny_qwen(folder, byte_level_tokenizer, tied=False, width=64)
    write_model(home, "tiny", folder)
    write_model(home, "packed", folder, quantization="nf4")
    packed = [*("--experiment_config", "examples", "--model_config", "packed"), *SMALL]
    training = ["--peft_config", "dora", "--train_method", "sft", *SHORT, "--run", "trained"]
    succeed(capsys, *packed, *training)
    reading = ["--eval_only", *CHECKPOINT, "trained/adapter"]
    assert "was trained on nf4" not in succeed(capsys, *packed, *reading, "--run", "again").err
    assert texts(home / "again") == texts(home / "trained")
    unpacked = [*EVALUATE, *SMALL, *CHECKPOINT, "trained/adapter", "--run", "unpacked"]
    err = succeed(capsys, *unpacked).err
    assert "was trained on nf4 weights and reads with unquantized ones" in err
    assert texts(home / "unpacked")


# --- what is refused, before anything is written


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ("{rank: 4}", "unknown key 'rank'"),
        ("{r: 0}", "r is 0; it must be a whole number from 1"),
        ("{lora_alpha: much}", "lora_alpha is 'much'; it must be a number"),
        ("{target_modules: [q_proj, v_porj]}", "there is no module 'v_porj' (choose from v_proj,"),
        ("{target_modules: '.*query'}", "'.*query' matches no module's whole name"),
        ("{target_modules: [q_proj], modules_to_save: [head]}", "there is no module 'head'"),
        ("{init_lora_weights: loftq}", "'loftq' is not supported; choose from true, false"),
    ],
)
def test_a_lora_config_that_does_not_fit(
    home: Path, capsys: pytest.CaptureFixture[str], kwargs: str, said: str
) -> None:
    write_peft(home, "bad", kwargs)
    refuse(home, capsys, said, "--peft_config", "bad")


def test_full_finetuning_of_packed_weights(
    home: Path, tiny_mistral: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(home, "packed", tiny_mistral, quantization="nf4")
    said = "full finetuning trains the weights themselves, and these are quantized"
    refuse(home, capsys, said, "--peft_config", "full", "--model_config", "packed")


def test_methods_that_do_not_go_on_from_each_other(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("full", "dora"):
        command = [*TRAIN, "--peft_config", kind, *SMALL, *SHORT, "--train_only", "--run", kind]
        succeed(capsys, *command)
    path = [*CHECKPOINT, "full/adapter", "--peft_config", "dora"]
    refuse(home, capsys, "was trained with all weights, and --peft_config says method lora", *path)
    path = [*CHECKPOINT, "dora/adapter", "--peft_config", "full"]
    refuse(home, capsys, "was trained as a LoRA adapter, and --peft_config says method none", *path)


def refuse(home: Path, capsys: pytest.CaptureFixture[str], said: str, *arguments: str) -> None:
    before = listing(home)
    capsys.readouterr()
    assert main([*TRAIN, *SMALL, *arguments]) == 2
    err = capsys.readouterr().err
    (line,) = error_lines(err)
    assert line.startswith("error: ")
    assert said in line
    assert "Traceback" not in err
    assert listing(home) == before
