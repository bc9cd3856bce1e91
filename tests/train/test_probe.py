"""What a few steps tell of a training: which are taken, what is scaled, and that nothing stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scratchpad_rag.config import TrainConfig
from scratchpad_rag.tokens.samples import FixedSamples
from scratchpad_rag.train.probe import Forecast, _Clock, _scaled, _typical, forecast
from scratchpad_rag.train.trainer import TrainJob
from tests.train.tiny import sample, tiny_lm, with_lora

CONFIG = TrainConfig(num_train_epochs=2, gradient_accumulation_steps=4, lr=1e-3)


def ahead(config: TrainConfig, lengths: list[int], folder: Path) -> Forecast:
    samples = FixedSamples([sample(length, seed) for seed, length in enumerate(lengths)])
    job = TrainJob(folder / "trainer", pad_token_id=0)
    return forecast(with_lora(tiny_lm()), samples, config, job)


def test_a_run_is_counted_out(tmp_path: Path) -> None:
    told = ahead(CONFIG, [10, 20, 30, 40, 50, 60, 70, 80, 90], tmp_path)
    # Nine samples one by one in two epochs; 18 over 4 are 5 updates.
    assert (told.micro_batches, told.updates, told.tokens) == (18, 5, 900)
    assert told.seconds > 0
    assert told.tokens_per_second == pytest.approx(900 / told.seconds)
    assert told.timed_steps == 3  # of five, without the first and the longest
    assert told.peak_bytes > 1e6


def test_padding_counts_and_packing_has_none(tmp_path: Path) -> None:
    two = replace(CONFIG, batch_size=2, num_train_epochs=1)
    told = ahead(two, [10, 10, 40, 40], tmp_path)
    assert told.micro_batches == 2
    assert told.tokens in (100, 160)  # equals together, or each with a longer one
    packed = ahead(replace(two, packing=True), [10, 10, 40, 40], tmp_path)
    assert packed.tokens == 100


@pytest.mark.parametrize("lengths", [[30], [30, 40]])
def test_even_one_sample_can_be_timed(lengths: list[int], tmp_path: Path) -> None:
    told = ahead(replace(CONFIG, num_train_epochs=1), lengths, tmp_path)
    assert told.micro_batches == len(lengths)
    assert told.timed_steps >= 1


def test_nothing_is_saved(tmp_path: Path) -> None:
    ahead(replace(CONFIG, save_steps=1), [10, 20, 30], tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_seconds_are_scaled_by_tokens_and_by_updates() -> None:
    clock = _Clock()
    clock.first = 102.0  # two seconds until the first step
    # Tokens 10, 20, 40 at 0.1 s each, and half a second of the optimizer; the first step takes a
    # second more, the longest one is slow and left out.
    clock.steps = [1.0 + 0.5 + 1.0, 2.0 + 0.5, 4.0 + 0.5, 99.0]
    clock.updates = [0.5, 0.5, 0.5, 0.5]
    config = replace(CONFIG, gradient_accumulation_steps=2)
    told = _scaled(clock, [10, 20, 40, 80], [10, 20, 40, 80, 50], config, began=100.0)
    assert told.timed_tokens == 60
    assert told.updates == 3
    assert told.seconds == pytest.approx(2.0 + 1.0 + 0.1 * 200 + 0.5 * 3)


def test_the_longest_and_typical_ones_are_taken() -> None:
    sizes = list(range(100, 0, -1))
    chosen = [sizes[index] for index in _typical(sizes)]
    assert chosen[0] == 100
    # Of the other 99 those at a quarter, half and three quarters, and one beside the half.
    assert sorted(chosen[1:]) in ([25, 50, 51, 75], [25, 49, 50, 75])
    assert len(set(_typical([5] * 30))) == 5
    assert _typical([7]) == [0]
