"""What the site's build does to pages and docstrings, without building it."""

from __future__ import annotations

import doctest
import importlib.util
import json
from types import ModuleType

import pytest

from tests.docs.conftest import ROOT

pytest.importorskip("mkdocs")
pytest.importorskip("griffe")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / f"docs/site/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = load("hooks")
docstrings = load("docstrings")


@pytest.mark.parametrize("module", [hooks, docstrings], ids=["hooks", "docstrings"])
def test_its_examples(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize(
    ("link", "place", "page", "expected"),
    [
        ("[r](README.md#two-commands)", "CHANGELOG.md", "changelog.md", "[r](index.md)"),
        ("[t](../Makefile)", "docs/a.md", "a.md", "[t](source/Makefile.md)"),
        ("[t](../../Makefile)", "docs/howto/a.md", "howto/a.md", "[t](../source/Makefile.md)"),
        ("[tests](../tests)", "docs/a.md", "a.md", "tests"),
        ("[gone](../gone.py)", "docs/a.md", "a.md", "[gone](../gone.py)"),
        ("[b](../b.md#c)", "docs/howto/a.md", "howto/a.md", "[b](../b.md#c)"),
        (
            "[x](https://example.org) [y](#z)",
            "docs/a.md",
            "a.md",
            "[x](https://example.org) [y](#z)",
        ),
    ],
)
def test_links_are_turned(link: str, place: str, page: str, expected: str) -> None:
    assert hooks.turn_links(link, place, page) == expected


def test_a_missing_heading_is_told() -> None:
    with pytest.raises(hooks.PluginError, match="no heading 'Gone'"):
        hooks.section("# A\n\n## B\n", "Gone")


def test_a_notebook_becomes_a_page() -> None:
    output = {"output_type": "stream", "text": ["12\n"]}
    picture = {"image/png": "iVBORw0K", "text/plain": ["A ", "plot"]}
    shown = {"output_type": "execute_result", "data": picture}
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": ["print(12)"], "outputs": [output, shown]},
    ]
    notebook = hooks.read_notebook(json.dumps({"cells": cells}))
    assert notebook.pictures == {"notebook-1.png": b"\x89PNG\r\n"}
    assert notebook.markdown == (
        "# Title\ntext\n\n````python\nprint(12)\n````\n\n````text\n12\n````\n\n"
        "![A plot](images/notebook-1.png)\n"
    )


def test_docstrings_become_markdown() -> None:
    given = "Raises DataError for `Reading`s, `x < 3` and a<b.\n\n    f(x)\n"
    assert docstrings.as_markdown(given) == (
        "Raises [DataError][scratchpad_rag.errors.DataError] for "
        "[`Reading`][scratchpad_rag.records.Reading]s, `x < 3` and a&lt;b.\n\n```python\nf(x)\n```"
    )


def test_linked_names_exist() -> None:
    for path in docstrings._LINKED.values():
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path
