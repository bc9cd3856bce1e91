"""How much memory a training takes: kept low while it runs, and told before anything is loaded."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_SMALLEST_MAPPED = 1 << 20
_USUAL_LARGEST = 32 << 20  # what glibc's own threshold can grow to


@contextmanager
def unfragmented_heap() -> Iterator[None]:
    """Give each tensor of a megabyte or more pages of its own, within a block.

    On glibc's heap tensors of ever other sizes leave gaps between those that live on: a training
    held up to twice what it needed after a dozen samples, and more with each. Pages of their own go
    back as soon as a tensor does; in time the difference was too small to measure.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _SMALLEST_MAPPED)
    try:
        yield
    finally:
        if libc is not None:
            libc.mallopt(_M_MMAP_THRESHOLD, _USUAL_LARGEST)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "gnu_get_libc_version") else None
    except OSError:
        return None
