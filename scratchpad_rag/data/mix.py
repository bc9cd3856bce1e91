"""Several files of questions in one, with no question for training that a set validates on."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from scratchpad_rag.data.normalise import normalise_question, spaced_words
from scratchpad_rag.data.readers import SplitExample
from scratchpad_rag.data.split import split_by_question
from scratchpad_rag.records import Example

NEAR_QUESTION = Fraction(9, 10)  # of the distinct words of two questions are in both


class Mixture(NamedTuple):
    """Examples of several files under ids of their own, each with a split.

    `moved` were taken out of training, since another file validates on the same question; `near`
    pairs of questions of two files are nearly the same. `near_apart` questions are left out of
    training, since one to validate on is nearly the same; `surplus` ones, since their file has as
    many as it may give.
    """

    examples: list[Example]
    splits: dict[str, str]
    moved: int
    near: int
    near_apart: int
    surplus: int = 0


def mix(
    files: Mapping[str, Sequence[SplitExample]],
    train_ratio: float,
    seed: int,
    most_training: int | None = None,
) -> Mixture:
    """The examples of `files`, by name, one file after the other.

    A file without splits is split by question, as it is when it is read alone. A question, however
    it is spelled, is for training only if no file validates on it. An id that occurs in two files
    gets the file's name behind it. Each file gives `most_training` questions for training at most,
    drawn by the seed.
    """
    rows = {name: with_splits(part, train_ratio, seed) for name, part in files.items()}
    everything = [row for part in rows.values() for row in part]
    validated = {_key(row) for row in everything if row.split == "val"}
    ids = Counter(row.example.id for row in everything)
    examples: list[Example] = []
    splits: dict[str, str] = {}
    asked: list[_Question] = []
    moved = 0
    for name, part in rows.items():
        for row in part:
            side = "val" if _key(row) in validated else "train"
            moved += side != row.split
            identity = row.example.id if ids[row.example.id] == 1 else f"{row.example.id}@{name}"
            examples.append(replace(row.example, id=identity))
            splits[identity] = side
            asked.append(_Question(row.example.question, name, side, identity))
    pairs = _near_pairs(asked)
    apart = {
        one.id if one.side == "train" else other.id
        for one, other in pairs
        if one.side != other.side
    }
    surplus = _surplus([q for q in asked if q.id not in apart], most_training, seed)
    kept = [example for example in examples if example.id not in apart | surplus]
    return Mixture(
        kept,
        {example.id: splits[example.id] for example in kept},
        moved,
        sum(one.file != other.file for one, other in pairs),
        len(apart),
        len(surplus),
    )


def _surplus(questions: Sequence[_Question], most: int | None, seed: int) -> set[str]:
    """Ids of the training questions of each file beyond `most`, which are kept as drawn."""
    if most is None:
        return set()
    by_file: defaultdict[str, list[str]] = defaultdict(list)
    for question in questions:
        if question.side == "train":
            by_file[question.file].append(question.id)
    surplus: set[str] = set()
    for name, ids in by_file.items():
        random.Random(f"{seed}:{name}").shuffle(ids)
        surplus.update(ids[most:])
    return surplus


def with_splits(rows: Sequence[SplitExample], train_ratio: float, seed: int) -> list[SplitExample]:
    """The rows with the splits that they have, or with those of `split_by_question`."""
    if rows and rows[0].split is not None:
        return list(rows)
    split = split_by_question([row.example for row in rows], train_ratio, seed)
    train = {example.id for example in split.train}
    return [
        SplitExample(row.example, "train" if row.example.id in train else "val") for row in rows
    ]


class _Question(NamedTuple):
    text: str
    file: str
    side: str
    id: str

    @property
    def part(self) -> tuple[str, str]:
        return self.file, self.side


def _key(row: SplitExample) -> str:
    return normalise_question(row.example.question)


def _near_pairs(questions: Sequence[_Question]) -> list[tuple[_Question, _Question]]:
    """Pairs of questions of two files, or of one file's two sides, that are nearly the same.

    Compared are only those that share one of their rarest words, which near ones must (prefix
    filtering, Chaudhuri et al. 2006).
    """
    words = [frozenset(spaced_words(question.text).split()) for question in questions]
    counts = Counter(word for of_one in words for word in of_one)
    holders: defaultdict[str, list[int]] = defaultdict(list)
    pairs = []
    for number, of_one in enumerate(words):
        prefix = _rarest(of_one, counts)
        candidates = sorted({other for word in prefix for other in holders[word]})
        pairs += [
            (questions[other], questions[number])
            for other in candidates
            if questions[other].part != questions[number].part
            and len(words[other] & of_one) >= NEAR_QUESTION * len(words[other] | of_one)
        ]
        for word in prefix:
            holders[word].append(number)
    return pairs


def _rarest(words: Iterable[str], counts: Mapping[str, int]) -> list[str]:
    """So many of the rarest words that two near questions have one of them in common."""
    ranked = sorted(words, key=lambda word: (counts[word], word))
    return ranked[: len(ranked) - ceil(NEAR_QUESTION * len(ranked)) + 1]
