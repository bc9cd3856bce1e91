"""Who waits, who reads, what is stopped, and what becomes a point of the chart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from threading import Event

import pytest

from scratchpad_rag.app.web.asking import (
    Desk,
    Moment,
    checked_question,
    is_over,
    points_of,
    stopped,
)
from scratchpad_rag.app.web.line import Line, LineFullError
from scratchpad_rag.app.web.views import LiveQuote, Point, ReaderView, RunView, Stage
from scratchpad_rag.app.web.work import Work
from scratchpad_rag.errors import UserError
from scratchpad_rag.records import Example, Passage

EXAMPLE = Example(
    "q", "who keeps it", ("Ada",), tuple(Passage(t, "text") for t in "ABCD"), gold=(2,)
)


def reader(stage: Stage = Stage.DONE, right: bool | None = True, **more: object) -> ReaderView:
    return ReaderView("Scratchpad", stage, quoting=True, right=right, **more)  # type: ignore[arg-type]


def view(*readers: ReaderView, example: Example = EXAMPLE) -> RunView:
    return RunView(example, readers)


def counted(steps: int, seconds: float, passes: list[int]) -> Iterator[RunView]:
    """A run of so many steps, each of which counts a pass; the last is the end."""
    for step in range(steps):
        time.sleep(seconds)
        passes.append(step)
        last = step == steps - 1
        yield view(reader(Stage.DONE if last else Stage.QUOTING))


async def all_of(desk: Desk, session: str, run: Iterator[RunView]) -> list[Moment]:
    return [moment async for moment in desk.ask(session, lambda: run)]


def test_the_line_serves_in_the_order_of_coming() -> None:
    line = Line(room=2)
    first, second, third = (line.join() for _ in range(3))
    assert [ticket.ahead for ticket in (first, second, third)] == [0, 1, 2]
    second.leave()  # one that gave up
    assert [first.ahead, third.ahead] == [0, 1]
    first.leave()
    first.leave()
    assert third.ahead == 0
    assert len(line) == 1


def test_a_full_line_says_so() -> None:
    line = Line(room=1)
    line.join()
    line.join()
    with pytest.raises(LineFullError, match="2 questions are being answered or wait already"):
        line.join()


def test_one_run_at_a_time_and_the_other_is_told_how_many_are_before_it() -> None:
    passes: list[int] = []

    async def both() -> tuple[list[Moment], list[Moment]]:
        desk = Desk(room=5)
        runs = (counted(4, 0.15, passes) for _ in range(2))
        first, second = (all_of(desk, name, run) for name, run in zip("ab", runs, strict=True))
        return await asyncio.gather(first, second)

    first, second = asyncio.run(both())
    assert passes == [0, 1, 2, 3, 0, 1, 2, 3]  # never mixed
    assert {moment.ahead for moment in first} == {0}
    assert second[0].ahead == 1
    for moments in (first, second):
        assert moments[-1].over
        assert moments[-1].view is not None
        assert is_over(moments[-1].view)
        assert sum((moment.points for moment in moments), ()) == (
            Point("Scratchpad", 4, 2, True, False, "who keeps it"),
        )


def test_stop_ends_the_work_and_keeps_what_was_read() -> None:
    passes: list[int] = []

    async def asked() -> list[Moment]:
        desk = Desk(room=5)
        moments = []
        async for moment in desk.ask("a", lambda: counted(1000, 0.02, passes)):
            moments.append(moment)
            if moment.view is not None:
                desk.stop("a")
        assert not desk.is_busy("a")
        return moments

    last = asyncio.run(asked())[-1]
    assert last.over
    assert last.view is not None
    assert last.view.readers[0].stage is Stage.STOPPED
    time.sleep(0.1)
    ended = len(passes)
    assert ended < 1000
    time.sleep(0.2)
    assert len(passes) == ended  # no pass after the stop


def test_leaving_early_ends_the_work_and_lets_the_next_in() -> None:
    passes: list[int] = []

    async def hang_up() -> list[Moment]:
        desk = Desk(room=5)
        asking = desk.ask("a", lambda: counted(1000, 0.02, passes))
        async for moment in asking:
            if moment.view is not None:
                break
        await asking.aclose()
        return await all_of(desk, "b", counted(2, 0.01, []))

    moments = asyncio.run(hang_up())
    assert moments[-1].view is not None
    assert len(passes) < 100


def test_one_who_leaves_the_line_is_not_waited_for() -> None:
    async def asked() -> tuple[int, int]:
        desk = Desk(room=5)
        blocked = Event()

        def slow() -> Iterator[RunView]:
            blocked.wait(5)
            yield view(reader())

        first = desk.ask("a", slow)
        await anext(first)
        second = desk.ask("b", lambda: counted(1, 0, []))
        assert (await anext(second)).ahead == 1
        third = desk.ask("c", lambda: counted(1, 0, []))
        before = (await anext(third)).ahead
        await second.aclose()
        after = (await anext(third)).ahead
        blocked.set()
        await first.aclose()
        await third.aclose()
        return before, after

    assert asyncio.run(asked()) == (2, 1)


def test_asking_again_stops_what_was_asked_before() -> None:
    passes: list[int] = []

    async def twice() -> list[Moment]:
        desk = Desk(room=5)
        first = asyncio.ensure_future(all_of(desk, "a", counted(1000, 0.02, passes)))
        await asyncio.sleep(0.3)
        second = await all_of(desk, "a", counted(1, 0, []))
        moments = await first
        assert moments[-1].view is not None
        assert moments[-1].view.readers[0].stage is Stage.STOPPED
        return second

    assert asyncio.run(twice())[-1].over
    assert len(passes) < 1000


def test_what_the_run_raises_is_raised_to_the_one_who_asked() -> None:
    def failing() -> Iterator[RunView]:
        yield view(reader(Stage.READING, None))
        raise UserError("no such thing")

    desk = Desk(room=5)
    with pytest.raises(UserError, match="no such thing"):
        asyncio.run(all_of(desk, "a", failing()))
    assert len(desk.line) == 0
    assert asyncio.run(all_of(desk, "a", counted(1, 0, [])))[-1].over


def test_work_closes_its_iterator_in_the_thread_that_ran_it() -> None:
    from threading import current_thread

    threads = []

    def endless() -> Iterator[int]:
        threads.append(current_thread())
        try:
            while True:
                time.sleep(0.01)
                yield 1
        finally:
            threads.append(current_thread())

    async def some() -> None:
        batches = Work(endless()).batches()
        assert await anext(batches)
        await batches.aclose()

    asyncio.run(some())
    deadline = time.time() + 5
    while len(threads) < 2 and time.time() < deadline:
        time.sleep(0.01)
    assert threads[0] is threads[1]
    assert threads[0].name == "reading"


def test_work_says_that_it_goes_on_while_nothing_comes() -> None:
    def slow() -> Iterator[int]:
        time.sleep(1.3)
        yield 1

    async def some() -> list[list[int]]:
        return [batch async for batch in Work(slow()).batches()]

    batches = asyncio.run(some())
    assert batches[0] == []  # so that a hang-up is noticed while a long prompt is read
    assert [item for batch in batches for item in batch] == [1]


def test_points() -> None:
    found = LiveQuote(1, "C", "text", 2, 0, 4, verbatim=True)
    elsewhere = LiveQuote(1, "A", "text", 0, 0, 4, verbatim=True)
    plain = ReaderView("Zero-shot", Stage.DONE, quoting=False, right=False)
    shown = view(reader(quotes=(elsewhere, found)), plain)
    assert points_of(shown) == (
        Point("Scratchpad", 4, 2, True, True, "who keeps it"),
        Point("Zero-shot", 4, 2, False, None, "who keeps it"),
    )
    assert points_of(view(reader(quotes=(elsewhere,))))[0].found is False
    # None for what failed, was stopped, has no known answer, or shows no passage that holds it.
    assert points_of(view(reader(Stage.FAILED, None), reader(Stage.STOPPED, None))) == ()
    assert points_of(view(reader(right=None))) == ()
    typed = Example("q", "who", (), EXAMPLE.passages, gold=())
    assert points_of(view(reader(), example=typed)) == ()


def test_stopping_leaves_what_had_ended() -> None:
    both = view(reader(Stage.DONE), reader(Stage.WAITING, None))
    after = stopped(both)
    assert after is not None
    assert [r.stage for r in after.readers] == [Stage.DONE, Stage.STOPPED]
    assert stopped(None) is None


@pytest.mark.parametrize("text", ["", "  \n ", "?", " ?? "])
def test_nothing_is_no_question(text: str) -> None:
    with pytest.raises(UserError, match="there is no question"):
        checked_question(text)


def test_a_very_long_question_is_refused_with_its_length() -> None:
    with pytest.raises(UserError, match=r"has 20,000 characters; 2,000 are the most"):
        checked_question("x" * 20_000)
    assert checked_question("  who? ") == "who?"
