"""Exchanged layers against the layers' own forwards, in values and in gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from scratchpad_rag.kernels.attention import NAME
from scratchpad_rag.kernels.build import cpu_kernels
from scratchpad_rag.tokens.collate import Collator
from scratchpad_rag.train.layers import Exchanged, fast_layers
from scratchpad_rag.train.loss import RegionLoss, scoring
from tests.train.tiny import SAMPLES, gradients, tiny_lm, with_lora

IDS = torch.arange(3, 43).view(2, 20)
ALL_LINEAR = {"target_modules": "all-linear"}
needs_kernels = pytest.mark.skipif(cpu_kernels() is None, reason="needs AVX512-bf16 and a compiler")


def compute(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits, and the gradients of a weighted sum of them."""
    logits = model(input_ids=IDS, use_cache=False).logits
    weights = torch.linspace(-1, 1, logits.numel()).view(logits.shape)
    (logits.float() * weights).sum().backward()
    return logits.detach(), gradients(model)


def forwards(model: nn.Module) -> dict[str, Any]:
    """What every module has of its own under the names that are exchanged."""
    return {
        name: (module.__dict__.get("forward"), module.__dict__.get("own_forward"))
        for name, module in model.named_modules()
    }


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact.double()).norm() / exact.double().norm())


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3", "Gemma2", "Phi", "Granite"])
def test_float32_is_the_same_with_them(family: str) -> None:
    changes = {"hidden_size": 128} if family == "Phi" else {}
    model = with_lora(tiny_lm(family, **changes), **ALL_LINEAR)
    expected = compute(model)
    with fast_layers(model) as exchanged:
        assert exchanged.lora > 0
        assert exchanged.norms == exchanged.products == 0  # those are bfloat16's
        assert exchanged.complete
        found = compute(model)
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    for name, gradient in expected[1].items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5 * scale, rtol=1e-4)


@needs_kernels
@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3", "Gemma2", "Mistral", "Phi"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_bfloat16_is_as_near_to_float64_as_autocast_is(family: str, checkpointing: bool) -> None:
    changes = {"hidden_size": 128} if family == "Phi" else {}

    def make(dtype: torch.dtype) -> Any:
        # The same rounded weights in either precision.
        base = tiny_lm(family, torch.bfloat16, **changes).to(dtype)
        return with_lora(base, **ALL_LINEAR)

    model = make(torch.double)
    for parameter in model.parameters():
        parameter.data = parameter.data.double()
    exact = compute(model)
    model = make(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        peer = compute(model)
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    with fast_layers(model) as exchanged:
        assert exchanged.complete
        found = compute(model)
    assert relative_error(found[0], exact[0]) <= 1.5 * relative_error(peer[0], exact[0]) + 2**-8
    assert found[1].keys() == exact[1].keys()
    mine, theirs = (
        [relative_error(of[name], wanted) for name, wanted in exact[1].items()]
        for of in (found[1], peer[1])
    )
    assert sum(mine) <= 1.5 * sum(theirs)
    assert max(mine) < 0.2


@needs_kernels
@pytest.mark.parametrize(
    ("family", "norms", "products"),
    [("Llama", 5, 2), ("Qwen3", 9, 2), ("Mistral", 5, 2), ("Gemma2", 0, 0), ("Phi", 0, 0)],
)
def test_what_is_exchanged_of_each_family(family: str, norms: int, products: int) -> None:
    """Gemma adds one to its norms' weights and has another activation; Phi has neither layer."""
    changes = {"hidden_size": 128} if family == "Phi" else {}
    model = with_lora(tiny_lm(family, torch.bfloat16, **changes))
    with fast_layers(model) as exchanged:
        assert exchanged == Exchanged(lora=4, norms=norms, products=products, complete=True)


@needs_kernels
def test_a_norm_that_adds_one_is_seen_where_a_weight_is_large() -> None:
    model = with_lora(tiny_lm("Gemma2", torch.bfloat16))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data[3] = 150.0
    with fast_layers(model) as exchanged:
        assert exchanged.norms == 0


@needs_kernels
@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh", "relu"])
def test_another_activation_is_seen_where_weights_are_small(activation: str) -> None:
    small = tiny_lm(dtype=torch.bfloat16, hidden_act=activation, initializer_range=1e-3)
    with fast_layers(with_lora(small)) as exchanged:
        assert exchanged.products == 0


@needs_kernels
def test_another_epsilon_is_the_norms_own() -> None:
    """Where values are small it is most of what they are divided by."""
    model = with_lora(tiny_lm(dtype=torch.bfloat16, rms_norm_eps=0.1))
    with fast_layers(model) as exchanged:
        assert exchanged.norms == 5
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.eps = 1e-6  # read by nobody but us
            module.__dict__.pop("variance_epsilon")
            module.epsilon_of_mine = 0.1
            module.forward = _with_epsilon_of_mine.__get__(module)
    with fast_layers(model) as exchanged:
        assert exchanged.norms == 0


def _with_epsilon_of_mine(self: Any, x: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon_of_mine)
    return self.weight * wide.to(x.dtype)  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_forward_is_put_back(dtype: torch.dtype) -> None:
    model = with_lora(tiny_lm(dtype=dtype), **ALL_LINEAR)
    before = forwards(model)
    attention = model.get_base_model().config._attn_implementation
    with fast_layers(model):
        assert forwards(model) != before
    assert forwards(model) == before

    def fail(*_: Any) -> None:
        raise ArithmeticError

    model.get_base_model().lm_head.register_forward_pre_hook(fail)
    with pytest.raises(ArithmeticError), scoring(model), fast_layers(model):
        model(**Collator(0)(SAMPLES))
    assert forwards(model) == before
    assert model.get_base_model().config._attn_implementation == attention


def _two_adapters(model: Any) -> Any:
    from peft import LoraConfig

    wrapped = with_lora(model)
    wrapped.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    wrapped.base_model.set_adapter(["default", "other"])
    return wrapped


LEFT: dict[str, Callable[[Any], Any]] = {
    "dora": lambda model: with_lora(model, use_dora=True),
    "dropout": lambda model: with_lora(model, lora_dropout=0.1),
    "bias of the adapter": lambda model: with_lora(
        model, lora_bias=True, target_modules=["q_proj"]
    ),
    "bias of the base": lambda model: with_lora(model, bias="lora_only"),
    "two adapters": _two_adapters,
}


@pytest.mark.parametrize("kind", LEFT)
def test_what_is_more_than_plain_is_left_to_peft(kind: str) -> None:
    model = LEFT[kind](tiny_lm("Qwen2"))  # whose projections have biases
    expected = compute(model)
    with fast_layers(model) as exchanged:
        assert exchanged.lora == 0
        assert not exchanged.complete
        found = compute(model)
    assert torch.equal(found[0], expected[0])
    assert all(torch.equal(found[1][name], expected[1][name]) for name in expected[1])


@pytest.mark.parametrize(
    "options", [{"modules_to_save": ["lm_head"]}, {"target_modules": ["embed_tokens", "q_proj"]}]
)
def test_whether_all_that_trains_is_in_exchanged_layers(options: dict[str, Any]) -> None:
    """If not, autocast has to bring the rest to bfloat16."""
    with fast_layers(with_lora(tiny_lm(), **options)) as exchanged:
        assert exchanged.lora > 0
        assert not exchanged.complete
    with fast_layers(tiny_lm().requires_grad_(True)) as exchanged:
        assert not exchanged.complete


def test_packed_weights_are_left_to_peft() -> None:
    """A linear layer of another class, as quantization puts in, computes its product itself."""

    class Packed(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    base = tiny_lm()
    for layer in base.model.layers:
        layer.self_attn.q_proj.__class__ = Packed
    model = with_lora(base)
    expected = compute(model)
    with fast_layers(model) as exchanged:
        assert exchanged.lora == 2  # v_proj of two layers
        found = compute(model)
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("state", ["disabled", "merged", "switched"])
def test_an_adapter_that_is_off_merged_or_exchanged_within_the_block(state: str) -> None:
    """As validation uses the model between two updates."""
    model = with_lora(tiny_lm())
    from peft import LoraConfig

    model.add_adapter(
        "other", LoraConfig(r=2, lora_dropout=0.5, target_modules=["q_proj", "v_proj"])
    )
    model.set_adapter("default")

    def use() -> torch.Tensor:
        if state == "disabled":
            with model.disable_adapter():
                logits: torch.Tensor = model(IDS).logits
        elif state == "merged":
            model.merge_adapter()
            logits = model(IDS).logits
            model.unmerge_adapter()
        else:
            model.set_adapter("other")
            model.train()
            torch.manual_seed(0)
            logits = model(IDS).logits
            model.eval()
            model.set_adapter("default")
        return logits.detach()

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.shape[-1] == 2:  # B of the other adapter, which is nought
                parameter.fill_(0.5)
    expected, plain = use(), model(IDS).logits.detach()
    with fast_layers(model):
        torch.testing.assert_close(use(), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model(IDS).logits, plain, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("packed", [False, True])
def test_checkpointed_scoring_has_the_same_gradients(dtype: torch.dtype, packed: bool) -> None:
    model = with_lora(tiny_lm(dtype=dtype), **ALL_LINEAR)
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        with scoring(model), fast_layers(model):
            losses = RegionLoss(*model(**Collator(0, packed=packed)(SAMPLES)))
            losses.total.backward()
        found.append((losses.total.detach(), gradients(model)))
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(found[1][1][name], g) for name, g in found[0][1].items())


@needs_kernels
def test_attention_is_the_kernels_within_the_block() -> None:
    model = with_lora(tiny_lm(dtype=torch.bfloat16))
    with fast_layers(model):
        assert model.get_base_model().config._attn_implementation == NAME
    assert model.get_base_model().config._attn_implementation == "sdpa"
