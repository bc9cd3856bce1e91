"""The fictional world behind the sample set: kinds of entities, their names, facts and links.

What can be said of each kind stands in `encyclopedia/<kind>.yaml`, the shared word lists in
`encyclopedia/words.yaml`; this module draws entities from them with one seeded generator. Links
keep time and place: a bridge crosses a river of its own region, and its designer was alive.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from random import Random
from typing import Any

import yaml

from scratchpad_rag.errors import DataError

SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])(?!(?:[Uu]ni|[Uu]s[ei]|[Oo]ne\b|[Ee]u))")
PERSON = "person"
LOOKALIKE = "lookalike"  # a fact of every kind: a namesake, of which nothing is asked
_LOOKALIKE_SHARE = 0.8
_ATTEMPTS = 60  # redraws of an entity before a link may leave its region or be dropped


@dataclass(frozen=True, slots=True)
class Value:
    """One fact of one entity: how a passage writes it, the acceptable answers, its year if any."""

    text: str
    answers: tuple[str, ...]
    year: int | None = None


@dataclass(slots=True)
class Region:
    """A province: its name and the stems that its places and families are named after."""

    name: str
    stems: tuple[str, ...]


@dataclass(slots=True)
class Entity:
    """Something the encyclopedia has a passage about."""

    kind: str
    region: Region
    stem: str
    female: bool
    name: str = ""
    mention: str = ""  # the name as it stands inside a sentence, with its article
    facts: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kind:
    """What `encyclopedia/<kind>.yaml` says of one kind of entity."""

    name: str
    weight: int
    article: bool
    nouns: tuple[str, ...]
    names: tuple[str, ...]
    since: str  # the fact that dates its beginning ("" where it was always there)
    until: str
    ripe: int  # years after `since` before others may link to it
    late: tuple[str, ...]  # facts that belong at the end of a passage, in order
    facts: Mapping[str, Mapping[str, Any]]
    openings: tuple[str, ...]
    sentences: tuple[str, ...]
    asides: tuple[str, ...]
    references: tuple[str, ...]
    questions: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Encyclopedia:
    """All kinds, in an order in which links point backwards only, and the shared word lists."""

    kinds: tuple[Kind, ...]
    words: Mapping[str, tuple[str, ...]]
    families: Mapping[str, Mapping[str, tuple[str, ...]]]
    region_names: tuple[str, ...]
    roles: Mapping[str, tuple[str, ...]]


@dataclass(slots=True)
class World:
    """The entities drawn so far, by kind, and what is needed to draw more."""

    encyclopedia: Encyclopedia
    rng: Random
    regions: tuple[Region, ...]
    entities: dict[str, list[Entity]]
    taken: set[str]
    decks: dict[str, list[str]]


def fix_articles(text: str) -> str:
    """`a` before a vowel becomes `an`.

    >>> fix_articles("a otter, a unicorn and a one-act play")
    'an otter, a unicorn and a one-act play'
    """
    return _ARTICLE.sub(lambda match: f"{match[1]}n ", text)


def name_stems(entity: Entity) -> list[str]:
    """The stems of its province that stand in the entity's name."""
    return [stem for stem in entity.region.stems if stem in entity.name]


class _NoLinkError(Exception):
    """No entity fits a link as drawn; the entity is drawn again."""


def load_encyclopedia() -> Encyclopedia:
    """The kinds and word lists that come with the package."""
    folder = resources.files("scratchpad_rag.data") / "encyclopedia"

    def read(name: str) -> dict[str, Any]:
        loaded: dict[str, Any] = yaml.safe_load(
            (folder / f"{name}.yaml").read_text(encoding="utf-8")
        )
        return loaded

    words = read("words")
    return Encyclopedia(
        kinds=tuple(_kind(name, read(name), words["namesakes"]) for name in words["kinds"].split()),
        words={name: _items(text) for name, text in words["words"].items()},
        families={
            name: {part: tuple(text.split()) for part, text in parts.items()}
            for name, parts in words["families"].items()
        },
        region_names=_items(words["regions"]),
        roles={name: _items(text) for name, text in words["roles"].items()},
    )


def build_world(encyclopedia: Encyclopedia, num_entities: int, rng: Random) -> World:
    """Draw `num_entities` entities, shared among the kinds by their weights.

    Raises DataError where there are too few for every kind to have some to link to.
    """
    total_weight = sum(kind.weight for kind in encyclopedia.kinds)
    if num_entities < 8 * total_weight:
        raise DataError(
            f"{num_entities} passages are too few for {len(encyclopedia.kinds)} kinds of entities; "
            f"ask for {8 * total_weight} or more"
        )
    regions = _draw_regions(encyclopedia, num_entities, rng)
    world = World(encyclopedia, rng, regions, {}, set(), {})
    weight_so_far = made = 0
    for kind in encyclopedia.kinds:
        weight_so_far += kind.weight
        upto = num_entities * weight_so_far // total_weight
        world.entities[kind.name] = []
        for _ in range(upto - made):
            world.entities[kind.name].append(_draw_entity(world, kind))
        made = upto
        _add_lookalikes(world.entities[kind.name], rng)
    return world


def _add_lookalikes(entities: Sequence[Entity], rng: Random) -> None:
    """Let entities mention a namesake, so that the words of a name also stand in other passages."""
    by_stem: dict[str, list[Entity]] = {}
    for entity in entities:
        for stem in name_stems(entity):
            by_stem.setdefault(stem, []).append(entity)
    for entity in entities:
        namesakes = [
            other
            for stem in name_stems(entity)
            for other in by_stem[stem]
            if other is not entity and other.mention not in {v.text for v in entity.facts.values()}
        ]
        if namesakes and rng.random() < _LOOKALIKE_SHARE:
            other = rng.choice(namesakes)
            entity.facts[LOOKALIKE] = Value(other.mention, (other.name,))


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(";") if item.strip())


def _lines(text: str | None) -> tuple[str, ...]:
    return tuple(line.strip() for line in (text or "").splitlines() if line.strip())


def _kind(name: str, source: Mapping[str, Any], namesakes: Mapping[str, str]) -> Kind:
    about_namesakes = _lines(namesakes["people" if name == PERSON else "things"])
    return Kind(
        name=name,
        weight=source.get("weight", 1),
        article=source.get("article", False),
        nouns=_items(source["nouns"]),
        names=_items(source["names"]),
        since=source.get("since", ""),
        until=source.get("until", ""),
        ripe=source.get("ripe", 1),
        late=tuple(source.get("late", "").split()),
        facts=source["facts"],
        openings=_lines(source["openings"]),
        sentences=_lines(source["sentences"]) + about_namesakes,
        asides=_lines(source.get("asides")),
        references=_lines(source["references"]),
        questions={fact: _lines(text) for fact, text in source["questions"].items()},
    )


def _draw_regions(encyclopedia: Encyclopedia, num_entities: int, rng: Random) -> tuple[Region, ...]:
    count = min(len(encyclopedia.region_names), max(3, num_entities // 250))
    stems_each = 6
    stems: dict[str, list[str]] = {}
    for name, parts in encyclopedia.families.items():
        stems[name] = [start + end for start in parts["starts"] for end in parts["ends"]]
        rng.shuffle(stems[name])
    seen: set[str] = set()
    regions = []
    names = list(stems)
    for number, region_name in enumerate(rng.sample(encyclopedia.region_names, count)):
        family = stems[names[number % len(names)]]
        chosen: list[str] = []
        while len(chosen) < stems_each:
            stem = family.pop()
            if stem not in seen:
                seen.add(stem)
                chosen.append(stem)
        regions.append(Region(region_name, tuple(chosen)))
    return tuple(regions)


def _draw_entity(world: World, kind: Kind) -> Entity:
    for attempt in range(4 * _ATTEMPTS):
        region = world.rng.choice(world.regions)
        stem = world.rng.choice(region.stems)
        entity = Entity(kind.name, region, stem, female=world.rng.random() < 0.5)
        try:
            for name, spec in kind.facts.items():
                value = _draw_fact(world, kind, entity, name, spec, loose=attempt >= _ATTEMPTS)
                if value is not None:
                    entity.facts[name] = value
        except _NoLinkError:
            continue
        entity.name = _draw_name(world, kind, entity)
        words = entity.name.split()
        if words and len(set(words)) == len(words) and entity.name.casefold() not in world.taken:
            world.taken.add(entity.name.casefold())
            entity.mention = f"the {entity.name}" if kind.article else entity.name
            return entity
    raise DataError(f"no unused name is left for another {kind.name}; ask for fewer passages")


def _draw_name(world: World, kind: Kind, entity: Entity) -> str:
    pattern = world.rng.choice(kind.names)
    if kind.name == PERSON:
        first = "female_names" if entity.female else "male_names"
        pattern = pattern.replace("{first}", f"{{{first}}}")
    if any(slot in pattern and slot[1:-1] not in entity.facts for slot in ("{town}", "{river}")):
        return ""
    return _fill(world, entity, pattern)


def _fill(world: World, entity: Entity, pattern: str) -> str:
    """Fill a name pattern: the entity's stem and linked names, else a word of the named list.

    `{beast.lower}` writes the word in lower case.
    """

    def replacement(match: re.Match[str]) -> str:
        slot = match[1]
        if slot == "stem":
            return entity.stem
        if slot in entity.facts:
            return entity.facts[slot].answers[0]
        word = world.rng.choice(world.encyclopedia.words[slot])
        return word.lower() if match[2] == "lower" else word

    return fix_articles(SLOT.sub(replacement, pattern))


def _draw_fact(
    world: World, kind: Kind, entity: Entity, name: str, spec: Mapping[str, Any], *, loose: bool
) -> Value | None:
    if "date" in spec:
        year = _draw_year(world.rng, entity, spec["date"])
        month = world.rng.randint(1, 12)
        day = world.rng.randint(1, calendar.monthrange(year, month)[1])
        month_name = calendar.month_name[month]
        text = f"{day} {month_name} {year}"
        return Value(text, (text, f"{month_name} {day}, {year}"), year)
    if "year" in spec:
        year = _draw_year(world.rng, entity, spec["year"])
        return Value(str(year), (str(year),), year)
    if "number" in spec:
        low, high, step = spec["number"]
        return _number(world.rng.randrange(low, high + 1, step), _items(spec.get("units", "")))
    if "pick" in spec:
        return _words(_from_deck(world, f"{kind.name}.{name}", _items(spec["pick"])))
    if "province" in spec:
        return _words(entity.region.name)
    if "roles" in spec:
        professions = [name for names in world.encyclopedia.roles.values() for name in names]
        return _words(_from_deck(world, f"{kind.name}.{name}", professions))
    if "coin" in spec:
        return _words(_fill(world, entity, world.rng.choice(_items(spec["coin"]))))
    return _draw_link(world, entity, spec, loose=loose)


def _draw_year(rng: Random, entity: Entity, span: Sequence[Any]) -> int:
    """A year in [low, high], or in [base + low, base + high] where the span names a base fact."""
    base = 0
    if isinstance(span[0], str):
        base_year = entity.facts[span[0]].year
        assert base_year is not None, f"{span[0]} has no year"
        base = base_year
    low, high = span[-2:]
    return base + rng.randint(low, high)


def _number(number: int, units: Sequence[str]) -> Value:
    """A number with its aliases; small ones need their unit, for "47" also occurs in "1847"."""
    plain = dict.fromkeys((f"{number:,}", str(number)))
    with_units = dict.fromkeys(f"{form} {unit}" for unit in units for form in plain)
    answers = tuple(with_units) if units and number < 100 else (*with_units, *plain)
    return Value(answers[0], answers)


def _words(text: str) -> Value:
    """A value written in words; `a|b` gives the alias b."""
    forms = tuple(form.strip() for form in text.split("|"))
    return Value(forms[0], forms)


def _from_deck(world: World, name: str, items: Sequence[str]) -> str:
    """Draw without replacement, so that no item of a list is much commoner than another."""
    deck = world.decks.setdefault(name, [])
    if not deck:
        deck.extend(items)
        world.rng.shuffle(deck)
    return deck.pop()


def _draw_link(
    world: World, entity: Entity, spec: Mapping[str, Any], *, loose: bool
) -> Value | None:
    """Link to an entity that fits in region, profession and time."""
    target = spec["link"]
    kind = next(kind for kind in world.encyclopedia.kinds if kind.name == target)
    professions = {
        profession.split("|")[0]
        for role in spec.get("role", "").split()
        for profession in world.encyclopedia.roles[role]
    }
    year = entity.facts[spec["at"]].year if "at" in spec else None

    def fits(other: Entity) -> bool:
        if spec.get("region", True) and not loose and other.region is not entity.region:
            return False
        if professions and other.facts["profession"].text not in professions:
            return False
        return year is None or _existed(kind, other, year)

    used = {value.text for value in entity.facts.values()}
    candidates = [o for o in world.entities[target] if fits(o) and o.mention not in used]
    if not candidates:
        if spec.get("optional", False):
            return None
        raise _NoLinkError
    other = world.rng.choice(candidates)
    return Value(other.mention, (other.name,))


def _existed(kind: Kind, entity: Entity, year: int) -> bool:
    since = entity.facts[kind.since].year if kind.since else None
    until = entity.facts[kind.until].year if kind.until in entity.facts else None
    return (since is None or since + kind.ripe <= year) and (until is None or year < until)
