"""What training does so that a model may be spread over processes, seen in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.nn.functional import cross_entropy

from scratchpad_rag.config import ModelConfig, TrainConfig
from scratchpad_rag.models.load import load_model
from scratchpad_rag.models.shape import ModelShape
from scratchpad_rag.models.sharded import gather_trained, give_places
from scratchpad_rag.train.loss import linear_cross_entropy
from scratchpad_rag.train.preflight import estimate_memory, fit_memory
from scratchpad_rag.train.together import any_process, summed


class _Scattered:
    """An output layer whose weight is whole only while it is called, as FSDP and DeepSpeed do."""

    def __init__(self, head: nn.Linear) -> None:
        self.whole, self.calls = head.weight.data, 0
        head.weight.data = torch.empty(0)
        head.register_forward_pre_hook(self.gather)
        head.register_forward_hook(self.scatter)

    def gather(self, head: Any, _: Any) -> None:
        self.calls += 1
        head.weight.data = self.whole

    def scatter(self, head: Any, *_: Any) -> None:
        head.weight.data = torch.empty(0)


@pytest.mark.parametrize("tokens", [0, 1, 7])
def test_a_scattered_output_layer_is_called_once(tokens: int) -> None:
    """Also where nothing is scored: the other processes wait for this one's part."""
    torch.manual_seed(0)
    head = nn.Linear(4, 9).requires_grad_(False)
    hidden = torch.randn(tokens, 4, requires_grad=True)
    targets = torch.arange(tokens)
    expected = cross_entropy(head(hidden), targets, reduction="none")
    (wanted,) = torch.autograd.grad(expected.sum(), hidden)
    scattered = _Scattered(head)
    total, losses = linear_cross_entropy(hidden, head, targets)
    total.backward()
    assert scattered.calls == 1
    assert head.weight.numel() == 0
    assert "forward" not in head.__dict__
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(hidden.grad, wanted)


def test_an_adapted_output_layer_has_gradients_where_nothing_is_scored() -> None:
    model: Any = nn.Module()
    model.head = nn.Linear(4, 9)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["head"]), model)
    total, losses = linear_cross_entropy(
        torch.randn(0, 4, requires_grad=True), model.head, torch.empty(0, dtype=torch.long)
    )
    total.backward()
    assert losses.shape == (0,)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == 2
    assert all(p.grad is not None and not p.grad.any() for p in trained)


def test_alone_each_value_is_its_own() -> None:
    assert any_process(True)
    assert not any_process(False)
    assert summed(torch.tensor([2.0, 3.0])).tolist() == [2.0, 3.0]


def test_nothing_is_gathered_of_a_whole_model() -> None:
    model = nn.Linear(2, 2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    gather_trained(model, keep=False)
    assert all(map(torch.equal, before, model.parameters()))


SHAPE = ModelShape(
    parameters=10_000,  # 2 x 100 x 10 of embeddings, 800 a layer
    trainable=400,
    weight_bytes=20_000.0,
    value_bytes=2,
    layers=10,
    hidden=10,
    heads=1,
    key_heads=1,
    head_size=10,
    intermediate=40,
    vocabulary=100,
    adapted=frozenset({"q_proj"}),
)


def test_what_a_process_holds_of_a_spread_model() -> None:
    whole, part = (
        estimate_memory(SHAPE, 50, TrainConfig(), cuda=True, shards=shards) for shards in (1, 8)
    )
    # An eighth of the weights, and whole the 2000 of the embeddings and 2 x 800 of two layers.
    assert part.weights == pytest.approx(20_000 / 8 + 2 * 3_600)
    assert part.training == whole.training / 8 == 400 * 16 / 8
    assert (part.activations, part.passing) == (whole.activations, whole.passing)


def test_a_spread_model_fits_where_a_whole_one_does_not() -> None:
    large = replace(SHAPE, parameters=10**12, weight_bytes=2e12, layers=100)
    room: dict[str, Any] = {"cuda": False, "total_docs": 5, "available": 1.5e12}
    assert fit_memory(large, 50, TrainConfig(), **room, shards=4).estimate.total < 1.5e12
    with pytest.raises(Exception, match="needs about 2000"):
        fit_memory(large, 50, TrainConfig(), **room)


def test_one_process_of_a_machine_reads_the_weights(
    tiny_mistral: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig(str(tiny_mistral), torch_dtype="bfloat16")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    first, second = [], []
    for rank, found in (("0", first), ("1", second)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        found.append(load_model(config))
    reader, other = first[0], second[0]
    shapes = {name: (p.shape, p.dtype) for name, p in reader.model.named_parameters()}
    assert {name: (p.shape, p.dtype) for name, p in other.model.named_parameters()} == shapes
    assert {p.device.type for p in reader.model.parameters()} == {"cpu"}
    assert {p.device.type for p in other.model.parameters()} == {"meta"}
    # What is computed, not read, no other process sends.
    computed = dict(other.model.named_buffers())
    assert computed.keys() == dict(reader.model.named_buffers()).keys() != set()
    assert all(torch.equal(computed[name], b) for name, b in reader.model.named_buffers())
    assert reader.base_hash
    assert other.base_hash == ""
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "false")
    assert load_model(config).base_hash == reader.base_hash


def test_what_trains_lies_in_places_of_its_own() -> None:
    """Without values, but apart, as accelerate tells parameters from each other."""
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    kept = list(model.parameters())
    give_places(model)
    assert all(now is before for now, before in zip(model.parameters(), kept, strict=True))
    assert {p.device.type for p in model[0].parameters()} == {"meta"}
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.device.type for p in trained} == {"cpu"}
    assert len({p.data_ptr() for p in trained}) == len(trained) == 4
