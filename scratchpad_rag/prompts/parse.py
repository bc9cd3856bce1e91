"""Text -> Reading: quotes traced to passage and characters, the final answer, failures to parse."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from scratchpad_rag.data.sentences import split_sentences
from scratchpad_rag.prompts.template import (
    FIRST_WORD,
    NO_SUPPORT,
    PASSAGE_START,
    SEPARATOR,
    UNANSWERABLE,
    format_passage,
    passage_head,
    restated_question,
    shown_number,
    title_line,
)
from scratchpad_rag.records import Example, Method, Passage, Quote, Reading, ScratchpadForm

LENIENT_ANSWER = re.compile(r"^Answer:", re.MULTILINE)
# Below this share of matching characters a quote is called invented, not a slip in copying.
_RESEMBLES = 0.5
# Shorter runs of equal characters are chance.
MIN_RUN = 8
_PASSAGE = ScratchpadForm.PASSAGE


def parse_completion(
    completion: str, example: Example, method: Method | None, form: ScratchpadForm = _PASSAGE
) -> Reading:
    """Read a completion, whose scratchpad has this `form`, for the passages that `example` shows.

    With a scratchpad, the answer is what follows the format's own `Answer:`, the one after the
    restated question; where that is missing `parsed` is False and the answer is what follows the
    first line that begins with `Answer:`, or empty. Otherwise the completion is the answer.
    An answer ends at the first newline, since base models run on and invent the next question.
    A reading is `abstained` where the answer is `unanswerable` or the scratchpad, in place of
    passages, says that none supports an answer.
    """
    if method is not Method.SCRATCHPAD:
        answer = first_line(completion)
        return Reading(answer, (), True, completion, abstained=answer == UNANSWERABLE)
    scratchpad, answer, parsed = _split_answer(completion, example, form)
    answer = first_line(answer)
    if scratchpad.strip() == NO_SUPPORT:
        return Reading(answer, (), parsed, completion, abstained=True)
    quotes = tuple(
        trace_quote(block, example.passages, form)
        for block in split_quotes(scratchpad, example.passages, form)
    )
    return Reading(answer, quotes, parsed, completion, abstained=answer == UNANSWERABLE)


def first_line(text: str) -> str:
    """The first line that holds anything.

    >>> first_line(" Paris\\n\\nQuestion: And Spain?")
    'Paris'
    """
    return text.strip().split("\n", 1)[0].strip()


def _split_answer(completion: str, example: Example, form: ScratchpadForm) -> tuple[str, str, bool]:
    """Scratchpad, what follows `Answer:`, and whether that is the format's own."""
    # A passage may itself hold `Answer:`, or the question; whole quotes are passed over first.
    start = sum(len(block) for block in leading_quotes(completion, example.passages, form))
    marker = restated_question(example.question)
    found = completion.find(marker, start)
    if found >= 0:
        return completion[:found], completion[found + len(marker) :], True
    lenient = LENIENT_ANSWER.search(completion, start)
    if lenient:
        return completion[: lenient.start()], completion[lenient.end() :], False
    return completion, "", False


def leading_quotes(
    completion: str, passages: Sequence[Passage], form: ScratchpadForm = _PASSAGE
) -> list[str]:
    """The whole quotes, with the space around them, that a completion opens with."""
    blocks: list[str] = []
    position = 0
    while True:
        body = completion[position:].lstrip()
        begin = len(completion) - len(body)
        found = [text for text in _whole_quotes(body, passages, form) if body.startswith(text)]
        if not found:
            return blocks
        end = begin + max(map(len, found))
        blocks.append(completion[position:end])
        position = end


def _whole_quotes(body: str, passages: Sequence[Passage], form: ScratchpadForm) -> Iterator[str]:
    """What may be quoted where `body` begins, as far as it is no more than that."""
    if form not in (ScratchpadForm.TITLE, ScratchpadForm.SENTENCE):
        for index, passage in enumerate(passages):
            yield format_passage(passage, shown_number(index, form))
        return
    for passage in passages:
        if not body.startswith(title_line(passage)):
            continue
        quotes = [title_line(passage)] if form is ScratchpadForm.TITLE else _runs(body, passage)
        yield from (text for text in quotes if body == text or body.startswith(text + SEPARATOR))


def _runs(body: str, passage: Passage) -> Iterator[str]:
    """The passage's title with every run of its sentences that follows it in `body`."""
    head = passage_head(passage)
    sentences = split_sentences(passage.text)
    for number, (start, end) in enumerate(sentences):
        if body.startswith(head + passage.text[start:end]):
            yield from (head + passage.text[start:stop] for _, stop in sentences[number:])


def split_quotes(scratchpad: str, passages: Sequence[Passage], form: ScratchpadForm) -> list[str]:
    """The blocks of a scratchpad, one a quote."""
    whole = leading_quotes(scratchpad, passages, form)
    rest = scratchpad[sum(map(len, whole)) :]
    pieces = breaks(form).split(rest)
    # A passage may end in space of its own, so a whole one is only stripped before its head.
    return [block.lstrip() for block in whole] + [p.strip() for p in pieces if p.strip()]


def breaks(form: ScratchpadForm) -> re.Pattern[str]:
    """Where one quote ends and the next begins."""
    return re.compile(re.escape(SEPARATOR) + f"(?={_start(form)})")


def _start(form: ScratchpadForm) -> str:
    """How a quote begins, as a pattern without groups."""
    numbered = rf"{re.escape(FIRST_WORD)} (?:\[\d+\])?\(Title: "
    return numbered if form is ScratchpadForm.INDEX else re.escape(PASSAGE_START)


class Said(NamedTuple):
    """A quote as it is written; `title` is "" and `number` None where it says none."""

    title: str
    text: str
    number: int | None = None


def trace_quote(block: str, passages: Sequence[Passage], form: ScratchpadForm = _PASSAGE) -> Quote:
    """Find where a piece of scratchpad comes from.

    A quote is verbatim if its title and its text stand in one passage, character for character,
    which has the number that the quote says, if it says one; otherwise the passage that it shares
    most with is named, or none if it resembles none. A quote of a title alone has no text: it
    names the first passage of that title.
    """
    if form is ScratchpadForm.TITLE:
        title = _title_alone(block, passages)
        if title is not None:
            return title
    for index, passage in enumerate(passages):
        if block == format_passage(passage, shown_number(index, form)):
            return Quote(passage.text, passage.title, index, 0, len(passage.text), verbatim=True)
    said = split_head(block, passages, form)
    for index, passage in enumerate(passages):
        start = _find(said.text, passage.text, form)
        named = said.title in ("", passage.title) and said.number in (None, index + 1)
        if said.text and start >= 0 and named:
            end = start + len(said.text)
            return Quote(said.text, passage.title, index, start, end, verbatim=True)
    return _trace_inexact(said.title, said.text, passages)


def _find(quote: str, text: str, form: ScratchpadForm) -> int:
    """Where a quote stands in a passage's text, -1 if nowhere; sentences begin where one does."""
    if form is ScratchpadForm.SENTENCE and quote:
        for start, _ in split_sentences(text):
            if text.startswith(quote, start):
                return start
    return text.find(quote)


def _title_alone(block: str, passages: Sequence[Passage]) -> Quote | None:
    for index, passage in enumerate(passages):
        if block == title_line(passage):
            return Quote("", passage.title, index, 0, 0, verbatim=True)
    invented = re.fullmatch(rf"{_start(_PASSAGE)}(?P<title>[^\n]*)\)", block)
    return Quote("", invented["title"], None, 0, 0, verbatim=False) if invented else None


def split_head(block: str, passages: Sequence[Passage], form: ScratchpadForm = _PASSAGE) -> Said:
    """Title, text and number of a quote, as far as it begins like one."""
    # A title may hold a closing bracket: those of the passages shown are tried first.
    heads = [passage_head(p, shown_number(index, form)) for index, p in enumerate(passages)]
    known = [index for index, head in enumerate(heads) if block.startswith(head)]
    if known:
        index = max(known, key=lambda index: len(passages[index].title))
        number = shown_number(index, form)
        return Said(passages[index].title, block[len(heads[index]) :], number)
    match = re.fullmatch(rf"({_start(form)})(?P<title>[^\n]*?)\) (?P<text>.*)", block, re.DOTALL)
    if match is None:
        return Said("", block)
    digits = re.search(r"\[(\d+)\]", match[1])
    return Said(match["title"], match["text"], int(digits[1]) if digits else None)


def _trace_inexact(title: str, text: str, passages: Sequence[Passage]) -> Quote:
    words = set(text.split())
    # Matching characters takes time with the product of the lengths: only likely sources are tried.
    likely = sorted(
        range(len(passages)), key=lambda i: -len(words & set(passages[i].text.split()))
    )[:2]
    best: tuple[int, int, int, int] | None = None  # (matched characters, passage, start, end)
    for index in likely:
        matcher = SequenceMatcher(None, passages[index].text, text, autojunk=False)
        runs = [run for run in matcher.get_matching_blocks() if run.size >= MIN_RUN]
        matched = sum(run.size for run in runs)
        if runs and (best is None or matched > best[0]):
            best = (matched, index, runs[0].a, runs[-1].a + runs[-1].size)
    if best is not None and best[0] >= _RESEMBLES * len(text):
        _, index, start, end = best
        return Quote(text, title, index, start, end, verbatim=False)
    return Quote(text, title, None, 0, 0, verbatim=False)
