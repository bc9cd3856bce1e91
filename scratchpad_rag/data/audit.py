"""What is in a data set that a training or an evaluation would stumble over.

    audit(files, settings, samples, ruler) -> Audit

Every check is one pass over the questions or over the distinct passages, so its time grows with
their number. Nothing is changed; what was found is told with examples.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scratchpad_rag.data.audit_checks import CHECKS, alike, gold_places, of_lengths
from scratchpad_rag.data.audit_lengths import measure_lengths
from scratchpad_rag.data.audit_records import (
    Audit,
    AuditFile,
    AuditSettings,
    Histogram,
    Known,
    Ruler,
    Samples,
    Sided,
)
from scratchpad_rag.data.audit_splits import spread_of_gold
from scratchpad_rag.data.readers import SplitExample
from scratchpad_rag.data.split import split_by_question
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example

_WORDS = re.compile(r"[a-z]+")
_SIDES = {"train": "train", "training": "train"} | dict.fromkeys(
    ("val", "dev", "valid", "validation", "test", "eval"), "val"
)


def audit(
    files: Sequence[AuditFile],
    settings: AuditSettings,
    samples: Samples | None = None,
    ruler: Ruler | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Audit:
    """Check the questions of files, and the samples that a config makes of them where given.

    `ruler` measures the samples, or without samples the questions as they stand.
    Raises DataError where there is nothing to check or a setting is out of range.
    """
    began = time.perf_counter()
    if not 0 < settings.near <= 1:
        raise DataError(f"the similarity of near duplicates is {settings.near}; it is above 0 to 1")
    sided = _sided(files, settings)
    notify(f"{len(sided.examples):,} questions; comparing their passages")
    texts, near, distinct = alike(sided.examples, settings.near)
    known = Known(files, *sided, settings, texts, distinct, near)
    findings = []
    for check in CHECKS:
        findings += check(known)
    if samples is not None:
        findings += spread_of_gold(samples)
    lengths = None
    if ruler is not None:
        notify("measuring lengths")
        shown = [*samples.train, *samples.val] if samples else sided.examples
        lengths = measure_lengths(shown, ruler)
        findings += of_lengths(lengths)
    return Audit(
        files=tuple(file.name for file in files),
        questions=len(sided.examples),
        passages=sum(map(len, texts)),
        distinct_passages=distinct,
        train_questions=sided.sides.count(0),
        val_questions=sided.sides.count(1),
        split_by=sided.told,
        findings=tuple(findings),
        histograms=(*gold_places(known, samples), *_histograms(sided.examples)),
        lengths=lengths,
        seconds=time.perf_counter() - began,
    )


def _sided(files: Sequence[AuditFile], settings: AuditSettings) -> Sided:
    """The first of each id over all files (the five gold_at files hold the same questions), on
    the side that files, their names, or the split of a run tell."""
    rows: dict[tuple[str, str | None], tuple[SplitExample, str]] = {}
    named = [_side_of_name(file.name) for file in files]
    by_name = len(files) > 1 and all(named)
    for file, side in zip(files, named, strict=True):
        for row in file.rows:
            own = side if by_name else row.split
            rows.setdefault((row.example.id, own), (row, own or ""))
    examples = [row.example for row, _ in rows.values()]
    if not examples:
        raise DataError("there are no questions to audit")
    if all(side for _, side in rows.values()):
        told = "the files' names" if by_name else "the field 'split' of the file"
        return Sided(examples, [int(side == "val") for _, side in rows.values()], told)
    split = split_by_question(examples, settings.train_ratio, settings.seed)
    val = {example.id for example in split.val}
    told = f"question, {settings.train_ratio:.0%} to train on, seed {settings.seed}"
    return Sided(examples, [int(example.id in val) for example in examples], told)


def _side_of_name(name: str) -> str | None:
    """
    >>> _side_of_name("hotpot_dev_distractor.jsonl"), _side_of_name("constraints.jsonl")
    ('val', None)
    """
    words = _WORDS.findall(Path(name).name.lower())
    return next((_SIDES[word] for word in words if word in _SIDES), None)


def _histograms(examples: Sequence[Example]) -> list[Histogram]:
    passages = Counter(len(example.passages) for example in examples)
    gold = Counter(len(example.gold) for example in examples)
    answers = Counter(len(example.answers) for example in examples)
    return [
        Histogram("passages", "Passages", "passages", _sorted(passages)),
        Histogram("gold", "Gold passages", "gold passages", _sorted(gold)),
        Histogram("answers", "Acceptable answers", "answers", _sorted(answers)),
    ]


def _sorted(counts: Mapping[int, int]) -> dict[int, int]:
    return dict(sorted(counts.items()))
