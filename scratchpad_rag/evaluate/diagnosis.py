"""Why a reader fails: the passage, the answer, or the format; and whether it follows its quotes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scratchpad_rag.evaluate.statistics import Interval
from scratchpad_rag.records import Passage, Score

GOLD_FORCED, WRONG_FORCED = "scratchpad_gold_forced", "scratchpad_wrong_forced"


class Outcome(StrEnum):
    """What became of one sample. Multi-hop: the passage is quoted if all gold passages are."""

    RIGHT_QUOTED = "right_quoted"
    RIGHT_NOT_QUOTED = "right_not_quoted"  # right answer without the passage
    WRONG_QUOTED = "wrong_quoted"  # right passage, wrong answer
    WRONG_NOT_QUOTED = "wrong_not_quoted"  # wrong passage, or none, quoted
    NOT_PARSED = "not_parsed"
    ABSTAINED = "abstained"
    RIGHT = "right"  # of a method without quotes, as is wrong
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class ErrorSplit:
    """Shares (0..1) of the outcomes of one method in one data set; those that cannot occur are
    absent. They sum to 1, in the order of Outcome."""

    method: str
    dataset: str
    shares: tuple[tuple[Outcome, Interval], ...]
    samples: int
    questions: int


@dataclass(frozen=True, slots=True)
class ScratchpadUse:
    """What the answer owes to the scratchpad, from the cells in which it was forced.

    All on the samples that the free and the forced scratchpad have in common. `gold_forced` is an
    upper bound of what better quoting can bring. `follows` is the share of answers under a wrong
    scratchpad that stand in its passages, `stands_anyway` the share of the free answers that stand
    in those same passages: what chance and shared words make of it. None: nobody forced that.
    """

    method: str
    dataset: str
    free: Interval | None
    gold_forced: Interval | None
    wrong_forced: Interval | None
    follows: Interval | None
    stands_anyway: Interval | None
    samples: int


def diagnose(score: Score) -> Outcome:
    """The outcome of one sample."""
    raise NotImplementedError


def error_splits(scores: Sequence[Score]) -> list[ErrorSplit]:
    """An ErrorSplit a method and data set, in order of appearance, over samples with gold shown."""
    raise NotImplementedError


def scratchpad_use(
    scores: Sequence[Score], sources: Mapping[str, Passage], *, method: str = "scratchpad"
) -> list[ScratchpadUse]:
    """One ScratchpadUse a data set that has forced cells; `sources` of `sources.read_sources`."""
    raise NotImplementedError
