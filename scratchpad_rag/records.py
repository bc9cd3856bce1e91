"""The records that pass from room to room. All are frozen; this file imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved passage: about 100 words with the title of its source."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """A question, its acceptable answers, and ranked passages with the gold ones marked.

    As read from disk, `passages` holds everything that was retrieved, best first; after
    `data.place` it holds what the reader is shown, in the order shown.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    passages: tuple[Passage, ...]
    gold: tuple[int, ...]  # indices into `passages`; several for multi-hop, none for no-gold
    gold_total: int | None = None  # gold passages there are, where more than `gold` were retrieved
    also_hold: tuple[int, ...] = ()  # others known to hold an answer: never taken as distractors
    # Sentences of its gold passages that its data mark as supporting; not in what names a run.
    support: tuple[str, ...] = field(default=(), repr=False)

    @property
    def gold_passages(self) -> tuple[Passage, ...]:
        return tuple(self.passages[index] for index in self.gold)


class Region(StrEnum):
    """The part of a sample that a character or token belongs to."""

    SYSTEM = "system"
    QUESTION = "question"
    CONTEXT = "context"
    SCRATCHPAD = "scratchpad"
    ANSWER = "answer"
    SCAFFOLD = "scaffold"  # chat-template markers, labels and separators


class Method(StrEnum):
    """What a completion holds: the answer alone, or the supporting passages before it."""

    SFT = "sft"
    SCRATCHPAD = "scratchpad"


class ScratchpadForm(StrEnum):
    """What a scratchpad holds of each supporting passage."""

    PASSAGE = "passage"  # its title and whole text
    TITLE = "title"  # its title alone
    SENTENCE = "sentence"  # its title and the sentences that support the answer
    INDEX = "index"  # its number in the context, which then shows numbers, its title and text


class LossRegion(StrEnum):
    """The tokens that the training loss is taken over."""

    SAMPLE = "sample"  # every token but the first, which nothing predicts
    COMPLETION = "completion"  # scratchpad, restated question and answer
    ANSWER = "answer"  # the answer and the end of sequence


class EvalSplit(StrEnum):
    """Which of an example's passages the reader is shown."""

    ALL = "val_anc"
    GOLD = "val_pos"
    NO_GOLD = "val_neg"
    CLOSED_BOOK = "val_closed_book"


class Span(NamedTuple):
    """Characters `start:end` of a text that belong to `region`; `passage` its number.

    A passage's own text begins at `text`, behind its title.
    """

    start: int
    end: int
    region: Region
    passage: int | None = None
    text: int | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt, or a prompt with its completion, as one string with the place of every region.

    `text[:prompt_end]` is the prompt. `ends` says that an end-of-sequence token follows the text.
    """

    text: str
    prompt_end: int
    spans: tuple[Span, ...]
    ends: bool = False
    chat: bool = False
    form: ScratchpadForm = ScratchpadForm.PASSAGE  # of the scratchpad that the prompt is for
    # Characters of the completion at which what is quoted parts from what else could be.
    choices: tuple[int, ...] = ()
    # Those at which a scratchpad begins, goes on to a further quote, or ends.
    turns: tuple[int, ...] = ()

    @property
    def prompt(self) -> str:
        return self.text[: self.prompt_end]

    @property
    def completion(self) -> str:
        return self.text[self.prompt_end :]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one sample with the region of each token and its label (-100: no loss)."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    regions: tuple[Region, ...]
    prompt_length: int
    choices: tuple[int, ...] = ()  # tokens of the scratchpad that choose what is quoted
    turns: tuple[int, ...] = ()  # tokens that choose whether there is a quote, or a further one

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class Options:
    """What a completion may be, where the prompts of one call differ in it.

    `verbatim`: its scratchpad is held to the context, in pieces of one `quote`; with `abstain` it
    may say instead that nothing supports an answer.
    """

    max_new_tokens: int
    verbatim: bool = False
    quote: str = "passage"  # passage | sentence
    abstain: bool = False


class Request(NamedTuple):
    """A prompt with the options of its completion."""

    prompt: Rendered
    options: Options


@dataclass(frozen=True, slots=True)
class Completion:
    """What a backend generated for one prompt, and what it cost."""

    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    new_tokens: int
    forward_passes: int
    wall_seconds: float
    finish_reason: str  # "stop" | "length"
    prefilled_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    first_token_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a completion as it is streamed, and where it was copied from.

    `passage` is the number of the passage shown (from 0), None for text that is no quote;
    `start:end` are the characters of that passage's text, `0:0` within its title.
    """

    text: str
    passage: int | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What a completion that is streamed took so far; comes before the first pass and after each.

    Tokens that are decided but held back, since their source is not yet known, do not count.
    """

    prompt_tokens: int
    new_tokens: int
    forward_passes: int


@dataclass(frozen=True, slots=True)
class Quote:
    """A piece of the scratchpad and where it comes from.

    `passage` is the number of the passage shown (from 0) or None if none resembles the quote;
    `start:end` are characters of that passage's text (the title stands before it).
    """

    text: str
    title: str
    passage: int | None
    start: int
    end: int
    verbatim: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """A completion understood: the quotes, the final answer, and whether the format was kept.

    `abstained`: it says that nothing shown supports an answer.
    """

    answer: str
    quotes: tuple[Quote, ...]
    parsed: bool
    completion: str = ""
    abstained: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """One reader's answer to one question at one gold position, scored. A line of `scores.jsonl`.

    Rates are in 0..1. Quote figures are None where the method writes no scratchpad.
    """

    method: str
    example_id: str
    question: str
    answers: tuple[str, ...]
    num_documents: int
    gold_positions: tuple[int, ...]
    prediction: str
    completion: str
    quotes: tuple[Quote, ...]
    parsed: bool
    subspan_exact_match: float
    exact_match: float
    f1: float
    completion_subspan_exact_match: float
    quote_precision: float | None
    quote_recall: float | None
    verbatim_rate: float | None
    prompt_tokens: int
    new_tokens: int
    forward_passes: int
    wall_seconds: float
    prefilled_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    first_token_seconds: float = 0.0
    abstained: bool = False
    dataset: str = ""  # its name in a grid; "" where there is one only
    passage_order: str = "ranked"  # of DataConfig
    gold_total: int | None = None  # gold passages of the question, shown or not; None: not known
    # Where a grid's cell has the gold passages, over questions with more and fewer of them: where a
    # single one would stand (three that end a context begin before one that does).
    place: int | None = None
    shown: tuple[str, ...] = ()  # ids of the passages shown, which `passages.jsonl` beside holds

    @property
    def gold_position(self) -> int | None:
        """Position of the first gold passage shown (from 0), or None where none is shown."""
        return self.gold_positions[0] if self.gold_positions else None

    @property
    def cell_position(self) -> int | None:
        """The position that this score is filed under: its cell's `place`, or its own."""
        return self.gold_position if self.place is None else self.place


def score_from_json(fields: dict[str, Any]) -> Score:
    """A Score from the object that `dataclasses.asdict` and JSON made of it."""
    quotes = tuple(Quote(**quote) for quote in fields["quotes"])
    return Score(
        **{
            **fields,
            "quotes": quotes,
            "answers": tuple(fields["answers"]),
            "gold_positions": tuple(fields["gold_positions"]),
            "shown": tuple(fields.get("shown", ())),
        }
    )
