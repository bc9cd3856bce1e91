"""How much memory a training holds while it runs: what it needs, and little beside it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from scratchpad_rag.train.watch import resident_bytes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_ON_HEAP = 32 << 20  # the most that glibc allows
_SMALLEST_MAPPED = 1 << 20
_USUAL_TRIM = 128 << 10
_GROWTH = 1.2  # times what was held after the first update, or the first behind a trim


@contextmanager
def tensor_heap(*, lasting: bool) -> Iterator[None]:
    """How glibc keeps tensors on a CPU, within a block.

    `lasting` keeps freed memory for the next tensors: new pages are slow to come by.
    Tensors of ever other lengths leave gaps, though, near half of what they take. Without it each
    large tensor has pages of its own, which go back as soon as it does: for where memory is scarce.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP if lasting else _SMALLEST_MAPPED)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1 if lasting else _USUAL_TRIM)
    try:
        yield
    finally:
        if libc is not None:
            libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP)
            libc.mallopt(_M_TRIM_THRESHOLD, _USUAL_TRIM)
            libc.malloc_trim(0)


class TrimHeap(TrainerCallback):
    """Hands freed memory back where samples of ever other lengths left too many gaps in it."""

    def __init__(self) -> None:
        self.first = 0

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        libc = _glibc()
        if libc is None or args.device.type != "cpu":
            return
        held = resident_bytes()
        self.first = self.first or held
        if held > _GROWTH * self.first:
            libc.malloc_trim(0)
            self.first = 0


@cache
def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "gnu_get_libc_version") else None
    except OSError:
        return None
