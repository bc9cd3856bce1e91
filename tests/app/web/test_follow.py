"""Readers followed as they stream: what is shown on the way, at the end, and when one fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scratchpad_rag.app.web.follow import WebReader, cited_by, follow
from scratchpad_rag.app.web.views import Cost, LiveQuote, RunView, Stage
from scratchpad_rag.config import ModelConfig
from scratchpad_rag.errors import SampleTooLongError
from scratchpad_rag.prompts.parse import parse_completion
from scratchpad_rag.reader import Answered, Reader
from scratchpad_rag.records import (
    Completion,
    Example,
    Method,
    Passage,
    Piece,
    Progress,
    ScratchpadForm,
)

MARREN = Passage("Marren", "A town by a river.")
MILL = Passage("Mill", "It was built in 1895.")
EXAMPLE = Example("q", "when was the mill built", ("1895",), (MARREN, MILL), (1,))
SCRATCHPAD = (
    " Document (Title: Mill) It was built in 1895.\n\n"
    "Question: When was the mill built?\n\nAnswer: 1895"
)


@dataclass
class Scripted:
    """Says a text in pieces; what it was asked, and how far it came, can be looked up."""

    method: Method | None
    pieces: list[str]
    error: Exception | None = None
    said: int = 0
    asked: list[int | None] = field(default_factory=list)
    closed: bool = False
    form: ScratchpadForm = ScratchpadForm.PASSAGE

    def stream_example(
        self, example: Example, max_new_tokens: int | None = None
    ) -> Iterator[Piece | Answered]:
        self.asked.append(max_new_tokens)
        try:
            for piece in self.pieces:
                self.said += 1
                yield Piece(piece, None, 0, 0)
            if self.error is not None:
                raise self.error
            text = "".join(self.pieces)
            completion = Completion(text, (), 90, 30, 5, 0.5, "stop")
            yield Answered(parse_completion(text, example, self.method), completion)
        finally:
            self.closed = True


def cut(text: str, length: int = 9) -> list[str]:
    return [text[start : start + length] for start in range(0, len(text), length)]


def stages(views: list[RunView], reader: int) -> list[Stage]:
    """Those of one reader, each once, in their order."""
    return list(dict.fromkeys(view.readers[reader].stage for view in views))


def test_both_readers_one_after_the_other() -> None:
    quoting, plain = Scripted(Method.SCRATCHPAD, cut(SCRATCHPAD)), Scripted(None, [" 1901"])
    readers = [WebReader("Scratchpad", quoting), WebReader("Zero-shot", plain)]
    views = list(follow(readers, EXAMPLE, 64))
    steps = [Stage.READING, Stage.QUOTING, Stage.ANSWERING, Stage.DONE]
    assert stages(views, 0) == steps
    assert stages(views, 1) == [Stage.WAITING, Stage.READING, Stage.ANSWERING, Stage.DONE]
    assert quoting.asked == plain.asked == [64]
    first, second = views[-1].readers
    assert first.quotes == (LiveQuote(1, "Mill", MILL.text, 1, 0, len(MILL.text), True),)
    assert (first.answer, first.cited, first.right, first.parsed) == ("1895", (1,), True, True)
    assert (second.answer, second.cited, second.right) == ("1901", (), False)
    assert first.cost == Cost(90, 30, 5, first.cost.seconds)
    assert 0 < first.cost.seconds < 60


def test_the_quote_lights_up_while_it_is_decoded() -> None:
    reader = WebReader("Scratchpad", Scripted(Method.SCRATCHPAD, cut(SCRATCHPAD)))
    ends = [q.end for view in follow([reader], EXAMPLE) for q in view.readers[0].quotes]
    assert ends == sorted(ends)
    assert len(set(ends)) >= 3
    assert ends[-1] == len(MILL.text)


def test_a_question_without_a_known_answer_is_not_judged() -> None:
    typed = Example("q", "when was the mill built", (), (MARREN, MILL), ())
    *_, last = follow([WebReader("Zero-shot", Scripted(None, [" 1895"]))], typed)
    assert last.readers[0].right is None


def test_what_one_reader_cannot_do_leaves_the_other_to_answer() -> None:
    failing = Scripted(Method.SCRATCHPAD, cut(SCRATCHPAD)[:2], SampleTooLongError("too long"))
    readers = [WebReader("Scratchpad", failing), WebReader("Zero-shot", Scripted(None, ["x"]))]
    *_, last = follow(readers, EXAMPLE)
    assert (last.readers[0].stage, last.readers[0].error) == (Stage.FAILED, "too long")
    assert last.readers[1].stage is Stage.DONE


def test_closing_ends_the_work_at_once() -> None:
    quoting, plain = Scripted(Method.SCRATCHPAD, cut(SCRATCHPAD)), Scripted(None, [" 1901"])
    views = follow([WebReader("Scratchpad", quoting), WebReader("Zero-shot", plain)], EXAMPLE)
    while next(views).readers[0].stage is not Stage.QUOTING:
        pass
    said = quoting.said
    views.close()  # type: ignore[attr-defined]
    assert (quoting.said, quoting.closed, plain.asked) == (said, True, [])


class TestCitedBy:
    QUOTES = tuple(
        LiveQuote(n, title, text, n, 0, len(text), True)
        for n, (title, text) in enumerate(
            [("Mill", "Built in 1895."), ("Ida Holm", "A painter."), ("Town", "Founded 18950.")], 1
        )
    )

    @pytest.mark.parametrize(
        ("answer", "numbers"),
        [
            ("1895", (1,)),  # 18950 is another word
            ("The Ida  holm!", (2,)),  # in the title, written otherwise
            ("1902", (1, 2, 3)),  # nowhere: it rests on all
            ("", ()),
        ],
    )
    def test_numbers(self, answer: str, numbers: tuple[int, ...]) -> None:
        assert cited_by(answer, self.QUOTES) == numbers

    def test_without_quotes_nothing_is_cited(self) -> None:
        assert cited_by("1895", ()) == ()


def tiny(folder: Path) -> ModelConfig:
    return ModelConfig(pretrained_model_name_or_path=str(folder), torch_dtype="float32")


def counting(reader: Reader) -> list[int]:
    """The forward passes that a reader's model makes from now on; the list grows with them."""
    passes: list[int] = []
    model: Any = reader.loaded.model

    def count(*_: Any) -> None:
        passes.append(1)
        time.sleep(0.02)  # transformers goes on by itself until the stream is closed

    model.register_forward_pre_hook(count)
    return passes


def test_what_it_took_is_told_while_it_runs() -> None:
    class Telling(Scripted):
        def stream_example(
            self, example: Example, max_new_tokens: int | None = None
        ) -> Iterator[Piece | Progress | Answered]:
            yield Progress(90, 0, 0)
            for number, item in enumerate(super().stream_example(example, max_new_tokens), start=1):
                yield item
                if isinstance(item, Piece):
                    yield Progress(90, 4 * number, number)

    views = follow([WebReader("Zero-shot", Telling(None, [" 18", "95"]))], EXAMPLE)
    costs = [view.readers[0].cost for view in views]
    told = [(c.prompt_tokens, c.new_tokens, c.forward_passes) for c in costs]
    expected = [(0, 0, 0), (90, 0, 0), (90, 4, 1), (90, 8, 2), (90, 30, 5)]
    assert list(dict.fromkeys(told)) == expected
    assert [c.seconds for c in costs] == sorted(c.seconds for c in costs)


@pytest.mark.parametrize("backend", ["native", "transformers"])
def test_a_closed_stream_makes_no_more_passes_and_leaves_the_reader_whole(
    backend: str, tiny_mistral: Path
) -> None:
    reader = Reader.load(model=tiny(tiny_mistral), backend=backend, max_new_tokens=24)
    documents = [MARREN, MILL]
    whole = reader.answer(EXAMPLE.question, documents)
    passes = counting(reader)
    list(reader.stream(EXAMPLE.question, documents))
    needed = len(passes)
    passes.clear()
    stream = reader.stream(EXAMPLE.question, documents)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    made = len(passes)
    assert made < needed
    time.sleep(0.1)
    assert len(passes) == made
    assert reader.answer(EXAMPLE.question, documents) == whole


def test_two_streams_at_once_are_both_right(tiny_mistral: Path) -> None:
    reader = Reader.load(model=tiny(tiny_mistral), max_new_tokens=24)
    asked = [(EXAMPLE.question, [MARREN, MILL]), ("who lives there", [MILL])]
    alone = [reader.answer(*one) for one in asked]
    streams = [reader.stream(*one) for one in asked]
    last: list[Any] = [None, None]
    going = [0, 1]
    while going:
        for number in list(going):
            try:
                last[number] = next(streams[number])
            except StopIteration:
                going.remove(number)
    assert last == alone
