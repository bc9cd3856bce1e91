"""From what somebody asks on the page to what it shows, moment by moment. Knows no Gradio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace

from scratchpad_rag.app.web.line import Line, Ticket
from scratchpad_rag.app.web.views import Point, ReaderView, RunView, Stage
from scratchpad_rag.app.web.work import Work
from scratchpad_rag.errors import UserError

MAX_QUESTION_CHARACTERS = 2000
_WAITING_SECONDS = 0.25  # between two looks at the line
_ENDED = (Stage.DONE, Stage.STOPPED, Stage.FAILED)


@dataclass(frozen=True, slots=True)
class Moment:
    """What is to be shown now. `points` are those that came since the moment before."""

    ahead: int = 0  # questions before this one in the line; 0: it is being answered
    view: RunView | None = None
    points: tuple[Point, ...] = ()
    over: bool = False


Run = Callable[[], Iterator[RunView]]


class Desk:
    """Where questions are answered, one after the other; each session asks one at a time."""

    def __init__(self, room: int) -> None:
        self.line = Line(room)
        self._asking: dict[str, Asking] = {}

    async def ask(self, session: str, run: Run) -> AsyncGenerator[Moment]:
        """Moments until the run is over. Leaving it early ends the work.

        A session that asks again stops what it asked before. Raises LineFullError, and the
        UserError that the run raises.
        """
        self.stop(session)
        asking = Asking(self.line.join())
        self._asking[session] = asking
        try:
            async with aclosing(asking.moments(run)) as moments:
                async for moment in moments:
                    yield moment
        finally:
            if self._asking.get(session) is asking:
                del self._asking[session]

    def stop(self, session: str) -> None:
        """Stop what a session asked, if anything; it is told so by its last moment."""
        asking = self._asking.get(session)
        if asking is not None:
            asking.stop()

    def is_busy(self, session: str) -> bool:
        return session in self._asking

    def close(self, seconds: float) -> None:
        """Stop everything, and wait for the end of what runs, but no longer than this."""
        for asking in list(self._asking.values()):
            asking.stop()
            asking.join(seconds)


class Asking:
    """One question on its way through the line and the readers."""

    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket
        self._work: Work[RunView] | None = None
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True
        if self._work is not None:
            self._work.stop()

    def join(self, seconds: float) -> None:
        if self._work is not None:
            self._work.join(seconds)

    async def moments(self, run: Run) -> AsyncGenerator[Moment]:
        try:
            while (ahead := self._ticket.ahead) and not self._stopped:
                yield Moment(ahead=ahead)
                await asyncio.sleep(_WAITING_SECONDS)
            if not self._stopped:
                # From here on the thread that reads holds the ticket: the next may begin only
                # when it has really ended, which may be after a hang-up.
                self._work = Work(run(), self._ticket.leave)
        finally:
            if self._work is None:
                self._ticket.leave()
        if self._work is None:
            yield Moment(over=True)
            return
        view: RunView | None = None
        async with aclosing(self._work.batches()) as batches:
            async for batch in batches:
                points: list[Point] = []
                for shown in batch:
                    if is_over(shown) and not (view is not None and is_over(view)):
                        points += points_of(shown)
                    view = shown
                yield Moment(view=view, points=tuple(points))
        yield Moment(view=stopped(view) if self._stopped else view, over=True)


def is_over(view: RunView) -> bool:
    """Whether nothing more will be decided in this run."""
    return all(reader.stage in _ENDED for reader in view.readers)


def stopped(view: RunView | None) -> RunView | None:
    """The view with all that had not ended marked as stopped."""
    if view is None:
        return None
    readers = (
        reader if reader.stage in _ENDED else replace(reader, stage=Stage.STOPPED)
        for reader in view.readers
    )
    return replace(view, readers=tuple(readers))


def points_of(view: RunView) -> tuple[Point, ...]:
    """A point for each reader that answered; none where no gold passage was shown."""
    position = view.gold_position
    if position is None:
        return ()
    return tuple(
        Point(
            reader=reader.name,
            documents=len(view.example.passages),
            position=position,
            right=reader.right,
            found=_found(reader, view) if reader.quoting else None,
            question=view.example.question,
        )
        for reader in view.readers
        if reader.stage is Stage.DONE and reader.right is not None
    )


def _found(reader: ReaderView, view: RunView) -> bool:
    return any(quote.passage in view.example.gold for quote in reader.quotes)


def checked_question(text: str) -> str:
    """A typed question without the space around it. Raises UserError."""
    question = text.strip()
    if not question.strip("?"):
        raise UserError("there is no question: choose one above, or type your own")
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise UserError(
            f"the question has {len(question):,} characters; "
            f"{MAX_QUESTION_CHARACTERS:,} are the most that this page takes"
        )
    return question


def walk_positions(documents: int, gold: int, stops: int = 5) -> tuple[int, ...]:
    """Positions for the first of `gold` passages from the first place to the last, evenly.

    >>> walk_positions(20, 1), walk_positions(3, 1), walk_positions(20, 2), walk_positions(2, 2)
    ((0, 4, 9, 14, 19), (0, 1, 2), (0, 4, 9, 13, 18), (0,))
    """
    last = max(0, documents - gold)
    steps = min(stops, last + 1) - 1
    if steps < 1:
        return (0,)
    return tuple(last * step // steps for step in range(steps + 1))
