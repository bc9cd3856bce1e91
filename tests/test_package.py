"""The wheel holds what the verbs need and nothing else, and importing it does nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "matplotlib", "peft", "accelerate", "bm25s")
STRAYS = (  # what lies about in a checkout that was used, and belongs to no wheel
    "runs/sample/scores.jsonl",
    "data/qa_data/nq-open-20_total_documents_gold_at_0.jsonl.gz",
    "data/qa_data/checksums.json",
    "checkpoints/mistral_7b/scratchpad_rag.pt",
    "scratchpad_rag/__pycache__/records.cpython-311.pyc",
    ".venv/lib/stray.py",
)


class Installed(NamedTuple):
    """The wheel, the folder it was installed into, an empty folder to work from, and a home."""

    wheel: Path
    folder: Path
    empty: Path
    home: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Python with the installed package alone in reach, not the checkout."""
        return subprocess.run(
            [sys.executable, "-P", *arguments],
            cwd=self.empty,
            env=environment(PYTHONPATH=str(self.folder), HOME=str(self.home)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )


def environment(**more: str) -> dict[str, str]:
    plain = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return inherited | plain | more


def checkout_files() -> list[str]:
    """Tracked files, and those that git would track, as they stand now."""
    if not (ROOT / ".git").exists():
        pytest.skip("the files of the wheel are told by git, and this is no git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    base = tmp_path_factory.mktemp("package")
    source, folder, empty, home = (base / name for name in ("source", "in", "empty", "home"))
    for name in checkout_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    for name in STRAYS:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("stray", encoding="utf-8")
    empty.mkdir()
    home.mkdir()
    python(source, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(base))
    (wheel,) = base.glob("*.whl")
    options = ["--no-deps", "--no-index", "--no-compile", "--quiet"]
    python(base, "-m", "pip", "install", *options, "--target", str(folder), str(wheel))
    return Installed(wheel, folder, empty, home)


def python(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_and_what_it_reads(installed: Installed) -> None:
    held = set(zipfile.ZipFile(installed.wheel).namelist())
    carried = {
        "configs/": "_resources/configs/",
        "data/qa_data/sample/": "_resources/data/qa_data/",
    }
    expected = {name for name in checkout_files() if name.startswith("scratchpad_rag/")}
    for name in checkout_files():
        for folder, target in carried.items():
            if name.startswith(folder):
                inside = name.removeprefix("data/qa_data/").removeprefix("configs/")
                expected.add(f"scratchpad_rag/{target}{inside}")
    assert expected <= held
    ends = [name.rpartition("/")[2] for name in held]
    assert "py.typed" in ends
    assert "report.html.j2" in ends
    assert sum("/data/encyclopedia/" in name and name.endswith(".yaml") for name in held) > 20
    assert "scratchpad_rag/_resources/configs/model/mistral_7b.yaml" in held
    assert "scratchpad_rag/_resources/data/qa_data/sample/questions.jsonl.gz" in held


def test_the_wheel_holds_nothing_else(installed: Installed) -> None:
    held = zipfile.ZipFile(installed.wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in held} == {"scratchpad_rag"}
    resources = [name.split("_resources/")[1] for name in held if "_resources/" in name]
    assert {name.split("/")[0] for name in resources} <= {"configs", "data", "checkpoints"}
    data = {name for name in resources if name.startswith("data/")}
    assert all(name.startswith("data/qa_data/sample/") for name in data)
    for name in held:
        assert not re.search(r"(^|/)(tests?|runs|shared|notebooks|benchmarks|docs)/", name), name
        assert not name.endswith((".pyc", ".log", ".ipynb")), name
    archive = zipfile.ZipFile(installed.wheel)
    assert not [name for name in held if archive.read(name) == b"stray"]
    assert not any("/mistral_7b/" in name for name in held)
    # Large files have no place in it, apart from the adapters of the packaged model.
    sizes = {
        i.filename: i.file_size for i in archive.infolist() if "checkpoints/" not in i.filename
    }
    assert max(sizes.values()) < 5_000_000, max(sizes, key=lambda name: sizes[name])


def test_the_wheel_carries_licence_and_entry_point(installed: Installed) -> None:
    (information,) = installed.folder.glob("scratchpad_rag-*.dist-info")
    assert (information / "licenses/LICENSE").is_file()
    told = (information / "METADATA").read_text(encoding="utf-8")
    assert "License-Expression: Apache-2.0" in told
    assert "Requires-Python: >=3.11" in told
    assert re.search(r"^Requires-Dist: torch>=", told, re.MULTILINE)
    points = (information / "entry_points.txt").read_text(encoding="utf-8")
    assert "scratchpad-rag = scratchpad_rag.app.cli:main" in points


def test_the_command_runs_outside_the_checkout(installed: Installed) -> None:
    script = installed.folder / "bin" / "scratchpad-rag"
    done = installed.run(str(script), "--help")
    assert done.returncode == 0, done.stderr
    for verb in ("train", "evaluate", "compare", "doctor", "data"):
        assert re.search(rf"^\s+{verb}\b", done.stdout, re.MULTILINE)
    assert list(installed.empty.iterdir()) == []


def test_doctor_runs_outside_the_checkout(installed: Installed) -> None:
    done = installed.run(str(installed.folder / "bin" / "scratchpad-rag"), "doctor")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^torch +\d+\.\d+", done.stdout, re.MULTILINE)
    assert re.search(r"^mistral_7b +\d+\.\d GiB", done.stdout, re.MULTILINE)


_USE = """
import json, sys
from pathlib import Path
import scratchpad_rag
from scratchpad_rag.config import DataConfig, build, config_names, load_config, load_experiment
from scratchpad_rag.data.sample_world import load_encyclopedia
from scratchpad_rag.data.select import select_samples
from scratchpad_rag.evaluate.summary import summarise
from scratchpad_rag.records import EvalSplit, Score
from scratchpad_rag.report.html import ReportContext, render_page

experiment, warnings = load_experiment("sample_5_docs")
said = []
chosen = select_samples(build(DataConfig, experiment["data"], "x"), EvalSplit.ALL, said.append)
config, _ = load_config("quickstart", "smollm2_135m", "lora_r8_a16_all", {})
scores = [
    Score(
        method="zero_shot", example_id=f"q{n}", question="who", answers=("Ada",), num_documents=5,
        gold_positions=(n % 5,), prediction="Ada", completion=" Ada", quotes=(), parsed=True,
        subspan_exact_match=1.0, exact_match=1.0, f1=1.0, completion_subspan_exact_match=1.0,
        quote_precision=None, quote_recall=None, verbatim_rate=None, prompt_tokens=9,
        new_tokens=2, forward_passes=2, wall_seconds=0.1,
    )
    for n in range(10)
]
context = ReportContext("A title", "Five", {"Seed": "0"}, "scratchpad-rag compare", [], 1.0)
page = render_page(scores, summarise(scores), context)
print(json.dumps({
    "file": scratchpad_rag.__file__,
    "version": scratchpad_rag.__version__,
    "warnings": warnings,
    "train": len({e.id for e in chosen.train}),
    "val": len({e.id for e in chosen.val}),
    "shown": sorted({len(e.passages) for e in chosen.val}),
    "models": config_names("model"),
    "rank": config.peft.kwargs["r"],
    "kinds": len(load_encyclopedia().kinds),
    "titled": "A title" in page and page.lstrip().lower().startswith("<!doctype html>"),
    "styled": "</style>" in page,
}))
"""


def test_configs_data_and_templates_are_found_outside_the_checkout(installed: Installed) -> None:
    done = installed.run("-c", _USE)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert Path(told["file"]).is_relative_to(installed.folder)
    assert not Path(told["file"]).is_relative_to(ROOT)
    assert told["version"] != "0+unknown"
    assert told["warnings"] == []
    assert told["val"] > 900
    assert told["train"] > 1800
    assert told["shown"] == [5]
    assert {"mistral_7b", "smollm2_135m", "qwen3_4b"} <= set(told["models"])
    assert told["rank"] == 8
    assert told["kinds"] > 20
    assert told["titled"]
    assert told["styled"]
    assert list(installed.empty.iterdir()) == []


_IMPORT = """
import json, logging, os, sys, warnings
before = dict(os.environ)
filters = list(warnings.filters)
import MODULE
print(json.dumps({
    "modules": sorted({name.split(".")[0] for name in sys.modules}),
    "same_environment": dict(os.environ) == before,
    "same_filters": warnings.filters == filters,
    "handlers": [str(handler) for handler in logging.getLogger().handlers],
    "level": logging.getLogger().level,
}))
"""


@pytest.mark.parametrize("module", ["scratchpad_rag", "scratchpad_rag.app.cli"])
def test_importing_does_nothing_else(module: str, tmp_path: Path) -> None:
    told = json.loads(python(tmp_path, "-c", _IMPORT.replace("MODULE", module)))
    assert "scratchpad_rag" in told["modules"]
    assert set(HEAVY) & set(told["modules"]) == set()
    assert told["same_environment"]
    assert told["same_filters"]
    assert told["handlers"] == []
    assert told["level"] == 30  # logging.WARNING, as Python has it
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ["-c", "from scratchpad_rag.app.cli import main; main()"],
        ["main.py"],
        ["evaluate_nq_lim.py"],
        ["demo.py"],
    ],
    ids=["scratchpad-rag", "main", "evaluate_nq_lim", "demo"],
)
def test_help_loads_no_torch(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command, "--help"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "usage" in done.stdout.lower()
    loaded = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "scratchpad_rag.app.flags" in loaded
    assert set(HEAVY) & loaded == set()
