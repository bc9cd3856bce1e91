"""Readers at work -> what the page shows of them, moment by moment. Knows no Gradio."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from scratchpad_rag.app.web.views import Cost, LiveQuote, ReaderView, RunView, Stage
from scratchpad_rag.errors import UserError
from scratchpad_rag.evaluate.metrics import answer_match, normalize_answer
from scratchpad_rag.prompts.growing import SoFar, read_so_far
from scratchpad_rag.reader import Answered
from scratchpad_rag.records import (
    Completion,
    Example,
    Method,
    Piece,
    Progress,
    Quote,
    ScratchpadForm,
)


class StreamingReader(Protocol):
    """The part of `reader.Reader` that is followed."""

    method: Method | None

    @property
    def form(self) -> ScratchpadForm: ...

    def stream_example(
        self, example: Example, max_new_tokens: int | None = None
    ) -> Generator[Piece | Progress | Answered]: ...


@dataclass(frozen=True)
class WebReader:
    """A reader with the name that the page gives it."""

    name: str
    reader: StreamingReader

    @property
    def quoting(self) -> bool:
        """Whether it quotes before it answers."""
        return self.reader.method is Method.SCRATCHPAD


def follow(
    readers: Sequence[WebReader], example: Example, max_new_tokens: int | None = None
) -> Iterator[RunView]:
    """Both readers' answers to one question, a view whenever something changed.

    They are asked one after the other, so that the seconds of each are its own. What one cannot
    do (a UserError) is told in its view, and the next is asked. Closing the iterator ends the
    work at the next forward pass.
    """
    views = [ReaderView(one.name, Stage.WAITING, one.quoting) for one in readers]
    for number, one in enumerate(readers):
        with closing(_follow_one(one, example, max_new_tokens)) as moments:
            for views[number] in moments:
                yield RunView(example, tuple(views))


def _follow_one(
    one: WebReader, example: Example, max_new_tokens: int | None
) -> Generator[ReaderView]:
    begin = time.perf_counter()
    view = ReaderView(one.name, Stage.READING, one.quoting)
    yield view
    text = ""
    try:
        with closing(one.reader.stream_example(example, max_new_tokens)) as items:
            for item in items:
                seconds = time.perf_counter() - begin
                if isinstance(item, Answered):
                    view = finished(view, item, example, seconds)
                elif isinstance(item, Piece):
                    text += item.text
                    so_far = read_so_far(text, example, one.reader.method, one.reader.form)
                    view = grown(view, so_far, seconds)
                else:
                    view = replace(view, cost=_cost(item, seconds))
                yield view
    except UserError as error:
        yield replace(view, stage=Stage.FAILED, error=str(error))


def grown(view: ReaderView, so_far: SoFar, seconds: float) -> ReaderView:
    """The view of a reader whose completion holds so much."""
    quotes = live_quotes(so_far.quotes)
    return replace(
        view,
        stage=Stage.ANSWERING if so_far.answering else Stage.QUOTING,
        quotes=quotes,
        answer=so_far.answer,
        cited=cited_by(so_far.answer, quotes),
        cost=replace(view.cost, seconds=seconds),
    )


def finished(view: ReaderView, answered: Answered, example: Example, seconds: float) -> ReaderView:
    """The view of a reader that is done; everything in it is the Reading's."""
    reading, completion = answered
    quotes = live_quotes(reading.quotes)
    return replace(
        view,
        stage=Stage.DONE,
        quotes=quotes,
        answer=reading.answer,
        cited=cited_by(reading.answer, quotes),
        abstained=reading.abstained,
        parsed=reading.parsed,
        right=answer_match(reading, example.answers) > 0 if example.answers else None,
        cost=_cost(completion, seconds),
    )


def _cost(spent: Progress | Completion, seconds: float) -> Cost:
    return Cost(spent.prompt_tokens, spent.new_tokens, spent.forward_passes, seconds)


def live_quotes(quotes: Sequence[Quote]) -> tuple[LiveQuote, ...]:
    """Quotes with their numbers, which count from 1."""
    return tuple(
        LiveQuote(n, quote.title, quote.text, quote.passage, quote.start, quote.end, quote.verbatim)
        for n, quote in enumerate(quotes, start=1)
    )


def cited_by(answer: str, quotes: Sequence[LiveQuote]) -> tuple[int, ...]:
    """Numbers of the quotes whose title or text holds the answer, or of all where none does.

    Both are normalised as answers are scored, and whole words are compared.
    """
    wanted = normalize_answer(answer).split()
    if not wanted or not quotes:
        return ()
    holding = tuple(
        quote.number
        for quote in quotes
        if _holds(normalize_answer(f"{quote.title} {quote.text}").split(), wanted)
    )
    return holding or tuple(quote.number for quote in quotes)


def _holds(words: Sequence[str], wanted: Sequence[str]) -> bool:
    length = len(wanted)
    return any(words[start : start + length] == wanted for start in range(len(words) - length + 1))
