"""Rendered -> Layout: which of a prompt's tokens a scratchpad over it is made of.

A scratchpad repeats tokens of the prompt: passages, what stands between them, and the restated
question. All but its first word can so be named by ranges of the prompt's own tokens, whatever
the tokenizer does at the borders.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from scratchpad_rag.data.sentences import split_sentences
from scratchpad_rag.prompts.template import (
    ANSWER_LABEL,
    FIRST_WORD,
    NO_SUPPORT,
    QUESTION_LABEL,
    SEPARATOR,
)
from scratchpad_rag.records import Region, Rendered, ScratchpadForm, Span
from scratchpad_rag.tokens.encode import (
    Tokenizer,
    tokenize_exactly,
    tokenize_piece,
    tokenize_prompt,
    tokenize_whole,
)

# So much text before a piece makes a tokenizer see it as it stands in the prompt.
_LEAD = 24
# So many tokens before a place where a quote is left show which of them are others there.
_BEFORE_EXIT = 4


class Exit(NamedTuple):
    """Where a quote ends within its passage: the prompt's own tokens are followed as far as
    `place`, and `tokens` are written behind them, up to the next block."""

    place: int
    tokens: tuple[int, ...]


class PassageTokens(NamedTuple):
    """Token indices of one passage in the prompt.

    `start` is its first token, `body` the first after the word that all passages open with,
    `text` the first behind the title, `end` the first that does not lie wholly in the passage:
    from there to the next passage's `start` (or the question) stands what joins them.
    `sentences` holds `(first, last + 1)` for each sentence that tokens begin and end with.
    `exits` are the ends of quotes: of the title where scratchpads quote titles; where they quote
    sentences, of each of the `sentences` but one that ends with the passage.
    """

    start: int
    body: int
    text: int
    end: int
    sentences: tuple[tuple[int, int], ...]
    exits: tuple[Exit, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """A prompt's tokens, and where in them the pieces of a scratchpad stand.

    `question` is the token range of the restated question with its `Answer:`. `opening` are the
    tokens that a completion begins its first passage with, in place of those before its `body`;
    `separator` those between two blocks where the prompt's own cannot be used. `nothing` are those
    of the sentence that stands in place of passages where none is of use, up to the restated
    question; empty where the tokenizer joins it with its neighbours. `passages` is empty where
    there are none, or where `problem` says why tokens do not fit them. `offsets[i]` are the
    characters of the prompt that token i stands for.
    """

    ids: tuple[int, ...]
    passages: tuple[PassageTokens, ...] = ()
    question: tuple[int, int] = (0, 0)
    opening: tuple[int, ...] = ()
    separator: tuple[int, ...] = ()
    nothing: tuple[int, ...] = ()
    problem: str = ""
    offsets: tuple[tuple[int, int], ...] = ()
    texts: tuple[tuple[int, int], ...] = ()  # each passage's text, in characters of the prompt
    form: ScratchpadForm = ScratchpadForm.PASSAGE

    def source(self, token: int) -> tuple[int, int, int] | None:
        """Passage number and characters `start:end` of its text that a prompt token stands for.

        Tokens of the title stand for `0:0`, one that joins the last characters with what follows
        for those characters; None for a token outside the passages.
        """
        number = bisect_right([passage.start for passage in self.passages], token) - 1
        if number < 0:
            return None
        begin, end = self.offsets[token]
        first, last = self.texts[number]
        if begin >= last:
            return None
        return number, max(0, begin - first), max(0, min(end, last) - first)


class _Borders:
    """Which token a character belongs to."""

    def __init__(self, text: str, offsets: list[tuple[int, int]]) -> None:
        self.text = text
        self.offsets = offsets
        self.starts = [begin for begin, _ in offsets]
        self.ends = [end for _, end in offsets]

    def first(self, character: int) -> int:
        """The first token that ends behind a character."""
        return bisect_right(self.ends, character)

    def opens(self, character: int) -> int | None:
        """The token that begins with a character, or with a space right before it."""
        token = self.first(character)
        if token == len(self.starts):
            return None
        start = self.starts[token]
        spaced = start == character - 1 and self.text[start] == " "
        return token if start == character or spaced else None

    def within(self, character: int) -> int:
        """The token after the last that lies wholly before a character."""
        token = bisect_left(self.starts, character)
        while token and self.ends[token - 1] > character:
            token -= 1
        return token


def encode_layout(rendered: Rendered, tokenizer: Tokenizer) -> Layout:
    """The prompt's tokens with their layout; `ids` are those of `encode_prompt`."""
    tokens = tokenize_prompt(rendered, tokenizer)
    ids = tuple(tokens.ids)
    spans = [span for span in rendered.spans if span.region is Region.CONTEXT]
    if not spans or _is_forced(rendered):  # a scratchpad that is written already is not drafted
        return Layout(ids)
    borders = _Borders(rendered.prompt, tokens.offsets)
    heads = [borders.opens(span.start) for span in spans]
    asked = spans[-1].end + len(SEPARATOR)
    begin, end = borders.opens(asked), _question_end(rendered.prompt, asked, borders)
    bodies = [borders.opens(span.start + len(FIRST_WORD)) for span in spans]
    if None in heads or None in bodies or begin is None or end is None:
        return Layout(ids, problem="its tokens straddle the borders of passages")
    passages = tuple(
        _place(rendered.text, span, start, body, borders)
        for span, start, body in zip(spans, heads, bodies, strict=True)
        if start is not None and body is not None
    )
    if len({ids[p.start : p.body] for p in passages}) > 1 or any(
        not p.start < p.body <= p.text <= p.end for p in passages
    ):
        return Layout(ids, problem="its passages do not begin alike")
    if rendered.form in (ScratchpadForm.TITLE, ScratchpadForm.SENTENCE):
        leave = _Exits(rendered, ids, borders, tokenizer)
        passages = tuple(map(leave.of, passages, spans))
        if rendered.form is ScratchpadForm.TITLE and not all(p.exits for p in passages):
            return Layout(ids, problem="its tokens straddle the ends of titles")
    lead = rendered.prompt[-_LEAD:]
    space = "" if rendered.chat else " "
    nothing = tokenize_whole(lead, space + NO_SUPPORT + SEPARATOR, QUESTION_LABEL, tokenizer)
    return Layout(
        ids,
        passages,
        (begin, end),
        opening=tuple(tokenize_piece(lead, space + FIRST_WORD, " (", tokenizer)),
        separator=tuple(tokenize_piece("a", SEPARATOR, QUESTION_LABEL, tokenizer)),
        nothing=tuple(nothing or ()),
        offsets=tuple(tokens.offsets),
        texts=tuple((span.text, span.end) for span in spans if span.text is not None),
        form=rendered.form,
    )


def _is_forced(rendered: Rendered) -> bool:
    return any(
        span.region is Region.SCRATCHPAD and span.end <= rendered.prompt_end
        for span in rendered.spans
    )


def _question_end(prompt: str, asked: int, borders: _Borders) -> int | None:
    """The token after the last of `Answer:`, where one ends exactly there."""
    label = prompt.rfind(SEPARATOR + ANSWER_LABEL, asked)
    if label < 0:
        return None
    character = label + len(SEPARATOR + ANSWER_LABEL)
    token = borders.within(character)
    return token if token and borders.ends[token - 1] == character else None


def _place(text: str, span: Span, start: int, body: int, borders: _Borders) -> PassageTokens:
    assert span.text is not None
    behind_title = borders.opens(span.text)
    return PassageTokens(
        start,
        body,
        body if behind_title is None else behind_title,
        borders.within(span.end),
        () if behind_title is None else tuple(_sentences(text, span, behind_title, borders)),
    )


def _sentences(
    text: str, span: Span, behind_title: int, borders: _Borders
) -> Iterator[tuple[int, int]]:
    assert span.text is not None
    # A title ends in a space, which most tokenizers give to the word behind it: a sentence can
    # follow the title where its own first token has that space as well.
    space = span.text - borders.starts[behind_title]
    for begin, stop in split_sentences(text[span.text : span.end]):
        opening, ending = span.text + begin, span.text + stop
        first, last = borders.opens(opening), borders.within(ending)
        if first is None or first >= last:
            continue
        alike = opening - borders.starts[first] == space
        whole = borders.ends[last - 1] == ending or ending == span.end
        if alike and whole:
            yield first, last


class _Exits:
    """Finds where quotes of titles or sentences leave the prompt's own tokens.

    A tokenizer may make one token of a quote's last character and the empty line behind it.
    """

    def __init__(
        self, rendered: Rendered, ids: tuple[int, ...], borders: _Borders, tokenizer: Tokenizer
    ) -> None:
        self.rendered, self.ids, self.borders = rendered, ids, borders
        self.tokenizer = tokenizer

    def of(self, passage: PassageTokens, span: Span) -> PassageTokens:
        """The passage with its exits, and without sentences that cannot be left as they end."""
        assert span.text is not None
        if self.rendered.form is ScratchpadForm.TITLE:
            found = self._exit(passage.body, span.text - 1)  # before the space behind the title
            return passage._replace(exits=() if found is None else (found,))
        whole = not self.rendered.text[span.end - 1].isspace()
        sentences, exits = [], []
        for first, stop in passage.sentences:
            if whole and stop == passage.end:
                sentences.append((first, stop))
            elif found := self._exit(first, self.borders.ends[stop - 1]):
                sentences.append((first, stop))
                exits.append(found)
        return passage._replace(sentences=tuple(sentences), exits=tuple(exits))

    def _exit(self, first: int, end: int) -> Exit | None:
        """The exit at a character, behind the token `first` at least."""
        text, last = self.rendered.text, self.borders.within(end)
        begin = max(0, last - _BEFORE_EXIT)
        while begin and self.borders.ends[begin - 1] > self.borders.starts[begin]:
            begin -= 1  # within a character of several tokens
        start = self.borders.starts[begin]
        lead, piece = text[max(0, start - _LEAD) : start], text[start:end] + SEPARATOR
        tokens = tokenize_exactly(lead, piece, QUESTION_LABEL, self.tokenizer)
        if tokens is None:
            return None
        shared = 0
        while begin + shared < last and tokens[shared] == self.ids[begin + shared]:
            shared += 1
        place = begin + shared
        return Exit(place, tuple(tokens[shared:])) if shared and place > first else None
