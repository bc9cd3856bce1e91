"""Docstrings of this house as Markdown: examples marked up, comments beside fields in tables.

A Griffe extension: it reads the source and imports nothing of it.
"""

from __future__ import annotations

import io
import re
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

_CODE = re.compile(r"(``[^`]+``|`[^`]+`)")
_RECORDS = ("Completion", "Encoded", "Example", "Method", "Passage", "Piece", "Quote", "Reading")
_RECORDS += ("Region", "Rendered", "Request", "Score", "Span")
_ERRORS = ("User", "Config", "Data", "Checkpoint", "Model", "SampleTooLong", "Training", "Backend")
_LINKED = {name: f"scratchpad_rag.records.{name}" for name in _RECORDS}
_LINKED |= {f"{name}Error": f"scratchpad_rag.errors.{name}Error" for name in _ERRORS}
_ERROR = re.compile(rf"\b({'|'.join(_ERRORS)})Error\b")


class HouseDocstrings(griffe.Extension):
    """Runs over the whole package once it is read."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        for module in _modules(pkg):
            comments = comments_of(module)
            for item in _objects(module):
                if item.docstring is not None:
                    item.docstring.value = as_markdown(item.docstring.value)
                if isinstance(item, griffe.Class):
                    _tell_fields(item, comments)
                if item.name.startswith("__"):
                    item.public = False  # what Python calls by itself
            for attribute in module.attributes.values():
                _tell(attribute, comments)


def as_markdown(text: str) -> str:
    """A docstring with doctests and indented code in fences, and the rest as plain prose.

    >>> as_markdown("Sum of <n>.\\n\\n>>> 1 + 1\\n2\\n")
    'Sum of &lt;n>.\\n\\n```pycon\\n>>> 1 + 1\\n2\\n```'
    """
    return "\n\n".join(_block(block) for block in re.split(r"\n\s*\n", text.strip("\n")))


def _block(block: str) -> str:
    if block.lstrip().startswith(">>>"):
        return f"```pycon\n{textwrap.dedent(block)}\n```"
    if all(line.startswith("    ") for line in block.splitlines()):
        return f"```python\n{textwrap.dedent(block)}\n```"
    return _inline(block)


def _inline(text: str) -> str:
    """Prose with its code as it is; names that the reference has a heading for are linked."""
    pieces = _CODE.split(text)
    return "".join(_code(p) if number % 2 else _plain(p) for number, p in enumerate(pieces))


def _code(text: str) -> str:
    place = _LINKED.get(text.strip("`"))
    return f"[{text}][{place}]" if place else text


def _plain(text: str) -> str:
    safe = text.replace("<", "&lt;").replace("*", "\\*")
    return _ERROR.sub(lambda found: f"[{found[0]}][{_LINKED[found[0]]}]", safe)


def comments_of(module: griffe.Module) -> dict[int, str]:
    """Line -> the text of the comment on it."""
    path = module.filepath
    assert isinstance(path, Path)
    source = io.StringIO(path.read_text(encoding="utf-8"))
    return {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(source.readline)
        if token.type == tokenize.COMMENT
    }


def _comment(attribute: griffe.Attribute, comments: dict[int, str]) -> str:
    """What stands beside an attribute, and goes on in lines of comments below it."""
    first, last = attribute.lineno, attribute.endlineno
    if first is None or last is None:
        return ""
    return " ".join(comments[line] for line in range(first, last + 1) if line in comments)


def _tell(attribute: griffe.Attribute, comments: dict[int, str]) -> None:
    comment = _comment(attribute, comments)
    if comment and attribute.docstring is None:
        attribute.docstring = griffe.Docstring(_inline(comment), parent=attribute)


def _tell_fields(record: griffe.Class, comments: dict[int, str]) -> None:
    """Fields as a table under the docstring; attributes that nothing is said of are hidden."""
    fields = [
        item
        for name, item in record.attributes.items()
        if not name.startswith("_") and "property" not in item.labels and not item.is_alias
    ]
    told = {item.name: _comment(item, comments) for item in fields}
    for item in fields:
        if item.docstring is None:
            item.public = False
    bases = {str(base).rpartition(".")[2] for base in record.bases}
    is_record = "NamedTuple" in bases or any(
        str(decorator.value).startswith("dataclass") for decorator in record.decorators
    )
    if bases & {"StrEnum", "Enum", "IntEnum"}:
        rows = [(f"`{f.name}`", f"`{f.value}`", _inline(told[f.name])) for f in fields]
        _append(record, _table(("name", "value", "what it is"), rows))
    elif is_record and fields and ("NamedTuple" in bases or any(told.values())):
        rows = [(f"`{f.name}`", f"`{f.annotation}`", _inline(told[f.name])) for f in fields]
        _append(record, _table(("field", "type", "what it is"), rows))


def _append(record: griffe.Class, table: str) -> None:
    if record.docstring is None:
        record.docstring = griffe.Docstring(table, parent=record)
    else:
        record.docstring.value += f"\n\n{table}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not any(row[-1] for row in rows):  # nothing is said of any
        head, rows = head[:-1], [row[:-1] for row in rows]
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _modules(module: griffe.Module) -> Iterator[griffe.Module]:
    yield module
    for inner in module.modules.values():
        if not inner.is_alias:
            yield from _modules(inner)


def _objects(item: griffe.Module | griffe.Class) -> Iterator[griffe.Object]:
    """A module or class, what is defined in it, and what is defined in its classes."""
    yield item
    for member in item.members.values():
        if isinstance(member, griffe.Class):
            yield from _objects(member)
        elif isinstance(member, griffe.Function | griffe.Attribute):
            yield member
