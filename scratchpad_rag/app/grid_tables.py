"""Tables of a grid for the terminal, and its summary: what it costs, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rich.table import Table

from scratchpad_rag.app.grid_cells import Asked
from scratchpad_rag.app.grid_cost import Cost
from scratchpad_rag.app.progress import format_seconds
from scratchpad_rag.evaluate.speed import Speed
from scratchpad_rag.evaluate.summary import has_position
from scratchpad_rag.records import Score


def cost_table(
    stages: Sequence[str], costs: Sequence[Cost], speed: Speed | None, asked: Sequence[Asked]
) -> Table:
    """What is left to do, adapter by adapter."""
    shown = ", ".join(
        f"{one.name}: {len(one.questions)} questions in {len(one.cells)} cells" for one in asked
    )
    table = Table(title=shown, title_justify="left")
    table.add_column("read by")
    for column in ("samples", "prompts", "tokens", "to prefill", "to write", "time"):
        table.add_column(column, justify="right")
    for name, cost in zip(stages, costs, strict=False):
        table.add_row(name, *_cost_row(cost, speed))
    if len(costs) > 1:
        table.add_section()
        table.add_row("in all", *_cost_row(sum(costs, Cost()), speed))
    return table


def _cost_row(cost: Cost, speed: Speed | None) -> list[str]:
    numbers = (
        cost.samples,
        cost.prompts,
        cost.prompt_tokens,
        cost.prefilled_tokens,
        cost.new_tokens,
    )
    time = "?" if speed is None else format_seconds(cost.seconds(speed)) if cost.prompts else "0"
    return [*(f"{number:,}" for number in numbers), time]


def summary_of(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Means of every method in every cell, cells by where the first gold passage stands."""
    groups: dict[tuple[Any, ...], list[Score]] = {}
    for score in scores:
        at = score.cell_position if has_position(score) else None
        if score.passage_order in ("retrieved", "given"):
            at = None
        key = (score.dataset, score.method, score.passage_order, score.num_documents, at)
        groups.setdefault((*key, bool(score.gold_positions)), []).append(score)
    return [
        {
            "dataset": dataset,
            "method": method,
            "passage_order": order,
            "num_documents": number,
            "gold_position": at,
            "gold_shown": gold,
            "samples": len(group),
            "subspan_exact_match": fmean(s.subspan_exact_match for s in group),
            "abstained": fmean(s.abstained for s in group),
            "wall_seconds": fmean(s.wall_seconds for s in group),
        }
        for (dataset, method, order, number, at, gold), group in groups.items()
    ]


def grid_table(scores: Sequence[Score]) -> Table:
    """Subspan exact match, in percent, by method and number of documents, over all places."""
    table = Table(title="final answers that hold a true one, in %", title_justify="left")
    table.add_column("")
    table.add_column("method", overflow="fold")
    columns: dict[tuple[str, int], None] = {}
    cells: dict[tuple[str, str], dict[tuple[str, int], list[float]]] = {}
    for score in scores:
        row = cells.setdefault((score.dataset, score.method), {})
        column = _column(score)
        columns[column] = None
        row.setdefault(column, []).append(score.subspan_exact_match)
    order = sorted(columns, key=lambda column: (_KINDS.index(column[0]), column[1]))
    for kind, number in order:
        table.add_column(f"{number} {kind}".strip() if number else kind, justify="right")
    last = ""
    for (dataset, method), row in sorted(cells.items(), key=lambda item: item[0][0]):
        if dataset != last and last:
            table.add_section()
        values = (f"{100 * fmean(row[c]):.1f}" if c in row else "" for c in order)
        table.add_row("" if dataset == last else dataset, method, *values)
        last = dataset
    return table


_KINDS = ("alone", "", "given", "retrieved", "no gold")


def _column(score: Score) -> tuple[str, int]:
    if score.num_documents == 0 or score.method == "gold_only":
        return "alone", 0
    if score.passage_order in ("given", "retrieved"):
        return score.passage_order, score.num_documents
    return ("" if score.gold_positions else "no gold"), score.num_documents
