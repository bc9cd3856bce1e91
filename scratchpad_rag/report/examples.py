"""A few answers of every method to look at: chosen by order, never by result, quotes marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scratchpad_rag.records import Quote, Score
from scratchpad_rag.report.labels import clean, method_name

EXAMPLES = 8  # a method
_LONGEST_OUTPUT = 2500  # characters shown
_LONGEST_LINE = 400


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of an output; `kind` is "", "verbatim", "altered" or "invented"."""

    text: str
    kind: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """One answer as the page shows it; `hidden` is how many characters of the output are not."""

    question: str
    answers: str
    place: str
    prediction: str
    right: bool
    parsed: bool
    pieces: tuple[Piece, ...]
    hidden: int


@dataclass(frozen=True, slots=True)
class MethodExamples:
    """The answers shown of one method."""

    name: str
    examples: tuple[Shown, ...]
    right: int


def choose_examples(scores: Sequence[Score], number: int = EXAMPLES) -> list[MethodExamples]:
    """Up to `number` answers a method, the same questions for all, evenly spread over the run.

    The positions of the gold passage take turns: the first question is shown at the first position
    that was scored, the second at the second, and so on.
    """
    by_question: dict[str, dict[str, list[Score]]] = {}
    for score in scores:
        by_question.setdefault(score.example_id, {}).setdefault(score.method, []).append(score)
    questions = list(by_question)
    step = max(1.0, len(questions) / number)
    picked = [questions[int(i * step)] for i in range(min(number, len(questions)))]
    chosen = []
    for method in dict.fromkeys(score.method for score in scores):
        own = [by_question[q].get(method, []) for q in picked]
        taken = [group[turn % len(group)] for turn, group in enumerate(own) if group]
        shown = tuple(show(score) for score in taken)
        chosen.append(MethodExamples(method_name(method), shown, sum(s.right for s in shown)))
    return chosen


def show(score: Score) -> Shown:
    """What the page says about one answer, cut where it is very long."""
    output = score.completion.strip()
    return Shown(
        question=_cut(score.question),
        answers=_cut("; ".join(score.answers)),
        place=_place(score),
        prediction=_cut(score.prediction),
        right=score.subspan_exact_match > 0,
        parsed=score.parsed,
        pieces=mark_quotes(output[:_LONGEST_OUTPUT], score.quotes),
        hidden=max(0, len(output) - _LONGEST_OUTPUT),
    )


def mark_quotes(output: str, quotes: Sequence[Quote]) -> tuple[Piece, ...]:
    """Cut an output into plain text and quotes, which are looked for in their order.

    A quote that runs past the end of `output` is marked as far as it goes.

    >>> quote = Quote("It is red.", "Rose", 2, 0, 10, verbatim=True)
    >>> [piece.kind for piece in mark_quotes("Rose) It is red. Answer: red", [quote])]
    ['', 'verbatim', '']
    """
    pieces, done = [], 0
    for quote in quotes:
        start = output.find(quote.text, done) if quote.text else -1
        if start < 0:
            start = _cut_off_start(output, quote.text, done)
        if start < 0:
            continue
        pieces.append(Piece(clean(output[done:start])))
        done = min(len(output), start + len(quote.text))
        pieces.append(_quoted(clean(output[start:done]), quote))
    pieces.append(Piece(clean(output[done:])))
    return tuple(piece for piece in pieces if piece.text)


def _quoted(text: str, quote: Quote) -> Piece:
    if quote.passage is None:
        return Piece(text, "invented", "in no passage")
    source = f"passage {quote.passage}"
    if quote.verbatim:
        return Piece(text, "verbatim", f"{source}, word for word")
    return Piece(text, "altered", f"{source}, altered")


def _cut_off_start(output: str, quote: str, start: int) -> int:
    """Where the first characters of a quote begin whose end was cut off, or -1."""
    head = quote[:40]
    begin = output.find(head, start) if head else -1
    return begin if begin >= 0 and quote.startswith(output[begin:]) else -1


def _place(score: Score) -> str:
    if score.num_documents == 0:
        return "no passage shown"
    shown = "1 passage" if score.num_documents == 1 else f"{score.num_documents} passages"
    if not score.gold_positions:
        return f"{shown} shown, none of them gold"
    if len(score.gold_positions) == score.num_documents:
        return f"{shown} shown, nothing but gold"
    places = ", ".join(map(str, score.gold_positions))
    return f"{shown} shown, gold at position {places} (0 = first)"


def _cut(text: str) -> str:
    text = clean(text)
    return text if len(text) <= _LONGEST_LINE else text[:_LONGEST_LINE] + " …"
