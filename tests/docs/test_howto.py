"""The how-tos: their data, their scripts, and the lines that they say will be seen."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scratchpad_rag.config import ModelConfig
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.records import Example, Passage

ROOT = Path(__file__).parent.parent.parent
HOWTO = ROOT / "docs/howto"
DATA = HOWTO / "own-data"


def page(name: str) -> str:
    return (HOWTO / f"{name}.md").read_text(encoding="utf-8")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HOWTO / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(
    patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str]:
    """A command's exit code and all that it printed."""
    from scratchpad_rag.app import cli

    patch.setenv("COLUMNS", "200")
    patch.setenv("NO_COLOR", "1")
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setattr("sys.argv", ["scratchpad-rag", *map(str, arguments)])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0), "".join(capfd.readouterr())


@pytest.fixture
def velm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in that holds `mine/velm` as the how-to has it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/velm").symlink_to(DATA)
    return tmp_path


# --- The data


def test_every_answer_stands_in_its_text() -> None:
    with (DATA / "questions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    texts = {path.name: path.read_text(encoding="utf-8") for path in DATA.glob("texts/*.txt")}
    assert (len(texts), len(rows)) == (12, 36)
    for row in rows:
        assert any(answer in texts[row["gold"]] for answer in row["answers"].split("|"))
    sides = {(row["gold"], row["split"]) for row in rows}
    assert len(sides) == len(texts)  # no text is on both sides
    assert sum(row["split"] == "val" for row in rows) == 12


def test_the_page_shows_the_tables_first_lines() -> None:
    lines = (DATA / "questions.csv").read_text(encoding="utf-8").splitlines()
    assert "\n".join(["```", *lines[:3], "```"]) in page("own-data")


def test_build_and_audit_say_what_the_page_says(
    velm: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said = run(
        monkeypatch, capfd, "data", "build", "--questions", "mine/velm/questions.csv", "--passages",
        "mine/velm/texts", "--num_distractors", 9, "--out", "examples.jsonl.gz",
    )  # fmt: skip
    assert code == 0
    assert "36 questions with 9 distractors each from 12 passages in " in said
    assert "1 questions have fewer distractors: the pool holds no more" in said
    for line in ("36 questions with 9 distractors each from 12", "1 questions have fewer"):
        assert line in page("own-data")
    code, said = run(
        monkeypatch, capfd, "data", "audit", "--data_path", "examples.jsonl.gz", "--total_docs", 5
    )
    assert code == 0
    # Without a model there is one check less: whether samples fit its context.
    [count] = re.findall(r"All (\d+) checks are passed", said)
    assert f"`All {int(count) + 1} checks are passed.`" in page("own-data")


# --- The error lines


def a_table(text: str) -> list[object]:
    Path("questions.csv").write_text(text, encoding="utf-8")
    build = ["data", "build", "--questions", "questions.csv", "--passages", "mine/velm/texts"]
    return [*build, "--out", "x.jsonl"]


def a_model(text: str, *more: object) -> list[object]:
    Path("mine/model.yaml").write_text(f"pretrained_config:\n{text}", encoding="utf-8")
    command = ["evaluate", "--experiment_config", "sample_5_docs", "--num_val_samples", 2]
    return [*command, "--model_config", "mine/model.yaml", *more]


def served(*more: object) -> list[object]:
    return a_model("  pretrained_model_name_or_path: stand-in\n", "--backend", "http", *more)


NAME = "  pretrained_model_name_or_path: "
LINES = [
    (
        "own-data",
        lambda: a_table("question,answers,gold\nWho built Holm Light?,Ida Holm,Holm Lite\n"),
    ),
    ("own-data", lambda: a_table("question,reply\nWho built Holm Light?,Ida Holm\n")),
    (
        "own-data",
        lambda: [*a_table("question,answers\nWho?,Ida\n")[:5], "text", "--out", "x.jsonl"],
    ),
    (
        "own-data",
        lambda: [
            *["compare", "--experiment_config", "sample_5_docs"],
            *["--peft_config", "lora_r8_a16_all", "--gold_at", "0,9"],
        ],
    ),
    ("own-data", lambda: ["compare", "--experiment_config", "sample_5_docs"]),
    (
        "own-model",
        lambda: ["evaluate", "--experiment_config", "sample_5_docs", "--model_config", "mistral"],
    ),
    ("own-model", lambda: a_model(f"{NAME}x/y\n  rope_tetha: 1\n")),
    ("own-model", lambda: a_model(f"{NAME}a/model-that-is-not-here\n")),
    ("own-model", lambda: a_model(f"{NAME}./weights\n")),
    ("own-model", lambda: a_model(f"{NAME}weights/model.gguf\n")),
    ("api-model", lambda: served()),
    ("api-model", lambda: served("--base_url", "localhost:8000/v1")),
    (
        "api-model",
        lambda: served(
            "--base_url", "http://h/v1", "--verbatim", "--train_method", "scratchpad"
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(LINES)))
def test_the_error_lines_are_the_real_ones(
    number: int, velm: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each fits a line of its page, in which … stands for anything."""
    name, command = LINES[number]
    code, said = run(monkeypatch, capfd, *command())
    assert code == 2
    [line] = re.findall(r"^error: (.*)$", said, re.M)
    told = re.findall(r"^\| `([^`]+)` \|", page(name), re.M)
    assert len(told) > 4
    patterns = [".*".join(map(re.escape, one.split("…"))) for one in told]
    assert any(re.fullmatch(pattern, line) for pattern in patterns), line


# --- The scripts


def write_scores(folder: Path, method: str, right: dict[tuple[str, int], int]) -> None:
    from dataclasses import asdict

    from scratchpad_rag.records import Score

    folder.mkdir(exist_ok=True)
    with (folder / "scores.jsonl").open("a", encoding="utf-8") as file:
        for (question, place), value in right.items():
            given: dict[str, Any] = {
                "method": method, "example_id": question, "question": "Who?", "answers": ("she",),
                "num_documents": 5, "gold_positions": (place,), "prediction": "", "completion": "",
                "quotes": (), "parsed": True, "subspan_exact_match": float(value),
                "exact_match": 0.0, "f1": 0.0, "completion_subspan_exact_match": 0.0,
                "quote_precision": None, "quote_recall": None, "verbatim_rate": None,
                "prompt_tokens": 1, "new_tokens": 1, "forward_passes": 1, "wall_seconds": 1.0,
                "place": place,
            }  # fmt: skip
            file.write(json.dumps(asdict(Score(**given))) + "\n")


def test_paired_tells_the_mean_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paired = script("paired")
    write_scores(tmp_path / "a", "scratchpad", {("1", 0): 1, ("2", 0): 1, ("3", 0): 0, ("4", 0): 1})
    write_scores(tmp_path / "b", "zero_shot", {("1", 0): 0, ("2", 0): 0, ("3", 0): 1, ("4", 0): 1})
    write_scores(tmp_path / "b", "sft", {("9", 0): 1})
    argv = ["paired.py", f"{tmp_path}/a:scratchpad", f"{tmp_path}/b:zero_shot"]
    monkeypatch.setattr("sys.argv", argv)
    assert paired.main() == 0
    said = capsys.readouterr().out
    # 2 won, 1 lost of 4: +25 points; McNemar's exact p of 2 against 1 is 1.
    assert "+25.0 points" in said
    assert "p = 1.000, mcnemar; 4 samples, 2 better, 1 worse" in said
    monkeypatch.setattr("sys.argv", [*argv[:2], f"{tmp_path}/b:closed_book"])
    assert paired.main() == 2
    assert "holds no scores of 'closed_book'; it has sft, zero_shot" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*argv[:2], f"{tmp_path}/b:sft"])
    assert paired.main() == 2
    assert "no sample in common" in capsys.readouterr().err


@pytest.fixture
def stand_in(tiny_chat_mistral: Path) -> Iterator[Any]:
    from scratchpad_rag.models.load import load_model

    module = script("stand_in")
    loaded = load_model(ModelConfig(str(tiny_chat_mistral), torch_dtype="float32"))
    with module.StandIn(0, loaded, key="local-test") as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_the_stand_in_answers_as_the_model_does(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the http backend and by the native one: the same model, the same prompt."""
    pytest.importorskip("openai")
    from scratchpad_rag.backends.http import HttpBackend, HttpSettings
    from scratchpad_rag.backends.native import NativeBackend
    from scratchpad_rag.config import GenerateConfig
    from scratchpad_rag.errors import BackendError

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    passages = (Passage("The mill", "It stands."), Passage("Holm Light", "Ida Holm built it."))
    example = Example("q", "who built it", (), passages, ())
    settings = HttpSettings(f"http://127.0.0.1:{stand_in.server_port}/v1", 12)
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    with pytest.raises(BackendError, match=r"refused the key \(401\)"):
        list(HttpBackend("stand-in", settings).generate([render_prompt(example, Wording())]))
    monkeypatch.setenv("OPENAI_API_KEY", "local-test")
    with pytest.raises(BackendError, match=r"knows no model 'gpt' \(404\) after 1 try"):
        list(HttpBackend("gpt", settings).generate([render_prompt(example, Wording())]))
    plain = [render_prompt(example, Wording())]
    [served] = HttpBackend("stand-in", settings).generate(plain)
    native = NativeBackend(stand_in.loaded, GenerateConfig(max_new_tokens=12))
    [here] = native.generate([render_prompt(example, stand_in.loaded.wording)])
    assert (served.text, served.new_tokens) == (here.text, here.new_tokens)
    assert served.new_tokens > 0
