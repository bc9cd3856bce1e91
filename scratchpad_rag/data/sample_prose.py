"""Passages and questions of the sample set, written from the phrasings of each kind.

A phrasing is a line of text with slots: `{fact}` is a fact of the entity, `{s}` the entity as a
subject (its name, a noun for it or a pronoun), `{p}` its possessive, `{o}` its object form,
`{fact.year}` its year, `{fact.decade}` its decade ("the 1870s"), and `[this|that]` a choice of
wording.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from scratchpad_rag.data.sample_world import (
    LOOKALIKE,
    PERSON,
    SLOT,
    Entity,
    Kind,
    fix_articles,
    name_stems,
)
from scratchpad_rag.errors import DataError

MIN_WORDS, MAX_WORDS = 80, 130
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_ABOUT = ("{s}", "{p}", "It ", "Its ")  # how a phrasing about the entity itself begins
_LEAD_INS = (
    "By all accounts ",
    "As far as is known, ",
    "Records show that ",
    "It is generally accepted that ",
    "According to one local history, ",
    "Most writers agree that ",
)
_MAY_MISLEAD = frozenset({"mentor", LOOKALIKE})  # after these, `she` may be someone else
_SUBJECTS = frozenset({"s", "p", "o", "name", "e", "stem"})


@dataclass(frozen=True, slots=True)
class Draft:
    """A passage's text and the facts of the entity that it states."""

    text: str
    stated: frozenset[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its acceptable answers."""

    question: str
    answers: tuple[str, ...]


def facts_in(phrasing: str) -> frozenset[str]:
    """The facts that a phrasing states or names.

    >>> sorted(facts_in("{s} opened on {opened}, a work of {designer}."))
    ['designer', 'opened']
    """
    return frozenset(match[1] for match in SLOT.finditer(phrasing)) - _SUBJECTS


def normalize(text: str) -> str:
    """Lower-case words without punctuation or articles, as SQuAD's scoring compares answers.

    >>> normalize("The  River Marren's 3,400 boats")
    'river marrens 3400 boats'
    """
    bare = re.sub(r"[!-/:-@\[-`{-~]", "", text.lower())
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


class _Subject:
    """Decides how the entity is called next: by name, by a noun or by a pronoun."""

    def __init__(self, kind: Kind, entity: Entity, rng: Random) -> None:
        self.kind, self.entity, self.rng = kind, entity, rng
        self.is_person = kind.name == PERSON
        if self.is_person:
            self.nouns: tuple[str, ...] = (entity.name.split()[-1],)
            self.pronouns = ("she", "her", "her") if entity.female else ("he", "his", "him")
        else:
            self.nouns = kind.nouns
            self.pronouns = ("it", "its", "it")
        self.last = "name"
        self.unclear = False

    def call(self, slot: str, *, again: bool) -> str:
        """Text of slot `s`, `p` or `o`; `again` where the sentence has already named it."""
        form = "spo".index(slot)
        if again or self._pronoun_fits():
            self.last = "pronoun" if not again else self.last
            return self.pronouns[form]
        choices = [noun for noun in self.nouns if noun != self.last] or list(self.nouns)
        if not self.is_person and self.rng.random() < 0.15 and self.last != "name":
            choices = [self.entity.mention]
        noun = self.rng.choice(choices)
        self.last = noun
        return noun + "'s" if slot == "p" else noun

    def _pronoun_fits(self) -> bool:
        if self.unclear:
            return False
        return self.rng.random() < (0.35 if self.last == "pronoun" else 0.7)


def write_passage(kind: Kind, entity: Entity, rng: Random) -> Draft:
    """A passage of 80 to 130 words: an opening, then facts in varying order."""
    for _ in range(400):
        phrasings = _choose_phrasings(kind, entity, rng)
        text = _render_passage(kind, entity, phrasings, rng)
        if MIN_WORDS <= len(text.split()) <= MAX_WORDS:
            # a fact at the start of a sentence may be capitalized: nothing is asked about those
            stated = {fact for fact, value in entity.facts.items() if value.text in text}
            return Draft(text, frozenset().union(*map(facts_in, phrasings)) & stated)
    raise DataError(f"no passage of {MIN_WORDS} to {MAX_WORDS} words for {entity.name!r}")


def _choose_phrasings(kind: Kind, entity: Entity, rng: Random) -> list[str]:
    usable = [line for line in kind.sentences if facts_in(line) <= entity.facts.keys()]
    opening = rng.choice([line for line in kind.openings if facts_in(line) <= entity.facts.keys()])
    target = rng.uniform(88, 122)
    covered = set(facts_in(opening))
    chosen: list[str] = []
    words = _length(opening)
    with_aside = kind.asides and rng.random() < 0.5
    aside = rng.choice(kind.asides) if with_aside else ""
    words += _length(aside)
    for fact in rng.sample(sorted(entity.facts), len(entity.facts)):
        if fact in covered or words >= target:
            continue
        fitting = [line for line in usable if fact in (f := facts_in(line)) and not f & covered]
        if fitting:
            line = rng.choice(fitting)
            chosen.append(line)
            covered |= facts_in(line)
            words += _length(line)
    chosen.sort(key=lambda line: _lateness(kind, line))
    if aside:
        early = sum(_lateness(kind, line) < 0 for line in chosen)
        chosen.insert(rng.randint(min(1, early), early), aside)
    return [opening, *chosen]


def _lateness(kind: Kind, phrasing: str) -> int:
    return max((kind.late.index(f) for f in facts_in(phrasing) if f in kind.late), default=-1)


def _length(phrasing: str) -> int:
    """About as many words as the phrasing will have (names and dates are two or three)."""
    return len(_CHOICE.sub(lambda match: match[1].split("|")[-1], phrasing).split()) + len(
        facts_in(phrasing)
    )


def _render_passage(kind: Kind, entity: Entity, phrasings: Sequence[str], rng: Random) -> str:
    subject = _Subject(kind, entity, rng)
    sentences: list[str] = []
    led_in = joinable = False
    for phrasing in phrasings:
        about = phrasing.startswith(_ABOUT) and LOOKALIKE not in facts_in(phrasing)
        if phrasing.startswith(("{s}", "{p}")) and not led_in and rng.random() < 0.2:
            led_in = True
            phrasing = rng.choice(_LEAD_INS) + phrasing
        sentence = _render_sentence(phrasing, entity, subject, rng).replace("..", ".")  # "& Co.."
        if joinable and about and _can_join(sentences[-1], sentence) and rng.random() < 0.7:
            glue = rng.choice((", and ", "; ", ", and "))
            sentences[-1] = sentences[-1][:-1] + glue + sentence[:1].lower() + sentence[1:]
            joinable = False
        else:
            sentences.append(sentence)
            joinable = about and sentence is not sentences[0]
        subject.unclear = subject.is_person and not _MAY_MISLEAD.isdisjoint(facts_in(phrasing))
    return fix_articles(" ".join(map(_capitalize, sentences)))


def _can_join(first: str, second: str) -> bool:
    """Two short sentences, the second about `it`, `he` or `she`, read better as one."""
    return (
        len(first.split()) < 13
        and len(second.split()) < 11
        and second.split()[0].lower() in {"it", "he", "she", "its", "his", "her"}
        and not re.search(r"[;:,]", first + second)
    )


def _render_sentence(phrasing: str, entity: Entity, subject: _Subject, rng: Random) -> str:
    seen = False

    def replacement(match: re.Match[str]) -> str:
        nonlocal seen
        slot, part = match[1], match[2]
        if slot == "name":
            seen = True
            return entity.mention
        if slot in ("s", "p", "o"):
            text = subject.call(slot, again=seen)
            seen = True
            return text
        return _fact_text(entity, slot, part)

    return SLOT.sub(replacement, pick_wording(phrasing, rng))


def _fact_text(entity: Entity, fact: str, part: str | None) -> str:
    value = entity.facts[fact]
    if part and value.year is not None:
        return str(value.year) if part == "year" else f"the {value.year // 10 * 10}s"
    return value.text


def pick_wording(phrasing: str, rng: Random) -> str:
    """Resolve every `[this|that]`, innermost first."""
    while match := _CHOICE.search(phrasing):
        choice = rng.choice(match[1].split("|"))
        phrasing = phrasing[: match.start()] + choice + phrasing[match.end() :]
    return phrasing


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def _clear_decade(entity: Entity, reference: str) -> bool:
    """Whether every decade named reads as one: "the 1800s" would mean the century."""
    named = [match[1] for match in SLOT.finditer(reference) if match[2] == "decade"]
    return all((entity.facts[fact].year or 0) // 10 % 10 for fact in named)


class Questioner:
    """Writes questions about the entities of one kind, each of which fits one entity only."""

    def __init__(self, kind: Kind, entities: Iterable[Entity]) -> None:
        self.kind = kind
        self.counts: Counter[str] = Counter()
        for entity in entities:
            self.counts.update(set(self._references(entity, frozenset(entity.facts))))

    def _references(self, entity: Entity, stated: frozenset[str]) -> list[str]:
        """Descriptions of the entity by the stated facts and by the stems in its name."""
        stems = name_stems(entity)
        return [
            SLOT.sub(
                lambda match: _fact_text(entity, match[1], match[2]),
                reference.replace("{stem}", stem),
            )
            for reference in self.kind.references
            if facts_in(reference) <= stated and _clear_decade(entity, reference)
            for stem in (stems if "{stem}" in reference else [""])
        ]

    def ask(
        self, entity: Entity, stated: frozenset[str], name_share: float, rng: Random
    ) -> Asked | None:
        """A question that the entity's passage answers, or None where none can be asked.

        With probability `name_share` the entity is named; otherwise it is described by facts
        that its passage states and that no other entity of the kind has together.
        """
        asked = [key for key in self.kind.questions if key.split(".")[0] in stated]
        for key in rng.sample(asked, len(asked)):
            fact = key.split(".")[0]
            value = entity.facts[fact]
            answers = (str(value.year),) if key.endswith(".year") else value.answers
            described = [
                text for text in self._references(entity, stated - {fact}) if self.counts[text] == 1
            ]
            by_name = not described or rng.random() < name_share
            reference = entity.mention if by_name else rng.choice(described)
            phrasing = pick_wording(rng.choice(self.kind.questions[key]), rng)
            question = fix_articles(_capitalize(phrasing.replace("{e}", reference)))
            if not any(f" {normalize(a)} " in f" {normalize(question)} " for a in answers):
                return Asked(question, answers)
        return None
