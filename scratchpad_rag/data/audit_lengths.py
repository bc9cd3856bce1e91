"""How long samples are: exact where it matters, drawn where it does not."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from scratchpad_rag.data.audit_records import Lengths, PartLengths, Ruler
from scratchpad_rag.records import Example, Method

PERCENTILES = (0, 5, 25, 50, 75, 95, 99, 100)
_DRAWN = 2_000  # samples that percentiles are taken of
# A sample is measured if it could be too long with so few characters a unit, of the fewest drawn.
_MARGIN = 0.8


def measure_lengths(samples: Sequence[Example], ruler: Ruler, seed: int = 0) -> Lengths:
    """Percentiles of up to 2,000 samples, drawn evenly, and of all how many do not fit.

    Of the others those are measured whose characters may be too many, and the longest ones.
    """
    total = len(samples)
    drawn = sorted(random.Random(seed).sample(range(total), min(_DRAWN, total)))
    lengths = {index: ruler.measure(samples[index]) for index in drawn}
    characters = np.array([_characters(sample) for sample in samples], dtype=np.int64)
    rest = np.ones(total, dtype=bool)
    rest[drawn] = False
    # The longest in characters are mostly the longest in tokens: the largest should be seen.
    checked = set(np.argsort(-characters, kind="stable")[: _DRAWN // 20].tolist())
    if ruler.limit is not None and drawn:
        fewest = min(characters[i] / max(1, lengths[i].whole) for i in drawn)
        checked |= set(np.flatnonzero(characters > _MARGIN * fewest * ruler.limit).tolist())
    further = {index: ruler.measure(samples[index]) for index in checked if rest[index]}
    wholes = [lengths[index].whole for index in drawn]
    longest = max([*wholes, *(found.whole for found in further.values())], default=0)
    everything = [*lengths.values(), *further.values()]
    limit = ruler.limit
    return Lengths(
        unit=ruler.unit,
        measured=len(drawn),
        total=total,
        percentiles=_percentiles(list(lengths.values()), longest),
        wholes=tuple(wholes),
        limit=limit,
        too_long=sum(found.whole > limit for found in everything) if limit is not None else 0,
    )


def _percentiles(lengths: Sequence[PartLengths], longest: int) -> dict[str, dict[int, int]]:
    """By part the shortest, some between, and the longest; a sample counts as it is (nearest)."""
    found: dict[str, dict[int, int]] = {}
    for part, values in zip(PartLengths._fields, np.array(lengths).T.tolist(), strict=True):
        marks = np.percentile(values, PERCENTILES, method="nearest").tolist()
        found[part] = {mark: int(value) for mark, value in zip(PERCENTILES, marks, strict=True)}
    found["whole"][100] = max(longest, found["whole"][100])
    return found


def count_words(example: Example, method: Method = Method.SCRATCHPAD) -> PartLengths:
    """Words in place of tokens, without those of the prompt's wording.

    An English word is about 1.3 tokens of most models, a number or a foreign name is more.
    """
    context = sum(len(f"{p.title} {p.text}".split()) for p in example.passages)
    question = len(example.question.split())
    gold = example.gold_passages if method is Method.SCRATCHPAD else ()
    scratchpad = sum(len(f"{p.title} {p.text}".split()) for p in gold)
    answer = len(example.answers[0].split()) if example.answers else 0
    prompt = context + 2 * question
    restated = question if method is Method.SCRATCHPAD else 0
    return PartLengths(prompt, scratchpad, answer, prompt + scratchpad + restated + answer)


def _characters(example: Example) -> int:
    passages = (*example.passages, *example.gold_passages)  # the gold ones are quoted again
    return sum(len(p.text) + len(p.title) for p in passages) + len(example.question)
