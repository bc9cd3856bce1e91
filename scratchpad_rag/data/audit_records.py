"""What an audit is told, what it knows while it works, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from scratchpad_rag.data.readers import SplitExample
from scratchpad_rag.records import Example


class Verdict(StrEnum):
    """What a check comes to; `refuse` is what training or evaluation would refuse, or should."""

    OK = "ok"
    LOOK = "look at this"
    REFUSE = "refuse"


class Instance(NamedTuple):
    """One thing found: the question's id and text, and what to see, as pairs of label and text."""

    example_id: str
    question: str
    shown: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: `count` of `total` things, told in a line, with a few of them."""

    check: str
    title: str
    verdict: Verdict
    told: str
    count: int = 0
    total: int = 0
    advice: str = ""  # what it does to a reader, and what to do
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often each whole number occurs."""

    name: str
    title: str
    axis: str
    counts: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Percentiles by part of a sample (prompt, scratchpad, answer, whole), in `unit`.

    They are of `measured` samples of `total`, drawn evenly. `limit` is the longest sample that
    fits, `too_long` how many do not, of all.
    """

    unit: str
    measured: int
    total: int
    percentiles: Mapping[str, Mapping[int, int]]
    wholes: tuple[int, ...]
    limit: int | None = None
    too_long: int = 0


@dataclass(frozen=True, slots=True)
class Audit:
    """All that was found. Counts are of distinct questions, and of the passages that they bring."""

    files: tuple[str, ...]
    questions: int
    passages: int
    distinct_passages: int
    train_questions: int
    val_questions: int
    split_by: str  # how the sides were told apart
    findings: tuple[Finding, ...]
    histograms: tuple[Histogram, ...]
    lengths: Lengths | None
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """The gravest of the findings."""
        order = list(Verdict)
        return max((f.verdict for f in self.findings), key=order.index, default=Verdict.OK)


class AuditFile(NamedTuple):
    """A file by name, and its questions."""

    name: str
    rows: Sequence[SplitExample]


class Samples(NamedTuple):
    """Samples as a config places them; of places drawn for every epoch, those of the first."""

    train: Sequence[Example]
    val: Sequence[Example]


class PartLengths(NamedTuple):
    """The length of a sample and of its parts; the whole also has what stands between them."""

    prompt: int
    scratchpad: int
    answer: int
    whole: int


@dataclass(frozen=True, slots=True)
class Ruler:
    """How samples are measured: a count of `unit` (plural), and the longest that fits."""

    measure: Callable[[Example], PartLengths]
    unit: str
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """What is asked of the questions beside what they hold."""

    near: float = 0.8  # Jaccard similarity from which texts are near duplicates, above 0 to 1
    total_docs: int | None = None  # documents that a run would show
    places_gold: bool = True  # a run moves the gold passage, so each question needs one
    train_ratio: float = 0.8  # of questions, where the files name no sides
    seed: int = 0
    shown: int = 5  # instances kept of each finding
    layout: tuple[str, ...] = ()  # what in a passage looks like the prompt's own layout


class Sided(NamedTuple):
    """The distinct questions, the side of each (0 training, 1 validation), and who told it."""

    examples: list[Example]
    sides: list[int]
    told: str


@dataclass(frozen=True, slots=True)
class Known:
    """What the checks share: the questions with their sides, and which passages are alike."""

    files: Sequence[AuditFile]
    examples: Sequence[Example]
    sides: Sequence[int]
    split_by: str
    settings: AuditSettings
    # For each example its passages by number of distinct text, and for such a number those near it.
    texts: Sequence[Sequence[int]]
    distinct: int
    near: Mapping[int, set[int]]
