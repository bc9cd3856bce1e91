"""An audit as one page that needs nothing else, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scratchpad_rag.data.audit_lengths import PERCENTILES
from scratchpad_rag.data.audit_records import Audit, Histogram, Verdict
from scratchpad_rag.data.lines import replacing
from scratchpad_rag.records import Method
from scratchpad_rag.report import audit_plots, audit_tables, labels
from scratchpad_rag.report.environment import page_environment
from scratchpad_rag.report.inline import inline_svg


@dataclass(frozen=True, slots=True)
class AuditContext:
    """What a page says beside what was found."""

    title: str
    command: str = ""
    peak_bytes: int | None = None
    method: Method = Method.SCRATCHPAD


def write_audit(audit: Audit, out: Path, context: AuditContext) -> Path:
    """Write audit.html and audit.json to the folder `out`, each whole or not at all.

    Returns the path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    page, data = render_audit(audit, context), json.dumps(plain_audit(audit), ensure_ascii=False)
    for name, text in (("audit.json", data), ("audit.html", page)):
        with replacing(out / name) as file:
            file.write(text.encode("utf-8", "replace"))
    return out / "audit.html"


def plain_audit(audit: Audit) -> dict[str, Any]:
    """The audit as JSON knows it, without the lengths of single samples."""
    plain = {"verdict": audit.verdict.value, **asdict(audit)}
    if plain["lengths"] is not None:
        del plain["lengths"]["wholes"]
    for finding in plain["findings"]:
        finding["instances"] = [
            {"example_id": i.example_id, "question": i.question, "shown": dict(i.shown)}
            for i in finding["instances"]
        ]
    return plain


def render_audit(audit: Audit, context: AuditContext) -> str:
    """The page as text; what comes from the data is only ever text in it."""
    environment = page_environment()
    environment.globals.update(
        labels=labels,
        signs=audit_tables.SIGNS,
        css_class={Verdict.OK: "right", Verdict.LOOK: "look", Verdict.REFUSE: "wrong"},
    )
    order = list(Verdict)
    grave = [f for f in audit.findings if f.verdict is not Verdict.OK]
    page = environment.get_template("audit.html.j2").render(
        audit=audit,
        context=context,
        summary=audit_tables.summary_line(audit),
        shown=sorted(grave, key=lambda finding: -order.index(finding.verdict))
        + [f for f in audit.findings if f.verdict is Verdict.OK and f.instances],
        places=_places(audit.histograms),
        counts=_counts(audit.histograms),
        lengths=_lengths(audit),
        percentiles=[audit_tables.percentile_name(mark) for mark in PERCENTILES],
        parts=audit_tables.PARTS,
        cells=audit_tables.length_cells,
    )
    return labels.clean(page)


def _places(histograms: Sequence[Histogram]) -> list[str]:
    """The figure for wide and for narrow screens; the page shows one of the two."""
    shown = [h for h in histograms if h.name.startswith("gold_in_") and h.counts]
    if not shown:
        return []
    told = " ".join(map(audit_plots.describe, shown))
    return [
        inline_svg(audit_plots.places_plot(shown, narrow=narrow), f"places-{width}", told)
        for width, narrow in (("wide", False), ("narrow", True))
    ]


def _counts(histograms: Sequence[Histogram]) -> list[str]:
    shown = [h for h in histograms if not h.name.startswith("gold_in_") and h.counts]
    told = " ".join(map(audit_plots.describe, shown))
    return [
        inline_svg(audit_plots.counts_plot(shown, narrow=narrow), f"counts-{width}", told)
        for width, narrow in (("wide", False), ("narrow", True))
    ]


def _lengths(audit: Audit) -> list[str]:
    lengths = audit.lengths
    if lengths is None or not lengths.wholes:
        return []
    whole = lengths.percentiles["whole"]
    told = (
        f"Lengths of samples in {lengths.unit}: from {whole[0]:,} to {whole[100]:,}, "
        f"half of them up to {whole[50]:,}."
    )
    return [
        inline_svg(audit_plots.lengths_plot(lengths, narrow=narrow), f"lengths-{width}", told)
        for width, narrow in (("wide", False), ("narrow", True))
    ]
