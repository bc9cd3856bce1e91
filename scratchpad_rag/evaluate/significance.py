"""Tests of differences: whether chance explains them, over many comparisons too, and what the
sample could have shown at all. Verified against scipy and statsmodels (docs/statistics.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scratchpad_rag.evaluate.distributions import chi_squared_tail, normal_quantile
from scratchpad_rag.evaluate.statistics import Key, by_cluster, resampled_ratios

_FEW = 24  # undecided questions x positions: below, chi-squared is not near enough (Tate and Brown)


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

    The differences are shifted to a mean of zero, which is what the null hypothesis says, and p is
    the share of resamples of whole questions, the observed one included, with a mean as far from
    zero as the observed one (Efron and Tibshirani, 1993, section 16.4; Davison and Hinkley, 1997,
    section 4.4). Resampled means vary by (n - 1) / n too little, which is put right. With few
    questions prefer the exact tests of `paired_difference`. Raises ValueError if no key is in both.
    """
    shared = [key for key in a if key in b]
    if not shared:
        raise ValueError("the two have no sample in common: nothing to compare")
    sums, counts = by_cluster([a[key] - b[key] for key in shared], [key[0] for key in shared])
    questions = len(sums)
    mean = float(sums.sum() / counts.sum())
    if questions == 1:
        return 1.0  # one question has no spread to judge a difference by
    shifted = resampled_ratios(sums - mean * counts, counts, resamples, seed)
    spread = np.abs(shifted) * math.sqrt(questions / (questions - 1))
    extreme = int((spread >= abs(mean) - 1e-12).sum())
    return (extreme + 1) / (resamples + 1)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """The p-values adjusted for there being several (Holm, 1979), in the order given.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none may fall below a
    smaller one's, or exceed 1. The chance that any true null hypothesis is rejected is kept,
    however the tests depend on each other. Raises ValueError for a value outside 0..1.

    >>> holm([0.04, 0.01, 0.03])
    (0.06, 0.03, 0.06)
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("p-values must lie between 0 and 1")
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = least
    return tuple(adjusted)


def cochran_q(
    matrix: Sequence[Sequence[float]], *, resamples: int = 10_000, seed: int = 0
) -> CochranQ:
    """Cochran's Q test (1950) of a complete questions x positions matrix of 0 and 1.

    Q = (k - 1) (k sum G_j^2 - T^2) / (k T - sum L_i^2) with the column sums G, the row sums L and
    their total T; chi-squared with k - 1 degrees of freedom if all positions are alike. Questions
    that are right everywhere or nowhere say nothing and change nothing. Where the others times k
    are fewer than 24 (Tate and Brown, 1970), p is instead the share of permutations within the
    questions, the observed one included, with a Q as large. For two positions Q is McNemar's
    statistic without a correction.

    Raises ValueError for another value, rows of different lengths, or fewer than two columns.
    """
    table = _binary(matrix)
    questions, positions = table.shape
    rows = table.sum(axis=1)
    undecided = table[(rows > 0) & (rows < positions)]
    if not len(undecided):
        return CochranQ(0.0, positions - 1, 1.0, questions)
    statistic = float(_q(undecided.sum(axis=0), undecided))
    if undecided.size >= _FEW:
        p = chi_squared_tail(statistic, positions - 1)
        return CochranQ(statistic, positions - 1, p, questions)
    rng = np.random.default_rng(seed)
    many = np.broadcast_to(undecided, (resamples, *undecided.shape))
    drawn = _q(rng.permuted(many, axis=2).sum(axis=1), undecided)
    p = (int((drawn >= statistic - 1e-9).sum()) + 1) / (resamples + 1)
    return CochranQ(statistic, positions - 1, p, questions, "permutation")


def detectable_difference(
    questions: int, discordant: int, level: float = 0.05, power: float = 0.8
) -> float:
    """Smallest difference of two rates (0..1) that McNemar's test on so many questions, of which
    `discordant` had one right and one wrong answer, would have shown with this power.

    Solves Connor's (1987) sample size, also Miettinen's (1968) first-order one, for the difference:
    d sqrt(n) = z_a sqrt(r) + z_b sqrt(r - d^2) with the discordant share r, z_a at level / 2 and
    z_b at the power. A difference of d needs a share of at least d, so r is raised to d where the
    observed one is smaller: no discordant questions do not prove that no difference could be seen.
    It is an approximation for the test without continuity correction; the exact test needs a
    little more. `math.inf` where the questions are too few for any difference. Raises ValueError
    on impossible numbers.

    >>> round(detectable_difference(500, 100), 4)
    0.0559
    """
    if questions < 1 or not 0 <= discordant <= questions:
        raise ValueError(f"{discordant} discordant of {questions} questions is impossible")
    z_level, z_power = _quantiles(level, power)

    def shown(difference: float) -> bool:
        share = max(discordant / questions, difference)
        needed = z_level * math.sqrt(share) + z_power * math.sqrt(share - difference**2)
        return difference * math.sqrt(questions) >= needed

    if not shown(1.0):
        return math.inf
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high


def detectable_mean_difference(
    deviation: float, questions: int, level: float = 0.05, power: float = 0.8
) -> float:
    """The same for a mean: (z_a + z_b) deviation / sqrt(questions), the normal approximation.

    `deviation` is the standard deviation of the questions' mean differences, so that samples of
    one question count as one. `math.inf` for fewer than two questions.

    >>> round(detectable_mean_difference(0.4, 100), 4)  # (1.96 + 0.8416) * 0.04
    0.1121
    """
    z_level, z_power = _quantiles(level, power)
    if deviation < 0:
        raise ValueError(f"deviation {deviation} is negative")
    return (z_level + z_power) * deviation / math.sqrt(questions) if questions > 1 else math.inf


def _quantiles(level: float, power: float) -> tuple[float, float]:
    if not 0 < level < 1 or not 0.5 <= power < 1:
        raise ValueError(f"level {level} must lie in 0..1 and power {power} in 0.5..1")
    return normal_quantile(1 - level / 2), normal_quantile(power)


def _binary(matrix: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    if len({len(row) for row in matrix}) != 1:
        raise ValueError("every question needs one value for every position")
    table = np.asarray(matrix, dtype=np.float64)
    if table.shape[1] < 2:
        raise ValueError("Cochran's Q compares two positions or more")
    if not np.isin(table, (0.0, 1.0)).all():
        raise ValueError("Cochran's Q needs values of 0 and 1")
    return table


def _q(columns: NDArray[np.float64], table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Q of column sums (..., positions), whose rows are permutations of those of `table`."""
    positions, rows = table.shape[1], table.sum(axis=1)
    spread = positions * (columns**2).sum(axis=-1) - rows.sum() ** 2
    return np.asarray((positions - 1) * spread / (positions * rows.sum() - (rows**2).sum()))
