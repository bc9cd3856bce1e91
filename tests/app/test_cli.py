"""The verbs of `scratchpad-rag`, in process; comparing runs on a tiny model."""

from __future__ import annotations

import functools
import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from scratchpad_rag.app import cli
from scratchpad_rag.data import download

METHODS = {"closed_book", "zero_shot", "sft", "scratchpad", "gold_only", "rerank_then_read"}


class Done(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """The entry point with these arguments: its exit code and what it printed."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object) -> Done:
        monkeypatch.setattr("sys.argv", ["scratchpad-rag", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return run


def write_lines(path: Path, items: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(item) + "\n" for item in items)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    return [json.loads(line) for line in text.decode().splitlines()]


class TestTheCommandLine:
    @pytest.mark.parametrize("verb", ["train", "evaluate", "compare"])
    def test_help_lists_the_shared_flags(self, verb: str) -> None:
        shown = CliRunner().invoke(cli.app, [verb, "--help"], env={"COLUMNS": "200"})
        assert shown.exit_code == 0
        for flag in ("--experiment_config", "--model_config", "--max_new_tokens", "--gold_at"):
            assert flag in shown.stdout

    @pytest.mark.parametrize(
        "arguments",
        [
            ["train", "--experiment_config", "sample_5_docs", "--no_such_flag"],
            ["evaluate"],  # without --experiment_config
            ["evaluate", "--experiment_config", "sample_5_docs", "--lr", "fast"],
            ["evaluate", "--experiment_config", "sample_5_docs", "--eval_split", "val_all"],
            ["data", "sample", "--no_such_flag"],
            ["no_such_verb"],
        ],
        ids=lambda arguments: arguments[-1],
    )
    def test_what_is_not_a_command_ends_with_2(self, call: Call, arguments: list[str]) -> None:
        done = call(*arguments)
        assert done.code == 2
        assert done.err
        assert "Traceback" not in done.err

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["--experiment_config", "sample_6_docs"], "did you mean 'sample_5_docs'?"),
            (["--experiment_config", "sample_5_docs", "--model_config", "tiny"], "'tiny'"),
            (
                ["--experiment_config", "sample_5_docs", "--checkpoint_path", "gone.pt"],
                "there is no checkpoint gone.pt",
            ),
            (["--experiment_config", "sample_5_docs", "--gold_at", "0,5"], "gold position 5"),
            (["--experiment_config", "examples"], "--data_path"),
        ],
    )
    def test_what_a_user_can_put_right_is_one_line(
        self, call: Call, arguments: list[str], told: str
    ) -> None:
        done = call("evaluate", *arguments)
        assert done.code == 2
        (line,) = done.err.splitlines()
        assert line.startswith("error: ")
        assert told in line

    @pytest.mark.parametrize("flag", ["--experiment_config", "--experiment-config"])
    @pytest.mark.parametrize("number", ["--num_val_samples", "--num-val-samples"])
    def test_dashes_are_as_good_as_underscores(
        self, call: Call, monkeypatch: pytest.MonkeyPatch, flag: str, number: str
    ) -> None:
        seen: list[dict[str, Any]] = []
        monkeypatch.setattr("scratchpad_rag.app.main.run", seen.append)
        done = call("evaluate", flag, "sample_5_docs", number, "7", "--loss-region", "answer")
        assert done.code == 0, done.err
        (flags,) = seen
        assert flags["experiment_config"] == "sample_5_docs"
        assert flags["num_val_samples"] == 7
        assert flags["loss_region"] == "answer"
        assert flags["model_config"] == "smollm2_135m"
        assert flags["eval_only"] is True
        assert flags["lr"] is None  # not given: the config's

    def test_dashes_in_the_verbs_of_data(self, call: Call, tmp_path: Path) -> None:
        done = call("data", "build", "--questions", "q", "--passages", "p", "--num-distractors", 0)
        assert done.code == 2
        assert "--out" in done.err  # it alone is missing
        out = tmp_path / "out.jsonl"
        arguments = ("--questions", "q", "--passages", "p", "--out", out, "--num-distractors", 0)
        assert "num_distractors must be 1 or more" in call("data", "build", *arguments).err


class TestDoctor:
    def test_it_prints_versions_the_device_and_the_models(self, call: Call) -> None:
        from importlib import metadata

        done = call("doctor")
        assert done.code == 0, done.err
        rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines() if line.strip()}
        for package in ("torch", "transformers", "peft", "bm25s"):
            assert rows[package] == [metadata.version(package)]
        assert rows["Device:"]
        assert rows["mistral_7b"][:2] == ["13.4" if "bfloat16" in done.out else "26.8", "GiB"]
        assert rows["mistral_7b"][-1] == "mistralai/Mistral-7B-v0.1"


class TestDataSample:
    def test_a_small_set_is_written_and_read(self, call: Call, tmp_path: Path) -> None:
        out = tmp_path / "sample"
        numbers = ("--num_questions", 60, "--num_passages", 200, "--seed", 3)
        done = call("data", "sample", "--out", out, *numbers)
        assert done.code == 0, done.err
        assert "60 questions over 200 passages" in done.err
        questions = read_lines(out / "questions.jsonl.gz")
        passages = read_lines(out / "passages.jsonl.gz")
        assert (len(questions), len(passages)) == (60, 200)
        text_of = {passage["id"]: passage["text"] for passage in passages}
        for question in questions:
            (gold,) = question["gold"]
            assert gold not in question["distractors"]
            assert set(question["distractors"]) <= set(text_of)
        assert sum(question["split"] == "val" for question in questions) == 20
        assert (out / "README.md").is_file()

        again = tmp_path / "again"
        call("data", "sample", "--out", again, *numbers)
        for name in ("questions.jsonl.gz", "passages.jsonl.gz"):
            assert (again / name).read_bytes() == (out / name).read_bytes()

    def test_too_few_passages_is_one_line(self, call: Call, tmp_path: Path) -> None:
        out = tmp_path / "sample"
        done = call("data", "sample", "--out", out, "--num_questions", 20, "--num_passages", 10)
        assert done.code == 2
        assert done.err == "error: 20 questions need as many passages, not 10\n"
        assert not out.exists()


class TestDataBuild:
    QUESTIONS = (
        {
            "id": "q1",
            "question": "Who built the lighthouse of Corvin?",
            "answers": ["Ida Holm"],
            "passages": [
                {"title": "Corvin Light", "text": "It was built by Ida Holm.", "gold": True}
            ],
        },
        {
            "id": "q2",
            "question": "When was the stone bridge opened?",
            "answers": ["1895"],
            "passages": [{"title": "Bridge", "text": "Opened in 1895.", "gold": True}],
        },
    )
    POOL = (
        {"title": "Corvin Light", "text": "It was built by Ida Holm."},  # the gold one itself
        {"title": "A keeper", "text": "The lighthouse of Corvin was kept by Ida Holm."},  # answer
        {"title": "Corvin", "text": "The lighthouse of Corvin is tall."},
        {"title": "Stones", "text": "The stone bridge was closed."},
        {"title": "Weather", "text": "Rain falls."},
    )

    def test_distractors_are_mined_from_the_pool(self, call: Call, tmp_path: Path) -> None:
        questions = write_lines(tmp_path / "questions.jsonl", list(self.QUESTIONS))
        passages = write_lines(tmp_path / "passages.jsonl.gz", list(self.POOL))
        out = tmp_path / "examples.jsonl.gz"
        arguments = ("--questions", questions, "--passages", passages, "--out", out)
        done = call("data", "build", *arguments, "--num_distractors", 2)
        assert done.code == 0, done.err
        assert "2 questions with 2 distractors each from 5 passages" in done.err
        assert "fewer distractors" not in done.err
        first, second = read_lines(out)
        assert first["question"] == "Who built the lighthouse of Corvin?"
        # Neither the gold passage again nor the one that holds the answer; the best match first.
        titles = [passage["title"] for passage in first["passages"]]
        assert titles[:2] == ["Corvin Light", "Corvin"]
        assert len(titles) == 3
        assert "A keeper" not in titles
        assert [bool(passage.get("gold")) for passage in first["passages"]] == [True, False, False]
        assert [passage["title"] for passage in second["passages"]][:2] == ["Bridge", "Stones"]

        wanted = call("data", "build", *arguments, "--num_distractors", 4)
        assert wanted.code == 0
        assert "1 questions have fewer distractors: the pool holds no more" in wanted.err

    def test_a_missing_file_is_one_line(self, call: Call, tmp_path: Path) -> None:
        gone = tmp_path / "gone.jsonl"
        out = tmp_path / "out.jsonl"
        done = call("data", "build", "--questions", gone, "--passages", gone, "--out", out)
        assert done.code == 2
        (line,) = done.err.splitlines()
        assert str(gone) in line
        assert not out.exists()


BODY = gzip.compress(b'{"question": "who"}\n', mtime=0)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if not self.path.endswith(("gold_at_0.jsonl.gz", "gold_at_4.jsonl.gz")):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on this machine in the place of GitHub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield redirect(monkeypatch, server.server_address[1])
    server.shutdown()
    thread.join()
    server.server_close()


def redirect(monkeypatch: pytest.MonkeyPatch, port: int) -> str:
    """Let downloads go to a port of this machine."""
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    real = functools.partial(download.ensure_lim_files, base_url=url, timeout_seconds=5)
    monkeypatch.setattr(download, "ensure_lim_files", real)
    return url


class TestDataDownload:
    def test_files_are_fetched_and_named(self, call: Call, server: str, tmp_path: Path) -> None:
        done = call("data", "download", "--gold_at", "0,4", "--data_dir", tmp_path / "qa")
        assert done.code == 0, done.err
        names = [f"nq-open-20_total_documents_gold_at_{position}.jsonl.gz" for position in (0, 4)]
        for name in names:
            assert (tmp_path / "qa" / name).read_bytes() == BODY
            assert str(tmp_path / "qa" / name) in done.err.splitlines()
        assert (tmp_path / "qa" / "checksums.json").is_file()

    def test_what_the_server_lacks_is_one_line(
        self, call: Call, server: str, tmp_path: Path
    ) -> None:
        done = call("data", "download", "--gold_at", "9", "--data_dir", tmp_path)
        assert done.code == 2
        (line,) = [text for text in done.err.splitlines() if text.startswith("error:")]
        assert f"cannot download {server}/20_total_documents/" in line
        assert "404" in line
        assert not list(tmp_path.glob("*.gz"))

    def test_no_network_is_one_line_that_says_what_to_do(
        self, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        redirect(monkeypatch, port)
        done = call("data", "download", "--data_dir", tmp_path)
        assert done.code == 2
        (line,) = [text for text in done.err.splitlines() if text.startswith("error:")]
        assert "Without a network, put nq-open-20_total_documents_gold_at_0.jsonl.gz into" in line
        assert "sample_20_docs" in line

    def test_a_position_without_a_file_is_refused(self, call: Call, tmp_path: Path) -> None:
        done = call("data", "download", "--gold_at", "3", "--data_dir", tmp_path)
        assert done.code == 2
        assert "choose from 0, 4, 9, 14, 19" in done.err


class TestCompare:
    """Training, answering and reporting, on four questions and a model of random weights."""

    @pytest.fixture(scope="class")
    def home(self, tiny_mistral: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Six questions with three passages each, four for training; and a model config."""
        home = tmp_path_factory.mktemp("compare")
        examples = [
            {
                "id": f"q{number}",
                "question": f"when was bridge {number} built",
                "answers": [str(1850 + number)],
                "passages": [
                    {
                        "title": f"Bridge {number}",
                        "text": f"Built in {1850 + number}.",
                        "gold": True,
                    },
                    {"title": f"Town {number}", "text": "The town lies by the river."},
                    {"title": f"Book {number}", "text": "Written by Ada Marren."},
                ],
                "split": "train" if number < 4 else "val",
            }
            for number in range(6)
        ]
        write_lines(home / "examples.jsonl", examples)
        model = {"pretrained_model_name_or_path": str(tiny_mistral), "torch_dtype": "float32"}
        text = yaml.safe_dump({"pretrained_config": model})
        (home / "tiny.yaml").write_text(text, encoding="utf-8")
        (home / "notes.md").write_text("A note\nover two lines.\n\n- an item\n", encoding="utf-8")
        return home

    @pytest.fixture
    def compare(self, call: Call, home: Path) -> Callable[..., Done]:
        arguments = {
            "--experiment_config": "examples",
            "--data_path": home / "examples.jsonl",
            "--model_config": home / "tiny.yaml",
            "--peft_config": "lora_r8_a16_qv",
            "--total_docs": 3,
            "--gold_at": "0,2",
            "--num_train_epochs": 1,
            "--max_new_tokens": 8,
            "--run": home / "run",
            "--title": "Bridges",
            "--notes": home / "notes.md",
        }
        words = [word for pair in arguments.items() for word in pair]
        return lambda *more: call("compare", *words, *more)

    def test_everything_is_made_resumed_and_made_anew(
        self, compare: Callable[..., Done], home: Path
    ) -> None:
        folder = home / "run"
        done = compare()
        assert done.code == 0, done.err
        assert f"run folder: {folder}" in done.err
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert "Bridges" in page
        assert "A note over two lines." in page
        assert (folder / "position_curve.png").read_bytes().startswith(b"\x89PNG")
        for name in ("table.csv", "table.md", "config.yaml", "sft/adapter", "scratchpad/adapter"):
            assert (folder / name).exists()

        scores = read_lines(folder / "scores.jsonl")
        keys = [(s["method"], s["example_id"], tuple(s["gold_positions"])) for s in scores]
        assert len(set(keys)) == len(keys)
        assert {method for method, _, _ in keys} == METHODS
        # Two questions at two gold positions; once each where no position matters.
        both = [(question, (at,)) for question in ("q4", "q5") for at in (0, 2)]
        for method in ("zero_shot", "sft", "scratchpad", "rerank_then_read"):
            assert sorted(key[1:] for key in keys if key[0] == method) == both
        assert sorted(key[1:] for key in keys if key[0] == "gold_only") == [
            ("q4", (0,)),
            ("q5", (0,)),
        ]
        assert sorted(key[1] for key in keys if key[0] == "closed_book") == ["q4", "q5"]
        assert all(1 <= score["new_tokens"] <= 8 for score in scores)
        for label in ("Closed-book", "Zero-shot", "SFT", "Scratchpad", "Gold only", "Rerank"):
            assert label in done.out

        before = (folder / "scores.jsonl").read_bytes()
        trained = adapter_times(folder)
        again = compare()
        assert again.code == 0, again.err
        assert again.err.count("is trained already") == 2
        assert (folder / "scores.jsonl").read_bytes() == before
        assert adapter_times(folder) == trained

        # A line that a kill cut off is answered again, and only it.
        lines = before.splitlines(keepends=True)
        (folder / "scores.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
        assert compare().code == 0
        mended = (folder / "scores.jsonl").read_bytes().splitlines(keepends=True)
        assert mended[:-1] == lines[:-1]
        assert same_but_for_cost(json.loads(mended[-1]), json.loads(lines[-1]))

        anew = compare("--overwrite")
        assert anew.code == 0, anew.err
        assert "is trained already" not in anew.err
        assert adapter_times(folder) != trained
        repeated = read_lines(folder / "scores.jsonl")
        assert len(repeated) == len(scores)
        assert all(map(same_but_for_cost, repeated, scores))  # the seed is the same

    def test_a_checkpoint_of_the_other_method_is_refused_before_training(
        self, compare: Callable[..., Done], home: Path, tmp_path: Path
    ) -> None:
        assert compare().code == 0
        wrong = home / "run/sft/adapter"
        done = compare("--run", tmp_path / "other", "--scratchpad_checkpoint", wrong)
        assert done.code == 2
        assert "was trained as sft" in done.err
        assert not (tmp_path / "other").exists()

    def test_a_missing_checkpoint_is_refused_before_anything(
        self, compare: Callable[..., Done], home: Path
    ) -> None:
        done = compare("--run", home / "other", "--sft_checkpoint", "gone.pt")
        assert done.code == 2
        assert done.err == "error: there is no checkpoint gone.pt\n"
        assert not (home / "other").exists()

    def test_missing_notes_are_refused_before_anything(
        self, compare: Callable[..., Done], home: Path
    ) -> None:
        done = compare("--run", home / "other", "--notes", home / "gone.md")
        assert done.code == 2
        (line,) = done.err.splitlines()
        assert "gone.md" in line
        assert not (home / "other").exists()


def adapter_times(folder: Path) -> dict[str, int]:
    paths = folder.glob("*/adapter/adapter_model.safetensors")
    return {path.parts[-3]: path.stat().st_mtime_ns for path in paths}


# What an answer costs depends on which prompts were read before it.
COSTS = {
    "wall_seconds",
    "first_token_seconds",
    "prefilled_tokens",
    "drafted_tokens",
    "accepted_tokens",
    "forward_passes",
}


def same_but_for_cost(first: dict[str, Any], second: dict[str, Any]) -> bool:
    assert first.keys() >= COSTS
    return all(first[key] == second[key] for key in (first.keys() | second.keys()) - COSTS)
