"""Example -> Rendered: the text of a prompt or training sample, with the span of every region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from scratchpad_rag.data.sentences import split_sentences
from scratchpad_rag.data.support import supporting_sentences
from scratchpad_rag.errors import DataError
from scratchpad_rag.prompts.template import (
    ANSWER_LABEL,
    CONTEXT_LABEL,
    NO_SUPPORT,
    QUESTION_LABEL,
    SEPARATOR,
    UNANSWERABLE,
    Wording,
    format_passage,
    format_question,
    passage_head,
    shown_number,
    title_line,
)
from scratchpad_rag.records import Example, Method, Region, Rendered, ScratchpadForm, Span


class Block(NamedTuple):
    """A passage of the context, or what a scratchpad holds of it.

    Its text begins at `head`, behind its title; None where it is the title alone.
    """

    text: str
    passage: int
    head: int | None


def scratchpad_blocks(
    example: Example, quoted: tuple[int, ...], form: ScratchpadForm
) -> list[Block]:
    """What a scratchpad of this form holds of the passages `quoted`, in their order."""
    if form is ScratchpadForm.TITLE:
        lines: dict[str, int] = {}  # a title of several passages says all that there is once
        for index in quoted:
            lines.setdefault(title_line(example.passages[index]), index)
        return [Block(line, index, None) for line, index in lines.items()]
    if form is ScratchpadForm.SENTENCE:
        return [_sentences_block(example, index) for index in quoted]
    return [_passage_block(example, index, form) for index in quoted]


def _sentences_block(example: Example, index: int) -> Block:
    passage = example.passages[index]
    start, end = supporting_sentences(example, index)
    head = passage_head(passage)
    return Block(head + passage.text[start:end], index, len(head))


def _passage_block(example: Example, index: int, form: ScratchpadForm) -> Block:
    passage, number = example.passages[index], shown_number(index, form)
    return Block(format_passage(passage, number), index, len(passage_head(passage, number)))


class _Text:
    """A string that grows piece by piece and remembers where each piece stands."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.spans: list[Span] = []
        self.length = 0
        self.choices: list[int] = []
        self.turns: list[int] = []

    def add(
        self, piece: str, region: Region, passage: int | None = None, head: int | None = None
    ) -> None:
        if piece:
            text = None if head is None else self.length + head
            self.spans.append(Span(self.length, self.length + len(piece), region, passage, text))
            self.pieces.append(piece)
            self.length += len(piece)

    def rendered(self, wording: Wording, prompt_end: int, *, ends: bool = False) -> Rendered:
        return Rendered(
            "".join(self.pieces),
            prompt_end,
            tuple(self.spans),
            ends=ends,
            chat=wording.chat is not None,
            form=wording.form,
            choices=tuple(self.choices),
            turns=tuple(self.turns),
        )


def render_prompt(example: Example, wording: Wording) -> Rendered:
    """The prompt for an example; one without passages becomes a closed-book prompt."""
    text = _write_prompt(example, wording)
    return text.rendered(wording, text.length)


def render_sample(
    example: Example, wording: Wording, method: Method, *, abstain: bool = False
) -> Rendered:
    """A prompt with the completion to learn; an end-of-sequence token follows it.

    With `abstain` the completion says that nothing shown supports an answer. Raises DataError where
    a scratchpad is asked for, the example shows no gold passage, and it is not to abstain.
    """
    text = _write_prompt(example, wording)
    prompt_end = text.length
    space = _first_space(wording)
    if method is Method.SCRATCHPAD:
        if not example.gold and not abstain:
            raise DataError(
                f"question {example.id!r} shows no gold passage, so its scratchpad would be empty"
            )
        _write_scratchpad(text, example, () if abstain else example.gold, wording)
        space = " "
    text.add(space + (UNANSWERABLE if abstain else example.answers[0].strip()), Region.ANSWER)
    return text.rendered(wording, prompt_end, ends=True)


def render_forced(example: Example, wording: Wording, quoted: tuple[int, ...]) -> Rendered:
    """A prompt that goes on with a scratchpad of the passages `quoted`, up to its `Answer:`.

    All of it is the prompt: only the answer is left to write. It is what a training sample whose
    gold passages these are begins with, character for character.
    """
    text = _write_prompt(example, wording)
    _write_scratchpad(text, example, quoted, wording)
    return text.rendered(wording, text.length)


def _first_space(wording: Wording) -> str:
    # A chat template's own marker ends the prompt, so the assistant's turn opens without a space.
    return "" if wording.chat else " "


def _write_scratchpad(
    text: _Text, example: Example, quoted: tuple[int, ...], wording: Wording
) -> None:
    """Quotes, or that there are none, and the restated question with its `Answer:`."""
    text.add(_first_space(wording), Region.SCAFFOLD)
    if quoted:
        blocks = scratchpad_blocks(example, quoted, wording.form)
        others = _quotable(example, wording.form)
        _write_blocks(text, blocks, Region.SCRATCHPAD, others)
    else:
        text.turns.append(text.length)
        text.add(NO_SUPPORT, Region.SCRATCHPAD)
    text.add(SEPARATOR, Region.SCAFFOLD)
    if quoted:
        text.turns.append(text.length)
    _write_question(text, example)
    text.add(ANSWER_LABEL, Region.SCAFFOLD)


def _write_prompt(example: Example, wording: Wording) -> _Text:
    text = _Text()
    markers = wording.chat
    text.add(markers.before_system if markers else "", Region.SCAFFOLD)
    text.add(wording.system, Region.SYSTEM)
    between = SEPARATOR if markers is None or markers.between is None else markers.between
    text.add(between, Region.SCAFFOLD)
    _write_question(text, example)
    if example.passages:
        text.add(CONTEXT_LABEL, Region.SCAFFOLD)
        shown = range(len(example.passages))
        blocks = [_passage_block(example, index, wording.form) for index in shown]
        _write_blocks(text, blocks, Region.CONTEXT)
        text.add(SEPARATOR, Region.SCAFFOLD)
        _write_question(text, example)
    text.add(ANSWER_LABEL, Region.SCAFFOLD)
    text.add(markers.before_completion if markers else "", Region.SCAFFOLD)
    return text


def _write_question(text: _Text, example: Example) -> None:
    text.add(QUESTION_LABEL, Region.SCAFFOLD)
    text.add(format_question(example.question), Region.QUESTION)
    text.add(SEPARATOR, Region.SCAFFOLD)


def _quotable(example: Example, form: ScratchpadForm) -> list[str]:
    """Every text that a quote may be the beginning of."""
    if form is ScratchpadForm.TITLE:
        return list(map(title_line, example.passages))
    if form is ScratchpadForm.SENTENCE:
        return [
            passage_head(passage) + passage.text[start:]
            for passage in example.passages
            for start, _ in split_sentences(passage.text)
        ]
    shown = range(len(example.passages))
    return [_passage_block(example, index, form).text for index in shown]


def choice_places(text: str, others: Sequence[str]) -> list[int]:
    """Where a text, which one of `others` begins with, parts from those that begin as it does.

    >>> choice_places("Ida Holm", ["Ida Holm", "Ida Hart", "Ard"])
    [0, 5]
    """
    places: list[int] = []
    alike = set(others)
    while len(alike) > 1:
        low, high = min(alike), max(alike)  # all begin as these two do
        pairs = enumerate(zip(low, high, strict=False))
        place = next((at for at, (a, b) in pairs if a != b), len(low))
        if place >= len(text):
            break
        places.append(place)
        alike = {other for other in alike if other.startswith(text[: place + 1])}
    return places


def _write_blocks(
    text: _Text, blocks: list[Block], region: Region, others: Sequence[str] = ()
) -> None:
    for count, block in enumerate(blocks):
        if count:
            text.add(SEPARATOR, Region.SCAFFOLD)
        if region is Region.SCRATCHPAD:
            text.turns.append(text.length)
            text.choices += [text.length + place for place in choice_places(block.text, others)]
        text.add(block.text, region, block.passage, block.head)
