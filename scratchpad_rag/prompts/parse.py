"""Text -> Reading: quotes traced to passage and characters, the final answer, failures to parse."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from scratchpad_rag.prompts.template import (
    NO_SUPPORT,
    PASSAGE_START,
    SEPARATOR,
    UNANSWERABLE,
    format_passage,
    passage_head,
    restated_question,
)
from scratchpad_rag.records import Example, Method, Passage, Quote, Reading

_QUOTE = re.compile(r"Document \(Title: (?P<title>[^\n]*?)\) (?P<text>.*)", re.DOTALL)
LENIENT_ANSWER = re.compile(r"^Answer:", re.MULTILINE)
# Where one quote ends and the next begins.
BREAK = re.compile(re.escape(SEPARATOR) + f"(?={re.escape(PASSAGE_START)})")
# Below this share of matching characters a quote is called invented, not a slip in copying.
_RESEMBLES = 0.5
# Shorter runs of equal characters are chance.
MIN_RUN = 8


def parse_completion(completion: str, example: Example, method: Method | None) -> Reading:
    """Read a completion for the passages that `example` shows.

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
    scratchpad, answer, parsed = _split_answer(completion, example)
    answer = first_line(answer)
    if scratchpad.strip() == NO_SUPPORT:
        return Reading(answer, (), parsed, completion, abstained=True)
    quotes = tuple(
        trace_quote(block, example.passages) for block in split_quotes(scratchpad, example.passages)
    )
    return Reading(answer, quotes, parsed, completion, abstained=answer == UNANSWERABLE)


def first_line(text: str) -> str:
    """The first line that holds anything.

    >>> first_line(" Paris\\n\\nQuestion: And Spain?")
    'Paris'
    """
    return text.strip().split("\n", 1)[0].strip()


def _split_answer(completion: str, example: Example) -> tuple[str, str, bool]:
    """Scratchpad, what follows `Answer:`, and whether that is the format's own."""
    # A passage may itself hold `Answer:`, or the question; whole passages are passed over first.
    start = sum(len(block) for block in leading_passages(completion, example.passages))
    marker = restated_question(example.question)
    found = completion.find(marker, start)
    if found >= 0:
        return completion[:found], completion[found + len(marker) :], True
    lenient = LENIENT_ANSWER.search(completion, start)
    if lenient:
        return completion[: lenient.start()], completion[lenient.end() :], False
    return completion, "", False


def leading_passages(completion: str, passages: Sequence[Passage]) -> list[str]:
    """The whole passages, with the space around them, that a completion opens with."""
    rendered = sorted((format_passage(p) for p in passages), key=len, reverse=True)
    blocks: list[str] = []
    position = 0
    while True:
        body = completion[position:].lstrip()
        begin = len(completion) - len(body)
        match = next((text for text in rendered if body.startswith(text)), None)
        if match is None:
            return blocks
        blocks.append(completion[position : begin + len(match)])
        position = begin + len(match)


def split_quotes(scratchpad: str, passages: Sequence[Passage]) -> list[str]:
    """The blocks of a scratchpad, one a quote."""
    whole = leading_passages(scratchpad, passages)
    rest = scratchpad[sum(map(len, whole)) :]
    pieces = BREAK.split(rest)
    # A passage may end in space of its own, so a whole one is only stripped before its head.
    return [block.lstrip() for block in whole] + [p.strip() for p in pieces if p.strip()]


def trace_quote(block: str, passages: Sequence[Passage]) -> Quote:
    """Find where a piece of scratchpad comes from.

    A quote is verbatim if its title and its text stand in one passage, character for character;
    otherwise the passage that it shares most with is named, or none if it resembles none.
    """
    title, text = split_head(block, passages)
    for index, passage in enumerate(passages):
        if block == format_passage(passage):
            return Quote(passage.text, passage.title, index, 0, len(passage.text), verbatim=True)
    for index, passage in enumerate(passages):
        start = passage.text.find(text)
        if text and start >= 0 and title in ("", passage.title):
            return Quote(text, passage.title, index, start, start + len(text), verbatim=True)
    return _trace_inexact(title, text, passages)


def split_head(block: str, passages: Sequence[Passage]) -> tuple[str, str]:
    """Title and text; the title is "" where the block does not begin like a passage."""
    # A title may hold a closing bracket: those of the passages shown are tried first.
    known = [p for p in passages if block.startswith(passage_head(p))]
    if known:
        passage = max(known, key=lambda p: len(p.title))
        return passage.title, block[len(passage_head(passage)) :]
    match = _QUOTE.fullmatch(block)
    return (match["title"], match["text"]) if match else ("", block)


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
