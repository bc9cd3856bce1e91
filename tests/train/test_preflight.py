"""Estimates worked out by hand, and what is chosen by them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scratchpad_rag.config import TrainConfig
from scratchpad_rag.errors import TrainingError
from scratchpad_rag.models.shape import ModelShape
from scratchpad_rag.train import preflight
from scratchpad_rag.train.preflight import MemoryEstimate, estimate_memory, fit_memory

# 100 of 10,000 weights train: an adapter on two projections of each of 2 layers.
SHAPE = ModelShape(
    parameters=10_000,
    trainable=100,
    weight_bytes=20_000.0,
    value_bytes=2,
    layers=2,
    hidden=8,
    heads=2,
    key_heads=1,
    head_size=4,
    intermediate=16,
    vocabulary=50,
    adapted=frozenset({"q_proj", "v_proj"}),
)
LARGE = replace(
    SHAPE,
    parameters=1_000_000_000,
    trainable=1_000_000,
    weight_bytes=2e9,
    layers=20,
    hidden=2048,
    heads=32,
    key_heads=8,
    head_size=64,
    intermediate=8192,
)
PLAIN = TrainConfig(batch_size=1, gradient_checkpointing=False)
CHUNK = 1 << 24
GAPS = 1.45  # in a CPU's heap, where freed memory is kept


@pytest.fixture(params=[True, False])
def fused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(preflight, "cpu_kernels", lambda: object() if request.param else None)
    return bool(request.param)


def parts(estimate: MemoryEstimate) -> tuple[float, ...]:
    values = (estimate.weights, estimate.training, estimate.activations, estimate.passing)
    assert estimate.total == pytest.approx(estimate.runtime + sum(values))
    return values


def test_an_adapter_by_hand(fused: bool) -> None:
    # What a token leaves in a layer: inputs of two norms (2 x 8) and of the adapted projections
    # (8); queries and output (2 x 8), keys and values (2 x 4); gate and up (2 x 16); the softmax's
    # sum of each head, a float32 (2 heads x 2 halves / 2).
    values = 16 + 8 + 16 + 8 + 32 + 2
    # Without kernels: the activated gate (16), and both norms' inputs in float32 (2 x 8 more).
    values += 0 if fused else 16 + 16
    layer = values * 2
    estimate = estimate_memory(SHAPE, 10, PLAIN)
    weights, training, activations, passing = parts(estimate)
    assert weights == 20_000
    assert training == 100 * 16  # a float32 master, its gradient, and two moments
    assert activations == pytest.approx(GAPS * 10 * 2 * layer)
    chunk = CHUNK * (2 if fused else 12)
    assert passing == pytest.approx(GAPS * (chunk + 10 * 2 * (4 * 16 + 3 * 8)))
    assert estimate.runtime == 0.47e9

    kept = estimate_memory(SHAPE, 10, replace(PLAIN, gradient_checkpointing=True))
    assert kept.activations == 10 * (2 * 8 * 2 + layer)  # each layer's input, and one whole layer
    assert kept.passing == chunk + 10 * 2 * (4 * 16 + 3 * 8)  # pages of their own leave no gaps
    assert (kept.runtime, kept.weights, kept.training) == (0.47e9, weights, training)

    four = estimate_memory(SHAPE, 10, replace(PLAIN, batch_size=4))
    assert four.activations == pytest.approx(4 * estimate.activations)
    assert four.weights == estimate.weights


def test_all_weights_by_hand(fused: bool) -> None:
    shape = replace(SHAPE, trainable=10_000, adapted=frozenset())
    weights, training, activations, _ = parts(estimate_memory(shape, 10, PLAIN))
    assert weights == 40_000  # the masters themselves
    assert training == 120_000
    # As above, with the inputs of the MLP's (8) and of the last projection (16) kept as well.
    values = 16 + 8 + 8 + 16 + 8 + 32 + 16 + 2 + (0 if fused else 16 + 16)
    assert activations == pytest.approx(GAPS * 10 * 2 * values * 2)


def test_float32_weights_need_no_masters() -> None:
    shape = replace(SHAPE, value_bytes=4, weight_bytes=40_000.0)
    weights, training, *_ = parts(estimate_memory(shape, 10, PLAIN))
    assert weights == 40_000
    assert training == 1_200


def test_a_gpu_uses_no_kernels_of_the_cpu(fused: bool) -> None:
    first = estimate_memory(SHAPE, 10, PLAIN, cuda=True)
    assert first.passing == CHUNK * 12 + 10 * 2 * (4 * 16 + 3 * 8)
    assert first.runtime == 0.8e9


def fit(available: float, config: TrainConfig, shape: ModelShape = LARGE, **options: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight, "available_memory", lambda cuda: available)
        arguments = {"cuda": False, "total_docs": 20, **options}
        return fit_memory(shape, 3000, config, **arguments)


def test_as_many_samples_an_update_whatever_is_chosen(fused: bool) -> None:
    asked = TrainConfig(batch_size=8, gradient_accumulation_steps=3)
    seen = []
    for gigabytes in [value / 10 for value in range(20, 1000)]:
        try:
            found = fit(gigabytes * 1e9, asked)
        except TrainingError:
            assert not seen  # once it fits, more memory does not make it fit less
            continue
        config = found.config
        assert config.batch_size * config.gradient_accumulation_steps == 24
        assert found.estimate.total <= found.available == gigabytes * 1e9
        assert found.estimate == estimate_memory(LARGE, 3000, config)
        choice = (config.batch_size, config.gradient_checkpointing)
        if not seen or seen[-1] != choice:
            seen.append(choice)
    # Checkpointing is the last resort, the batch that was asked for the first choice.
    assert seen[-1] == (8, False)
    assert seen[0] == (1, True)
    assert [size for size, kept in seen if not kept] == [1, 2, 4, 8]


@pytest.mark.parametrize("said", [True, False])
def test_what_the_config_says_is_kept(said: bool) -> None:
    config = TrainConfig(batch_size=1, gradient_checkpointing=said)
    assert fit(1e12, config).config == config
    odd = TrainConfig(batch_size=3, gradient_accumulation_steps=2, gradient_checkpointing=said)
    assert fit(1e12, odd).config == odd


CASES: dict[str, tuple[TrainConfig, ModelShape, dict[str, Any]]] = {
    "adapter": (TrainConfig(batch_size=1), LARGE, {}),
    "odd batch": (TrainConfig(batch_size=3), LARGE, {}),
    "no checkpointing": (TrainConfig(batch_size=3, gradient_checkpointing=False), LARGE, {}),
    "float32": (TrainConfig(), replace(LARGE, value_bytes=4, weight_bytes=4e9), {}),
    "all weights": (TrainConfig(), replace(LARGE, trainable=LARGE.parameters), {}),
    "gpu": (TrainConfig(), LARGE, {"cuda": True}),
    "one document": (TrainConfig(), LARGE, {"total_docs": 1}),
}


def _followed(
    way: str, config: TrainConfig, shape: ModelShape, total_docs: int
) -> tuple[TrainConfig, ModelShape, int]:
    """Config, shape and tokens of who does what a way says, and nothing else."""
    longest = 3000
    if way == "gradient_checkpointing: true":
        config = replace(config, gradient_checkpointing=True)
    elif way == "--batch_size 1":
        config = replace(config, batch_size=1)
    elif way == "torch_dtype: bfloat16":
        shape = replace(shape, value_bytes=2, weight_bytes=2.0 * shape.parameters)
    elif way == "a LoRA --peft_config":
        trainable, adapted = shape.parameters // 100, frozenset({"q_proj", "v_proj"})
        shape = replace(shape, trainable=trainable, adapted=adapted)
    elif way == "quantization: nf4":
        shape = replace(shape, weight_bytes=0.65 * shape.parameters)
    else:
        documents = int(way.removeprefix("--total_docs "))
        longest = -(-longest * (documents + 1) // (total_docs + 1))
    return config, shape, longest


@pytest.mark.parametrize("case", CASES)
def test_each_way_of_a_refusal_fits_if_it_is_followed(case: str) -> None:
    config, shape, options = CASES[case]
    offered = set()
    for gigabytes in [value / 20 for value in range(10, 500)]:
        available = gigabytes * 1e9
        try:
            fit(available, config, shape, **options)
            break
        except TrainingError as error:
            text = str(error)
        assert "\n" not in text
        assert f"and {gigabytes:.1f} GB are free" in text
        assert re.search(r"samples of 3000 tokens needs about \d+\.\d GB", text)
        if "cheapest first: " not in text:
            assert text.endswith("several GPUs with FSDP (docs/scale.md)")
            continue
        ways = text.split("cheapest first: ")[1].split(", or ")
        assert len(ways) <= 3
        for line in ways:
            found = re.fullmatch(r"(.+) \((\d+\.\d) GB\)", line)
            assert found is not None
            way, total = found[1], float(found[2])
            offered.add(way)
            followed = _followed(way, config, shape, options.get("total_docs", 20))
            settings, kind, longest = followed
            if settings.gradient_checkpointing is None:  # it is chosen again
                settings = replace(settings, gradient_checkpointing=True)
            cuda = options.get("cuda", False)
            needed = estimate_memory(kind, longest, settings, cuda=cuda).total
            assert needed <= available, way
            assert needed / 1e9 == pytest.approx(total, abs=0.051)
    expected = {
        "adapter": "--total_docs 15",
        "odd batch": "--batch_size 1",
        "no checkpointing": "gradient_checkpointing: true",
        "float32": "torch_dtype: bfloat16",
        "all weights": "a LoRA --peft_config",
        "gpu": "quantization: nf4",
    }
    assert case == "one document" or expected[case] in offered
    assert case != "one document" or not any("total_docs" in way for way in offered)


def test_the_containers_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable:    8000000 kB\nBuffers: 1 kB\n",
        "/sys/fs/cgroup/memory.max": "max\n",
    }
    monkeypatch.setattr(Path, "is_file", lambda path: str(path) in files)
    monkeypatch.setattr(Path, "read_text", lambda path, *_, **__: files[str(path)])
    assert preflight.available_memory(cuda=False) == pytest.approx(0.95 * 8e6 * 1024)
    files["/sys/fs/cgroup/memory.max"] = "2000000000\n"
    assert preflight.available_memory(cuda=False) == pytest.approx(0.95 * 2e9)
    del files["/sys/fs/cgroup/memory.max"]
    files["/sys/fs/cgroup/memory/memory.limit_in_bytes"] = "3000000000\n"
    assert preflight.available_memory(cuda=False) == pytest.approx(0.95 * 3e9)
    files["/sys/fs/cgroup/memory/memory.limit_in_bytes"] = "9223372036854771712\n"
    assert preflight.available_memory(cuda=False) == pytest.approx(0.95 * 8e6 * 1024)
