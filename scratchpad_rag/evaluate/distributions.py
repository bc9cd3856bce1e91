"""Quantiles and tails of the normal, Student's t and chi-squared distributions.

For whole degrees of freedom all are finite sums (Abramowitz and Stegun, 1964, chapter 26), so that
scipy is not needed where a reader is run.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_NORMAL = NormalDist()
_SUMMED_DEGREES = 100  # above, the expansion is right to 9 digits
_LARGEST_T = 1e9


def normal_cdf(value: float) -> float:
    """P(Z <= value) of the standard normal distribution."""
    return _NORMAL.cdf(value)


def normal_quantile(probability: float) -> float:
    """The value below which a standard normal variable lies with this probability (in 0..1)."""
    return _NORMAL.inv_cdf(probability)


@lru_cache(maxsize=4096)
def t_quantile(probability: float, degrees: int) -> float:
    """The same of Student's t, for a probability of at least 0.5 and at least one degree.

    Bisection of the distribution's sum (26.7.3 and 26.7.4); above 100 degrees the expansion about
    the normal quantile (26.7.5).

    >>> round(t_quantile(0.975, 9), 6), round(t_quantile(0.975, 499), 6)
    (2.262157, 1.964729)
    """
    if degrees > _SUMMED_DEGREES:
        return _expanded_t(normal_quantile(probability), degrees)
    low, high = 0.0, 1.0
    while _t_between(high, degrees) < 2 * probability - 1 and high < _LARGEST_T:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if _t_between(middle, degrees) < 2 * probability - 1:
            low = middle
        else:
            high = middle
    return high


def chi_squared_tail(value: float, degrees: int) -> float:
    """P(X > value) of chi-squared with at least one degree of freedom (26.4.4 and 26.4.5).

    >>> round(chi_squared_tail(5.991, 2), 4), round(chi_squared_tail(3.841, 1), 4)
    (0.05, 0.05)
    """
    half = max(value, 0.0) / 2
    if degrees % 2:
        total, first = math.erfc(math.sqrt(half)), 0.5
    else:
        total, first = 0.0, 0.0
    if half == 0:
        return 1.0
    for step in range(degrees // 2):
        power = first + step
        total += math.exp(power * math.log(half) - half - math.lgamma(power + 1))
    return min(1.0, total)


def _t_between(value: float, degrees: int) -> float:
    """P(-value < T < value)."""
    angle = math.atan(value / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    if degrees == 1:
        return 2 * angle / math.pi
    odd = degrees % 2
    term = total = cosine if odd else 1.0
    for factor in range(3 if odd else 2, degrees - 1, 2):
        term *= cosine * cosine * (factor - 1) / factor
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _expanded_t(z: float, degrees: int) -> float:
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / degrees**power for power, term in enumerate(terms, start=1))
