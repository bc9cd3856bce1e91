"""Tests of differences: whether chance explains them, over many comparisons too, and what the
sample could have shown at all. Verified against scipy and statsmodels (docs/statistics.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scratchpad_rag.evaluate.statistics import Key


@dataclass(frozen=True, slots=True)
class CochranQ:
    """Cochran's Q over `questions` complete rows: whether all positions are equally accurate.

    `test` is "chi-squared", or "permutation" where there are too few questions for it.
    """

    statistic: float
    degrees: int
    p_value: float
    questions: int
    test: str = "chi-squared"


def paired_bootstrap_p(
    a: Mapping[Key, float], b: Mapping[Key, float], *, resamples: int = 2000, seed: int = 0
) -> float:
    """Two-sided p of the mean of a - b over the keys that both have, questions resampled.

    Raises ValueError if no key is in both.
    """
    raise NotImplementedError


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """The p-values adjusted for there being several (Holm, 1979), in the order given.

    Raises ValueError for a value outside 0..1.
    """
    raise NotImplementedError


def cochran_q(
    matrix: Sequence[Sequence[float]], *, resamples: int = 10_000, seed: int = 0
) -> CochranQ:
    """Cochran's Q test of a complete questions x positions matrix of 0 and 1.

    Raises ValueError for another value, rows of different lengths, or fewer than two columns.
    """
    raise NotImplementedError


def detectable_difference(
    questions: int, discordant: int, level: float = 0.05, power: float = 0.8
) -> float:
    """Smallest difference of two rates (0..1) that McNemar's test on so many questions, of which
    `discordant` had one right and one wrong answer, would have shown with this power.

    `math.inf` where the questions are too few for any. Raises ValueError on impossible numbers.
    """
    raise NotImplementedError


def detectable_mean_difference(
    deviation: float, questions: int, level: float = 0.05, power: float = 0.8
) -> float:
    """The same for the mean of questions' differences with this standard deviation (normal)."""
    raise NotImplementedError
