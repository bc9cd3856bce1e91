"""How sure a mean or a difference is, when several samples come from the same question.

The samples of one question (its gold passage at several positions) are not independent, so
questions are resampled, not samples: the cluster bootstrap (Field and Welsh, 2007). Percentile
limits of a bootstrap are too narrow where there are few questions; the ones here are expanded by
what a t-interval is wider than a normal one without n - 1 (Hesterberg, 2015, section 5.2), and
those of rates are Wilson's (1927), which stay honest near 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from scratchpad_rag.evaluate.distributions import normal_cdf, normal_quantile, t_quantile

Floats = NDArray[np.float64]
Key = TypeVar("Key", bound=tuple[Hashable, ...])  # a sample; its first item is the question

_MAX_DRAWS = 4_000_000  # numbers drawn at once: 32 MB
_FEW_KINDS = 0.25  # of the number of clusters: below this, counting them is the faster way


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
    """Mean of `values` with a bootstrap interval; `clusters` names the question of each value.

    Every resample draws as many questions as there are, with replacement, and takes the mean over
    all their values. The limits are expanded percentiles (see `limits`). One question, or values
    all alike, give an interval without width: see `bootstrap_rate` for rates. Raises ValueError on
    no values, on lengths that differ and on values that are not finite.

    >>> bootstrap_mean([1.0, 0.0, 1.0], ["q1", "q1", "q1"])
    Interval(estimate=0.6666666666666666, low=0.6666666666666666, high=0.6666666666666666, n=3)
    """
    sums, counts = by_cluster(values, clusters)
    return _interval(resampled_ratios(sums, counts, resamples, seed), sums, counts, level)


def bootstrap_rate(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of values in 0..1 with an interval that is honest near 0 and 1 too.

    The limits are Wilson's (1927) for the effective number of samples: as many independent ones as
    would have the variance that resampling questions finds, times (z / t)^2 for few questions
    (Korn and Graubard, 1998, with Wilson's limits in place of Clopper and Pearson's), but no more
    than there are values. Where all values are 0 or all are 1 the bootstrap has no spread; the
    outer limit is then the exact binomial one (Clopper and Pearson, 1934) for that many questions:
    all of k right has the lower limit (alpha / 2)^(1 / k). Raises ValueError as `bootstrap_mean`
    does, and on values outside 0..1.

    >>> bootstrap_rate([1.0] * 10, range(10))
    Interval(estimate=1.0, low=0.6915028921812392, high=1.0, n=10)
    """
    sums, counts = by_cluster(values, clusters)
    if min(values) < 0 or max(values) > 1:
        raise ValueError("rates must lie between 0 and 1")
    means = resampled_ratios(sums, counts, resamples, seed)
    _check_level(level)
    questions, n = len(sums), len(values)
    limit = ((1 - level) / 2) ** (1 / questions)
    if min(values) == max(values) == 1.0:
        return Interval(1.0, limit, 1.0, n)
    if min(values) == max(values) == 0.0:
        return Interval(0.0, 0.0, 1 - limit, n)
    rate = float(sums.sum() / counts.sum())
    z = normal_quantile((1 + level) / 2)
    return Interval(rate, *_wilson(rate, _effective(rate, means, questions, n, level), z), n)


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
    sums, counts = by_cluster(differences, [key[0] for key in shared])
    means = resampled_ratios(sums, counts, resamples, seed)
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
    sizes, times = np.unique(np.abs(sums), return_counts=True)
    far = abs(sums.sum()) - 1e-9  # the same sum in another order may differ in its last bits
    rows = max(1, _MAX_DRAWS // len(sizes))
    extreme = 0
    for done in range(0, draws, rows):
        positive = rng.binomial(times, 0.5, size=(min(rows, draws - done), len(sizes)))
        extreme += int((np.abs((2 * positive - times) @ sizes) >= far).sum())
    return (extreme + 1) / (draws + 1)


def by_cluster(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
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


def resampled_ratios(above: Floats, below: Floats, resamples: int, seed: int) -> Floats:
    """Sum of `above` through sum of `below` over draws of clusters with replacement.

    Both are (clusters,), the sum of `below` positive; -> (resamples,). Clusters that are alike are
    counted, not drawn one by one, which takes hardly any time where there are few kinds: the
    numbers of each kind in a draw are multinomial. The order of the clusters makes no difference.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    rng = np.random.default_rng(seed)
    pairs = np.stack([above, below], axis=1)
    kinds, times = np.unique(pairs, axis=0, return_counts=True)  # sorted
    if len(kinds) <= _FEW_KINDS * len(pairs):
        drawn = rng.multinomial(len(pairs), times / len(pairs), size=resamples)
        totals = drawn.astype(np.float64) @ kinds  # (resamples, 2)
        return np.asarray(totals[:, 0] / totals[:, 1], dtype=np.float64)
    pairs = np.repeat(kinds, times, axis=0)
    totals = np.concatenate(
        [times @ pairs for times in resampled_counts(len(pairs), resamples, rng)]
    )
    return np.asarray(totals[:, 0] / totals[:, 1], dtype=np.float64)


def resampled_counts(
    clusters: int, resamples: int, rng: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """How often every cluster is drawn, in chunks of (resamples, clusters) that fit into memory."""
    rows = max(1, _MAX_DRAWS // clusters)
    for done in range(0, resamples, rows):
        drawn = min(rows, resamples - done)
        picks = (
            rng.integers(clusters, size=(drawn, clusters)) + clusters * np.arange(drawn)[:, None]
        )
        counts = np.bincount(picks.ravel(), minlength=drawn * clusters)
        yield counts.reshape(drawn, clusters).astype(np.float64)


def limits(draws: Floats, clusters: int, level: float) -> tuple[float, float]:
    """Confidence limits from resampled statistics: the expanded percentiles.

    In place of alpha / 2 the tail is Phi(-sqrt(n / (n - 1)) t) with n clusters and Student's t at
    alpha / 2 with n - 1 degrees of freedom (Hesterberg, 2015, section 5.2): for a mean this is as
    wide as the t-interval. One cluster has no spread, and its limits have no width.
    """
    _check_level(level)
    tail = (1 - level) / 2
    if clusters > 1:
        t = t_quantile(1 - tail, clusters - 1)
        tail = normal_cdf(-math.sqrt(clusters / (clusters - 1)) * t)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def _interval(means: Floats, sums: Floats, counts: Floats, level: float) -> Interval:
    estimate = float(sums.sum() / counts.sum())
    return Interval(estimate, *limits(means, len(sums), level), int(counts.sum()))


def _effective(rate: float, means: Floats, questions: int, samples: int, level: float) -> float:
    """Independent samples that have the variance of `means`, with a margin for few questions."""
    if questions == 1:
        return 1.0  # nothing says how much another question would differ
    variance = float(means.var()) * questions / (questions - 1)
    most = samples if variance == 0 else min(samples, rate * (1 - rate) / variance)
    tail = (1 + level) / 2
    return most * (normal_quantile(tail) / t_quantile(tail, questions - 1)) ** 2


def _wilson(rate: float, n: float, z: float) -> tuple[float, float]:
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + (z / (2 * n)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
