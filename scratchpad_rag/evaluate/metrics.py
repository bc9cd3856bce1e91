"""Scores of one answer and of its quotes: pure functions of text and passage numbers.

Answers are compared after SQuAD's normalisation (Rajpurkar et al., 2016). Subspan exact match is
the measure of Lost in the Middle (Liu et al., 2023). All scores are in 0..1.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from scratchpad_rag.records import Quote, Reading

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class PrecisionRecall(NamedTuple):
    """Share of what was quoted that is gold, and share of the gold that was quoted."""

    precision: float
    recall: float


def normalize_answer(text: str) -> str:
    """Lower-case, without ASCII punctuation and articles, with single spaces.

    The order is SQuAD's: punctuation goes before articles, and joins what it stood between.
    Only `string.punctuation` counts as punctuation, so typographic quotes stay. A text of nothing
    but articles and punctuation becomes the empty string.

    >>> normalize_answer("The  Beatles' (first) LP.")
    'beatles first lp'
    >>> normalize_answer("twenty-one"), normalize_answer("The A."), normalize_answer("")
    ('twentyone', '', '')
    """
    bare = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def subspan_exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 if any answer is a substring of the prediction, both normalised; else 0.0.

    Lost in the Middle's `best_subspan_em`: a plain substring, so "art" is found in "party". One
    thing differs: an answer that normalises to the empty string never matches (theirs always
    does). An empty prediction and an empty list of answers score 0.0.

    >>> subspan_exact_match("It was Wilhelm Röntgen.", ["Wilhelm Conrad Röntgen", "Röntgen"])
    1.0
    >>> subspan_exact_match("a party", ["art"]), subspan_exact_match("anything", ["The"])
    (1.0, 0.0)
    """
    said = normalize_answer(prediction)
    return float(any(answer in said for answer in _normalised(answers)))


def answer_match(reading: Reading, answers: Sequence[str]) -> float:
    """Subspan exact match of a reading's answer; exact match for one that abstained.

    The word `unanswerable` has "era" and "able" in it, and says neither.

    >>> answer_match(Reading("unanswerable", (), True, abstained=True), ["era"])
    0.0
    """
    match = exact_match if reading.abstained else subspan_exact_match
    return match(reading.answer, answers)


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 if the prediction equals any answer, both normalised; else 0.0 (SQuAD's exact match).

    As above an answer that normalises to the empty string never matches; no answers score 0.0.

    >>> exact_match("the Eiffel Tower!", ["Eiffel tower"]), exact_match("", [""])
    (1.0, 0.0)
    """
    return float(normalize_answer(prediction) in _normalised(answers))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Largest F1 over the answers of the normalised words shared, counted with repeats (SQuAD 1.1).

    An empty prediction, an empty answer and an empty list of answers score 0.0.

    >>> token_f1("Marie Curie of Warsaw", ["Marie Curie", "Pierre Curie"])  # P 2/4, R 2/2
    0.6666666666666666
    """
    said = Counter(normalize_answer(prediction).split())
    return max((_f1(said, Counter(answer.split())) for answer in _normalised(answers)), default=0.0)


def quote_precision_recall(
    quoted: Collection[int | None], gold: Collection[int]
) -> PrecisionRecall:
    """Precision and recall of the passages quoted, each passage counted once.

    A quote of no passage (None) counts against precision, each one on its own. On empty input:
    nothing quoted has precision 0.0, unless there is no gold either (both 1.0: rightly silent);
    where there is no gold, recall is 1.0, since nothing was missed.

    >>> quote_precision_recall([3, 3, 7, None], [3, 5])
    PrecisionRecall(precision=0.3333333333333333, recall=0.5)
    >>> quote_precision_recall([], []), quote_precision_recall([], [4])
    (PrecisionRecall(precision=1.0, recall=1.0), PrecisionRecall(precision=0.0, recall=0.0))
    >>> quote_precision_recall([2], [])
    PrecisionRecall(precision=0.0, recall=1.0)
    """
    wanted = set(gold)
    passages = {number for number in quoted if number is not None}
    claims = len(passages) + sum(number is None for number in quoted)
    right = len(passages & wanted)
    recall = right / len(wanted) if wanted else 1.0
    if claims == 0:
        return PrecisionRecall(0.0 if wanted else 1.0, recall)
    return PrecisionRecall(right / claims, recall)


def verbatim_rate(quotes: Sequence[Quote]) -> float | None:
    """Share of the quotes that stand word for word in the passages shown; None without quotes.

    >>> verbatim_rate([]) is None
    True
    """
    if not quotes:
        return None
    return sum(quote.verbatim for quote in quotes) / len(quotes)


def _normalised(answers: Sequence[str]) -> list[str]:
    """The answers normalised, without those of which nothing is left."""
    return [text for text in map(normalize_answer, answers) if text]


def _f1(said: Counter[str], wanted: Counter[str]) -> float:
    shared = (said & wanted).total()
    if not shared:
        return 0.0
    return 2 * shared / (said.total() + wanted.total())  # = 2PR / (P + R)
