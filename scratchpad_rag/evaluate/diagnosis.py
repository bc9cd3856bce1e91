"""Why a reader fails: the passage, the answer, or the format; and whether it follows its quotes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scratchpad_rag.evaluate.metrics import normalize_answer
from scratchpad_rag.evaluate.statistics import Interval, bootstrap_rate
from scratchpad_rag.records import Passage, Score

GOLD_FORCED, WRONG_FORCED = "scratchpad_gold_forced", "scratchpad_wrong_forced"

SampleKey = tuple[str, str, int, tuple[int, ...], str]


class Outcome(StrEnum):
    """What became of one sample. Multi-hop: the passage is quoted if all gold passages are."""

    RIGHT_QUOTED = "right_quoted"
    RIGHT_NOT_QUOTED = "right_not_quoted"  # right answer without the passage
    WRONG_QUOTED = "wrong_quoted"  # right passage, wrong answer
    WRONG_NOT_QUOTED = "wrong_not_quoted"  # wrong passage, or none, quoted
    NOT_PARSED = "not_parsed"
    ABSTAINED = "abstained"
    RIGHT = "right"  # of a method without quotes, as is wrong
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class ErrorSplit:
    """Shares (0..1) of the outcomes of one method in one data set; those that cannot occur are
    absent. They sum to 1, in the order of Outcome."""

    method: str
    dataset: str
    shares: tuple[tuple[Outcome, Interval], ...]
    samples: int
    questions: int


@dataclass(frozen=True, slots=True)
class ScratchpadUse:
    """What the answer owes to the scratchpad, from the cells in which it was forced.

    All on the samples that the free and the forced scratchpad have in common. `gold_forced` is an
    upper bound of what better quoting can bring. `follows` is the share of answers under a wrong
    scratchpad that stand in its passages, `stands_anyway` the share of the free answers that stand
    in those same passages: what chance and shared words make of it. None: nobody forced that.
    """

    method: str
    dataset: str
    free: Interval | None
    gold_forced: Interval | None
    wrong_forced: Interval | None
    follows: Interval | None
    stands_anyway: Interval | None
    samples: int


def diagnose(score: Score) -> Outcome:
    """The outcome of one sample; the first that holds of:

    1. it abstains: ABSTAINED (even if "unanswerable" should be a true answer);
    2. the answer is right: RIGHT_QUOTED or RIGHT_NOT_QUOTED, parsed or not, so that both together
       are the accuracy;
    3. the format was not kept, so that quotes and answer may be cut at the wrong place: NOT_PARSED;
    4. the answer is wrong: WRONG_QUOTED or WRONG_NOT_QUOTED.

    The passage is quoted if every gold passage of the question is shown and quoted, wrong ones
    beside it or not. Without scratchpad it is ABSTAINED, RIGHT or WRONG.
    """
    right = score.subspan_exact_match == 1.0
    if score.abstained:
        return Outcome.ABSTAINED
    if score.quote_recall is None:
        return Outcome.RIGHT if right else Outcome.WRONG
    if not right and not score.parsed:
        return Outcome.NOT_PARSED
    if _gold_quoted(score):
        return Outcome.RIGHT_QUOTED if right else Outcome.WRONG_QUOTED
    return Outcome.RIGHT_NOT_QUOTED if right else Outcome.WRONG_NOT_QUOTED


def error_splits(scores: Sequence[Score]) -> list[ErrorSplit]:
    """An ErrorSplit a method and data set, in order of appearance, over samples with gold shown.

    What the retriever brought is left out: `as_retrieved` parts it by whether gold is there.
    """
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        if score.gold_positions and score.passage_order != "retrieved":
            groups.setdefault((score.method, score.dataset), []).append(score)
    return [_split(method, dataset, group) for (method, dataset), group in groups.items()]


def scratchpad_use(
    scores: Sequence[Score], sources: Mapping[str, Passage], *, method: str = "scratchpad"
) -> list[ScratchpadUse]:
    """One ScratchpadUse a data set that has forced cells; `sources` of `sources.read_sources`.

    A quote whose passage `sources` does not hold counts with its own title and text. An answer
    stands in a passage if its words follow each other there, both normalised as for the scores.
    """
    datasets: dict[str, dict[str, dict[SampleKey, Score]]] = {}
    for score in scores:
        if score.method in (method, GOLD_FORCED, WRONG_FORCED):
            by_method = datasets.setdefault(score.dataset, {})
            by_method.setdefault(score.method, {})[sample_key(score)] = score
    return [
        use
        for dataset, by_method in datasets.items()
        if by_method.keys() & {GOLD_FORCED, WRONG_FORCED}
        and (use := _use(method, dataset, by_method, sources)) is not None
    ]


def sample_key(score: Score) -> SampleKey:
    """What scores of several methods have in common if they answer the same sample."""
    return (
        score.dataset,
        score.example_id,
        score.num_documents,
        score.gold_positions,
        score.passage_order,
    )


def rate(scores: Sequence[Score], values: Iterable[float]) -> Interval:
    """Interval of a rate with the scores' questions as clusters; ValueError of no scores."""
    return bootstrap_rate([*map(float, values)], [(s.dataset, s.example_id) for s in scores])


def rate_if_any(scores: Sequence[Score], values: Iterable[float]) -> Interval | None:
    """The same, None of no scores."""
    return rate(scores, values) if scores else None


def _gold_quoted(score: Score) -> bool:
    shown = len(score.gold_positions)
    total = shown if score.gold_total is None else score.gold_total
    return 0 < total <= shown and score.quote_recall == 1.0


def _split(method: str, dataset: str, scores: list[Score]) -> ErrorSplit:
    outcomes = [diagnose(score) for score in scores]
    quoting = any(score.quote_recall is not None for score in scores)
    plain = (Outcome.ABSTAINED, Outcome.RIGHT, Outcome.WRONG)
    possible = [o for o in Outcome if (o in plain[:1] or (o in plain) != quoting) or o in outcomes]
    clusters = [score.example_id for score in scores]
    return ErrorSplit(
        method=method,
        dataset=dataset,
        shares=tuple(
            (outcome, bootstrap_rate([float(o is outcome) for o in outcomes], clusters))
            for outcome in possible
        ),
        samples=len(scores),
        questions=len(set(clusters)),
    )


def _use(
    method: str,
    dataset: str,
    by_method: Mapping[str, Mapping[SampleKey, Score]],
    sources: Mapping[str, Passage],
) -> ScratchpadUse | None:
    keys = [k for k in next(iter(by_method.values())) if all(k in g for g in by_method.values())]
    if not keys:
        return None
    free, gold, wrong = (
        [by_method[name][key] for key in keys] if name in by_method else []
        for name in (method, GOLD_FORCED, WRONG_FORCED)
    )
    texts = [_quoted_text(score, sources) for score in wrong]
    return ScratchpadUse(
        method=method,
        dataset=dataset,
        free=_accuracy(free),
        gold_forced=_accuracy(gold),
        wrong_forced=_accuracy(wrong),
        follows=rate_if_any(wrong, map(_stands_in, wrong, texts)),
        stands_anyway=rate_if_any(free, map(_stands_in, free, texts)) if wrong else None,
        samples=len(keys),
    )


def _accuracy(scores: Sequence[Score]) -> Interval | None:
    return rate_if_any(scores, (score.subspan_exact_match for score in scores))


def _quoted_text(score: Score, sources: Mapping[str, Passage]) -> list[str]:
    """Title and text of every passage quoted, normalised, with a space at either end."""
    passages = []
    for quote in score.quotes:
        known = None
        if quote.passage is not None and quote.passage < len(score.shown):
            known = sources.get(score.shown[quote.passage])
        passages.append(known or Passage(quote.title, quote.text))
    return [f" {normalize_answer(part)} " for p in passages for part in (p.title, p.text)]


def _stands_in(score: Score, texts: Sequence[str]) -> bool:
    said = normalize_answer(score.prediction)
    return bool(said) and not score.abstained and any(f" {said} " in text for text in texts)
