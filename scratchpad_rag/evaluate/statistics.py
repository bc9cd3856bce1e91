"""How sure a mean or a difference is, when several samples come from the same question.

The samples of one question (its gold passage at several positions) are not independent, so
questions are resampled, not samples: the cluster bootstrap (Field and Welsh, 2007) with percentile
limits (Efron and Tibshirani, 1993, chapter 13).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Key = TypeVar("Key", bound=tuple[Hashable, ...])  # a sample; its first item is the question

_MAX_DRAWS = 4_000_000  # numbers drawn at once: 32 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate from `n` samples with the limits of its confidence interval."""

    estimate: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean of a - b over the samples that both have, and how likely it is by chance alone.

    `wins` and `losses` are the pairs where a scores above and below b; `test` is "mcnemar" or
    "sign-flip"; `unpaired` are the samples that only one of the two has, which are left out.
    """

    interval: Interval
    p_value: float
    wins: int
    losses: int
    test: str
    unpaired: int = 0


def bootstrap_mean(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of `values` with a percentile interval; `clusters` names the question of each value.

    Every resample draws as many questions as there are, with replacement, and takes the mean over
    all their values. One question, or values all alike, give an interval without width: see
    `bootstrap_rate` for rates. Raises ValueError on no values, on lengths that differ and on
    values that are not finite.

    >>> bootstrap_mean([1.0, 0.0, 1.0], ["q1", "q1", "q1"])
    Interval(estimate=0.6666666666666666, low=0.6666666666666666, high=0.6666666666666666, n=3)
    """
    sums, counts = _by_cluster(values, clusters)
    return _interval(_resampled_means(sums, counts, resamples, seed), sums, counts, level)


def bootstrap_rate(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """`bootstrap_mean` for values in 0..1, honest where all are 0 or all are 1.

    There the bootstrap has no spread; the outer limit is then the exact binomial one (Clopper and
    Pearson, 1934) for that many questions: all of k right has the lower limit (alpha / 2)^(1 / k).

    >>> bootstrap_rate([1.0] * 10, range(10))
    Interval(estimate=1.0, low=0.6915028921812392, high=1.0, n=10)
    """
    interval = bootstrap_mean(values, clusters, level=level, resamples=resamples, seed=seed)
    limit = ((1 - level) / 2) ** (1 / len(set(clusters)))
    if min(values) == max(values) == 1.0:
        return Interval(1.0, limit, 1.0, interval.n)
    if min(values) == max(values) == 0.0:
        return Interval(0.0, 0.0, 1 - limit, interval.n)
    return interval


def paired_difference(
    a: Mapping[Key, float],
    b: Mapping[Key, float],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Mean of a - b over the keys that both have; a key is (question, ...), such as its position.

    The interval comes from the cluster bootstrap over questions. The two-sided p-value is the exact
    McNemar test where every score is 0 or 1 and every question has one sample; otherwise the same
    idea question by question: a and b change places in whole questions at random, and p is the
    share of exchanges, the observed one included, that differ by as much (Davison and Hinkley,
    1997, section 4.3). Unlike a bootstrap p-value it stays large where there are only a few
    questions. Raises ValueError if no key is in both.
    """
    shared = [key for key in a if key in b]
    if not shared:
        raise ValueError("the two have no sample in common: nothing to compare")
    differences = [a[key] - b[key] for key in shared]
    wins, losses = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    sums, counts = _by_cluster(differences, [key[0] for key in shared])
    means = _resampled_means(sums, counts, resamples, seed)
    exact = counts.max() == 1 and all({a[key], b[key]} <= {0.0, 1.0} for key in shared)
    return PairedDifference(
        interval=_interval(means, sums, counts, level),
        p_value=mcnemar_p(wins, losses) if exact else _sign_flip_p(sums, resamples, seed),
        wins=wins,
        losses=losses,
        test="mcnemar" if exact else "sign-flip",
        unpaired=len(a.keys() ^ b.keys()),
    )


def mcnemar_p(wins: int, losses: int) -> float:
    """Exact two-sided McNemar test: the binomial test that wins and losses are equally likely.

    >>> mcnemar_p(5, 0), mcnemar_p(3, 3), mcnemar_p(0, 0)  # 2 / 2^5; no evidence; no evidence
    (0.0625, 1.0, 1.0)
    """
    discordant = wins + losses
    ways = sum(math.comb(discordant, i) for i in range(min(wins, losses) + 1))
    return min(1.0, 2 * ways / (1 << discordant))


def _sign_flip_p(sums: Floats, draws: int, seed: int) -> float:
    """Share of random sign changes of the questions' differences that are as far from zero."""
    rng = np.random.default_rng(seed)
    rows = max(1, _MAX_DRAWS // len(sums))
    far = abs(sums.sum()) - 1e-9  # the same sum in another order may differ in its last bits
    extreme = 0
    for done in range(0, draws, rows):
        signs = rng.choice((-1.0, 1.0), size=(min(rows, draws - done), len(sums)))
        extreme += int((np.abs(signs @ sums) >= far).sum())
    return (extreme + 1) / (draws + 1)


def _by_cluster(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Sum and number of the values of each cluster, in the order of their first value."""
    if not len(values):
        raise ValueError("no values: a mean of nothing is not defined")
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values but {len(clusters)} cluster names")
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("values must be finite numbers")
    numbers: dict[Hashable, int] = {}
    index = [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
    counts = np.bincount(index).astype(np.float64)
    return np.bincount(index, weights=array).astype(np.float64), counts


def _resampled_means(sums: Floats, counts: Floats, resamples: int, seed: int) -> Floats:
    """Means of `resamples` draws of clusters with replacement -> (resamples,)."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    rng = np.random.default_rng(seed)
    rows = max(1, _MAX_DRAWS // len(sums))
    means = []
    for done in range(0, resamples, rows):
        shape = (min(rows, resamples - done), len(sums))
        drawn = rng.integers(len(sums), size=shape)  # (resamples, clusters)
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)


def _interval(means: Floats, sums: Floats, counts: Floats, level: float) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    estimate = float(sums.sum() / counts.sum())
    return Interval(estimate, float(low), float(high), int(counts.sum()))
