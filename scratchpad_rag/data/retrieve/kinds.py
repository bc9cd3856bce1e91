"""What kind of thing an answer is, and the things of that kind that a text names.

Plain rules over English text, which can be read and foretold: a year is four digits from 1000 to
2099, a date has the name of a month beside a number, a number has digits or is a number word, a
name is words with capital letters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum


class Kind(StrEnum):
    """What an answer is. `OTHER`: a description, or nothing that these rules know."""

    YEAR = "year"
    DATE = "date"
    NUMBER = "number"
    NAME = "name"
    OTHER = "other"


_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_YEARS = re.compile(r"\b(?:1\d{3}|20\d{2})\b")
_DATES = re.compile(
    rf"\b(?:\d{{1,2}} {_MONTH}|{_MONTH} \d{{1,2}})\b(?:,? \d{{4}})?|{_MONTH} \d{{4}}"
)
_NUMBER_WORDS = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|"
    "seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|"
    "thousand|million|billion"
)
_NUMBERS = re.compile(rf"\b\d+(?:[.,]\d+)*\b|\b(?:{_NUMBER_WORDS})\b", re.IGNORECASE)
_CAPITAL = r"[A-ZÀ-ÖØ-Þ][\w'’.-]*"
_PARTICLE = r"(?:of|the|de|da|del|di|du|la|le|van|von|der|den|al|bin|ibn|and)"
# Two words at least: a single capital may be no more than the beginning of a sentence.
_NAMES = re.compile(rf"{_CAPITAL}(?: {_PARTICLE}){{0,2}}(?: {_CAPITAL})+")
_FINDERS: dict[Kind, Callable[[str], list[str]]] = {
    Kind.YEAR: _YEARS.findall,
    Kind.DATE: _DATES.findall,
    Kind.NUMBER: _NUMBERS.findall,
    Kind.NAME: _NAMES.findall,
    Kind.OTHER: lambda _: [],
}


def kind_of(answer: str) -> Kind:
    """The kind of an answer.

    >>> [str(kind_of(answer)) for answer in ("1972", "May 18, 2018", "291 episodes", "Ida Holm")]
    ['year', 'date', 'number', 'name']
    >>> kind_of("beneath the liver")
    <Kind.OTHER: 'other'>
    """
    answer = answer.strip()
    if _YEARS.fullmatch(answer):
        return Kind.YEAR
    if _DATES.search(answer):
        return Kind.DATE
    if _NUMBERS.match(answer):
        return Kind.NUMBER
    words = [word for word in answer.split() if not re.fullmatch(_PARTICLE, word)]
    if words and all(re.match(_CAPITAL, word) for word in words):
        return Kind.NAME
    return Kind.OTHER


def find_kind(kind: Kind, text: str) -> frozenset[str]:
    """All things of a kind in a text, in lower case.

    >>> sorted(find_kind(Kind.NAME, "Then the keeper was Ida Holm, not Karl von Ansen."))
    ['ida holm', 'karl von ansen']
    """
    return frozenset(found.lower().rstrip(".'’-") for found in _FINDERS[kind](text))
