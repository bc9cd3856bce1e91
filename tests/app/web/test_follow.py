"""What the page shows while readers answer, and that closing it ends the work."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Generator, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.app.web import follow as follow_module
from scratchpad_rag.app.web.follow import WebReader, follow, stopped
from scratchpad_rag.app.web.views import Cost, LiveQuote, ReaderView, RunView, Stage
from scratchpad_rag.errors import UserError
from scratchpad_rag.prompts.parse import parse_completion
from scratchpad_rag.prompts.template import NO_SUPPORT, format_passage, restated_question
from scratchpad_rag.reader import Answered
from scratchpad_rag.records import Completion, Example, Method, Passage, Piece, Progress

BRIDGE = Passage("Bridge", "The bridge was built in 1895. It stands by the river.")
TOWN = Passage("Town", "The town lies by the river.\n\nIt is old.")
EXAMPLE = Example("q", "when was it built", ("1895",), (TOWN, BRIDGE), (1,))
ASKED = restated_question(EXAMPLE.question)


class Scripted:
    """A reader that says what it is told to, in the pieces given."""

    def __init__(self, method: Method | None, *texts: str, seconds: float = 0.0) -> None:
        self.method = method
        self.texts = texts
        self.seconds = seconds
        self.said = 0
        self.closed = False
        self.rooms: list[int | None] = []

    def stream_example(
        self, example: Example, max_new_tokens: int | None = None
    ) -> Generator[Piece | Progress | Answered]:
        self.rooms.append(max_new_tokens)
        try:
            yield Progress(100, 0, 0)
            for number, text in enumerate(self.texts, start=1):
                time.sleep(self.seconds)
                self.said = number
                yield Piece(text, None, 0, 0)
                yield Progress(100, 5 * number, number)
            whole = "".join(self.texts)
            done = Completion(whole, (), 100, 50, 9, 1.0, "stop")
            yield Answered(parse_completion(whole, example, self.method), done)
        finally:
            self.closed = True


class Refusing:
    method = None

    def stream_example(
        self, example: Example, max_new_tokens: int | None = None
    ) -> Generator[Piece | Progress | Answered]:
        raise UserError("the prompt is too long")
        yield


def views_of(reader: Any, example: Example = EXAMPLE) -> list[ReaderView]:
    return [run.readers[0] for run in follow([WebReader("it", reader)], example)]


def stages(views: Sequence[ReaderView]) -> list[Stage]:
    return [stage for stage, _ in itertools.groupby(view.stage for view in views)]


QUOTED = f" {format_passage(BRIDGE)}"


def test_quotes_then_the_answer() -> None:
    views = views_of(Scripted(Method.SCRATCHPAD, QUOTED[:40], QUOTED[40:], ASKED, " in", " 1895"))
    assert stages(views) == [Stage.READING, Stage.QUOTING, Stage.ANSWERING, Stage.DONE]
    shown = [view.quotes for view in views if view.quotes]
    assert shown[0] == (LiveQuote(1, "Bridge", "The bridge was", 1, 0, 14, verbatim=True),)
    assert shown[-1] == (LiveQuote(1, "Bridge", BRIDGE.text, 1, 0, 53, verbatim=True),)
    assert [a for a, _ in itertools.groupby(v.answer for v in views)] == ["", "in", "in 1895"]
    assert (views[-1].cited, views[-1].right, views[-1].parsed) == ((1,), True, True)
    assert all(view.quoting and view.name == "it" for view in views)
    assert {view.right for view in views[:-1]} == {None}


def test_what_it_took() -> None:
    costs = [view.cost for view in views_of(Scripted(None, "a", "b"))]
    told = [(c.prompt_tokens, c.new_tokens, c.forward_passes) for c in costs]
    assert [t for t, _ in itertools.groupby(told)] == [
        (0, 0, 0),
        (100, 0, 0),
        (100, 5, 1),
        (100, 10, 2),
        (100, 50, 9),
    ]
    seconds = [cost.seconds for cost in costs]
    assert seconds == sorted(seconds)


def test_the_clock_goes_on_while_nothing_comes(monkeypatch: Any) -> None:
    monkeypatch.setattr(follow_module, "_TICK_SECONDS", 0.01)
    views = views_of(Scripted(None, "a", seconds=0.2))
    waiting = [view.cost.seconds for view in views if view.cost.prompt_tokens and not view.answer]
    assert len(waiting) > 3
    assert waiting == sorted(set(waiting))


class TestCited:
    def cited(self, text: str, example: Example = EXAMPLE) -> tuple[int, ...]:
        return views_of(Scripted(Method.SCRATCHPAD, text), example)[-1].cited

    def test_the_quotes_that_hold_the_answer(self) -> None:
        both = f"{format_passage(TOWN)}\n\n{format_passage(BRIDGE)}{ASKED}"
        assert self.cited(f"{both} 1895.") == (2,)
        assert self.cited(f"{both} The River!") == (1, 2)

    def test_all_where_none_does(self) -> None:
        both = f"{format_passage(TOWN)}\n\n{format_passage(BRIDGE)}{ASKED}"
        assert self.cited(f"{both} 1900") == self.cited(f"{both} The") == (1, 2)

    def test_none_without_an_answer(self) -> None:
        assert self.cited(f"{format_passage(TOWN)}{ASKED}") == ()
        assert self.cited(f"{format_passage(TOWN)}{ASKED} unanswerable") == ()


class TestRight:
    def test_nothing_is_said_where_no_answer_is_known(self) -> None:
        typed = Example("q", EXAMPLE.question, (), EXAMPLE.passages, ())
        assert views_of(Scripted(None, "1895"), typed)[-1].right is None

    def test_wrong(self) -> None:
        view = views_of(Scripted(None, "1900\n1895"))[-1]
        assert (view.answer, view.right) == ("1900", False)

    def test_abstaining(self) -> None:
        view = views_of(Scripted(Method.SCRATCHPAD, NO_SUPPORT, ASKED, " unanswerable"))[-1]
        assert (view.abstained, view.right, view.quotes) == (True, False, ())


def test_readers_are_asked_one_after_the_other() -> None:
    first, second = Scripted(None, "1895"), Scripted(Method.SCRATCHPAD, QUOTED, ASKED, " 1900")
    runs = list(follow([WebReader("a", first), WebReader("b", second)], EXAMPLE, 64))
    assert all(run.example is EXAMPLE for run in runs)
    pairs = [tuple(view.stage for view in run.readers) for run in runs]
    assert [pair for pair, _ in itertools.groupby(pairs)] == [
        (Stage.READING, Stage.WAITING),
        (Stage.ANSWERING, Stage.WAITING),
        (Stage.DONE, Stage.WAITING),
        (Stage.DONE, Stage.READING),
        (Stage.DONE, Stage.QUOTING),
        (Stage.DONE, Stage.ANSWERING),
        (Stage.DONE, Stage.DONE),
    ]
    assert (first.rooms, second.rooms) == ([64], [64])


def test_one_that_fails_leaves_the_other() -> None:
    runs = list(follow([WebReader("a", Refusing()), WebReader("b", Scripted(None, "x"))], EXAMPLE))
    first, second = runs[-1].readers
    assert (first.stage, first.error) == (Stage.FAILED, "the prompt is too long")
    assert (second.stage, second.answer) == (Stage.DONE, "x")


class TestStopping:
    def test_closing_ends_the_reader_under_way_and_asks_no_other(self) -> None:
        first, second = Scripted(None, "a", "b", "c"), Scripted(None, "x")
        following = follow([WebReader("a", first), WebReader("b", second)], EXAMPLE)
        view = next(v for v in following if v.readers[0].answer == "a")
        following.close()
        assert (first.said, first.closed, second.rooms) == (1, True, [])
        assert [r.stage for r in stopped(view).readers] == [Stage.STOPPED, Stage.STOPPED]
        assert stopped(view).readers[0].answer == "a"

    def test_dropping_it_does_the_same(self) -> None:
        reader = Scripted(None, "a", "b", "c")
        following = follow([WebReader("a", reader)], EXAMPLE)
        next(v for v in following if v.readers[0].answer == "a")
        del following
        gc.collect()
        assert (reader.said, reader.closed) == (1, True)

    def test_while_nothing_comes(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(follow_module, "_TICK_SECONDS", 0.01)
        reader = Scripted(None, "a", "b", seconds=0.2)
        following = follow([WebReader("a", reader)], EXAMPLE)
        for _ in range(5):
            next(following)
        following.close()
        assert (reader.said, reader.closed) == (1, True)

    def test_those_that_are_done_stay_so(self) -> None:
        done = ReaderView("a", Stage.DONE, quoting=False, cost=Cost(1, 2, 3, 4.0))
        failed = ReaderView("b", Stage.FAILED, quoting=False, error="e")
        assert stopped(RunView(EXAMPLE, (done, failed))).readers == (done, failed)


_TEXTS = st.sampled_from(
    [
        f" {format_passage(BRIDGE)}\n\n{format_passage(TOWN)}{ASKED} in 1895\n\nQuestion: And",
        f"Document (Title: Town) It is old.\n\nDocument (Title: Bridge) It stands{ASKED} 1895",
        f" Document (Title: Bridge) The bridge was opened in 1895.{ASKED} 1895",
        f" {NO_SUPPORT}{ASKED} unanswerable",
        f" {format_passage(TOWN)}\nAnswer: 1895",
        "No quotes at all",
        "",
    ]
)


@given(_TEXTS, st.lists(st.integers(1, 150), max_size=6))
def test_each_view_is_a_beginning_of_the_last(text: str, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in itertools.pairwise(places)]
    *views, last = views_of(Scripted(Method.SCRATCHPAD, *pieces))
    reading = parse_completion(text, EXAMPLE, Method.SCRATCHPAD)
    assert (last.answer, last.abstained, last.parsed) == (
        reading.answer,
        reading.abstained,
        reading.parsed,
    )
    assert [(q.title, q.text, q.passage, q.start, q.end, q.verbatim) for q in last.quotes] == [
        (q.title, q.text, q.passage, q.start, q.end, q.verbatim) for q in reading.quotes
    ]
    assert [quote.number for quote in last.quotes] == [*range(1, len(last.quotes) + 1)]
    for view in views:
        assert last.answer.startswith(view.answer)
        for shown, became in zip(view.quotes, last.quotes, strict=False):
            assert (shown.number, shown.title) == (became.number, became.title)
            assert became.text.startswith(shown.text)
            if became.verbatim:
                assert (shown.passage, shown.start) == (became.passage, became.start)
                assert shown.end <= became.end
                source = EXAMPLE.passages[became.passage or 0].text
                assert source[shown.start : shown.end] == shown.text
