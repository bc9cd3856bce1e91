"""Layers as they are computed while an adapter is trained: the same values in fewer steps.

transformers and PEFT write layers to be read; each line is a pass over memory and a tensor kept for
the way back. What is exchanged here was tried against the layer's own forward first, and is put
back when training ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from scratchpad_rag.kernels import pointwise
from scratchpad_rag.kernels.attention import causal_attention_in

Forward = Callable[..., torch.Tensor]


class Exchanged(NamedTuple):
    """How many layers of each kind are computed here, and whether all that trains is in them."""

    lora: int
    norms: int
    products: int
    complete: bool


class _LoraLinear(torch.autograd.Function):
    """`x W' + bias + s (x A') B'`; the float32 adapter is rounded to the base's precision."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (tokens, in)
        low_down, low_up = down.to(x.dtype), (up * scaling).to(x.dtype)  # (rank, in), (out, rank)
        y = F.linear(rows, weight, bias)
        inner = F.linear(rows, low_down)  # (tokens, rank)
        y.addmm_(inner, low_up.t())
        ctx.save_for_backward(rows, weight, inner, low_down, low_up)
        ctx.kinds, ctx.scaling = (down.dtype, up.dtype), scaling
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight, inner, low_down, low_up = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1])  # (tokens, out)
        through = gradient @ low_up  # (tokens, rank)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = gradient @ weight
            dx.addmm_(through, low_down)
            dx = dx.view(*gradients[0].shape[:-1], -1)
        ddown = (through.t() @ rows).to(ctx.kinds[0])
        dup = (gradient.t() @ inner).to(ctx.kinds[1]) * ctx.scaling
        return dx, None, None, ddown, dup, None


@contextmanager
def fast_layers(model: nn.Module) -> Iterator[Exchanged]:
    """Exchange what can be exchanged, attention included, for the length of a block."""
    with ExitStack() as restore:
        counts = {"lora": 0, "norms": 0, "products": 0}
        left = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
        for module in model.modules():
            kind, forward = _faster(module)
            if forward is not None:
                restore.enter_context(_forward_of(module, forward))
            if kind is not None:
                counts[kind] += 1
            if kind == "lora":
                left -= {id(parameter) for parameter in module.parameters()}
        restore.enter_context(causal_attention_in(_config(model)))
        yield Exchanged(**counts, complete=not left)


def _faster(module: Any) -> tuple[str | None, Forward | None]:
    if isinstance(module, LoraLinear):
        return ("lora", _lora_forward) if _is_plain_lora(module) else (None, None)
    if _is_norm(module) and _agrees(module, _norm_forward, module.weight.shape[0]):
        return "norms", _norm_forward
    if _is_swiglu(module) and _agrees(module, _swiglu_forward, _width(module.gate_proj)):
        return "products", _swiglu_forward
    return None, None


@contextmanager
def _forward_of(module: Any, forward: Forward) -> Iterator[None]:
    """Compute a module by another function, with the module's own as `module.own_forward`."""
    before = module.__dict__.get("forward")
    module.own_forward = module.forward
    module.forward = MethodType(forward, module)
    try:
        yield
    finally:
        del module.own_forward
        if before is None:
            del module.forward
        else:
            module.forward = before


def _is_plain_lora(module: Any) -> bool:
    """Rank, scale and nothing else: no dropout, no magnitudes, no biases, no packed weights."""
    names = module.active_adapters
    if len(names) != 1 or names[0] not in module.lora_A or type(module.base_layer) is not nn.Linear:
        return False
    name = names[0]
    return (
        isinstance(module.lora_dropout[name], nn.Identity)
        and not module.lora_variant
        and not module.lora_bias[name]
        and not module.base_layer.weight.requires_grad
        and (module.base_layer.bias is None or not module.base_layer.bias.requires_grad)
    )


def _lora_forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    weight = self.base_layer.weight
    plain = not (args or kwargs or self.disable_adapters or self.merged) and _is_plain_lora(self)
    # Weights that DeepSpeed spread over processes are gathered by the layer's own forward only.
    if not plain or x.dtype is not weight.dtype or weight.dim() != 2:
        return self.own_forward(x, *args, **kwargs)  # type: ignore[no-any-return]
    name = self.active_adapters[0]
    output: torch.Tensor = _LoraLinear.apply(  # type: ignore[no-untyped-call]
        x,
        weight,
        self.base_layer.bias,
        self.lora_A[name].weight,
        self.lora_B[name].weight,
        self.scaling[name],
    )
    return output


def _is_norm(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return (
        type(module).__name__.endswith("RMSNorm")
        and isinstance(weight, nn.Parameter)
        and weight.dim() == 1
        and not weight.requires_grad
        and pointwise.serves(weight)
    )


def _norm_forward(self: Any, x: torch.Tensor) -> torch.Tensor:
    if not pointwise.serves(x):
        return self.own_forward(x)  # type: ignore[no-any-return]
    return pointwise.rms_norm(x, self.weight, _epsilon(self))


def _epsilon(module: Any) -> float:
    return float(getattr(module, "variance_epsilon", None) or getattr(module, "eps", None) or 1e-6)


def _is_swiglu(module: Any) -> bool:
    projections = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if not all(isinstance(part, nn.Module) for part in projections):
        return False
    weight = getattr(projections[0], "weight", None)
    return isinstance(weight, torch.Tensor) and _is_silu(getattr(module, "act_fn", None))


def _is_silu(activation: Any) -> bool:
    """Tried where activations differ, which small weights never reach."""
    x = torch.linspace(-6, 6, 49)
    return callable(activation) and torch.allclose(activation(x), F.silu(x), atol=1e-5)


def _swiglu_forward(self: Any, x: torch.Tensor) -> torch.Tensor:
    gate, up = self.gate_proj(x), self.up_proj(x)
    if not pointwise.serves(gate, up):
        return self.down_proj(self.act_fn(gate) * up)  # type: ignore[no-any-return]
    return self.down_proj(pointwise.swiglu(gate, up))  # type: ignore[no-any-return]


def _width(projection: Any) -> int:
    return int(getattr(projection, "in_features", 0))


def _agrees(module: Any, forward: Forward, size: int) -> bool:
    """Whether a forward gives what the module's own gives, up to a rounding, on a few values.

    Small ones too, where what is added to a mean square shows. Held against a row's usual value,
    since single large weights would hide a difference in the rest.
    """
    weight = next(module.parameters())
    if size == 0 or not pointwise.serves(weight):
        return False
    scales = torch.tensor([[2.0], [0.1], [1e-3], [30.0]])
    x = (torch.linspace(-3, 3, 4 * size).sin().view(4, size) * scales)[None].to(weight)
    with torch.no_grad(), _forward_of(module, forward):
        ours, theirs = module.forward(x).float(), module.own_forward(x).float()
    if ours.shape != theirs.shape:
        return False
    allowed = 2e-2 * theirs.abs() + 1e-2 * theirs.abs().median(-1, keepdim=True).values
    return bool(((ours - theirs).abs() <= allowed).all())


def _config(model: Any) -> Any:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base.config
