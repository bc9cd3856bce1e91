"""Training with several processes, started by torchrun and accelerate as a user starts them.

Two processes on the CPU stand for GPUs: the launchers, the process group, the checkpoints and the
spreading of a model by FSDP2 are the real ones.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scratchpad_rag.app.main import main
from scratchpad_rag.app.processes import joined_processes, let_main_speak_first
from scratchpad_rag.app.runs import require_shared
from scratchpad_rag.errors import ConfigError, UserError
from tests.test_bad_input import ROOT, SMALL, error_lines, item, write_data, write_model

TRAIN = [
    *("--experiment_config", "examples", "--model_config", "tiny", "--train_method", "scratchpad"),
    *("--peft_config", "lora_r8_a16_qv", *SMALL, "--lr", "0.01"),
]
LONG = ["--num_train_epochs", "20", "--save_steps", "10", "--train_only"]
SHARD = ["accelerate.commands.launch", "--config_file", "fsdp2.yaml", "--main_process_port", "0"]
# Looked at every second, the processes have time to say that one of them was lost.
TORCHRUN = [
    *("torch.distributed.run", "--standalone", "--monitor_interval", "1"),
    *("--nproc_per_node", "2", "--"),  # else torchrun takes our --run for one of its own flags
]
SECONDS = 300


@pytest.fixture
def home(tiny_mistral: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a model in two precisions, nine questions to train on, two others."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path, "tiny", tiny_mistral)
    write_model(tmp_path, "low", tiny_mistral, torch_dtype="bfloat16")
    write_data(tmp_path / "data.jsonl", [item(number) for number in range(11)])
    text = (ROOT / "configs/accelerate/fsdp2.yaml").read_text(encoding="utf-8")
    text = text.replace("use_cpu: false", "use_cpu: true")
    (tmp_path / "fsdp2.yaml").write_text(text.replace("num_processes: 8", "num_processes: 2"))
    return tmp_path


def start(launcher: list[str], *arguments: str) -> subprocess.Popen[str]:
    """A launcher with its processes; what they say comes together."""
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, str(ROOT / "main.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def finish(launched: subprocess.Popen[str]) -> str:
    said, _ = launched.communicate(timeout=SECONDS)
    assert launched.returncode == 0, said
    return said


def stop(launched: subprocess.Popen[str], folder: Path, how: Callable[[int], None]) -> str:
    """Do something to a launcher when its run has a checkpoint that was not there before."""
    known, begin = set(folder.glob("checkpoint-*")), time.monotonic()
    while not set(folder.glob("checkpoint-*")) - known:
        assert launched.poll() is None, launched.communicate()[0]
        assert time.monotonic() - begin < SECONDS
        time.sleep(0.02)
    how(launched.pid)
    said, _ = launched.communicate(timeout=SECONDS)
    assert launched.returncode != 0, "it was over before it was stopped"
    return said


def kill_a_worker(launcher: int) -> None:
    found = subprocess.run(["pgrep", "-P", str(launcher)], capture_output=True, text=True)
    os.kill(int(found.stdout.split()[-1]), signal.SIGKILL)


def alone(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    code = main(list(arguments))
    err = capsys.readouterr().err
    assert code == 0, err
    return err


def training(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "training.json").read_text("utf-8"))
    return content


def completions(folder: Path) -> list[str]:
    lines = (folder / "scores.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["completion"] for line in lines]


def assert_same_training(one: Path, other: Path, close: float) -> None:
    """The same losses, by region too, the same validations, tokens and weights."""
    from safetensors.torch import load_file

    first, second = training(one), training(other)
    assert [first[key] for key in ("steps", "tokens", "best_step")] == [
        second[key] for key in ("steps", "tokens", "best_step")
    ]
    assert len(first["log"]) == len(second["log"]) > 0
    for ours, theirs in zip(first["log"], second["log"], strict=True):
        told = [key for key in ours if "loss" in key or key.startswith("eval_") or key == "step"]
        told = [key for key in told if not key.endswith(("runtime", "per_second"))]
        assert {"step"} < set(told) <= set(theirs)
        for key in told:
            assert ours[key] == pytest.approx(theirs[key], rel=close, abs=close), key
    weights, others = (
        load_file(folder / "adapter/adapter_model.safetensors") for folder in (one, other)
    )
    assert weights.keys() == others.keys()
    for key, weight in weights.items():
        assert (weight.float() - others[key].float()).abs().max() <= close, key
    assert max(float(weight.float().abs().max()) for weight in weights.values()) > 10 * close


def test_two_processes_train_as_one_does(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nine samples, so that the last is filled up by a silent one; then one process evaluates."""
    watched = ["--num_train_epochs", "1", "--eval_steps", "2", "--eval_questions", "2"]
    command = [*TRAIN, *watched, "--gradient_accumulation_steps"]
    said = finish(start(TORCHRUN, *command, "1", "--run", "two", "--seed", "3"))
    alone(capsys, *command, "2", "--run", "one", "--seed", "3")
    assert_same_training(home / "one", home / "two", 1e-5)
    assert training(home / "two")["steps"] == 5
    assert any("eval_score" in entry for entry in training(home / "two")["log"])
    # One of them speaks, and writes.
    assert said.count("run folder: two") == said.count("Headline:") == 1
    written = {str(path.relative_to(home / "two")) for path in (home / "two").rglob("*")}
    assert {"adapter/adapter_model.safetensors", "loss.svg", "summary.json"} <= written
    assert (home / "checkpoints/tiny/scratchpad_rag.pt").is_file()
    # What two wrote one reads.
    reading = [*TRAIN[:4], *SMALL, "--eval_only", "--load_checkpoint", "--seed", "3"]
    path = "checkpoints/tiny/scratchpad_rag.pt"
    alone(capsys, *reading, "--checkpoint_path", path, "--run", "read")
    assert completions(home / "read") == completions(home / "two") == completions(home / "one")


@pytest.mark.slow
def test_a_lost_process_and_a_stop_change_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*TRAIN, *LONG, "--gradient_accumulation_steps", "1", "--run", "two"]
    folder = home / "two/trainer"
    said = stop(start(TORCHRUN, *command), folder, kill_a_worker)
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "another process ended" in line
    assert "goes on from the last checkpoint" in line
    said = stop(start(TORCHRUN, *command), folder, lambda pid: os.kill(pid, signal.SIGINT))
    assert said.count("going on from two/trainer/checkpoint-") == 1
    assert said.count("stopped; a checkpoint is kept") == 1

    # One process would take other steps than two.
    assert main(command) == 2
    (refusal,) = error_lines(capsys.readouterr().err)
    assert "processes was 2 and is 1" in refusal

    assert "going on from" in finish(start(TORCHRUN, *command))
    alone(capsys, *TRAIN, *LONG, "--gradient_accumulation_steps", "2", "--run", "one")
    assert training(home / "two")["steps"] == 90
    assert_same_training(home / "one", home / "two", 1e-5)


@pytest.mark.slow
def test_a_model_spread_by_fsdp_trains_as_a_whole_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bfloat16 base beside float32 adapters; nine samples, so that one is silent.

    Each process reads the weights here: one without them cannot try the processor's kernels, whose
    bfloat16 rounds otherwise. The next test has one process read them.
    """
    text = (home / "fsdp2.yaml").read_text(encoding="utf-8")
    (home / "fsdp2.yaml").write_text(
        text.replace("efficient_loading: true", "efficient_loading: false")
    )
    command = [*TRAIN, "--model_config", "low", "--num_train_epochs", "1", "--train_only"]
    command.append("--gradient_accumulation_steps")
    finish(start(SHARD, *command, "1", "--gradient_checkpointing", "--run", "two"))
    (checkpoint,) = home.glob("two/trainer/checkpoint-*")
    assert (checkpoint / "pytorch_model_fsdp_0").is_dir()  # it was spread, not only asked to be
    alone(capsys, *command, "2", "--run", "one")
    assert_same_training(home / "one", home / "two", 1e-3)
    # What was spread one process reads.
    reading = [*TRAIN[:4], "--model_config", "low", *SMALL, "--eval_only", "--load_checkpoint"]
    alone(capsys, *reading, "--checkpoint_path", "two/adapter", "--run", "read")
    assert len(completions(home / "read")) == 2


@pytest.mark.slow
def test_a_spread_model_goes_on_after_a_stop(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*TRAIN, *LONG, "--gradient_accumulation_steps"]
    spread = [*command, "1", "--run", "two"]
    folder = home / "two/trainer"
    stop(start(SHARD, *spread), folder, lambda pid: os.kill(pid, signal.SIGTERM))
    (checkpoint,) = folder.glob("checkpoint-*")
    assert f"going on from {checkpoint.relative_to(home)}" in finish(start(SHARD, *spread))
    alone(capsys, *command, "2", "--run", "one")
    # Sums are taken in another order; over a hundred steps of Adam the last bits grow.
    assert_same_training(home / "one", home / "two", 1e-3)


# --- what is refused


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with (
        pytest.raises(ConfigError, match=r"4 processes .* 2 GPUs; .*--nproc_per_node 2"),
        joined_processes(),
    ):
        pass


@pytest.mark.parametrize(
    ("switch", "arguments", "said"),
    [
        ("WORLD_SIZE", ["--eval_only"], "evaluation takes one process and 2 were started"),
        ("ACCELERATE_USE_FSDP", ["--eval_steps", "2"], "eval_steps: a model that is spread"),
        ("ACCELERATE_USE_DEEPSPEED", ["--peft_config", "pissa_r16_all"], "init_lora_weights pissa"),
        ("ACCELERATE_USE_FSDP", ["--model_config", "packed"], "quantization nf4: packed weights"),
    ],
)
def test_what_several_processes_do_not_do(
    home: Path,
    tiny_mistral: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    switch: str,
    arguments: list[str],
    said: str,
) -> None:
    write_model(home, "packed", tiny_mistral, quantization="nf4")
    monkeypatch.setenv(switch, "2" if switch == "WORLD_SIZE" else "true")
    assert main([*TRAIN, *arguments]) == 2
    (line,) = error_lines(capsys.readouterr().err)
    assert said in line
    assert not (home / "runs").exists()


def test_a_folder_that_this_machine_does_not_see(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    require_shared(tmp_path)
    with pytest.raises(UserError, match="a disk that all machines share"):
        require_shared(tmp_path / "elsewhere")


def test_the_first_process_of_a_machine_speaks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    for count, rank in (("1", "0"), ("16", "0"), ("16", "3")):
        monkeypatch.setenv("WORLD_SIZE", count)
        monkeypatch.setenv("LOCAL_RANK", rank)
        let_main_speak_first()
    assert len(waited) == 1


# --- the files for accelerate


TWO_MACHINES = [
    *("--num_machines", "2", "--num_processes", "16", "--machine_rank", "1"),
    *("--main_process_ip", "10.0.0.1", "--main_process_port", "29500"),
]


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_accelerate_launches_from_its_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to what torchrun is asked for and what the processes are told by their environment."""
    import torch.distributed.run
    from accelerate.commands.launch import launch_command, launch_command_parser

    asked: list[tuple[Any, dict[str, str]]] = []
    monkeypatch.setattr(
        torch.distributed.run, "run", lambda parsed: asked.append((parsed, dict(os.environ)))
    )
    file = str(ROOT / f"configs/accelerate/{name}.yaml")
    command = ["--config_file", file, *TWO_MACHINES, "main.py", "--run", "x"]
    launch_command(launch_command_parser().parse_args(command))
    ((parsed, told),) = asked
    assert parsed.training_script_args == ["--run", "x"]
    assert (parsed.nnodes, parsed.nproc_per_node, parsed.node_rank) == ("2", "8", 1)
    assert parsed.rdzv_endpoint == "10.0.0.1:29500" or (
        (parsed.master_addr, parsed.master_port) == ("10.0.0.1", "29500")
    )
    spread = {key: told.get(key) for key in told if key.startswith(("FSDP_", "ACCELERATE_USE"))}
    if name == "ddp":
        assert spread == {}
    else:
        assert spread["ACCELERATE_USE_FSDP"] == "true"
        assert spread["FSDP_VERSION"] == "2"
        assert spread["FSDP_STATE_DICT_TYPE"] == "SHARDED_STATE_DICT"
        assert spread["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "true"


def test_deepspeed_is_configured_by_its_file() -> None:
    """By accelerate's parser; DeepSpeed itself is not needed for that."""
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    file = str(ROOT / "configs/accelerate/zero3.yaml")
    content = load_config_from_file(file)
    assert isinstance(content, ClusterConfig)
    command = ["--config_file", file, *TWO_MACHINES, "main.py", "--run", "x"]
    parsed, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    assert parsed.use_deepspeed
    parsed.deepspeed_fields_from_accelerate_config = ",".join(content.deepspeed_config)
    _, told = prepare_deepspeed_cmd_env(parsed)
    assert told["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert told["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
    assert told["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true"
    assert (parsed.nnodes, parsed.nproc_per_node, parsed.node_rank) == ("2", "8", 1)
