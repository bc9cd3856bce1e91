"""A grid's numbers for a program: one line a cell and method, and one a comparison, unrounded."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from scratchpad_rag.evaluate.cells import Cell, by_cells
from scratchpad_rag.evaluate.statistics import Interval
from scratchpad_rag.evaluate.summary import summarise
from scratchpad_rag.records import Score
from scratchpad_rag.report.grid_runs import GridScores, Names
from scratchpad_rag.report.labels import clean
from scratchpad_rag.report.measures import DataSetMeasures
from scratchpad_rag.report.tables import cost_figures, quality_figures
from scratchpad_rag.report.verdicts import is_real


def cells_csv(grid: GridScores, measures: Sequence[DataSetMeasures]) -> str:
    """A line a cell and method: accuracy with its interval and the means of everything else."""
    names = grid.names
    index: dict[tuple[str, Cell], list[Score]] = {}
    for run, scores in grid.by_run.items():
        methods = dict.fromkeys(score.method for score in scores)
        for method, cells in by_cells(scores, methods).items():
            for cell, own in cells.items():
                index[names.key(method, run), cell] = list(own.values())
    rows = []
    for one in measures:
        for method in one.methods:
            for rate in one.cells[method]:
                rows.append(
                    _csv_row(names, method, rate.cell, rate.accuracy, index[method, rate.cell])
                )
            if not one.cells[method] and method in one.accuracy:
                mine = [s for s in grid.scores if s.dataset == one.dataset and s.method == method]
                rows.append(_csv_row(names, method, None, one.accuracy[method], mine))
    return _csv(rows)


def paired_csv(measures: Sequence[DataSetMeasures], names: Names) -> str:
    """A line a comparison, pooled ones (without a cell) first; rates in 0..1."""
    rows = []
    for one in measures:
        for c in (*one.pooled, *one.by_cell):
            gap = c.difference.interval
            rows.append(
                {
                    "dataset": clean(c.dataset),
                    "method": names.base(c.method),
                    "method_run": clean(names.run(c.method)),
                    "baseline": names.base(c.baseline),
                    "baseline_run": clean(names.run(c.baseline)),
                    **_cell_fields(c.cell),
                    "difference": gap.estimate,
                    "low": gap.low,
                    "high": gap.high,
                    "wins": c.difference.wins,
                    "losses": c.difference.losses,
                    "test": c.difference.test,
                    "p": c.difference.p_value,
                    "p_bootstrap": c.bootstrap_p,
                    "p_holm": c.adjusted_p,
                    "detectable": c.detectable if math.isfinite(c.detectable) else None,
                    "samples": gap.n,
                    "questions": c.questions,
                    "beyond_chance": is_real(c),
                }
            )
    return _csv(rows)


def _csv_row(
    names: Names, method: str, cell: Cell | None, accuracy: Interval, scores: Sequence[Score]
) -> dict[str, object]:
    (summary,) = summarise(scores)
    return {
        "dataset": clean(scores[0].dataset),
        "run": clean(names.run(method)),
        "method": names.base(method),
        **_cell_fields(cell),
        "samples": len(scores),
        "accuracy": accuracy.estimate,
        "low": accuracy.low,
        "high": accuracy.high,
        **quality_figures(summary),
        "abstained": sum(score.abstained for score in scores) / len(scores),
        **cost_figures(summary),
    }


def _cell_fields(cell: Cell | None) -> dict[str, object]:
    if cell is None:
        return dict.fromkeys(("passage_order", "documents", "gold", "position"))
    return {
        "passage_order": cell.passage_order,
        "documents": cell.num_documents,
        "gold": cell.gold,
        "position": cell.position,
    }


def _csv(rows: Sequence[dict[str, object]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0].keys() if rows else (), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
