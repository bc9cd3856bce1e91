"""How all pages are rendered."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_environment() -> Environment:
    """Templates of this room: what comes from data is only ever text, a missing name an error."""
    return Environment(
        loader=PackageLoader("scratchpad_rag.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
