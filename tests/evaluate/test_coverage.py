"""Of 2,000 simulated truths about 95% lie in their intervals (benchmarks/coverage.py).

The share of 2,000 that a true 95% interval covers lies in 0.935 to 0.965 in 99.8% of simulations.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

TRUTHS = 2000


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("case", "low", "high"),
    [
        ("rate, one cell", 0.93, 0.97),
        ("rate, five positions", 0.93, 0.97),
        ("rare rate (1 to 5%), one cell", 0.93, 0.97),
        ("paired difference, one cell", 0.93, 0.97),
        ("paired difference, five positions", 0.93, 0.97),
        ("slope a doubling", 0.93, 0.97),
        ("accuracy per extra token", 0.93, 0.97),
        ("position drop, curve uneven", 0.93, 0.985),  # wider than it need be: docs/statistics.md
        ("position drop, curve flat", 0.93, 0.985),
    ],
)
def test_interval_covers(coverage: ModuleType, case: str, low: float, high: float) -> None:
    rng = np.random.default_rng(23)
    covered = 0
    for _ in range(TRUTHS):
        questions = int(rng.choice([100, 250, 500]))
        interval, truth = coverage.INTERVALS[case](questions, 300, rng)
        covered += interval.low <= truth <= interval.high
    assert low <= covered / TRUTHS <= high


def test_p_values_are_small_as_seldom_as_they_say(coverage: ModuleType) -> None:
    rng = np.random.default_rng(29)
    drawn = [coverage.null_p_values(150, 300, rng) for _ in range(400)]
    small = {case: np.mean([p[case] <= 0.05 for p in drawn]) for case in drawn[0]}
    uncorrected = small.pop("any of five McNemar tests")
    # 400 draws of 0.05 stay below 0.085 in 99.8% of simulations; exact tests reject too seldom.
    assert max(small.values()) <= 0.085
    assert uncorrected > 0.1  # the simulation would notice if Holm's correction were left out
