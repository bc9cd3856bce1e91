"""The score files of one or several runs of a grid -> one page, its figures, and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scratchpad_rag.evaluate.diagnosis import Outcome, diagnose
from scratchpad_rag.records import Score
from scratchpad_rag.report import grid_csv, grid_tables, labels, latex, plots, verdicts
from scratchpad_rag.report.captions import run_settings
from scratchpad_rag.report.environment import page_environment
from scratchpad_rag.report.failures import RULE, choose_failures, classes, filters
from scratchpad_rag.report.grid_runs import GridScores, read_runs
from scratchpad_rag.report.grid_sections import file_figures, sections
from scratchpad_rag.report.html import ReportContext, note_blocks, software, write_file
from scratchpad_rag.report.measures import DataSetMeasures, measure

PAGE = "report.html"
TITLE = "Does reading hold up as the context grows?"
_NAMES_OF_FAILURES = {
    Outcome.WRONG_QUOTED: "right passage, wrong answer",
    Outcome.WRONG_NOT_QUOTED: "wrong passage quoted, or none",
    Outcome.NOT_PARSED: "format not kept",
    Outcome.ABSTAINED: "abstained, gold passage shown",
    Outcome.WRONG: "wrong answer, no quotes",
}
FALSE_QUOTE = "answered, nothing shown answers"


def write_grid_report(
    runs: Sequence[Path], out: Path, *, context: ReportContext | None = None
) -> Path:
    """Write report.html, figures (PNG and SVG), CSV and LaTeX tables to the folder `out`.

    `runs` are folders with `scores.jsonl`, or such files; nothing else of a run is needed, and
    `passages.jsonl` and the configs beside it are read where they are. Every file is written under
    another name and then renamed. Returns the path of the page. Raises DataError where there are no
    scores, and for runs that answered different questions.
    """
    grid = read_runs(runs)
    measures = measure(grid)
    page = render_grid_page(grid, measures, context or ReportContext(TITLE, ""))
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in file_figures(measures, grid.names):
        write_file(out / f"{name}.png", plots.png_bytes(figure))
        write_file(out / f"{name}.svg", plots.svg_text(figure))
    write_file(out / "table.csv", grid_csv.cells_csv(grid, measures))
    write_file(out / "paired.csv", grid_csv.paired_csv(measures, grid.names))
    write_file(out / "table.tex", latex.accuracy_table(measures, grid.names))
    write_file(out / "paired.tex", latex.paired_table(measures, grid.names))
    write_file(out / PAGE, page)
    return out / PAGE


def render_grid_page(
    grid: GridScores, measures: Sequence[DataSetMeasures], context: ReportContext
) -> str:
    """The page as text; nothing in it comes from elsewhere, and scores are only ever text."""
    environment = page_environment()
    environment.globals.update(
        labels=labels,
        full=grid.names.full,
        title_of=verdicts.title_of,
        forest_x=grid_tables.forest_x,
    )
    failures = choose_failures(grid, kind_of_failure)
    groups = filters(failures, grid.names)
    page = environment.get_template("grid.html.j2").render(
        context=context,
        runs=grid.names.runs,
        lead=verdicts.lead(measures, grid.names),
        findings=verdicts.findings(measures, grid.names),
        glance=grid_tables.glance_table(measures, grid.names),
        sections=sections(measures, grid.names),
        failures=[(failure, classes(failure, groups, grid.names)) for failure in failures],
        failure_rule=RULE,
        filters=groups,
        notes=note_blocks(context.notes),
        settings={**run_settings(grid.folders), **context.settings},
        software=software(),
    )
    return labels.clean(page)


def kind_of_failure(score: Score) -> str:
    """What went wrong, in words; "" where nothing did.

    Where no gold passage is shown, silence is right, and a wrong answer is one given all the same.
    """
    if not score.gold_positions and score.num_documents:
        return "" if score.abstained or score.subspan_exact_match > 0 else FALSE_QUOTE
    return _NAMES_OF_FAILURES.get(diagnose(score), "")
