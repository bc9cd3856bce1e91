"""Readers for retrieval-augmented question answering that quote their evidence, then answer.

    from scratchpad_rag import Reader

Importing this package imports no torch: what a name needs is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scratchpad_rag.errors import UserError
    from scratchpad_rag.reader import Reader
    from scratchpad_rag.records import Passage, Quote, Reading

__all__ = ["Passage", "Quote", "Reader", "Reading", "UserError", "__version__"]

_MODULES = {
    "Passage": "scratchpad_rag.records",
    "Quote": "scratchpad_rag.records",
    "Reader": "scratchpad_rag.reader",
    "Reading": "scratchpad_rag.records",
    "UserError": "scratchpad_rag.errors",
}

try:
    __version__ = version("scratchpad-rag")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
