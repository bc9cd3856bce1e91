"""The page and the tables of an audit: what they tell, and text that means harm."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from scratchpad_rag.data.audit_records import (
    Audit,
    Finding,
    Histogram,
    Instance,
    Lengths,
    Verdict,
)
from scratchpad_rag.report.audit import AuditContext, write_audit
from scratchpad_rag.report.audit_tables import audit_tables, index_groups, summary_line
from tests.report.test_report import Page

EVIL = "<script>alert('x')</script>\x07"
MARKS = (0, 5, 25, 50, 75, 95, 99, 100)


def an_audit(*verdicts: Verdict, **changes: object) -> Audit:
    findings = tuple(
        Finding(
            check=f"check{n}",
            title=f"Check {n}",
            verdict=verdict,
            told=f"{n} of 9 are wrong",
            count=7,
            total=9,
            advice="Put it right.",
            instances=()
            if verdict is Verdict.OK
            else (Instance(f"q{n}", f"Who is {EVIL}?", (("answer", EVIL), ("gold 0", "Ida"))),),
        )
        for n, verdict in enumerate(verdicts)
    )
    percentiles = {
        part: {mark: 10 * place + mark for mark in MARKS}
        for place, part in enumerate(("prompt", "scratchpad", "answer", "whole"))
    }
    fields: dict[str, object] = {
        "files": ("set.jsonl",),
        "questions": 1234,
        "passages": 24680,
        "distinct_passages": 9999,
        "train_questions": 1000,
        "val_questions": 234,
        "split_by": "the field 'split' of the file",
        "findings": findings,
        "histograms": (
            Histogram("gold_in_file", "First gold passage in the file", "index", {0: 5, 9: 3}),
            Histogram("passages", "Passages", "passages", {20: 8}),
        ),
        "lengths": Lengths("tokens", 50, 1234, percentiles, tuple(range(50)), 60, 3),
        "seconds": 75.0,
    }
    return Audit(**(fields | changes))  # type: ignore[arg-type]


def write(audit: Audit, folder: Path) -> Page:
    context = AuditContext("Audit of <set>", "scratchpad-rag data audit", 1_500_000_000)
    return Page(write_audit(audit, folder, context))


def test_the_page_tells_checks_findings_and_how_it_was_made(tmp_path: Path) -> None:
    page = write(an_audit(Verdict.OK, Verdict.LOOK, Verdict.REFUSE), tmp_path)
    assert "Audit of <set>" in page.text
    assert "1 check to refuse the data for and 1 check to look at, 1 passed." in page.text
    assert ["Check 1", "! look at this", "1 of 9 are wrong"] in page.rows
    assert ["Check 0", "✓ ok", "0 of 9 are wrong"] in page.rows
    # What is to be refused comes first, and what is in order has no section.
    assert page.text.index("2 of 9 are wrong. Put it right.") < page.text.index(
        "1 of 9 are wrong. Put it right."
    )
    assert "0 of 9 are wrong. Put it right." not in page.text
    assert "The first 1 of 7." in page.text
    assert "1,234 questions with 24,680 passages, 9,999 of them distinct" in page.text
    assert "1 min 15 s and 1.5 GB of memory at most" in page.text
    assert "50 drawn of 1,234 samples" in page.text
    assert page.headings[0] == 1
    assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False))


def test_what_comes_from_the_data_is_only_text(tmp_path: Path) -> None:
    page = write(an_audit(Verdict.REFUSE), tmp_path)
    assert not [tag for tag, _ in page.tags if tag in ("script", "img", "link")]
    assert page.text.count("<script>") >= 2
    assert not re.search("[\x00-\x08\x1b]", page.source)
    assert not re.search(r'(?:src|href)="(?!#)', page.source)


def test_figures_are_there_for_wide_and_for_narrow_screens_and_are_read_out(
    tmp_path: Path,
) -> None:
    page = write(an_audit(Verdict.OK), tmp_path)
    told = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    assert len(told) == 6  # places, lengths and counts, twice each
    assert told[0] == "First gold passage in the file: 5 at 0, 3 at 9."
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_json_is_the_same_without_the_lengths_of_single_samples(tmp_path: Path) -> None:
    audit = an_audit(Verdict.LOOK)
    write(audit, tmp_path)
    content = json.loads((tmp_path / "audit.json").read_text("utf-8"))
    assert content["verdict"] == "look at this"
    assert content["questions"] == 1234
    (finding,) = content["findings"]
    assert finding["instances"][0]["shown"] == {"answer": EVIL, "gold 0": "Ida"}
    assert content["lengths"]["percentiles"]["answer"]["50"] == 70
    assert "wholes" not in content["lengths"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.html", "audit.json"]


def test_an_audit_without_samples_and_gold_has_a_page(tmp_path: Path) -> None:
    bare = an_audit(lengths=None, histograms=(Histogram("passages", "Passages", "p", {1: 1}),))
    page = write(bare, tmp_path)
    assert "How long samples are" not in page.text
    assert "Nothing that asks for a look." in page.text


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        ((Verdict.OK, Verdict.OK), "All 2 checks are passed."),
        ((Verdict.LOOK, Verdict.OK, Verdict.LOOK), "2 checks to look at, 1 passed."),
        ((Verdict.REFUSE,), "1 check to refuse the data for, 0 passed."),
    ],
)
def test_the_sum_of_it_in_a_sentence(verdicts: tuple[Verdict, ...], told: str) -> None:
    assert summary_line(an_audit(*verdicts)) == told


def test_the_terminals_tables_fit_80_columns_and_take_text_literally() -> None:
    console = Console(width=80, record=True, file=io.StringIO(), color_system=None)
    console.print(audit_tables(an_audit(Verdict.LOOK, Verdict.OK)))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"Check 0 +! look at this +0 of 9 are wrong", text)
    assert "such as q0: Who is <script>" in text
    assert "\x07" not in text
    assert re.search(r"0 +█{24} 5", text)
    assert re.search(r"9 +█{14} 3", text)  # 24 * 3 / 5, rounded
    assert re.search(r"Whole sample +30 +35 +55 +80 +105 +125 +129 +130", text)


def test_many_indices_are_put_together_in_runs_of_equal_width() -> None:
    groups = index_groups(list(range(100)))
    assert groups[0] == [0, 1, 2, 3, 4]  # 100 over 24 rows
    assert [index for group in groups for index in group] == list(range(100))


def test_the_page_needs_neither_torch_nor_pyplot() -> None:
    code = (
        "import sys, scratchpad_rag.report.audit, scratchpad_rag.report.regions; "
        "print([m for m in ('torch', 'transformers', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
