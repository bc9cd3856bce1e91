"""What the page shows at one moment, as records: made by `follow`, drawn by `panes` and `chart`.

They know neither Gradio nor torch, so that what is drawn can be looked at without a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scratchpad_rag.records import Example


class Stage(StrEnum):
    """How far a reader is."""

    WAITING = "waiting"  # for another reader of the same run
    READING = "reading"  # the prompt; nothing is decided yet
    QUOTING = "quoting"
    ANSWERING = "answering"
    DONE = "done"
    STOPPED = "stopped"  # midway, by the one who asked
    FAILED = "failed"  # `error` says why


@dataclass(frozen=True, slots=True)
class LiveQuote:
    """A quote as far as it is decoded.

    `number` counts from 1 in the order of the quotes and is what citations name. `passage` is the
    number of the passage shown (from 0), or None where it resembles none; `start:end` are the
    characters of that passage's text. `text` is the quote without its title.
    """

    number: int
    title: str
    text: str
    passage: int | None
    start: int
    end: int
    verbatim: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """What an answer took so far. Seconds are wall seconds of this reader alone."""

    prompt_tokens: int = 0
    new_tokens: int = 0
    forward_passes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ReaderView:
    """One reader at one moment. `right` is None where no answer is known."""

    name: str  # "Scratchpad" | "Zero-shot"
    stage: Stage
    quoting: bool  # whether this reader quotes before it answers
    quotes: tuple[LiveQuote, ...] = ()
    answer: str = ""
    cited: tuple[int, ...] = ()  # numbers of the quotes that the answer rests on
    abstained: bool = False
    parsed: bool = True
    right: bool | None = None
    cost: Cost = Cost()
    error: str = ""


@dataclass(frozen=True, slots=True)
class RunView:
    """A question, the passages shown in their order, and both readers at one moment."""

    example: Example
    readers: tuple[ReaderView, ...]

    @property
    def gold_position(self) -> int | None:
        """Where the first gold passage stands (from 0); None where none is known or shown."""
        return min(self.example.gold, default=None)


@dataclass(frozen=True, slots=True)
class Point:
    """One finished run of one reader, for the chart.

    `found` says whether a gold passage was quoted; None for a reader that quotes nothing.
    """

    reader: str
    documents: int
    position: int
    right: bool
    found: bool | None
    question: str
