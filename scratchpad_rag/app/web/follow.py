"""Readers asked one after the other, and what the page shows of them whenever something changed."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple, Protocol, TypeVar

from scratchpad_rag.app.web.views import Cost, LiveQuote, ReaderView, RunView, Stage
from scratchpad_rag.errors import UserError
from scratchpad_rag.evaluate.metrics import answer_match, normalize_answer
from scratchpad_rag.prompts.growing import GrowingReading, Grown
from scratchpad_rag.reader import Answered
from scratchpad_rag.records import Example, Method, Piece, Progress, Quote, Reading

T = TypeVar("T")
# Where nothing else changes, the clock does: so often.
_TICK_SECONDS = 0.25


class StreamingReader(Protocol):
    """The part of `reader.Reader` that is followed."""

    method: Method | None

    def stream_example(
        self, example: Example, max_new_tokens: int | None = None
    ) -> Generator[Piece | Progress | Answered]: ...


class WebReader(NamedTuple):
    """A reader with the name that the page calls it by."""

    name: str
    reader: StreamingReader


def follow(
    readers: Sequence[WebReader], example: Example, max_new_tokens: int | None = None
) -> Generator[RunView]:
    """A view whenever something changed, the clock included; the last one is of finished readers.

    Each reader's last view says what its `Reading` says, and each before it is a beginning of that.
    A reader that fails with a UserError is FAILED, and those behind it are still asked. Closing the
    generator ends the work: it returns when the pass under way is over.
    """
    views = [_begin(reader, Stage.WAITING) for reader in readers]
    for number, reader in enumerate(readers):
        with closing(_follow_one(reader, example, max_new_tokens)) as following:
            for view in following:
                views[number] = view
                yield RunView(example, tuple(views))


def stopped(run: RunView) -> RunView:
    """The view of a run that was ended before its readers were done."""
    over = (Stage.DONE, Stage.FAILED)
    readers = [r if r.stage in over else replace(r, stage=Stage.STOPPED) for r in run.readers]
    return replace(run, readers=tuple(readers))


def _begin(reader: WebReader, stage: Stage) -> ReaderView:
    return ReaderView(reader.name, stage, quoting=reader.reader.method is Method.SCRATCHPAD)


def _follow_one(
    web: WebReader, example: Example, max_new_tokens: int | None
) -> Generator[ReaderView]:
    view = _begin(web, Stage.READING)
    begin = time.perf_counter()
    yield view
    growing = GrowingReading(example, web.reader.method)
    try:
        with closing(web.reader.stream_example(example, max_new_tokens)) as stream:
            for item in _ticking(stream):
                if isinstance(item, Answered):
                    view = _finished(view, item, example)
                elif isinstance(item, Piece):
                    view = _grown(view, growing.add(item.text))
                elif isinstance(item, Progress):
                    view = replace(view, cost=_cost(item))
                spent = replace(view.cost, seconds=time.perf_counter() - begin)
                view = replace(view, cost=spent)
                yield view
    except UserError as error:
        yield replace(view, stage=Stage.FAILED, error=str(error))


def _ticking(items: Iterator[T]) -> Generator[T | None]:
    """The items as they come, and None as often as there was none for a while."""
    end = object()
    with ThreadPoolExecutor(1, "follow") as thread:  # leaving it waits for the item under way
        while True:
            coming = thread.submit(next, items, end)
            while not wait([coming], _TICK_SECONDS).done:
                yield None
            item = coming.result()
            if item is end:
                return
            yield item  # type: ignore[misc]  # it is a T, since it is not the end


def _grown(view: ReaderView, grown: Grown) -> ReaderView:
    if not view.quoting:
        stage = Stage.ANSWERING if grown.answer else view.stage
    else:
        stage = Stage.ANSWERING if grown.answering else Stage.QUOTING
    return replace(
        view,
        stage=stage,
        quotes=_live(grown.quotes),
        answer=grown.answer,
        abstained=grown.abstained,
    )


def _finished(view: ReaderView, answered: Answered, example: Example) -> ReaderView:
    reading, completion = answered
    right = answer_match(reading, example.answers) > 0 if example.answers else None
    return replace(
        view,
        stage=Stage.DONE,
        quotes=_live(reading.quotes),
        answer=reading.answer,
        cited=_cited(reading),
        abstained=reading.abstained,
        parsed=reading.parsed,
        right=right,
        cost=Cost(completion.prompt_tokens, completion.new_tokens, completion.forward_passes),
    )


def _cost(progress: Progress) -> Cost:
    return Cost(progress.prompt_tokens, progress.new_tokens, progress.forward_passes)


def _live(quotes: Sequence[Quote]) -> tuple[LiveQuote, ...]:
    return tuple(
        LiveQuote(number, q.title, q.text, q.passage, q.start, q.end, q.verbatim)
        for number, q in enumerate(quotes, start=1)
    )


def _cited(reading: Reading) -> tuple[int, ...]:
    """Numbers of the quotes that hold the answer, or of all where none does.

    An answer that is empty, or says that there is none, rests on nothing.
    """
    if not reading.answer or reading.abstained:
        return ()
    answer = normalize_answer(reading.answer)
    numbers = range(1, len(reading.quotes) + 1)
    texts = [normalize_answer(quote.text) for quote in reading.quotes]
    holding = [n for n, text in zip(numbers, texts, strict=True) if answer and answer in text]
    return tuple(holding or numbers)
