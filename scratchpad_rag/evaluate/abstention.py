"""Whether a reader keeps silent where nothing shown supports an answer, and only there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scratchpad_rag.evaluate.cells import INSERTED, NO_GOLD, RETRIEVED, cell_of
from scratchpad_rag.evaluate.diagnosis import rate, rate_if_any
from scratchpad_rag.evaluate.statistics import Interval
from scratchpad_rag.records import Score


@dataclass(frozen=True, slots=True)
class Abstention:
    """Rates (0..1) of one method in one data set at one number of documents.

    `false_quotes`: samples without gold in which anything is quoted (None: no quotes in this
    method). `abstained`: samples without gold in which it abstains. `false_abstained`: samples with
    gold shown in which it abstains. None where there is no such sample.
    """

    method: str
    dataset: str
    num_documents: int
    false_quotes: Interval | None
    abstained: Interval | None
    false_abstained: Interval | None


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """One point of the trade-off: a method in one data set at one number of documents.

    `coverage` is the share of samples answered, `risk` the share of wrong ones among those
    answered (None: nothing answered), over cells with and without gold together where `gold` is
    "all", or one kind of cell ("inserted", "none", "retrieved").
    """

    method: str
    dataset: str
    num_documents: int
    gold: str
    coverage: Interval
    risk: Interval | None


def abstentions(scores: Sequence[Score]) -> list[Abstention]:
    """One Abstention a method, data set and number of documents (at least 1), sorted by the last
    two, methods in order of appearance. What the retriever brought counts in neither rate."""
    found = []
    for (method, dataset, documents), kinds in _grouped(scores):
        without, shown = kinds.get(NO_GOLD, []), kinds.get(INSERTED, [])
        if not without and not shown:
            continue
        quoting = [score for score in without if score.quote_recall is not None]
        found.append(
            Abstention(
                method=method,
                dataset=dataset,
                num_documents=documents,
                false_quotes=rate_if_any(quoting, (len(score.quotes) > 0 for score in quoting)),
                abstained=rate_if_any(without, (score.abstained for score in without)),
                false_abstained=rate_if_any(shown, (score.abstained for score in shown)),
            )
        )
    return found


def risk_coverage(scores: Sequence[Score]) -> list[RiskCoverage]:
    """The points of the trade-off between answering and erring, in the same order.

    As in selective prediction (El-Yaniv and Wiener, 2010), but with one point a method in place of
    a curve over thresholds, since answers carry no confidence. "all" weighs cells by their samples
    and has what was inserted and what was left without gold, not what was retrieved; it is absent
    where there is one of the two only. A right answer without gold shown, from memory, counts as
    right.
    """
    points = []
    for (method, dataset, documents), kinds in _grouped(scores):
        both = [*kinds.get(INSERTED, []), *kinds.get(NO_GOLD, [])]
        parts = {"all": both} if kinds.keys() >= {INSERTED, NO_GOLD} else {}
        for gold, group in (parts | kinds).items():
            coverage = rate(group, (not score.abstained for score in group))
            answered = [score for score in group if not score.abstained]
            risk = rate_if_any(answered, (1 - score.subspan_exact_match for score in answered))
            points.append(RiskCoverage(method, dataset, documents, gold, coverage, risk))
    return points


def _grouped(
    scores: Sequence[Score],
) -> Iterator[tuple[tuple[str, str, int], dict[str, list[Score]]]]:
    """(method, data set, documents) with its scores by Cell.gold, in that order of kinds."""
    groups: dict[tuple[str, str, int], dict[str, list[Score]]] = {}
    for score in scores:
        cell = cell_of(score)
        if cell is not None:
            key = (score.method, cell.dataset, cell.num_documents)
            groups.setdefault(key, {}).setdefault(cell.gold, []).append(score)
    for key in sorted(groups, key=lambda key: key[1:]):  # stable: methods as they appear
        kinds = groups[key]
        yield key, {k: kinds[k] for k in (INSERTED, NO_GOLD, RETRIEVED) if k in kinds}
