"""Answers that failed, to look at: chosen by a fixed rule, with what was quoted marked in place."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scratchpad_rag.records import Passage, Quote, Score
from scratchpad_rag.report.examples import Piece, mark_quotes
from scratchpad_rag.report.grid_runs import FORCED, REFERENCES, GridScores, Names
from scratchpad_rag.report.labels import clean, count
from scratchpad_rag.report.verdicts import title_of

FAILURES = 20
_LONGEST = 1500  # characters of a passage or an output
RULE = (
    "No hand chose these. Every failure has a number that is drawn from its question and its cell "
    "alone (a hash); data sets, methods and kinds of failure take turns, those that quote twice as "
    "often, and of each the failure with the lowest number comes first, no question twice."
)
Group = tuple[str, str, str]  # data set, method, kind
KindOf = Callable[[Score], str]  # what went wrong, "" where nothing did


@dataclass(frozen=True, slots=True)
class ShownPassage:
    """A passage as the page shows it: its number, and its text in pieces, what is quoted marked."""

    number: int
    title: str
    pieces: tuple[Piece, ...]
    gold: bool
    quoted: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure; `sources` are the passages quoted or gold, `others` the rest of those shown.

    `output` has the quotes marked in it. `unknown` says that the run kept no passages.
    """

    dataset: str
    method: str
    kind: str
    question: str
    answers: str
    prediction: str
    place: str
    sources: tuple[ShownPassage, ...]
    others: tuple[ShownPassage, ...]
    output: tuple[Piece, ...]
    unknown: bool


def choose_failures(grid: GridScores, kind_of: KindOf, number: int = FAILURES) -> list[Failure]:
    """Up to `number` failures by `RULE`; `kind_of` names what went wrong."""
    groups: dict[Group, list[Score]] = {}
    quoting: set[str] = set()
    for score in grid.scores:
        if grid.names.base(score.method) in (*REFERENCES, *FORCED):
            continue
        if score.quote_recall is not None:
            quoting.add(score.method)
        kind = kind_of(score)
        if kind:
            groups.setdefault((score.dataset, score.method, kind), []).append(score)
    for group in groups.values():
        group.sort(key=_number, reverse=True)  # the lowest is popped first
    chosen: list[tuple[Score, str]] = []
    shown: Counter[str] = Counter()
    asked: set[tuple[str, str]] = set()
    while len(chosen) < number and groups:
        key = min(groups, key=lambda group: (_turn(group, shown, quoting), group))
        score = groups[key].pop()
        if not groups[key]:
            del groups[key]
        if (score.dataset, score.example_id) in asked:
            continue
        asked.add((score.dataset, score.example_id))
        shown.update({f"d{key[0]}": 1, f"m{key[1]}": 1, f"k{key[2]}": 1})
        chosen.append((score, key[2]))
    order = {method: at for at, method in enumerate(grid.methods)}
    chosen.sort(key=lambda pair: (grid.datasets.index(pair[0].dataset), order[pair[0].method]))
    return [show_failure(score, kind, grid) for score, kind in chosen]


@dataclass(frozen=True, slots=True)
class Filter:
    """A group of choices above the failures; every failure names its own in `classes`."""

    key: str
    legend: str
    options: tuple[tuple[str, int], ...]  # name, number of failures


def filters(failures: Sequence[Failure], names: Names) -> list[Filter]:
    """What the failures can be filtered by; a group with one choice only is none."""
    groups = (
        ("d", "Data set", Counter(title_of(f.dataset) for f in failures)),
        ("m", "Method", Counter(names.full(f.method) for f in failures)),
        ("k", "What went wrong", Counter(f.kind for f in failures)),
    )
    return [Filter(k, legend, tuple(c.items())) for k, legend, c in groups if len(c) > 1]


def classes(failure: Failure, groups: Sequence[Filter], names: Names) -> str:
    """The classes by which the style sheet hides a failure: `d0 m2 k1`."""
    own = {"d": title_of(failure.dataset), "m": names.full(failure.method), "k": failure.kind}
    return " ".join(
        f"{group.key}{[name for name, _ in group.options].index(own[group.key])}"
        for group in groups
    )


def show_failure(score: Score, kind: str, grid: GridScores) -> Failure:
    """What the page says of one failure."""
    passages = [grid.passages.get(key) for key in score.shown]
    known = [passage for passage in passages if passage is not None]
    gold = grid.gold.get((score.dataset, score.example_id), frozenset())
    shown = []
    if len(known) == len(passages):
        shown = [
            _passage(number, passage, score.quotes, gold=score.shown[number] in gold)
            for number, passage in enumerate(known)
        ]
    output = score.completion.strip()
    return Failure(
        dataset=score.dataset,
        method=score.method,
        kind=kind,
        question=_cut(score.question),
        answers=_cut("; ".join(score.answers)),
        prediction=_cut(score.prediction),
        place=_place(score),
        sources=tuple(p for p in shown if p.gold or p.quoted),
        others=tuple(p for p in shown if not (p.gold or p.quoted)),
        output=mark_quotes(output[:_LONGEST], score.quotes)
        + ((Piece(" …"),) if len(output) > _LONGEST else ()),
        unknown=not shown and score.num_documents > 0,
    )


def mark_passage(text: str, quotes: Sequence[Quote]) -> tuple[Piece, ...]:
    """A passage's text in pieces: what was quoted word for word, what was altered, and the rest.

    Where two quotes overlap the first characters go to the earlier one.

    >>> quote = Quote("red", "Rose", 0, 6, 9, verbatim=True)
    >>> [(piece.text, piece.kind) for piece in mark_passage("It is red.", [quote])]
    [('It is ', ''), ('red', 'verbatim'), ('.', '')]
    """
    pieces, done = [], 0
    for quote in sorted(quotes, key=lambda q: (q.start, -q.end)):
        start, end = max(done, quote.start), min(len(text), quote.end)
        if start >= end:
            continue
        pieces.append(Piece(clean(text[done:start])))
        kind = "verbatim" if quote.verbatim else "altered"
        label = "quoted word for word" if quote.verbatim else "quoted, altered"
        pieces.append(Piece(clean(text[start:end]), kind, label))
        done = end
    pieces.append(Piece(clean(text[done:])))
    return tuple(piece for piece in pieces if piece.text)


def _passage(number: int, passage: Passage, quotes: Sequence[Quote], *, gold: bool) -> ShownPassage:
    own = [quote for quote in quotes if quote.passage == number]
    return ShownPassage(
        number=number,
        title=_cut(passage.title),
        pieces=mark_passage(passage.text, own),
        gold=gold,
        quoted=bool(own),
    )


def _number(score: Score) -> str:
    cell = (score.dataset, score.example_id, score.num_documents, score.gold_positions)
    return hashlib.sha256(repr((*cell, score.passage_order)).encode()).hexdigest()


def _turn(group: Group, shown: Counter[str], quoting: set[str]) -> float:
    dataset, method, kind = group
    of_method = shown[f"m{method}"] / (2 if method in quoting else 1)
    return shown[f"d{dataset}"] + 2 * of_method + shown[f"k{kind}"]


def _place(score: Score) -> str:
    if score.num_documents == 0:
        return "no passage shown"
    shown = count(score.num_documents, "passage")
    how = {"ranked": "", "retrieved": ", as retrieved"}.get(
        score.passage_order, f", {score.passage_order}"
    )
    if not score.gold_positions:
        return f"{shown}{how}, none of them gold"
    places = ", ".join(map(str, score.gold_positions))
    return f"{shown}{how}, gold at {places} (0 = first)"


def _cut(text: str) -> str:
    text = clean(text)
    return text if len(text) <= 400 else text[:400] + " …"
