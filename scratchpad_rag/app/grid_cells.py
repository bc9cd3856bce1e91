"""Which questions a grid asks, in which cells, and what each method is shown there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from scratchpad_rag.app.grid_config import INSERTED, METHODS, Grid, GridData
from scratchpad_rag.data.place import order_support, place, show
from scratchpad_rag.data.retrieve import PassageRanker
from scratchpad_rag.data.select import read_split
from scratchpad_rag.data.split import draw_samples
from scratchpad_rag.errors import DataError
from scratchpad_rag.evaluate.run import Trial, trial_key
from scratchpad_rag.evaluate.score_file import Key
from scratchpad_rag.records import EvalSplit, Example

Notify = Callable[[str], None]
NO_GOLD, AS_FOUND = "no gold", "as found"


class Cell(NamedTuple):
    """A place in the grid of one data set. `at` is a place of `gold_at`, "no gold", or "as found"
    where no passage is moved."""

    order: str
    num_documents: int
    at: str

    def __str__(self) -> str:
        return f"{self.num_documents} documents, {self.order}, gold {self.at}"


class Place(NamedTuple):
    """A question in a cell: the passages shown, and what a score says of them."""

    cell: Cell
    example: Example


@dataclass(frozen=True)
class Asked:
    """The questions of one data set, which are the same in all of its cells.

    `questions` have all of their passages. `left_out` says of questions that not every cell can
    show how many there are, by the reason.
    """

    name: str
    data: GridData
    questions: tuple[Example, ...]
    cells: tuple[Cell, ...]
    left_out: tuple[str, ...] = ()


def ask(
    name: str, data: GridData, seed: int, skip: int = 0, notify: Notify = lambda _: None
) -> Asked:
    """The first questions to validate on, in drawn order, that every cell can show.

    `skip` of them are passed over. Raises DataError where there are none, where a cell has no
    question that it can show, or where more documents are asked for than were found.
    """
    drawn = draw_samples(read_split(data.data, notify).val, None, (0,), seed, "question").samples
    pool = [example for example, _ in drawn]
    if not pool:
        raise DataError(f"{name}: there are no questions to validate on")
    _require_mined(name, data, pool)
    needs_gold = bool(set(data.passage_order) & set(INSERTED))
    fewest = min((len(e.gold) for e in pool if e.gold), default=0)
    cells = tuple(_cells(data, max(fewest, 1)))
    for cell in cells:
        if not any(_fits(example, cell) for example in pool):
            raise DataError(_unfit(name, cell, pool))
    reasons: Counter[str] = Counter()
    fitting = []
    for example in pool:
        reason = _why_not(example, cells, needs_gold)
        if reason:
            reasons[reason] += 1
        else:
            fitting.append(example)
    if not fitting:
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise DataError(f"{name}: no question can be shown in every cell: {why}")
    wanted = None if data.questions is None else skip + data.questions
    chosen = tuple(fitting[skip:wanted])
    if not chosen:
        raise DataError(f"{name}: there are no questions to validate on from number {skip} on")
    without, dropped = _without_gold(data, chosen)
    notes = [f"{count} questions are left out: {reason}" for reason, count in reasons.items()]
    if wanted is not None and len(chosen) < wanted - skip:
        notes.append(f"{wanted - skip} questions were asked for and there are {len(chosen)}")
    return Asked(name, data, chosen, (*cells, *without), (*notes, *dropped))


def _require_mined(name: str, data: GridData, pool: Sequence[Example]) -> None:
    most, asked = max(len(example.passages) for example in pool), max(data.total_docs)
    if asked > most:
        raise DataError(
            f"{name}: total_docs {asked} is more than the {most} passages that were found for a "
            "question; show fewer, or mine more (data build --num_distractors)"
        )


def _cells(data: GridData, gold: int) -> Iterator[Cell]:
    """Cells with gold. Places that are the same for a question with `gold` passages, the fewest
    there are, are one place: with one document first and last are."""
    for order in data.passage_order:
        for number in data.total_docs:
            if order not in INSERTED:
                yield Cell(order, number, AS_FOUND)
                continue
            taken: set[int | None] = set()
            for at in data.gold_at:
                index = position(at, number, gold)
                if index is None or index not in taken:
                    yield Cell(order, number, at)
                taken.add(index)


def _without_gold(data: GridData, questions: Sequence[Example]) -> tuple[list[Cell], list[str]]:
    if not data.no_gold or not set(data.passage_order) & set(INSERTED):
        return [], []
    most = min(len(show(example, EvalSplit.NO_GOLD).passages) for example in questions)
    cells = [Cell("ranked", n, NO_GOLD) for n in data.total_docs if n <= most]
    over = [str(n) for n in data.total_docs if n > most]
    notes = [
        f"no cell without gold at {', '.join(over)} documents: a question has only {most} others"
    ]
    return cells, notes if over else []


def position(at: str, num_documents: int, gold: int, turn: int = 0) -> int | None:
    """Index of the first of `gold` passages at a place; None where they do not fit there.

    >>> [position(at, 10, 2) for at in ("first", "middle", "last", "4", "9")]
    [0, 4, 8, 4, None]
    """
    last = num_documents - gold
    if last < 0:
        return None
    if at == "turns":
        return turn % (last + 1)
    index = {"first": 0, "middle": last // 2, "last": last}.get(at)
    if index is None:
        index = int(at)
    return index if index <= last else None


def _fits(example: Example, cell: Cell) -> bool:
    if cell.num_documents > _found(example, cell):
        return False
    if cell.at == AS_FOUND:
        return cell.order == "retrieved" or len(example.gold) <= cell.num_documents
    return (
        bool(example.gold) and position(cell.at, cell.num_documents, len(example.gold)) is not None
    )


def _found(example: Example, cell: Cell) -> int:
    """Passages that a cell may show: others that hold an answer are no distractors."""
    apart = 0 if cell.order == "retrieved" else len(example.also_hold)
    return len(example.passages) - apart


def _unfit(name: str, cell: Cell, pool: Sequence[Example]) -> str:
    fewest = min((len(example.gold) for example in pool if example.gold), default=0)
    if not fewest:
        return f"{name}: no question has a gold passage, so none can be put {cell.at}"
    return (
        f"{name}: gold_at {cell.at} has no example with {cell.num_documents} documents: questions "
        f"have {fewest} gold passages or more, which begin at 0 to {cell.num_documents - fewest}"
    )


def _why_not(example: Example, cells: Sequence[Cell], needs_gold: bool) -> str:
    """Why a question cannot be shown in every cell, each with the gold passages elsewhere."""
    if needs_gold and not example.gold:
        return "they have no gold passage"
    taken: dict[tuple[str, int], set[int | None]] = {}
    for cell in cells:
        if cell.num_documents > _found(example, cell):
            return f"they have fewer than {cell.num_documents} passages"
        if not _fits(example, cell):
            return f"their {len(example.gold)} gold passages do not fit ({cell})"
        if cell.at == AS_FOUND:
            continue
        index = position(cell.at, cell.num_documents, len(example.gold))
        places = taken.setdefault(cell[:2], set())
        if index in places:
            return (
                f"their {len(example.gold)} gold passages have no two places in "
                f"{cell.num_documents} documents"
            )
        places.add(index)
    return ""


def placed(asked: Asked, number: int, seed: int, skip: int = 0) -> list[Place]:
    """Question `number` as each cell shows it."""
    example = asked.questions[number]
    return [Place(cell, _show(asked, example, cell, seed, skip + number)) for cell in asked.cells]


def _show(asked: Asked, example: Example, cell: Cell, seed: int, turn: int) -> Example:
    if cell.at == NO_GOLD:
        return place(show(example, EvalSplit.NO_GOLD), cell.num_documents, None)
    index = None
    if cell.at != AS_FOUND:
        index = position(cell.at, cell.num_documents, len(example.gold), turn)
    shown = place(example, cell.num_documents, index, cell.order, seed)
    return order_support(shown, asked.data.data.support_order)


class GridTrials:
    """What each method is shown of a data set's questions, each sample once."""

    def __init__(self, asked: Asked, grid: Grid) -> None:
        self.asked, self.grid = asked, grid
        self._ranker: PassageRanker | None = None

    def of(self, number: int) -> list[tuple[str, Trial]]:
        """The methods' trials of question `number`, in the order of the methods."""
        places = placed(self.asked, number, self.grid.seed)
        example = self.asked.questions[number]
        found: dict[Key, tuple[str, Trial]] = {}
        for name in self.grid.methods:
            for trial in self._trials(name, example, places):
                found.setdefault(trial_key(name, trial), (name, trial))
        return list(found.values())

    def _trials(self, name: str, example: Example, places: Sequence[Place]) -> Iterator[Trial]:
        way = METHODS[name]
        about = Trial(example, example, self.asked.name, gold_total=_gold_total(example))
        if way.shows == "nothing":
            none = show(example, EvalSplit.CLOSED_BOOK)
            yield replace(about, sample=none, shown=none)
            return
        if way.shows == "gold":
            if example.gold:
                gold = order_support(
                    show(example, EvalSplit.GOLD), self.asked.data.data.support_order
                )
                yield replace(about, sample=gold, shown=gold)
            return
        for cell, shown in places:
            nominal = None if cell.at in (NO_GOLD, AS_FOUND) else _nominal(cell)
            trial = replace(
                about, sample=shown, shown=shown, passage_order=cell.order, place=nominal
            )
            if way.shows == "best":
                yield replace(trial, shown=keep_best(shown, self._rank_with()))
            elif not way.forces:
                yield trial
            elif shown.gold:
                forced = shown.gold if way.forces == "gold" else wrong_passages(example, shown)
                if forced:
                    yield replace(trial, forced=forced)

    def _rank_with(self) -> PassageRanker:
        if self._ranker is None:
            self._ranker = PassageRanker(p for e in self.asked.questions for p in e.passages)
        return self._ranker


def _nominal(cell: Cell) -> int | None:
    """Where a single gold passage stands in a cell; None where questions take turns."""
    return None if cell.at == "turns" else position(cell.at, cell.num_documents, 1)


def _gold_total(example: Example) -> int:
    return len(example.gold) if example.gold_total is None else example.gold_total


def wrong_passages(example: Example, shown: Example) -> tuple[int, ...]:
    """The best-ranked distractors of `example` that are shown, as many as gold passages are, by
    their places in `shown`; fewer where no more are shown."""
    apart = {example.passages[index] for index in (*example.gold, *example.also_hold)}
    ranked = [passage for passage in example.passages if passage not in apart]
    places = {passage: index for index, passage in reversed([*enumerate(shown.passages)])}
    found = [places[passage] for passage in dict.fromkeys(ranked) if passage in places]
    return tuple(found[: len(shown.gold)])


def keep_best(example: Example, ranker: PassageRanker) -> Example:
    """The example with only the passage that BM25 ranks first."""
    best = ranker.rank(example.question, example.passages)[0]
    gold = (0,) if best in example.gold else ()
    return replace(example, passages=(example.passages[best],), gold=gold)
