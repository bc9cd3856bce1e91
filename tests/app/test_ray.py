"""Answering on a Ray cluster: a real one of two workers on this machine, held against one process.

A worker that a test kills ends as it does when memory runs out: its process is gone at once.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from scratchpad_rag.app.cluster import open_on_worker
from scratchpad_rag.app.main import main
from scratchpad_rag.backends.base import Backend
from scratchpad_rag.backends.ray import (
    RayBackend,
    RaySettings,
    plan_batch_size,
    plan_resources,
)
from scratchpad_rag.config import RunConfig
from scratchpad_rag.errors import BackendError, ConfigError
from scratchpad_rag.models.checkpoints import Adapter
from scratchpad_rag.records import Completion, Rendered

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

ROOT = Path(__file__).parents[2]
QUESTIONS = 8
ASK = ("--experiment_config", "sample_5_docs", "--eval_only", "--val_order", "question")
ASK = (*ASK, "--model_config", "tiny.yaml", "--num_val_samples", str(QUESTIONS))
SHORT = ("--total_docs", "2", "--gold_at", "0", "--max_new_tokens", "12")
READER = ("--load_checkpoint", "--checkpoint_path", "reader.pt")
TWO = ("--executor", "ray", "--num_actors", "2")
# What a completion costs differs with the prompts that are read beside it.
COSTS = re.compile("seconds|tokens|passes")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster with two CPU cores, which this process has joined."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    context = ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
    )
    yield context.address_info["address"]
    ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def home(tiny_mistral: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, its config, and a reader of random weights for it."""
    import torch

    from scratchpad_rag.config import ModelConfig, PeftConfig
    from scratchpad_rag.models import adapters, checkpoints
    from scratchpad_rag.models.load import load_model
    from scratchpad_rag.models.lora import lora_kwargs

    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_mistral, folder / "model")
    (folder / "tiny.yaml").write_text(
        "pretrained_config:\n  pretrained_model_name_or_path: model\n  torch_dtype: float32\n"
    )
    loaded = load_model(ModelConfig(str(folder / "model"), torch_dtype="float32"))
    lora = PeftConfig(kwargs={"r": 4, "target_modules": ["q_proj", "v_proj"]})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reader = adapters.add_lora(loaded, lora)
        for name, parameter in reader.model.named_parameters():
            if "lora_B" in name:  # else the reader would be the base
                torch.nn.init.normal_(parameter, std=0.2)
    metadata = checkpoints.AdapterMetadata(
        method="scratchpad",
        model_name="tiny",
        base_hash=loaded.base_hash,
        lora=lora_kwargs(reader.model),
        prompt_format="plain",
    )
    checkpoints.save_checkpoint(reader, metadata, folder / "reader.pt")
    return folder


def answered(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's scores without what they cost, by question: workers end as they do."""
    lines = (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    scores = [
        {key: value for key, value in json.loads(line).items() if not COSTS.search(key)}
        for line in lines
    ]
    return sorted(scores, key=lambda score: str(score["example_id"]))


@pytest.fixture(scope="module")
def here(home: Path) -> list[dict[str, Any]]:
    """What one process answers."""
    before = Path.cwd()
    os.chdir(home)
    try:
        assert main([*ASK, *SHORT, *READER, "--run", "here"]) == 0
    finally:
        os.chdir(before)
    scores = answered(home / "here")
    assert len(scores) == QUESTIONS
    assert len({score["completion"] for score in scores}) > QUESTIONS / 2  # they tell apart
    return scores


def die_once(marker: Path) -> None:
    """End this process at once, if no other has done so before."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return
    os._exit(1)


def open_and_die(marker: Path, config: RunConfig, adapter: Adapter | None, notify: Any) -> Backend:
    """The reader's own backend; the first worker that has answered a batch dies with it."""
    backend = open_on_worker(config, adapter, notify)

    class Dying:
        def generate(self, prompts: Sequence[Rendered]) -> Iterator[Completion]:
            completions = list(backend.generate(prompts))
            die_once(marker)
            yield from completions

    return Dying()


@pytest.fixture(scope="module")
def told(cluster: str, home: Path) -> str:
    """What a run of two workers said, of which one was killed; its scores are in `there`."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.chdir(home)
        patch.setattr(
            "scratchpad_rag.app.cluster.open_on_worker", partial(open_and_die, home / "killed")
        )
        patch.setattr(
            "scratchpad_rag.models.load.load_model", lambda *_: pytest.fail("weights loaded here")
        )
        assert main([*ASK, *SHORT, *READER, *TWO, "--run", "there"]) == 0, said.getvalue()
    assert (home / "killed").exists()
    return said.getvalue()


class TestAgainstOneProcess:
    def test_scores_are_the_same_each_once_and_a_lost_worker_is_told(
        self, home: Path, here: list[dict[str, Any]], told: str
    ) -> None:
        assert answered(home / "there") == here
        assert "Ray: 2 workers with 1 CPU core each, batches of 1\n" in told
        assert told.count("a worker was lost; its batch of 1 has been answered again\n") == 1

    @pytest.mark.usefixtures("told")
    def test_a_killed_run_is_gone_on_with_by_another_command(
        self, cluster: str, home: Path, here: list[dict[str, Any]]
    ) -> None:
        """It joins the cluster by itself, and all that is printed is ours."""
        run = home / "again"
        shutil.copytree(home / "there", run)
        lines = (run / "scores.jsonl").read_bytes().splitlines(keepends=True)
        (run / "scores.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:40])
        joining = ("--executor", "ray", "--num_actors", "1", "--ray_address", cluster)
        done = subprocess.run(
            [sys.executable, ROOT / "main.py", *ASK, *SHORT, *READER, *joining, "--run", run],
            cwd=home,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert (run / "scores.jsonl").read_bytes().startswith(b"".join(lines[:5]))
        assert answered(run) == here
        bars_gone = re.sub(r"\r *(?=\r)|scratchpad: +\d+%.*?\]", "", done.stderr)
        assert [line.strip() for line in bars_gone.splitlines() if line.strip()] == [
            f"run folder: {run}",
            "scratchpad: 5 of 8 samples are scored already",
            "Ray: 1 worker with 2 CPU cores, batches of 1",
        ]
        assert "raylet" not in done.stdout

    @pytest.mark.usefixtures("told")
    def test_what_is_answered_needs_no_cluster(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(home)
        monkeypatch.setattr("scratchpad_rag.backends.ray._joined", lambda _: pytest.fail("joined"))
        assert main([*ASK, *SHORT, *READER, *TWO, "--run", "there"]) == 0

    def test_weights_that_a_worker_cannot_load_are_one_line(
        self,
        cluster: str,
        home: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        shutil.copytree(home / "model", "model")
        (tmp_path / "model/model.safetensors").unlink()
        shutil.copy(home / "tiny.yaml", ".")
        assert main([*ASK, *SHORT, "--executor", "ray", "--num_actors", "1"]) == 2
        *_, line = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: cannot load the model {tmp_path}/model: ")
        assert " (on " in line
        [scores] = tmp_path.glob("runs/*/scores.jsonl")
        assert scores.read_bytes() == b""


class Echo:
    """Says every prompt back, but for what a test has it do first at one of them."""

    def __init__(self, at: str, first: Any) -> None:
        self.at = at
        self.first = first

    def generate(self, prompts: Sequence[Rendered]) -> Iterator[Completion]:
        for prompt in prompts:
            if prompt.text == self.at:
                self.first()
            yield Completion(f"{prompt.text}!", (), 1, 1, 1, 0.0, "stop")


def open_echo(at: str, first: Any, notify: Any) -> Echo:
    notify("an echo")
    return Echo(at, first)


def fail() -> None:
    raise KeyError("a mistake of ours")


PROMPTS = [Rendered(f"prompt {number}", 8, ()) for number in range(23)]
SAID = [f"prompt {number}!" for number in range(23)]


class TestLostWorkers:
    def test_each_prompt_is_answered_once(self, cluster: str, tmp_path: Path) -> None:
        said: list[str] = []
        opened = partial(open_echo, "prompt 7", partial(die_once, tmp_path / "killed"))
        backend = RayBackend(opened, RaySettings(num_actors=2, batch_size=2), said.append)
        came = list(backend.generate_as_done(PROMPTS))
        assert sorted((number, completion.text) for number, completion in came) == [
            *enumerate(SAID)
        ]
        assert [number for number, _ in came].index(7) > 7  # others did not wait for it
        assert said[0] == "Ray: 2 workers with 1 CPU core each, batches of 2"
        assert sorted(said[1:]) == [
            "a worker was lost; its batch of 2 has been answered again",
            "an echo",
        ]

    def test_the_order_is_that_of_the_prompts(self, cluster: str) -> None:
        first = partial(time.sleep, 0.5)  # so that the other worker is ahead
        backend = RayBackend(
            partial(open_echo, "prompt 0", first), RaySettings(num_actors=2, batch_size=1)
        )
        assert [completion.text for completion in backend.generate(PROMPTS)] == SAID
        assert list(backend.generate([])) == []

    def test_prompts_that_kill_every_worker_are_given_up(self, cluster: str) -> None:
        backend = RayBackend(partial(open_echo, "prompt 7", partial(os._exit, 1)), RaySettings())
        with pytest.raises(
            BackendError, match="3 workers were lost at the same batch of 6 prompts"
        ):
            list(backend.generate(PROMPTS))

    def test_our_own_mistakes_keep_their_traceback(self, cluster: str) -> None:
        backend = RayBackend(partial(open_echo, "prompt 7", fail), RaySettings())
        with pytest.raises(ray.exceptions.RayTaskError, match="a mistake of ours"):
            list(backend.generate(PROMPTS))

    def test_more_workers_than_the_cluster_holds_are_refused(self, cluster: str) -> None:
        backend = RayBackend(partial(open_echo, "", fail), RaySettings(num_actors=3))
        with pytest.raises(ConfigError, match="num_actors is 3, and the cluster has 2 CPU cores"):
            list(backend.generate(PROMPTS))


@pytest.mark.parametrize(
    ("cpus", "gpus", "settings", "prompts", "planned"),
    [
        ((16,), (0,), RaySettings(), 100, (1, 16, 0)),
        ((8, 8, 4), (0, 0, 0), RaySettings(), 100, (3, 4, 0)),
        ((8, 8, 4), (0, 0, 0), RaySettings(num_actors=5), 100, (5, 4, 0)),
        ((8, 8, 4), (0, 0, 0), RaySettings(num_actors=6), 100, (6, 2, 0)),
        ((8, 8), (0, 0), RaySettings(), 1, (1, 8, 0)),  # no more workers than prompts
        ((4, 64, 64), (0, 8, 8), RaySettings(), 100, (16, 1, 1)),  # the head has no GPU
        ((4, 64, 64), (0, 8, 8), RaySettings(num_actors=3), 100, (3, 1, 1)),
        ((4, 64), (0, 0), RaySettings(computes=False), 100, (2, 1, 0)),  # a server computes
        ((0, 4), (0, 0), RaySettings(), 100, (1, 4, 0)),
    ],
)
def test_workers_share_out_the_cluster(
    cpus: tuple[int, ...],
    gpus: tuple[int, ...],
    settings: RaySettings,
    prompts: int,
    planned: tuple[int, int, int],
) -> None:
    assert plan_resources(cpus, gpus, settings, prompts) == planned


@pytest.mark.parametrize(("cpus", "gpus"), [((4,), (2,)), ((2,), (0,)), ((0,), (0,))])
def test_more_workers_than_there_is_room_for(cpus: tuple[int], gpus: tuple[int]) -> None:
    with pytest.raises(ConfigError, match=r"num_actors is 3, and the cluster has [02] (GPU|CPU)"):
        plan_resources(cpus, gpus, RaySettings(num_actors=3), 100)


def test_small_jobs_are_cut_small_and_large_ones_are_not() -> None:
    assert [plan_batch_size(prompts, 2, 64) for prompts in (1, 8, 9, 511, 10_000)] == [
        *(1, 1, 2, 64),
        64,
    ]


class TestRefusals:
    """Each is one line, before the model is read: there is none."""

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--num_actors", "2"), "--num_actors is for --executor ray"),
            (("--ray_address", "a:1"), "--ray_address is for --executor ray"),
            (("--executor", "ray", "--num_actors", "0"), "num_actors is 0"),
            (("--executor", "ray", "--ray_address", "127.0.0.1:1"), "no Ray cluster answers at"),
            (("--executor", "ray", "--ray_address", "ray://a:10001"), "is not an address such as"),
            (("--executor", "ray", "--ray_address", "here"), "is not an address such as"),
        ],
    )
    def test_settings(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        flags: tuple[str, ...],
        message: str,
    ) -> None:
        self.refuse(tmp_path, monkeypatch, capsys, flags, message)

    def test_ray_is_not_installed(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr("scratchpad_rag.backends.ray.find_spec", lambda _: None)
        message = "pip install 'scratchpad-rag[ray]'"
        self.refuse(tmp_path, monkeypatch, capsys, ("--executor", "ray"), message)

    def test_training(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        flags = ("--executor", "ray", "--train_method", "sft", "--peft_config", "lora_r8_a16_qv")
        message = "training is done in one process"
        self.refuse(tmp_path, monkeypatch, capsys, flags, message, without="--eval_only")

    @staticmethod
    def refuse(
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        flags: tuple[str, ...],
        message: str,
        without: str = "",
    ) -> None:
        monkeypatch.chdir(folder)
        (folder / "tiny.yaml").write_text(
            "pretrained_config:\n  pretrained_model_name_or_path: ./none\n"
        )
        assert main([*(flag for flag in ASK if flag != without), *flags]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert message in line
        assert not (folder / "runs").exists()

    def test_prompts_that_are_too_long_never_reach_a_worker(
        self,
        home: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(home)
        monkeypatch.setattr("scratchpad_rag.backends.ray._joined", lambda _: pytest.fail("joined"))
        assert main([*ASK, "--max_new_tokens", "16384", *TWO]) == 2
        assert "16384" in capsys.readouterr().err


def test_comparing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scratchpad_rag.app.compare import CompareJob, compare
    from scratchpad_rag.config import EvaluateConfig

    config = RunConfig(evaluate=EvaluateConfig(executor="ray"))
    with pytest.raises(ConfigError, match="comparing is done in one process"):
        compare(config, CompareJob("sample_5_docs", runs=tmp_path))
