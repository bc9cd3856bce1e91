"""The notebook: its stored outputs are whole, and a fresh run agrees with them."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
PATH = ROOT / "notebooks/dev-2.0-dataset_construct-hotpot_qa.ipynb"
Cells = list[Any]


@pytest.fixture(scope="module")
def stored() -> Cells:
    return list(nbformat.read(PATH, as_version=4).cells)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """Run from a folder of its own, as someone would who has only installed the package."""
    notebook = nbformat.read(PATH, as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    folder = tmp_path_factory.mktemp("notebook")
    client = NotebookClient(notebook, timeout=300, iopub_timeout=60, kernel_name="python3")
    before = dict(os.environ)
    os.environ |= {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "HF_HUB_OFFLINE": "1",
        "TMPDIR": str(folder),
    }
    try:
        client.execute(cwd=str(folder))
    finally:
        os.environ.clear()
        os.environ |= before
    return list(notebook.cells)


def code_cells(cells: Cells) -> Cells:
    return [cell for cell in cells if cell.cell_type == "code"]


def printed(cell: Any) -> str:
    return "".join(o.text for o in cell.outputs if o.get("name") == "stdout")


def images(cell: Any) -> list[bytes]:
    found = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
    return [base64.b64decode(image) for image in found]


def test_it_is_valid_and_its_outputs_are_stored(stored: Cells) -> None:
    nbformat.validate(nbformat.read(PATH, as_version=4))
    cells = code_cells(stored)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [o for cell in cells for o in cell.outputs if o.output_type == "error"]
    assert sum(bool(cell.outputs) for cell in cells) >= 12
    assert sum(len(images(cell)) for cell in cells) == 4
    assert all(image.startswith(b"\x89PNG") for cell in cells for image in images(cell))


def test_nothing_in_it_is_of_the_machine_it_was_run_on(stored: Cells) -> None:
    text = PATH.read_text("utf-8")
    assert not re.search(r"/(?:home|root|tmp|Users|work)/", text)
    assert len(text) < 1_000_000
    assert not [o for cell in code_cells(stored) for o in cell.outputs if o.get("name") == "stderr"]
    # Colours that code hosts would strip: images carry them instead.
    assert not [
        o for c in code_cells(stored) for o in c.outputs if "text/html" in o.get("data", {})
    ]


@pytest.mark.slow
def test_a_fresh_run_has_no_errors_and_the_same_images(stored: Cells, fresh: Cells) -> None:
    for before, now in zip(code_cells(stored), code_cells(fresh), strict=True):
        assert not [o for o in now.outputs if o.output_type == "error"]
        assert len(images(now)) == len(images(before))


@pytest.mark.slow
def test_what_follows_from_the_data_alone_is_the_same(stored: Cells, fresh: Cells) -> None:
    pairs = list(zip(code_cells(stored), code_cells(fresh), strict=True))
    stable = [(a, b) for a, b in pairs if "stable" in a.metadata.get("tags", ())]
    assert len(stable) == 10
    for before, now in stable:
        assert printed(now) == printed(before)
    shown = [(a, b) for a, b in stable if images(a)]
    assert len(shown) == 2  # samples by region, whose rows are text beside the image
    for before, now in shown:
        rows = [o.data["text/plain"] for o in (*before.outputs, *now.outputs) if "data" in o]
        assert rows[0] == rows[1]
        assert "scratchpad" in rows[0]


@pytest.mark.slow
def test_the_tiny_model_learns_and_its_quotes_are_word_for_word(fresh: Cells) -> None:
    trained, asked = (
        next(printed(c) for c in code_cells(fresh) if mark in c.source)
        for mark in ("train_and_evaluate(", "Reader.load(")
    )
    losses = [float(value) for value in re.findall(r"scratchpad (\d+\.\d+)", trained)]
    assert len(losses) >= 5
    assert losses[-1] < losses[0] - 1
    assert re.search(r"quotes passage \d \((?:not )?gold\), word for word: True", asked)
    assert "word for word: False" not in asked
