"""The verb `report`, from its command line to the page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scratchpad_rag.app.cli import main
from tests.report.synthetic import grid, write_run


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["scratchpad-rag", "report", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_writes_the_page_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", *grid(("nq",), ("sft",), (5,), questions=6, places=2))
    notes = tmp_path / "notes.md"
    notes.write_text("It is made up.\n")
    out = tmp_path / "new" / "out"
    arguments = (run, "--out", out, "--title", "Six questions", "--notes", notes)
    assert _run(monkeypatch, *arguments) == 0
    assert str(out / "report.html") in capsys.readouterr().err
    page = (out / "report.html").read_text("utf-8")
    assert '<h1 dir="auto">Six questions</h1>' in page
    assert "It is made up." in page
    assert 'scratchpad-rag</span> <span class="word">report' in page


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        (("absent",), "absent: no such run; name a folder that holds scores.jsonl"),
        (("bare",), "scores.jsonl: no score file"),
        (("one", "other"), "one and other answered different questions"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(
    runs: tuple[str, ...],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bare").mkdir()
    for name, seed in (("one", 0), ("other", 1)):
        made = grid(("nq",), ("sft",), (5,), questions=3, places=2, seed=seed)
        write_run(tmp_path / name, *made)
    out = tmp_path / "out"
    assert _run(monkeypatch, *(tmp_path / run for run in runs), "--out", out) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert problem in lines[0]
    assert not out.exists()
