"""Backends chosen on the command line: a server's answers, verbatim scratchpads, refusals."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scratchpad_rag.app.main import main

SMALL = ("--num_val_samples", "3", "--val_order", "question", "--total_docs", "3", "--gold_at", "0")
ASK = ("--experiment_config", "sample_5_docs", "--eval_only", *SMALL)


class Server(ThreadingHTTPServer):
    """Answers every chat with a scratchpad that quotes its first document."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        context = body["messages"][1]["content"].split("Context:\n")[1]
        quote, question = context.split("\n\n")[0], context.split("\n\n")[-2]
        text = f"{quote}\n\n{question}\n\nAnswer: so it is"
        usage = {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100}
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": text}}
        answer = json.dumps({"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with the config of a model that a server holds."""
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "served.yaml"
    config.write_text("pretrained_config:\n  pretrained_model_name_or_path: their-model\n")
    return config


def scores(folder: Path) -> list[dict[str, Any]]:
    [path] = folder.glob("runs/*/scores.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_servers_scratchpads_are_read_and_scored(served: Path, server: Server) -> None:
    pytest.importorskip("openai")
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    command = [*ASK, "--model_config", str(served), "--backend", "http", "--base_url", url]
    assert main([*command, "--train_method", "scratchpad", "--max_new_tokens", "90"]) == 0
    found = scores(served.parent)
    assert len(found) == 3
    for score in found:
        assert score["method"] == "scratchpad"
        assert score["prediction"] == "so it is"
        assert score["parsed"]
        assert [quote["passage"] for quote in score["quotes"]] == [0]  # which is the gold one
        assert score["quote_recall"] == score["verbatim_rate"] == 1.0
        assert (score["prompt_tokens"], score["new_tokens"]) == (70, 30)
    assert {body["model"] for body in server.bodies} == {"their-model"}
    assert {body["max_tokens"] for body in server.bodies} == {90}
    # The scores are there already: nobody is asked again.
    assert main([*command, "--train_method", "scratchpad", "--max_new_tokens", "90"]) == 0
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--backend", "http"), "--backend http needs --base_url"),
        (("--backend", "http", "--base_url", "localhost"), "is not an address"),
        (("--base_url", "http://localhost/v1"), "native asks no server"),
        (("--backend", "http", "--base_url", "http://x/v1", "--verbatim"), "needs the native"),
        (("--quote", "sentence"), "needs --verbatim"),
        (("--verbatim",), "this reader (zero-shot) writes none"),
        (("--prompt_lookup_num_tokens", "4"), "for the transformers backend"),
    ],
)
def test_refused_before_anything_is_loaded(
    served: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    assert main([*ASK, "--model_config", str(served), *flags]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not list(served.parent.glob("runs/*"))


def test_a_server_does_not_train(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*ASK, "--model_config", str(served), "--backend", "http"]
    command.remove("--eval_only")
    command += ["--base_url", "http://localhost:1/v1", "--train_method", "sft"]
    assert main([*command, "--peft_config", "lora_r8_a16_qv"]) == 2
    assert "training needs the weights here" in capsys.readouterr().err


def test_a_server_reads_no_checkpoint(
    served: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    checkpoint = request.config.rootpath / "checkpoints/smollm2_135m/scratchpad_rag.pt"
    command = [*ASK, "--model_config", str(served), "--backend", "http"]
    command += ["--base_url", "http://localhost:1/v1", "--load_checkpoint"]
    assert main([*command, "--checkpoint_path", str(checkpoint)]) == 2
    assert "reads with its own weights" in capsys.readouterr().err
