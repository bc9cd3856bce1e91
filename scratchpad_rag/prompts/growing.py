"""Text that is still coming -> what is certain of its Reading, however it goes on.

What `parse_completion` makes of a text is not always told by its beginning: a blank line may open
the next quote or stand within this one, and two passages may begin alike. Whatever could still be
read otherwise is held back, so that nothing shown is ever taken back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from scratchpad_rag.prompts.parse import (
    LENIENT_ANSWER,
    MIN_RUN,
    breaks,
    first_line,
    leading_quotes,
    split_head,
    split_quotes,
    trace_quote,
)
from scratchpad_rag.prompts.template import (
    ANSWER_LABEL,
    FIRST_WORD,
    NO_SUPPORT,
    PASSAGE_START,
    SEPARATOR,
    format_passage,
    passage_head,
    restated_question,
    shown_number,
)
from scratchpad_rag.records import Example, Method, Passage, Quote, ScratchpadForm

_PASSAGE = ScratchpadForm.PASSAGE
_NEXT_QUOTE = SEPARATOR + PASSAGE_START


class SoFar(NamedTuple):
    """What a completion certainly holds; the last quote may go on. `answering`: quotes are over."""

    quotes: tuple[Quote, ...] = ()
    answer: str = ""
    answering: bool = False


def read_so_far(
    text: str, example: Example, method: Method | None, form: ScratchpadForm = _PASSAGE
) -> SoFar:
    """The beginning of what `parse_completion` will find, however the text goes on.

    Quotes keep number and title, and their texts and the answer only grow. As long as a quote is
    `verbatim`, its passage and start stay too; where one has departed from its source, its place
    is where it kept to it, until it is traced as a whole. A quote of which only the passage is
    known has no characters yet (`start == end`).
    """
    if method is not Method.SCRATCHPAD:
        return SoFar(answer=first_line(text), answering=True)
    if form is not _PASSAGE:
        return _read_other_form(text, example, form)
    rendered = {format_passage(passage) for passage in example.passages}
    whole = leading_quotes(text, example.passages)
    pending = _pending(text, whole, rendered)
    start = sum(map(len, whole[:pending]))
    marker = restated_question(example.question)
    if pending is None:
        found = text.find(marker, start)
        if found >= 0:
            return _answering(text[:found], text[found + len(marker) :], example, _PASSAGE)
        end = _certain_end(text, start, marker)
    elif pending < len(whole):
        end = start  # a whole passage that may become a longer one: which it is, is not known
    else:
        end = _certain_end(text, start, marker, inside=True)
    return SoFar(_growing(whole[:pending], text[start:end], example.passages))


def _read_other_form(text: str, example: Example, form: ScratchpadForm) -> SoFar:
    """The same for scratchpads that hold no plain whole passages; a title alone is told when it has
    ended. Where a passage could be taken for two quotes, nothing is told before the end."""
    marker = restated_question(example.question)
    if _ambiguous(example.passages, marker):
        return SoFar()
    found = text.find(marker)
    if found >= 0:
        return _answering(text[:found], text[found + len(marker) :], example, form)
    end = _certain_end(text, 0, marker)
    if form is ScratchpadForm.INDEX:  # up to a number whose passage is not headed yet
        numbered = re.finditer(re.escape(f"{SEPARATOR}{FIRST_WORD} ["), text[:end])
        begun = (found.start() for found in numbered)
        end = next((at for at in begun if not breaks(form).match(text, at)), end)
    blocks = split_quotes(text[:end], example.passages, form)
    quotes = [trace_quote(block, example.passages, form) for block in blocks[:-1]]
    growing = blocks[-1].strip() if blocks else ""
    if growing and (quotes or not NO_SUPPORT.startswith(growing)):
        quote = None
        if form is ScratchpadForm.SENTENCE:
            quote = _growing_quote(growing, example.passages)
        elif form is ScratchpadForm.INDEX:
            quote = _numbered_quote(growing, example.passages)
        quotes += [] if quote is None else [quote]
    return SoFar(tuple(quotes))


def _ambiguous(passages: Sequence[Passage], marker: str) -> bool:
    """Whether a passage holds what parts quotes, or one's head begins with that of another."""
    parts = (SEPARATOR + FIRST_WORD, marker, f"\n{ANSWER_LABEL}")
    heads = {passage_head(passage) for passage in passages}
    return any(part in format_passage(passage) for passage in passages for part in parts) or any(
        one != other and one.startswith(other) for one in heads for other in heads
    )


def _numbered_quote(block: str, passages: Sequence[Passage]) -> Quote | None:
    """A numbered quote that may go on; None where it is not headed as a passage is."""
    for index, passage in enumerate(passages):
        head = passage_head(passage, shown_number(index, ScratchpadForm.INDEX))
        if block == head.rstrip():
            return Quote("", passage.title, index, 0, 0, verbatim=True)
        if block.startswith(head):
            return _placed(passage.title, block.removeprefix(head), {passage: index})
    return None


def _answering(scratchpad: str, answer: str, example: Example, form: ScratchpadForm) -> SoFar:
    if scratchpad.strip() == NO_SUPPORT:
        return SoFar((), first_line(answer), answering=True)
    blocks = split_quotes(scratchpad, example.passages, form)
    quotes = tuple(trace_quote(block, example.passages, form) for block in blocks)
    return SoFar(quotes, first_line(answer), answering=True)


def _pending(text: str, whole: Sequence[str], rendered: set[str]) -> int | None:
    """The first of the `whole` passages at the head of a text that may become a longer one, or the
    number of them where what stands behind them may become another; None where neither can be."""
    start = 0
    for number, block in enumerate([*whole, ""]):
        body = text[start:].lstrip()
        if any(passage.startswith(body) and passage != body for passage in rendered):
            return number
        start += len(block)
    return None


def _certain_end(text: str, start: int, marker: str, *, inside: bool = False) -> int:
    """Up to where the text surely belongs to the scratchpad; `inside` what may become a whole
    passage, up to where it does even if it becomes none."""
    body = len(text) - len(text[start:].lstrip())
    ends = [text.find(mark, body) for mark in (marker, _NEXT_QUOTE) if inside]
    ends += [len(text) - _begun(text, mark) for mark in (marker, _NEXT_QUOTE)]
    lenient = LENIENT_ANSWER.search(text, start)
    begun = len(text) - _begun(text, ANSWER_LABEL)
    if lenient:
        ends.append(lenient.start())
    elif begun == 0 or text[begun - 1] == "\n":
        ends.append(begun)
    return max(start, min(end for end in ends if end >= 0))


def _begun(text: str, mark: str) -> int:
    """How many of the mark's characters, but not all, the text ends with.

    >>> _begun("It was so.\\n\\nQues", "\\n\\nQuestion: ")
    6
    """
    sizes = range(min(len(mark) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(mark[:size])), 0)


def _growing(whole: Sequence[str], rest: str, passages: Sequence[Passage]) -> tuple[Quote, ...]:
    *closed, last = breaks(_PASSAGE).split(rest)
    blocks = [block.lstrip() for block in whole] + [p.strip() for p in closed if p.strip()]
    quotes = [trace_quote(block, passages) for block in blocks]
    growing = last.strip()
    if growing and (quotes or not NO_SUPPORT.startswith(growing)):
        quote = _growing_quote(growing, passages)
        quotes += [] if quote is None else [quote]
    return tuple(quotes)


def _growing_quote(block: str, passages: Sequence[Passage]) -> Quote | None:
    """A quote that may go on; None while it is not certain what its title or its source is."""
    numbers: dict[Passage, int] = {}
    for number, passage in enumerate(passages):
        numbers.setdefault(passage, number)  # of equal passages the first is the source
    heads = [passage_head(passage) for passage in numbers]
    if any(head.startswith(block) and head.rstrip() != block for head in heads):
        return None
    titled = [p for p, head in zip(numbers, heads, strict=True) if head.rstrip() == block]
    title, text = (titled[0].title, "") if titled else split_head(block, passages)[:2]
    if not titled and not _is_settled(block, title, passages):
        return None
    return _placed(title, text, numbers)


def _placed(title: str, text: str, numbers: dict[Passage, int]) -> Quote | None:
    """The quote at its place in the passages that it may come from, as far as that is certain."""
    places = _places(title, text, numbers)
    sources = [passage for passage in numbers if passage.title == title]
    if len(places) == 1 and title:
        [(number, start)] = places
        return Quote(text, title, number, start, start + len(text), verbatim=True)
    if not places:
        return _departed(title, text, numbers)
    if len(sources) == 1 and title:  # from this passage, but from which place?
        return Quote("", title, numbers[sources[0]], 0, 0, verbatim=True)
    return None


def _is_settled(block: str, title: str, passages: Sequence[Passage]) -> bool:
    """Whether a block's title cannot become another one."""
    whole = {p.title for p in passages if format_passage(p).startswith(block)}
    if whole - {title}:
        return False
    begins = PASSAGE_START.startswith(block[: len(PASSAGE_START)])
    return bool(title) or not begins or "\n" in block


def _departed(title: str, text: str, numbers: dict[Passage, int]) -> Quote:
    """A quote that is not word for word, with the place where its beginning stands."""
    kept, beyond = 0, len(text)
    while beyond - kept > 1:  # a beginning of a beginning that is found is found too
        middle = (kept + beyond) // 2
        if _places(title, text[:middle], numbers):
            kept = middle
        else:
            beyond = middle
    if kept < MIN_RUN:
        return Quote(text, title, None, 0, 0, verbatim=False)
    number, start = _places(title, text[:kept], numbers)[0]
    return Quote(text, title, number, start, start + kept, verbatim=False)


def _places(title: str, text: str, numbers: dict[Passage, int]) -> list[tuple[int, int]]:
    """Passage and character of the first two places, if there are so many, where a text stands."""
    places: list[tuple[int, int]] = []
    for passage, number in numbers.items():
        start = passage.text.find(text) if title in ("", passage.title) else -1
        while start >= 0 and len(places) < 2:
            places.append((number, start))
            start = passage.text.find(text, start + 1)
    return places
