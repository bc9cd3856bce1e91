"""Compiles the kernels for this processor, once, with the system's C++ compiler.

They need AVX512-bf16 and g++ or clang++; without them callers do with PyTorch's own operations.
The library is kept in the user's cache under a name made from sources, flags and compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

_SOURCES = ("simd.h", "attention.cpp", "pointwise.cpp")
_FLAGS = (
    *("-O3", "-std=c++17", "-fopenmp", "-shared", "-fPIC", "-w", "-mfma"),
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16"),
)
_NAMES = (
    *("attention_forward", "attention_backward", "rms_norm_forward", "rms_norm_backward"),
    *("swiglu_forward", "swiglu_backward", "cross_entropy"),
)
_FOLDER = "~/.cache/scratchpad-rag"
# Set to 0, nothing is compiled: for comparisons, and where a compiler misbehaves.
_SWITCH = "SCRATCHPAD_RAG_KERNELS"


@cache
def cpu_kernels() -> ctypes.CDLL | None:
    """The compiled kernels; None where the processor, a compiler or the system lacks what it takes.

    `why_no_kernels` says what is missing.
    """
    return _found()[0]


def why_no_kernels() -> str | None:
    """What is missing for the kernels, in a few words; None if nothing is."""
    return _found()[1]


@cache
def _found() -> tuple[ctypes.CDLL | None, str | None]:
    """The library, or why there is none."""
    missing = _missing()
    if missing is not None:
        return None, missing
    compiler = _compiler()
    assert compiler is not None
    try:
        return _library(compiler), None
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").split("\n")[0]
        return None, f"the compiler {compiler} failed" + (f": {said}" if said else "")
    except (OSError, RuntimeError, AttributeError) as error:  # a home of no one, a library cut
        return None, f"they cannot be kept in {_FOLDER}: {error}"


def _missing() -> str | None:
    if os.environ.get(_SWITCH) == "0":
        return f"{_SWITCH} is 0"
    if sys.platform != "linux":
        return "they are compiled on Linux only"
    if not torch.cpu.get_capabilities().get("avx512_bf16"):
        return "this processor has no AVX512-bf16"
    if _compiler() is None:
        return "there is no C++ compiler (g++ or clang++)"
    return None


def _library(compiler: str) -> ctypes.CDLL:
    try:
        return _loaded(_compiled(compiler))
    except (OSError, AttributeError):  # an empty file, or another program's, which is gone now
        return _loaded(_compiled(compiler))


def _loaded(path: Path) -> ctypes.CDLL:
    """Raises OSError or AttributeError for a file that is not whole, which is removed."""
    try:
        library = ctypes.CDLL(str(path))
        for name in _NAMES:
            getattr(library, name).restype = None
    except (OSError, AttributeError):
        path.unlink(missing_ok=True)
        raise
    return library


def _compiler() -> str | None:
    named = os.environ.get("CXX")
    return next(
        (
            p
            for p in map(shutil.which, (named, "g++", "clang++") if named else ("g++", "clang++"))
            if p
        ),
        None,
    )


def _compiled(compiler: str) -> Path:
    """The library in the cache, compiled now if it is not there.

    Raises OSError or SubprocessError where that is not possible.
    """
    here = Path(__file__).parent
    digest = hashlib.sha256(" ".join([compiler, *_FLAGS]).encode())
    for name in _SOURCES:
        digest.update((here / name).read_bytes())
    folder = Path(_FOLDER).expanduser()
    target = folder / f"kernels-{digest.hexdigest()[:16]}.so"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        made = Path(work) / target.name
        sources = [str(here / name) for name in _SOURCES if name.endswith(".cpp")]
        command = [compiler, *_FLAGS, *sources, "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with made.open("rb") as file:
            os.fsync(file.fileno())  # else a crash may leave the name and not what it names
        made.replace(target)  # whole or absent, also where several processes compile at a time
    return target
