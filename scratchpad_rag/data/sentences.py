"""Where the sentences of a passage begin and end."""

from __future__ import annotations

import re

# A stop, with what closes quotations and brackets behind it, before white space.
_STOP = re.compile(r"[.!?…][\"'”’»)\]]*(?=\s)")
# What a stop does not end a sentence after: titles, initials, and dotted abbreviations.
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'“‘])(?:[A-Z]|[A-Za-z](?:\.[A-Za-z])+|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Gen|Col|Lt|Sgt|"
    r"Capt|Rev|Hon|Gov|Sen|Rep|vs|etc|cf|No|Vol|pp|ca|approx|Inc|Ltd|Co|Corp)\.$"
)


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Character ranges of the sentences of a text, without the white space between them.

    A sentence ends at a stop that white space and no small letter follows. An initial or a usual
    abbreviation ends none. Together the ranges hold every character that is not white space.

    >>> split_sentences("Ida Holm was born in St. Corvin. She built it (in 1911). Why?")
    [(0, 32), (33, 56), (57, 61)]
    """
    ends = [match.end() for match in _STOP.finditer(text) if _ends_sentence(text, match.end())]
    ranges: list[tuple[int, int]] = []
    start = 0
    for end in [*ends, len(text)]:
        piece = text[start:end]
        begin = start + len(piece) - len(piece.lstrip())
        stop = start + len(piece.rstrip())
        if begin < stop:
            ranges.append((begin, stop))
        start = end
    return ranges


def _ends_sentence(text: str, end: int) -> bool:
    if _ABBREVIATION.search(text[max(0, end - 12) : end]):
        return False
    after = text[end:].lstrip()
    return not after[:1].islower()
