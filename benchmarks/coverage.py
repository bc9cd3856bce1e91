"""Do the intervals cover, and the tests reject, as often as they say? By simulation.

    python benchmarks/coverage.py            # 2,000 simulated truths a line; minutes
    python benchmarks/coverage.py --quick    # 200

Every truth is a new world: questions differ in difficulty (logits normal with a deviation of 2.5,
so that answers to one question at several positions agree far oftener than chance), and accuracy,
position effects and differences between methods are drawn anew. One JSON line a measurement:
`coverage`, the share of 95% intervals that hold the truth, and `rejected`, the share of p-values of
at most 0.05 where nothing differs. `mean` shows what picking the extremes does to a flat curve.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from statistics import NormalDist, fmean

import numpy as np
from numpy.typing import NDArray

from scratchpad_rag.evaluate.cost import ratio_interval
from scratchpad_rag.evaluate.robustness import doubling_slope, split_drop
from scratchpad_rag.evaluate.significance import cochran_q, holm, paired_bootstrap_p
from scratchpad_rag.evaluate.statistics import (
    Interval,
    bootstrap_mean,
    bootstrap_rate,
    paired_difference,
)

Floats = NDArray[np.float64]
Rng = np.random.Generator
QUESTIONS = (100, 250, 500)
POSITIONS = 5
LENGTHS = (5, 10, 20)
DEVIATION = 2.5  # of the questions' difficulties, in logits
# So many difficulties, each as likely: the truth is then a finite mean, without error.
_DIFFICULTIES = np.array([NormalDist(0, DEVIATION).inv_cdf((i + 0.5) / 999) for i in range(999)])


def chances(logits: Floats) -> Floats:
    """(columns,) logits -> the chance of a right answer, (difficulties, columns)."""
    return np.asarray(1 / (1 + np.exp(-(logits + _DIFFICULTIES[:, None]))))


def answers(chance: Floats, questions: int, rng: Rng) -> Floats:
    """A (questions, columns) table of 0 and 1."""
    drawn = chance[rng.integers(len(chance), size=questions)]
    return (rng.random(drawn.shape) < drawn).astype(np.float64)


def logit_of(low: float, high: float, rng: Rng) -> float:
    """A logit at which the accuracy over all difficulties is about a number in low..high."""
    # Normal difficulties flatten the logistic curve by this factor (Zeger, Liang and Albert, 1988).
    flat = np.sqrt(1 + (16 * np.sqrt(3) / (15 * np.pi)) ** 2 * DEVIATION**2)
    wanted = rng.uniform(low, high)
    return float(np.log(wanted / (1 - wanted)) * flat)


Measured = tuple[Interval, float]  # an interval and the truth it should hold


def rate(low: float, high: float, positions: int) -> Callable[[int, int, Rng], Measured]:
    def one(questions: int, resamples: int, rng: Rng) -> Measured:
        chance = chances(np.full(positions, logit_of(low, high, rng)))
        table = answers(chance, questions, rng)
        names = np.repeat(np.arange(questions), positions).tolist()
        interval = bootstrap_rate(table.ravel().tolist(), names, resamples=resamples)
        return interval, float(chance.mean())

    return one


def difference(positions: int) -> Callable[[int, int, Rng], Measured]:
    def one(questions: int, resamples: int, rng: Rng) -> Measured:
        curve = logit_of(0.2, 0.9, rng) + rng.normal(0, 0.5, size=positions)
        chance = chances(np.concatenate([curve + rng.uniform(-1.5, 1.5), curve]))
        table = answers(chance, questions, rng)
        gained = table[:, :positions] - table[:, positions:]
        names = np.repeat(np.arange(questions), positions).tolist()
        truth = chance[:, :positions].mean() - chance[:, positions:].mean()
        interval = bootstrap_mean(gained.ravel().tolist(), names, resamples=resamples)
        return interval, float(truth)

    return one


def slope(questions: int, resamples: int, rng: Rng) -> Measured:
    falls = -rng.uniform(0, 0.8) * np.arange(len(LENGTHS))
    chance = chances(logit_of(0.3, 0.9, rng) + falls)
    table = answers(chance, questions, rng)
    interval = doubling_slope(LENGTHS, table, resamples=resamples)
    doublings = np.log2(LENGTHS) - np.log2(LENGTHS).mean()
    return interval, float(chance.mean(axis=0) @ doublings / (doublings**2).sum())


def drop(spread: float) -> Callable[[int, int, Rng], Measured]:
    """Accuracies at the positions that differ by draws with this deviation, in logits."""

    def one(questions: int, resamples: int, rng: Rng) -> Measured:
        curve = logit_of(0.3, 0.8, rng) + rng.normal(0, spread, size=POSITIONS)
        chance = chances(curve)
        table = answers(chance, questions, rng)
        seed = int(rng.integers(1 << 30))
        interval = split_drop(table, resamples=resamples, seed=seed)
        return interval, float(np.ptp(chance.mean(axis=0)))

    return one


def ratio(questions: int, resamples: int, rng: Rng) -> Measured:
    """Accuracy for each extra token, where a question costs 40 to 400 of them."""
    curve = logit_of(0.2, 0.8, rng)
    chance = chances(np.array([curve + rng.uniform(-0.5, 2), curve]))
    table = answers(chance, questions, rng)
    tokens = rng.integers(40, 401, size=questions).astype(np.float64)
    gained = table[:, 0] - table[:, 1]
    interval = ratio_interval(gained, tokens, questions, resamples=resamples)
    truth = (chance[:, 0].mean() - chance[:, 1].mean()) / 220
    return interval, float(truth)


INTERVALS: dict[str, Callable[[int, int, Rng], Measured]] = {
    "rate, one cell": rate(0.1, 0.95, 1),
    "rate, five positions": rate(0.1, 0.95, POSITIONS),
    "rare rate (1 to 5%), one cell": rate(0.01, 0.05, 1),
    "rare rate (1 to 5%), five positions": rate(0.01, 0.05, POSITIONS),
    "paired difference, one cell": difference(1),
    "paired difference, five positions": difference(POSITIONS),
    "slope a doubling": slope,
    "accuracy per extra token": ratio,
    "position drop, curve uneven": drop(0.8),
    "position drop, curve nearly flat": drop(0.2),
    "position drop, curve flat": drop(0.0),
}


def null_p_values(questions: int, resamples: int, rng: Rng) -> dict[str, float]:
    """p-values where two methods, or five positions, are alike."""
    chance = chances(np.full(2 * POSITIONS, logit_of(0.2, 0.9, rng)))
    table = answers(chance, questions, rng)
    ours, theirs = table[:, :POSITIONS], table[:, POSITIONS:]

    def keyed(part: Floats) -> dict[tuple[int, int], float]:
        return {(q, p): v for q, row in enumerate(part.tolist()) for p, v in enumerate(row)}

    seed = int(rng.integers(1 << 30))
    cells = [paired_difference(keyed(a[:, None]), keyed(b[:, None]), resamples=1).p_value
             for a, b in zip(ours.T, theirs.T, strict=True)]  # fmt: skip
    one = (keyed(ours[:, :1]), keyed(theirs[:, :1]))
    both = (keyed(ours), keyed(theirs))
    return {
        "McNemar, one cell": cells[0],
        "paired bootstrap, one cell": paired_bootstrap_p(*one, resamples=resamples, seed=seed),
        "sign-flip, five positions": paired_difference(
            *both, resamples=resamples, seed=seed
        ).p_value,
        "paired bootstrap, five positions": paired_bootstrap_p(
            *both, resamples=resamples, seed=seed
        ),
        "Cochran's Q, five positions": cochran_q(ours.tolist()).p_value,
        "any of five McNemar tests": min(cells),
        "any of five after Holm": min(holm(cells)),
    }


def flat_curve_drops(questions: int, rng: Rng) -> tuple[float, float]:
    """The drop and the naive drop where all positions are alike, at an accuracy of 0.6."""
    table = answers(chances(np.full(POSITIONS, logit_of(0.6, 0.6, rng))), questions, rng)
    drop = split_drop(table, resamples=1, seed=int(rng.integers(1 << 30)))
    return drop.estimate, float(np.ptp(table.mean(axis=0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="200 truths a line in place of 2,000")
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--questions", type=int, nargs="+", default=QUESTIONS)
    options = parser.parse_args()
    truths = 200 if options.quick else 2000
    for questions in options.questions:
        for case, one in INTERVALS.items():
            rng = np.random.default_rng([options.seed, questions])
            measured = [one(questions, options.resamples, rng) for _ in range(truths)]
            covered = fmean(i.low <= truth <= i.high for i, truth in measured)
            _print(case, questions, "coverage", covered, truths, "0.93..0.97",
                   0.93 <= covered <= 0.97,
                   bias=round(fmean(i.estimate - truth for i, truth in measured), 5),
                   width=round(fmean(i.high - i.low for i, _ in measured), 5))  # fmt: skip
        rng = np.random.default_rng([options.seed, questions])
        drops, naive = zip(*(flat_curve_drops(questions, rng) for _ in range(truths)), strict=True)
        _print("position drop, curve flat", questions, "mean", fmean(drops), truths,
               "-0.002..0.002", abs(fmean(drops)) <= 0.002)  # fmt: skip
        _print("naive drop, curve flat", questions, "mean", fmean(naive), truths)
        drawn = [null_p_values(questions, options.resamples, rng) for _ in range(truths)]
        for case in drawn[0]:
            rejected = fmean(p[case] <= 0.05 for p in drawn)
            corrected = "any" not in case or "Holm" in case
            _print(case, questions, "rejected", rejected, truths,
                   *(("<=0.06", rejected <= 0.06) if corrected else ()))  # fmt: skip


def _print(
    case: str,
    questions: int,
    metric: str,
    value: float,
    runs: int,
    target: str | None = None,
    holds: bool | None = None,
    **more: float,
) -> None:
    line = {
        "benchmark": "coverage",
        "case": case,
        "questions": questions,
        "metric": metric,
        "value": round(value, 4),
        "runs": runs,
        "target": target,
        "holds": holds,
        **more,
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
