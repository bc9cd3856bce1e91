"""Text that is still coming -> what is certain of its Reading, however it goes on.

What `parse_completion` makes of a text is not always told by its beginning: a blank line may open
the next quote or stand within this one, and two passages may begin alike. Whatever could still be
read otherwise is held back, so that nothing shown is ever taken back.
"""

from __future__ import annotations

from typing import NamedTuple

from scratchpad_rag.prompts.parse import (
    BREAK,
    LENIENT_ANSWER,
    MIN_RUN,
    first_line,
    leading_passages,
    split_head,
    split_quotes,
    trace_quote,
)
from scratchpad_rag.prompts.template import (
    ANSWER_LABEL,
    NO_SUPPORT,
    PASSAGE_START,
    SEPARATOR,
    format_passage,
    passage_head,
    restated_question,
)
from scratchpad_rag.records import Example, Method, Passage, Quote

_NEXT_QUOTE = SEPARATOR + PASSAGE_START


class Grown(NamedTuple):
    """What is certain so far: the first quotes, the last of them perhaps unfinished, and the
    beginning of the answer. `answering`: the scratchpad is over."""

    quotes: tuple[Quote, ...] = ()
    answer: str = ""
    answering: bool = False
    abstained: bool = False


class GrowingReading:
    """A completion that is read while it comes.

    Each `add` returns a beginning of what `parse_completion` will return of the whole: quotes keep
    number and title, and texts only grow. As long as a quote is `verbatim`, its passage and start
    stay too; where one has departed from its source, that is where it kept to it, until the quote
    is whole and is traced as a whole.
    """

    def __init__(self, example: Example, method: Method | None) -> None:
        self.method = method
        self.passages = example.passages
        self.text = ""
        self._marker = restated_question(example.question)
        self._rendered = {format_passage(passage): passage for passage in example.passages}
        self._numbers: dict[Passage, int] = {}  # of equal passages the first is the source
        for number, passage in enumerate(example.passages):
            self._numbers.setdefault(passage, number)
        self._traced: dict[str, Quote] = {}

    def add(self, text: str) -> Grown:
        """What is certain with `text` behind the earlier texts."""
        self.text += text
        if self.method is not Method.SCRATCHPAD:
            return Grown(answer=first_line(self.text), answering=True)
        whole = leading_passages(self.text, self.passages)
        pending = self._pending(whole)
        start = sum(map(len, whole[:pending]))
        if pending is not None:
            # A whole passage that may become a longer one is shown when it is known which it is.
            end = start if pending < len(whole) else self._certain_end(start, inside=True)
            return self._growing(whole[:pending], self.text[start:end])
        found = self.text.find(self._marker, start)
        if found < 0:
            return self._growing(whole, self.text[start : self._certain_end(start)])
        scratchpad, answer = self.text[:found], first_line(self.text[found + len(self._marker) :])
        if scratchpad.strip() == NO_SUPPORT:
            return Grown((), answer, answering=True, abstained=True)
        blocks = split_quotes(scratchpad, self.passages)
        return Grown(tuple(map(self._trace, blocks)), answer, answering=True)

    def _pending(self, whole: list[str]) -> int | None:
        """The first of the whole passages that may become a longer one, or the number of them where
        what stands behind them may become another; None where neither can be."""
        start = 0
        for number, block in enumerate([*whole, ""]):
            body = self.text[start:].lstrip()
            if any(text.startswith(body) and text != body for text in self._rendered):
                return number
            start += len(block)
        return None

    def _certain_end(self, start: int, inside: bool = False) -> int:
        """Up to where the text surely belongs to the scratchpad; `inside` what may be a passage,
        up to where it does if it is none."""
        text = self.text
        body = len(text) - len(text[start:].lstrip())
        ends = [text.find(mark, body) for mark in (self._marker, _NEXT_QUOTE) if inside]
        ends += [len(text) - _begun(text, mark) for mark in (self._marker, _NEXT_QUOTE)]
        lenient = LENIENT_ANSWER.search(text, start)
        begun = len(text) - _begun(text, ANSWER_LABEL)
        if lenient:
            ends.append(lenient.start())
        elif begun == 0 or text[begun - 1] == "\n":
            ends.append(begun)
        return max(start, min((end for end in ends if end >= 0), default=len(text)))

    def _growing(self, whole: list[str], rest: str) -> Grown:
        *closed, last = BREAK.split(rest)
        blocks = [block.lstrip() for block in whole] + [p.strip() for p in closed if p.strip()]
        quotes = [self._trace(block) for block in blocks]
        growing = last.strip()
        if growing and (quotes or not NO_SUPPORT.startswith(growing)):
            quote = self._growing_quote(growing)
            quotes += [] if quote is None else [quote]
        return Grown(tuple(quotes))

    def _trace(self, block: str) -> Quote:
        if block not in self._traced:
            self._traced[block] = trace_quote(block, self.passages)
        return self._traced[block]

    def _growing_quote(self, block: str) -> Quote | None:
        """An unfinished quote; None where it is not yet certain what is its title or its source."""
        title, text = split_head(block, self.passages)
        if not text or self._head_may_grow(block, title):
            return None
        places = _places(title, text, self._numbers)
        if len(places) > 1 or (places and not title):
            return None
        if not places:
            return self._departed(title, text)
        [(passage, start)] = places
        return Quote(text, title, passage, start, start + len(text), verbatim=True)

    def _head_may_grow(self, block: str, title: str) -> bool:
        if any(
            head != block and head.startswith(block) for head in map(passage_head, self._numbers)
        ):
            return True
        whole = {p.title for text, p in self._rendered.items() if text.startswith(block)}
        if whole - {title}:
            return True
        begun = block[: len(PASSAGE_START)]
        return not title and PASSAGE_START.startswith(begun) and "\n" not in block

    def _departed(self, title: str, text: str) -> Quote:
        """A quote that is not word for word, at the place where its beginning stands."""
        kept, beyond = 0, len(text)
        while beyond - kept > 1:  # what begins a longer beginning that is found is found too
            middle = (kept + beyond) // 2
            if _places(title, text[:middle], self._numbers):
                kept = middle
            else:
                beyond = middle
        if kept < MIN_RUN:
            return Quote(text, title, None, 0, 0, verbatim=False)
        passage, start = _places(title, text[:kept], self._numbers)[0]
        return Quote(text, title, passage, start, start + kept, verbatim=False)


def _begun(text: str, mark: str) -> int:
    """How many of the mark's characters, fewer than all, the text ends with.

    >>> _begun("It was so.\\n\\nQues", "\\n\\nQuestion: ")
    6
    """
    sizes = range(min(len(mark) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(mark[:size])), 0)


def _places(title: str, text: str, numbers: dict[Passage, int]) -> list[tuple[int, int]]:
    """Passage and character of the first two places, if there are so many, where a text stands."""
    places: list[tuple[int, int]] = []
    for passage, number in numbers.items():
        start = passage.text.find(text) if title in ("", passage.title) else -1
        while start >= 0 and len(places) < 2:
            places.append((number, start))
            start = passage.text.find(text, start + 1)
    return places
