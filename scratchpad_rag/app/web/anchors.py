"""Ids by which the panes and the strip point at each other, and the page's own style and script."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources


def passage_id(passage: int) -> str:
    """The id of a passage in the strip, by its number from 0; ids count from 1, as people do.

    >>> passage_id(6)
    'passage-7'
    """
    return f"passage-{passage + 1}"


def quote_id(reader: str, number: int) -> str:
    """The id of a reader's quote in the strip; readers that quote at once have their own.

    >>> quote_id("Scratchpad", 2)
    'quote-scratchpad-2'
    """
    return f"quote-{slug(reader)}-{number}"


def slug(name: str) -> str:
    """A name as a part of an id.

    >>> slug("Zero-shot (SFT)")
    'zero-shot-sft'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "reader"


@cache
def style() -> str:
    """The style sheet of everything drawn here, for a `<style>` element."""
    return _read("page.css")


@cache
def script() -> str:
    """The script that scrolls and flashes quotes, for a `<script>` element; may run twice."""
    return _read("page.js")


def _read(name: str) -> str:
    return (resources.files("scratchpad_rag.app.web") / name).read_text(encoding="utf-8")
