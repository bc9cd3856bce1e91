"""Example -> Rendered: the text of a prompt or training sample, with the span of every region."""

from __future__ import annotations

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
)
from scratchpad_rag.records import Example, Method, Region, Rendered, Span


class _Text:
    """A string that grows piece by piece and remembers where each piece stands."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.spans: list[Span] = []
        self.length = 0

    def add(
        self, piece: str, region: Region, passage: int | None = None, head: int | None = None
    ) -> None:
        if piece:
            text = None if head is None else self.length + head
            self.spans.append(Span(self.length, self.length + len(piece), region, passage, text))
            self.pieces.append(piece)
            self.length += len(piece)


def render_prompt(example: Example, wording: Wording) -> Rendered:
    """The prompt for an example; one without passages becomes a closed-book prompt."""
    text = _write_prompt(example, wording)
    return Rendered(
        "".join(text.pieces), text.length, tuple(text.spans), chat=wording.chat is not None
    )


def render_sample(
    example: Example, wording: Wording, method: Method, *, abstain: bool = False
) -> Rendered:
    """A prompt with the completion to learn; an end-of-sequence token follows it.

    With `abstain` the completion says that nothing shown supports an answer. Raises DataError where
    a scratchpad is asked for, the example shows no gold passage, and it is not to abstain.
    """
    text = _write_prompt(example, wording)
    prompt_end = text.length
    # A chat template's own marker ends the prompt, so the assistant's turn opens without a space.
    space = "" if wording.chat else " "
    if method is Method.SCRATCHPAD:
        if not example.gold and not abstain:
            raise DataError(
                f"question {example.id!r} shows no gold passage, so its scratchpad would be empty"
            )
        _write_scratchpad(text, example, () if abstain else example.gold, space)
        space = " "
    text.add(space + (UNANSWERABLE if abstain else example.answers[0].strip()), Region.ANSWER)
    return Rendered(
        "".join(text.pieces),
        prompt_end,
        tuple(text.spans),
        ends=True,
        chat=wording.chat is not None,
    )


def render_forced(example: Example, wording: Wording, quoted: tuple[int, ...]) -> Rendered:
    """A prompt that goes on with a scratchpad of the passages `quoted`, up to its `Answer:`.

    All of it is the prompt: only the answer is left to write. It is what a training sample whose
    gold passages these are begins with, character for character.
    """
    text = _write_prompt(example, wording)
    _write_scratchpad(text, example, quoted, "" if wording.chat else " ")
    return Rendered(
        "".join(text.pieces), text.length, tuple(text.spans), chat=wording.chat is not None
    )


def _write_scratchpad(text: _Text, example: Example, quoted: tuple[int, ...], space: str) -> None:
    """Passages, or that there are none, and the restated question with its `Answer:`."""
    text.add(space, Region.SCAFFOLD)
    if quoted:
        _write_passages(text, example, quoted, Region.SCRATCHPAD)
    else:
        text.add(NO_SUPPORT, Region.SCRATCHPAD)
    text.add(SEPARATOR, Region.SCAFFOLD)
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
        _write_passages(text, example, range(len(example.passages)), Region.CONTEXT)
        text.add(SEPARATOR, Region.SCAFFOLD)
        _write_question(text, example)
    text.add(ANSWER_LABEL, Region.SCAFFOLD)
    text.add(markers.before_completion if markers else "", Region.SCAFFOLD)
    return text


def _write_question(text: _Text, example: Example) -> None:
    text.add(QUESTION_LABEL, Region.SCAFFOLD)
    text.add(format_question(example.question), Region.QUESTION)
    text.add(SEPARATOR, Region.SCAFFOLD)


def _write_passages(
    text: _Text, example: Example, indices: range | tuple[int, ...], region: Region
) -> None:
    for count, index in enumerate(indices):
        if count:
            text.add(SEPARATOR, Region.SCAFFOLD)
        passage = example.passages[index]
        text.add(format_passage(passage), region, index, len(passage_head(passage)))
