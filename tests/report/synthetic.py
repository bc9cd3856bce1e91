"""Scores of a grid that nobody ran, drawn from a seed out of accuracies that are known.

The chance of a right answer is the logistic of a method's level, less a loss for every doubling of
the documents, less a dip in the middle, plus the ease of the question, which all methods share, so
that they are paired as real ones are. All names in it are made up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

from scratchpad_rag.evaluate.sources import passage_id
from scratchpad_rag.prompts.template import (
    NO_SUPPORT,
    UNANSWERABLE,
    format_passage,
    restated_question,
)
from scratchpad_rag.records import Passage, Quote, Score

TOWNS = ("Marren", "Corvin", "Holm", "Tarsk", "Elding", "Vosse", "Brannoch", "Quill", "Ostrand")
THINGS = ("lighthouse", "bridge", "observatory", "granary", "library", "tannery", "mill", "ferry")
PEOPLE = ("Ida Holm", "Ada Marren", "Jon Vask", "Leo Brandt", "Mira Tarn", "Otto Quill", "Una Reed")


@dataclass(frozen=True)
class Truth:
    """How a method does: logits at an easy place, and what it loses; chances of its quotes."""

    level: float
    per_doubling: float = 0.0  # logits lost for each doubling of the documents beyond 5
    dip: float = 0.0  # logits lost in the middle of 20 documents
    quotes_gold: float | None = None  # where right; None: writes no scratchpad
    abstains: float = 0.0  # where no gold passage is shown
    tokens: int = 8
    seconds: float = 0.4


TRUTHS = {
    "closed_book": Truth(-2.0, tokens=7, seconds=0.05),
    "zero_shot": Truth(-0.3, 0.5, 1.3, tokens=22, seconds=0.5),
    "sft": Truth(0.5, 0.35, 0.9),
    "scratchpad": Truth(1.0, 0.12, 0.15, 0.95, 0.7, tokens=160, seconds=0.7),
    "scratchpad_verbatim": Truth(1.05, 0.10, 0.15, 0.96, 0.6, tokens=165, seconds=0.65),
    "gold_only": Truth(1.6),
    "rerank_then_read": Truth(0.1, 0.1, seconds=0.1),
    "scratchpad_gold_forced": Truth(1.7, 0.02, 0.0, 1.0, tokens=150, seconds=0.7),
    "scratchpad_wrong_forced": Truth(-2.2, 0.0, 0.0, 0.0, tokens=150, seconds=0.7),
}
_ONCE = ("closed_book", "gold_only")
_FORCED = ("scratchpad_gold_forced", "scratchpad_wrong_forced")


@dataclass(frozen=True)
class Cell:
    """What is shown: documents, the place of the gold passages; `order` is the passage order."""

    documents: int
    gold: tuple[int, ...]
    order: str = "ranked"


def cells(documents: Sequence[int], places: int = 5, hops: int = 1) -> list[Cell]:
    """Gold passages at `places` positions of every number of documents, nowhere, as retrieved."""
    made = []
    for count in documents:
        firsts = [round(i * (count - hops) / (places - 1)) for i in range(places)]
        made += [Cell(count, tuple(range(at, at + hops))) for at in dict.fromkeys(firsts)]
        made.append(Cell(count, ()))
        made.append(Cell(count, (), "retrieved"))
    return made


def grid(
    datasets: Sequence[str] = ("nq", "hotpotqa"),
    methods: Sequence[str] = tuple(TRUTHS),
    documents: Sequence[int] = (5, 10, 20),
    *,
    questions: int = 60,
    places: int = 5,
    shift: float = 0.0,
    seed: int = 0,
) -> tuple[list[Score], dict[str, Passage]]:
    """Scores and the passages that they name; `shift` moves the level of every method (logits)."""
    scores: list[Score] = []
    passages: dict[str, Passage] = {}
    for number, dataset in enumerate(datasets):
        hops = 1 if dataset in ("", "nq", "squad") else 2
        for q in range(questions):
            draw = Random(f"{seed}/{dataset}/{q}")
            asked = _Asked(dataset, q, hops, max(documents), draw, 0.5 * number - shift)
            passages |= {passage_id(p): p for p in asked.passages}
            for method in methods:
                for cell in _cells_of(method, documents, places, hops):
                    scores.append(_score(asked, method, cell))
    return scores, passages


def write_run(folder: Path, scores: Sequence[Score], passages: dict[str, Passage]) -> Path:
    """A run's folder as a grid leaves it; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(asdict(score), ensure_ascii=False) + "\n" for score in scores)
    (folder / "scores.jsonl").write_text("".join(lines), "utf-8")
    sources = (json.dumps({"id": k, "title": p.title, "text": p.text}) for k, p in passages.items())
    (folder / "passages.jsonl").write_text("".join(f"{line}\n" for line in sources), "utf-8")
    return folder


class _Asked:
    """One question, its answer, and its passages: the gold ones first."""

    def __init__(
        self, dataset: str, number: int, hops: int, documents: int, draw: Random, hardness: float
    ) -> None:
        self.dataset, self.number, self.hops, self.draw = dataset, number, hops, draw
        thing, town = draw.choice(THINGS), draw.choice(TOWNS)
        self.answer = draw.choice(PEOPLE)
        self.question = f"who built the {thing} of {town} no. {number}"
        self.id = f"{dataset}-{number}"
        self.ease = draw.gauss(0, 1.2) - hardness
        gold = [
            Passage(
                f"{thing.title()} of {town} {number}.{hop}",
                f"The {thing} of {town} stands by the river. It was built by {self.answer} in "
                f"{1700 + number % 250}, and its keeper wrote a diary of the works. {hop}",
            )
            for hop in range(hops)
        ]
        others = [
            Passage(
                f"{draw.choice(THINGS).title()} of {draw.choice(TOWNS)} {number}.{rank}",
                f"Built by {draw.choice(PEOPLE)} in {draw.randint(1700, 1950)}, it lies "
                f"{draw.randint(2, 90)} miles from the {thing} and is open in summer only. "
                "Travellers praise the view, and the road there is good in all weathers.",
            )
            for rank in range(documents)
        ]
        self.passages = gold + others
        self.rank = draw.randint(0, 24)  # of the gold passage in a real retrieval

    def shown(self, cell: Cell) -> tuple[list[Passage], tuple[int, ...]]:
        """The passages in the order shown, and the places of the gold ones."""
        gold, others = self.passages[: self.hops], iter(self.passages[self.hops :])
        places = cell.gold
        if cell.order == "retrieved":
            places = tuple(p for p in range(self.rank, self.rank + self.hops) if p < cell.documents)
        at = dict(zip(places, gold, strict=False))
        return [at[i] if i in at else next(others) for i in range(cell.documents)], places


def _cells_of(method: str, documents: Sequence[int], places: int, hops: int) -> Iterator[Cell]:
    if method == "closed_book":
        yield Cell(0, ())
    elif method == "gold_only":
        yield Cell(hops, tuple(range(hops)))
    else:
        for cell in cells(documents, places, hops):
            if method not in _FORCED or cell.gold:
                yield cell


def _score(asked: _Asked, method: str, cell: Cell) -> Score:
    truth, draw = TRUTHS[method], asked.draw
    shown, gold = asked.shown(cell)
    there = bool(gold)
    middle = 0.0
    if there and cell.documents > len(gold):
        across = gold[0] / max(1, cell.documents - len(gold))
        middle = (1 - abs(2 * across - 1)) * truth.dip * math.log2(cell.documents) / math.log2(20)
    doublings = max(0.0, math.log2(max(1, cell.documents) / 5)) if method not in _ONCE else 0.0
    logit = truth.level + asked.ease - truth.per_doubling * doublings - middle
    if not there and method != "closed_book":
        logit -= 3.5
    right = draw.random() < 1 / (1 + math.exp(-logit))
    if method == "rerank_then_read":
        shown = [shown[draw.randrange(len(shown))]]
    abstained = truth.quotes_gold is not None and draw.random() < (
        0.03 if there else truth.abstains
    )
    right = right and not abstained
    answer = asked.answer if right else draw.choice([p for p in PEOPLE if p != asked.answer])
    prediction = UNANSWERABLE if abstained else answer
    quotes = _quotes(truth, shown, gold, right, abstained, draw)
    parsed = truth.quotes_gold is None or draw.random() < 0.98
    true = {i for i in gold if i < len(shown)}
    said = {quote.passage for quote in quotes}
    writes = truth.quotes_gold is not None
    tokens = max(1, round(draw.gauss(truth.tokens, truth.tokens / 8)))
    return Score(
        method=method,
        example_id=asked.id,
        question=asked.question,
        answers=(asked.answer,),
        num_documents=cell.documents,
        gold_positions=gold,
        prediction=prediction,
        completion=_completion(asked, shown, quotes, prediction, writes=writes),
        quotes=quotes,
        parsed=parsed,
        subspan_exact_match=float(right),
        exact_match=float(right and draw.random() < 0.9),
        f1=float(right) * 0.95,
        completion_subspan_exact_match=float(right),
        quote_precision=(len(said & true) / len(said) if said else 0.0) if writes else None,
        quote_recall=(len(said & true) / len(true) if true else 1.0) if writes else None,
        verbatim_rate=sum(q.verbatim for q in quotes) / len(quotes) if quotes else None,
        prompt_tokens=60 + 40 * len(shown) * (method != "closed_book"),
        new_tokens=tokens,
        forward_passes=max(1, tokens // 4),
        wall_seconds=max(0.01, draw.gauss(truth.seconds, truth.seconds / 10))
        * (1 + cell.documents / 20),
        abstained=abstained,
        dataset=asked.dataset,
        passage_order=cell.order,
        gold_total=asked.hops,
        shown=tuple(map(passage_id, shown)),
    )


def _quotes(
    truth: Truth,
    shown: Sequence[Passage],
    gold: Sequence[int],
    right: bool,
    abstained: bool,
    draw: Random,
) -> tuple[Quote, ...]:
    if truth.quotes_gold is None or abstained or not shown:
        return ()
    chance = truth.quotes_gold if right else 0.45 * truth.quotes_gold
    places = [at if draw.random() < chance else draw.randrange(len(shown)) for at in gold or (0,)]
    if not gold:
        places = [draw.randrange(len(shown))]
    quotes = []
    for at in dict.fromkeys(places):
        passage, verbatim = shown[at], draw.random() < 0.9
        text = passage.text if verbatim else passage.text.replace("Built", "Made").rstrip(".")
        quotes.append(Quote(text, passage.title, at, 0, len(passage.text), verbatim))
    if draw.random() < 0.04:
        quotes.append(Quote("It was never finished.", "Nowhere", None, 0, 0, verbatim=False))
    return tuple(quotes)


def _completion(
    asked: _Asked,
    shown: Sequence[Passage],
    quotes: Sequence[Quote],
    prediction: str,
    *,
    writes: bool,
) -> str:
    if not writes:
        return f" {prediction}"
    texts = [format_passage(Passage(quote.title, quote.text)) for quote in quotes]
    scratchpad = "\n\n".join(texts) if texts else NO_SUPPORT
    return f" {scratchpad}{restated_question(asked.question)} {prediction}"


def without_new_fields(scores: Sequence[Score]) -> list[Score]:
    """The same as an older version wrote them: gold inserted, one data set, nothing of `shown`."""
    return [
        replace(score, dataset="", passage_order="ranked", gold_total=None, shown=())
        for score in scores
        if score.passage_order == "ranked" and (score.gold_positions or not score.num_documents)
    ]
