"""An audit in the terminal: a line a check, where gold passages stand, and how long samples are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from scratchpad_rag.data.audit_lengths import PERCENTILES
from scratchpad_rag.data.audit_records import Audit, Histogram, Lengths, Verdict
from scratchpad_rag.report.labels import NOTHING, clean, count

STYLES = {Verdict.OK: "green", Verdict.LOOK: "bold yellow", Verdict.REFUSE: "bold red"}
SIGNS = {Verdict.OK: "✓", Verdict.LOOK: "!", Verdict.REFUSE: "✗"}
PARTS = {
    "prompt": "Prompt",
    "scratchpad": "Scratchpad",
    "answer": "Answer",
    "whole": "Whole sample",
}
_MOST_ROWS = 24  # of a histogram; more indices are put together
_WIDEST = 24  # columns of a bar


def summary_line(audit: Audit) -> str:
    """What the checks come to, in a sentence.

    It names what is to be refused first, since nothing else matters as long as that is there.
    """
    graver = {
        verdict: sum(finding.verdict is verdict for finding in audit.findings)
        for verdict in Verdict
    }
    refused, looked = graver[Verdict.REFUSE], graver[Verdict.LOOK]
    if not refused and not looked:
        return f"All {len(audit.findings)} checks are passed."
    parts = []
    if refused:
        parts.append(f"{count(refused, 'check')} to refuse the data for")
    if looked:
        parts.append(f"{count(looked, 'check')} to look at")
    return f"{' and '.join(parts)}, {graver[Verdict.OK]} passed."


def audit_tables(audit: Audit) -> RenderableType:
    """All that the terminal shows: 80 columns hold it."""
    parts: list[RenderableType] = [_checks(audit)]
    places = [h for h in audit.histograms if h.name.startswith("gold_in_") and h.counts]
    if places:
        parts.append(_places(places))
    if audit.lengths is not None:
        parts.append(_lengths(audit.lengths))
    return Group(*parts, Text(summary_line(audit), STYLES[audit.verdict]))


def _checks(audit: Audit) -> Table:
    table = Table(
        title=Text(
            f"{count(audit.questions, 'question')} ({audit.train_questions:,} to train on, "
            f"{audit.val_questions:,} to validate on, by {audit.split_by}), "
            f"{count(audit.passages, 'passage')}"
        ),
        title_justify="left",
        title_style="",
        box=SIMPLE_HEAD,
        header_style="bold",
    )
    table.add_column("Check", overflow="fold", ratio=4)
    table.add_column("Verdict", no_wrap=True)
    table.add_column("Found", overflow="fold", ratio=6)
    for finding in audit.findings:
        verdict = f"{SIGNS[finding.verdict]} {finding.verdict}"
        found = Text(clean(finding.told))
        for instance in finding.instances[:1] if finding.verdict is not Verdict.OK else ():
            found.append(f"\nsuch as {instance.example_id}: ", "dim")
            found.append(clean(" ".join(instance.question.split()))[:90], "dim")
        table.add_row(finding.title, Text(verdict, STYLES[finding.verdict]), found)
    return table


def _places(histograms: Sequence[Histogram]) -> Table:
    table = Table(
        title="Index of the first gold passage (0 = first)",
        title_justify="left",
        title_style="",
        box=SIMPLE_HEAD,
        header_style="bold",
    )
    table.add_column("Index", justify="right")
    names = {"gold_in_file": "In the file", "gold_in_training": "In training"}
    for histogram in histograms:
        table.add_column(names.get(histogram.name, "In validation"), no_wrap=True)
    groups = index_groups(sorted({index for h in histograms for index in h.counts}))
    columns = [[sum(h.counts.get(i, 0) for i in group) for group in groups] for h in histograms]
    for row, group in enumerate(groups):
        label = str(group[0]) if len(group) == 1 else f"{group[0]}–{group[-1]}"
        table.add_row(label, *(_bar(column[row], max(column)) for column in columns))
    return table


def index_groups(indices: Sequence[int]) -> list[list[int]]:
    """Indices one by one, or where they are many in runs of equal width.

    >>> index_groups([0, 4, 9])
    [[0], [4], [9]]
    """
    if len(indices) <= _MOST_ROWS:
        return [[index] for index in indices]
    width = -(-(indices[-1] + 1) // _MOST_ROWS)
    groups: dict[int, list[int]] = {}
    for index in indices:
        groups.setdefault(index // width, []).append(index)
    return list(groups.values())


def _bar(value: int, most: int) -> Text:
    length = round(_WIDEST * value / most) if most else 0
    return Text.assemble((("█" * length or "▏") if value else "", "cyan"), f" {value:,}")


def _lengths(lengths: Lengths) -> Table:
    whole = lengths.measured == lengths.total
    of = "all" if whole else f"{lengths.measured:,} drawn of {lengths.total:,}"
    table = Table(
        title=f"Length in {lengths.unit}, {of} samples",
        title_justify="left",
        title_style="",
        box=SIMPLE_HEAD,
        header_style="bold",
    )
    table.add_column("Part")
    for mark in PERCENTILES:
        table.add_column(percentile_name(mark), justify="right", no_wrap=True)
    for part, marks in lengths.percentiles.items():
        table.add_row(PARTS[part], *length_cells(marks))
    return table


def percentile_name(mark: int) -> str:
    """
    >>> percentile_name(0), percentile_name(95), percentile_name(100)
    ('shortest', '95%', 'longest')
    """
    return {0: "shortest", 50: "half", 100: "longest"}.get(mark, f"{mark}%")


def length_cells(marks: Mapping[int, int]) -> list[str]:
    """A part's percentiles as texts; a part that no sample has is a row of dashes."""
    if not any(marks.values()):
        return [NOTHING] * len(marks)
    return [f"{marks[mark]:,}" for mark in PERCENTILES]
