"""Text that is still coming -> as much of its Reading as can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from scratchpad_rag.prompts.parse import first_line, split_answer, split_quotes, trace_quote
from scratchpad_rag.prompts.template import (
    ANSWER_LABEL,
    NO_SUPPORT,
    SEPARATOR,
    passage_head,
    passage_start,
    restated_question,
    shown_number,
)
from scratchpad_rag.records import Example, Method, Passage, Quote, ScratchpadForm


class SoFar(NamedTuple):
    """What a completion holds so far; the last quote may go on. `answering`: quotes are over."""

    quotes: tuple[Quote, ...] = ()
    answer: str = ""
    answering: bool = False


def read_so_far(
    text: str,
    example: Example,
    method: Method | None,
    form: ScratchpadForm = ScratchpadForm.PASSAGE,
) -> SoFar:
    """What `parse_completion` would find in a text that goes on, without what it may yet undo.

    An end of the text that could be the beginning of the restated question, of the next passage's
    head, or of the sentence that abstains is held back until more has come. A quote of which only
    the title is there has no characters yet (`start == end`). Copies of whole passages that begin
    differently only ever grow; where a reader departs from its source, the source named for a
    quote may change as it grows.
    """
    if method is not Method.SCRATCHPAD:
        return SoFar(answer=first_line(text), answering=True)
    scratchpad, answer, parsed = split_answer(text, example, form)
    answering = parsed or ANSWER_LABEL in text[len(scratchpad) :]
    if not answering:
        scratchpad = _without_beginning_of(scratchpad, restated_question(example.question))
        for start in _starts(example.passages, form):
            scratchpad = _without_beginning_of(scratchpad, SEPARATOR + start)
    if NO_SUPPORT.startswith(scratchpad.strip()):
        return SoFar(answer=first_line(answer), answering=answering)
    blocks = split_quotes(scratchpad, example.passages, form)
    whole = blocks if answering else blocks[:-1]
    quotes = [trace_quote(block, example.passages, form) for block in whole]
    if len(whole) < len(blocks):
        growing = _trace_growing(blocks[-1], example.passages, form)
        quotes += [] if growing is None else [growing]
    return SoFar(tuple(quotes), first_line(answer), answering)


def _starts(passages: Sequence[Passage], form: ScratchpadForm) -> list[str]:
    """How a next quote may begin."""
    numbers = [shown_number(index, form) for index in range(len(passages))]
    return [passage_start(number) for number in dict.fromkeys(numbers)]


def _without_beginning_of(text: str, what: str) -> str:
    """`text` without an end that is a beginning of `what`.

    >>> _without_beginning_of("A town.\\n\\nQues", "\\n\\nQuestion: Why?")
    'A town.'
    """
    for length in range(min(len(text), len(what) - 1), 0, -1):
        if text.endswith(what[:length]):
            return text[:-length]
    return text


def _trace_growing(block: str, passages: Sequence[Passage], form: ScratchpadForm) -> Quote | None:
    """The quote that a block begins; None while not even its title is whole."""
    heads = [passage_head(p, shown_number(index, form)) for index, p in enumerate(passages)]
    if any(head.startswith(block) and head.rstrip() != block.rstrip() for head in heads):
        return None
    for number, passage in enumerate(passages):
        if block.rstrip() == heads[number].rstrip():
            return Quote("", passage.title, number, 0, 0, verbatim=True)
    # The space behind the last word may be the passage's own or come before a break.
    found = trace_quote(block, passages, form)
    for number, passage in enumerate(passages):
        text = block.removeprefix(heads[number])
        if text != block and passage.text.startswith(text):
            return replace(
                found,
                text=text,
                title=passage.title,
                passage=number,
                start=0,
                end=len(text),
                verbatim=True,
            )
    return found
