"""Compiling, and doing without: no compiler, a broken one, and two processes at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from scratchpad_rag.kernels import build
from scratchpad_rag.kernels.build import cpu_kernels, why_no_kernels
from tests.train.tiny import ONE_UPDATE, SAMPLES, run, tiny_lm, with_lora

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(cpu_kernels() is None, reason="needs AVX512-bf16 and a compiler")


def forget() -> None:
    build._found.cache_clear()
    cpu_kernels.cache_clear()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home where nothing was compiled yet."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    forget()
    yield folder
    forget()


@pytest.fixture(scope="module")
def library() -> Path:
    """The file that was compiled in earnest."""
    kernels = cpu_kernels()
    assert kernels is not None
    return Path(kernels._name)


def compiler(folder: Path, body: str) -> str:
    """A program in the compiler's place; its last argument is the file to write."""
    path = folder / "compiler"
    path.write_text(f'#!/bin/sh\nfor out in "$@"; do :; done\n{body}\n')
    path.chmod(0o755)
    return str(path)


def loss_of_an_update(folder: Path) -> float:
    model = with_lora(tiny_lm(dtype=torch.bfloat16))
    return run(model, SAMPLES, ONE_UPDATE, folder, low_precision=True).log[0]["loss"]


def _no_path(patch: pytest.MonkeyPatch, home: Path) -> str:
    patch.delenv("CXX", raising=False)
    patch.setenv("PATH", "")
    return "there is no C++ compiler (g++ or clang++)"


def _switched_off(patch: pytest.MonkeyPatch, home: Path) -> str:
    patch.setenv("SCRATCHPAD_RAG_KERNELS", "0")
    return "SCRATCHPAD_RAG_KERNELS is 0"


def _false(patch: pytest.MonkeyPatch, home: Path) -> str:
    patch.setenv("CXX", "/bin/false")
    return "the compiler /bin/false failed"


def _failing(patch: pytest.MonkeyPatch, home: Path) -> str:
    path = compiler(home, 'echo "no space left" >&2; echo more >&2; exit 1')
    patch.setenv("CXX", path)
    return f"the compiler {path} failed: no space left"


def _no_program(patch: pytest.MonkeyPatch, home: Path) -> str:
    path = compiler(home, "")
    Path(path).write_text("#!/nowhere/interpreter\n")
    patch.setenv("CXX", path)
    return "they cannot be kept in ~/.cache/scratchpad-rag: [Errno 2] No such file"


def _nonsense(patch: pytest.MonkeyPatch, home: Path) -> str:
    patch.setenv("CXX", compiler(home, 'echo nonsense > "$out"'))
    return "they cannot be kept in ~/.cache/scratchpad-rag: "


def _no_folder(patch: pytest.MonkeyPatch, home: Path) -> str:
    (home / ".cache").write_text("a file")
    return "they cannot be kept in ~/.cache/scratchpad-rag: "


@pytest.mark.parametrize(
    "lack", [_no_path, _switched_off, _false, _failing, _no_program, _nonsense, _no_folder]
)
def test_without_them_training_is_by_pytorchs_own_operations(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lack: Callable[[pytest.MonkeyPatch, Path], str],
) -> None:
    reason = lack(monkeypatch, home)
    assert cpu_kernels() is None
    without = loss_of_an_update(tmp_path / "without")
    lacked = why_no_kernels()
    assert lacked is not None
    assert lacked.startswith(reason)
    assert "\n" not in lacked
    assert not list(home.rglob("*.so"))
    monkeypatch.undo()
    forget()
    assert cpu_kernels() is not None
    assert why_no_kernels() is None
    assert without == pytest.approx(loss_of_an_update(tmp_path / "with"), rel=0.01)


def test_a_file_that_a_crash_left_empty_is_compiled_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, library: Path
) -> None:
    path = compiler(home, f'cp "{library}" "$out"')
    monkeypatch.setenv("CXX", path)
    made = build._compiled(path)
    whole = made.read_bytes()
    made.write_bytes(b"")
    assert cpu_kernels() is not None
    assert made.read_bytes() == whole


def test_processes_that_compile_at_a_time_see_whole_files_only(home: Path, library: Path) -> None:
    half = f'head -c 4096 "{library}" > "$out"; sleep 0.5; cp "{library}" "$out"'
    environment = {
        **os.environ,
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "CXX": compiler(home, half),
    }
    code = "from scratchpad_rag.kernels.build import *; print(cpu_kernels(), why_no_kernels())"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert all(".so" in line and line.endswith("None\n") for line in said), said
    cache = home / ".cache/scratchpad-rag"
    assert [path.suffix for path in cache.iterdir()] == [".so"]  # and no work folders
