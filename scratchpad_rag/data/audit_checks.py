"""The checks of an audit on passages, answers and gold marks."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from scratchpad_rag.data.answers import AnswerFinder
from scratchpad_rag.data.audit_records import (
    Finding,
    Histogram,
    Instance,
    Known,
    Lengths,
    Samples,
    Verdict,
)
from scratchpad_rag.data.audit_splits import overlap, repeated_questions, shared_gold
from scratchpad_rag.data.near import near_pairs
from scratchpad_rag.records import Example, Passage

_LABELLED = re.compile(r"gold_at_(\d+)")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u2028\u2029\ufeff]")
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]{0,40}>|&(?:[a-z]{2,8}|#\d{1,5});")
_EXCERPT = 160  # characters


class Alike(NamedTuple):
    """Passages as numbers of distinct texts, and for such a number those of nearly equal texts."""

    texts: list[list[int]]
    near: dict[int, set[int]]
    distinct: int


def alike(examples: Sequence[Example], threshold: float) -> Alike:
    """Which passages have the same text (but for case and spaces), and which nearly the same."""
    number_of: dict[bytes, int] = {}
    distinct: list[str] = []
    texts: list[list[int]] = []
    for example in examples:
        own = []
        for passage in example.passages:
            bare = " ".join(passage.text.casefold().split())
            # A digest takes a tenth of the memory of the text.
            key = hashlib.blake2b(bare.encode(), digest_size=12).digest()
            number = number_of.setdefault(key, len(distinct))
            if number == len(distinct):
                distinct.append(passage.text)
            own.append(number)
        texts.append(own)
    near: dict[int, set[int]] = defaultdict(set)
    for first, second, _ in near_pairs(distinct, threshold):
        near[first].add(second)
        near[second].add(first)
    return Alike(texts, dict(near), len(distinct))


# --- gold passages


def labelled_gold(known: Known) -> list[Finding]:
    """Lost in the Middle's files name the index of the gold passage."""
    labelled = [(file, _LABELLED.search(file.name)) for file in known.files]
    named = [(file, int(label[1])) for file, label in labelled if label]
    if not named:
        return []
    total = sum(len(file.rows) for file, _ in named)

    def wrong() -> Iterator[Instance]:
        for file, label in named:
            for example, _ in file.rows:
                if example.gold != (label,):
                    stands = ", ".join(map(str, example.gold)) or "nowhere"
                    yield Instance(
                        example.id,
                        example.question,
                        (("file", file.name), ("gold passage at", stands)),
                    )

    return [
        _finding(
            known,
            "labelled_gold",
            "Gold passage where the file's name says",
            wrong(),
            total,
            "samples have it elsewhere",
            Verdict.REFUSE,
            "Accuracy by position would be told of other positions: get the file again.",
        )
    ]


def missing_gold(known: Known) -> list[Finding]:
    without = (
        Instance(example.id, example.question, _gold_and_answers(example))
        for example in known.examples
        if not example.gold
    )
    return [
        _finding(
            known,
            "no_gold",
            "A gold passage in every question",
            without,
            len(known.examples),
            "questions have none",
            Verdict.REFUSE if known.settings.places_gold else Verdict.LOOK,
            "A scratchpad has nothing to quote, and no position can be given to it. Evaluate these "
            "with --passage_order retrieved, or leave them out.",
        )
    ]


def enough_passages(known: Known) -> list[Finding]:
    wanted = known.settings.total_docs
    if wanted is None:
        return []
    few = (
        Instance(
            example.id,
            example.question,
            (("passages", str(len(example.passages))), ("gold", str(len(example.gold)))),
        )
        for example in known.examples
        if len(example.passages) - len(example.also_hold) < wanted or len(example.gold) > wanted
    )
    return [
        _finding(
            known,
            "enough_passages",
            f"Passages enough to show {wanted}",
            few,
            len(known.examples),
            f"questions have fewer, or more gold ones than {wanted}",
            Verdict.REFUSE,
            "Show fewer (--total_docs), or mine distractors for them (scratchpad-rag data build).",
        )
    ]


def gold_answers(known: Known) -> list[Finding]:
    """Gold passages, of several at least one, hold an answer; "yes" and "no" are in none."""
    total = 0
    without: list[Instance] = []
    for example in known.examples:
        finder = AnswerFinder(example.answers)
        if not example.gold or not finder.findable:
            continue
        total += 1
        if not any(finder.find(passage) for passage in example.gold_passages):
            without.append(Instance(example.id, example.question, _gold_and_answers(example)))
    spared = len(known.examples) - total
    more = f"; {spared:,} with no gold passage or a yes/no answer left aside" if spared else ""
    return [
        _finding(
            known,
            "gold_answers",
            "Gold passages hold the answer",
            iter(without),
            total,
            f"questions have it in no gold passage{more}",
            Verdict.LOOK,
            "A reader learns to answer with what it did not quote. Some are other spellings; where "
            "the passage was cut or the wrong one marked, leave the question out.",
            total_is=f"of {total:,} questions whose answer can be looked for",
        )
    ]


def answers_in_distractors(known: Known) -> list[Finding]:
    holding = 0

    def found() -> Iterator[Instance]:
        nonlocal holding
        for example in known.examples:
            finder = AnswerFinder(example.answers)
            if not finder.findable or not example.gold:
                continue  # without a gold passage marked, what holds the answer may be one
            hits = [
                (index, answer)
                for index, passage in enumerate(example.passages)
                if index not in (*example.gold, *example.also_hold)
                and (answer := finder.find(passage))
            ]
            if hits:
                holding += len(hits)
                index, answer = hits[0]
                passage = example.passages[index]
                yield Instance(
                    example.id,
                    example.question,
                    (
                        ("answer", answer),
                        (f"distractor {index}", _titled(passage, answer)),
                        ("gold", _titled(next(iter(example.gold_passages), None), answer)),
                    ),
                )

    finding = _finding(
        known,
        "answers_in_distractors",
        "Distractors without the answer",
        found(),
        len(known.examples),
        "questions have an answer in a distractor",
        Verdict.LOOK,
        "A right answer may come from a passage that is not gold, and quoting that passage counts "
        "as wrong. Mined distractors hold none (scratchpad-rag data build); short answers such as "
        "names and years are often held by chance.",
    )
    more = f", {holding:,} distractor{'' if holding == 1 else 's'} in all" if holding else ""
    return [_told(finding, finding.told + more)]


# --- passages


def duplicates_in_question(known: Known) -> list[Finding]:
    """The same or nearly the same text twice among the passages of one question."""
    same, near, of_gold = [], [], 0
    for example, texts in zip(known.examples, known.texts, strict=True):
        twice = [i for i, text in enumerate(texts) if text in texts[:i]]
        if twice:
            index = twice[0]
            same.append(_pair(example, texts.index(texts[index]), index))
        own = set(texts)
        close = [
            (i, j)
            for i, text in enumerate(texts)
            if (others := known.near.get(text)) and others & own
            for j in range(i + 1, len(texts))
            if texts[j] in others
        ]
        if close:
            near.append(_pair(example, *close[0]))
        of_gold += any((i in example.gold) != (j in example.gold) for i, j in close)
    advice = (
        "One of the places shown is wasted; where one of the two is gold, a reader that quotes the "
        "other is counted wrong. Mining leaves such distractors out."
    )
    total = len(known.examples)
    nearly = _finding(
        known,
        "near_in_question",
        "No passage nearly twice in a question",
        iter(near),
        total,
        f"questions have two that share {known.settings.near:.0%} of their word pairs",
        Verdict.LOOK,
        advice,
    )
    if of_gold:
        nearly = _told(nearly, f"{nearly.told}; in {of_gold:,} a distractor nearly equals the gold")
    return [
        _finding(
            known,
            "same_in_question",
            "No passage twice in a question",
            iter(same),
            total,
            "questions show a text twice",
            Verdict.LOOK,
            advice,
        ),
        nearly,
    ]


def passages_over_the_file(known: Known) -> list[Finding]:
    """How often passages come again in other questions: no mistake, but good to know."""
    uses = Counter(text for texts in known.texts for text in set(texts))
    often, times = uses.most_common(1)[0] if uses else (0, 0)
    shown: list[Instance] = []
    for example, texts in zip(known.examples, known.texts, strict=True):
        if times > 1 and often in texts:
            passage = example.passages[texts.index(often)]
            shown = [
                Instance(
                    example.id,
                    example.question,
                    ((f"shown in {times:,} questions", _titled(passage)),),
                )
            ]
            break
    passages = sum(map(len, known.texts))
    return [
        Finding(
            "passages",
            "Passages over all questions",
            Verdict.OK,
            f"{passages:,} passages, {known.distinct:,} of them distinct, {len(known.near):,} of "
            f"those nearly equal to another; one comes in {times:,} questions",
            len(known.near),
            known.distinct,
            "That questions share distractors is usual; what is gold on both sides is told above.",
            tuple(shown),
        )
    ]


def odd_texts(known: Known) -> list[Finding]:
    """Characters and words in passages that a reader or a prompt's layout stumbles over."""
    marks = known.settings.layout
    seen: set[int] = set()
    kinds: Counter[str] = Counter()

    def odd() -> Iterator[Instance]:
        for example, texts in zip(known.examples, known.texts, strict=True):
            for index, passage in enumerate(example.passages):
                if texts[index] in seen:
                    continue
                seen.add(texts[index])
                reasons = list(_oddities(passage, marks))
                if reasons:
                    kinds.update({name for name, _ in reasons})
                    name, at = reasons[0]
                    shown = ((name, f"{passage.title}: {_around(passage.text, at)}"),)
                    yield Instance(example.id, example.question, shown)

    finding = _finding(
        known,
        "odd_texts",
        "Passages of clean text",
        odd(),
        known.distinct,
        "distinct passages hold something odd",
        Verdict.LOOK,
        "Control characters and markup are read and quoted as they stand; a blank line, or words "
        "of the prompt's layout, make one passage look like two. Clean the file they are from.",
        total_is=f"of {known.distinct:,} distinct passages",
    )
    if not kinds:
        return [finding]
    named = ", ".join(f"{name} {number:,}" for name, number in kinds.most_common())
    return [_told(finding, f"{finding.told}: {named}")]


def _oddities(passage: Passage, marks: Sequence[str]) -> Iterator[tuple[str, int]]:
    text = passage.text
    for name, pattern in (("control characters", _CONTROL), ("markup", _MARKUP)):
        found = pattern.search(text)
        if found:
            yield name, found.start()
    if "\ufffd" in text:
        yield "damaged characters", text.index("\ufffd")
    if "\n\n" in text:
        yield "a blank line", text.index("\n\n")
    mark = next((mark for mark in marks if mark in text), None)
    if mark is not None:
        yield "words of the layout", text.index(mark)
    if len(text.split()) < 3:
        yield "fewer than three words", 0


# --- positions and lengths


def gold_places(known: Known, samples: Samples | None) -> list[Histogram]:
    """Where gold passages stand in the file, and where a config puts them."""
    axis = "index among the passages, 0 = first"
    in_file = Counter(
        example.gold[0] for file in known.files for example, _ in file.rows if example.gold
    )
    title = "First gold passage in the file"
    found = [Histogram("gold_in_file", title, axis, dict(sorted(in_file.items())))]
    if samples is None:
        return found
    train = [example.gold[0] for example in samples.train if example.gold]
    val = [example.gold[0] for example in samples.val if example.gold]
    for name, title, places in (
        ("gold_in_training", "First gold passage in training", train),
        ("gold_in_validation", "First gold passage in validation", val),
    ):
        found.append(Histogram(name, title, axis, dict(sorted(Counter(places).items()))))
    return found


def of_lengths(lengths: Lengths) -> list[Finding]:
    """Whether all samples fit; without a limit there is nothing to fit into."""
    if lengths.limit is None:
        return []
    longest = lengths.percentiles["whole"][100]
    told = f"the longest has {longest:,} {lengths.unit} of {lengths.limit:,}"
    if lengths.too_long:
        told = f"{lengths.too_long:,} of {lengths.total:,} samples are longer; {told}"
    return [
        Finding(
            "lengths",
            f"Samples fit {lengths.limit:,} {lengths.unit}",
            Verdict.REFUSE if lengths.too_long else Verdict.OK,
            told,
            lengths.too_long,
            lengths.total,
            "Nothing is cut to fit: training refuses them. Show fewer documents (--total_docs), or "
            "take a model with a longer context.",
        )
    ]


# --- how findings are told


def _finding(
    known: Known,
    check: str,
    title: str,
    instances: Iterable[Instance],
    total: int,
    what: str,
    verdict: Verdict,
    advice: str,
    total_is: str = "",
) -> Finding:
    """Count the instances, keep the first few, and tell them as `count of total what`."""
    found = iter(instances)
    kept = tuple(islice(found, known.settings.shown))
    count = len(kept) + sum(1 for _ in found)
    if not count:
        scope = total_is or f"of {total:,}"
        return Finding(check, title, Verdict.OK, f"none {scope}", 0, total, advice)
    share = f"{count:,} of {total:,} ({100 * count / total:.1f}%)"
    return Finding(check, title, verdict, f"{share} {what}", count, total, advice, kept)


def _told(finding: Finding, told: str) -> Finding:
    return Finding(
        finding.check,
        finding.title,
        finding.verdict,
        told,
        finding.count,
        finding.total,
        finding.advice,
        finding.instances,
    )


def _gold_and_answers(example: Example) -> tuple[tuple[str, str], ...]:
    gold = [(f"gold {index}", _titled(example.passages[index])) for index in example.gold[:3]]
    return (("answers", " | ".join(example.answers)), *gold)


def _pair(example: Example, first: int, second: int) -> Instance:
    shown = tuple(
        (
            f"{'gold' if index in example.gold else 'passage'} {index}",
            _titled(example.passages[index]),
        )
        for index in (first, second)
    )
    return Instance(example.id, example.question, shown)


def _titled(passage: Passage | None, sought: str = "") -> str:
    if passage is None:
        return "none"
    at = passage.text.lower().find(sought.lower()) if sought else 0
    return f"{passage.title}: {_around(passage.text, max(at, 0))}"


def _around(text: str, at: int) -> str:
    """
    >>> _around("word " * 90, 200)[:12], len(_around("short", 0))
    ('… word word ', 5)
    """
    begin = 0 if at < _EXCERPT // 2 else text.rfind(" ", 0, at - _EXCERPT // 3) + 1
    end = begin + _EXCERPT
    return f"{'… ' if begin else ''}{text[begin:end]}{' …' if end < len(text) else ''}"


CHECKS: tuple[Callable[[Known], list[Finding]], ...] = (
    labelled_gold,
    enough_passages,
    missing_gold,
    gold_answers,
    overlap,
    shared_gold,
    repeated_questions,
    answers_in_distractors,
    duplicates_in_question,
    passages_over_the_file,
    odd_texts,
)
