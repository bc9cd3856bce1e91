"""Models that FSDP or DeepSpeed spread over processes, so that none of these holds them whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

_SWITCHES = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")


def is_sharded() -> bool:
    """Whether the launcher asked for one model to be spread over the processes."""
    return any(_is_on(name) for name in _SWITCHES)


def loads_in_one_process() -> bool:
    """Whether one process of a machine reads the weights and the others get theirs from it."""
    return _is_on("ACCELERATE_USE_FSDP") and _is_on("FSDP_CPU_RAM_EFFICIENT_LOADING")


def gets_weights_from_another() -> bool:
    """Whether this process holds shapes only until FSDP hands out the parts.

    transformers reads the weights in every process, whatever accelerate's file says.
    """
    return loads_in_one_process() and os.environ.get("LOCAL_RANK", "0") != "0"


def without_weights(config: Any, **options: Any) -> nn.Module:
    """A causal LM whose parameters have no memory; what it computes for itself is there."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    make: Any = AutoModelForCausalLM  # untyped in transformers
    with init_empty_weights(include_buffers=False):
        model: Any = make.from_config(config, **options)
    model.tie_weights()
    return model  # type: ignore[no-any-return]


def give_places(model: nn.Module) -> None:
    """Memory, without values, for what trains of a model without weights.

    accelerate tells an optimizer's parameters apart by where they lie, and without memory all lie
    in one place. Memory that nobody writes to takes no room.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.device.type == "meta":
            place = nn.Parameter(torch.empty_like(parameter, device="cpu"))
            torch.utils.swap_tensors(parameter, place)  # type: ignore[no-untyped-call]


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("true", "1")


def allow_fsdp_on_cpu() -> None:
    """Have accelerate spread a model over CPU processes too, where it was asked to.

    It knows FSDP for accelerators only; asked on CPUs, every process would hold the whole model and
    nothing would say so. To be called between TrainingArguments and Trainer.
    """
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    state: Any = PartialState()
    if _is_on("ACCELERATE_USE_FSDP") and state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU


def gather_trained(model: nn.Module, *, keep: bool) -> None:
    """Put whole tensors in the place of the spread ones that train, to be saved, not computed with.

    All processes have to call it; only those with `keep` hold what was gathered, the others hold
    empty tensors afterwards.
    """
    gathered: dict[int, nn.Parameter] = {}
    for module, name, parameter in list(_trained(model)):
        if id(parameter) not in gathered:  # tied ones stay tied
            whole = _whole(parameter)
            if whole is None:
                continue
            held = whole.cpu() if keep else whole.new_empty(0, device="cpu")
            gathered[id(parameter)] = nn.Parameter(held)
        module._parameters[name] = gathered[id(parameter)]


def _trained(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.requires_grad:
                yield module, name, parameter


def _whole(parameter: Any) -> torch.Tensor | None:
    """All of a parameter of which this process holds a part; None where it holds all of it."""
    if hasattr(parameter, "full_tensor"):  # FSDP2's
        tensor: torch.Tensor = parameter.detach().full_tensor()
        return tensor
    if hasattr(parameter, "ds_id"):  # DeepSpeed's
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            whole: torch.Tensor = parameter.detach().clone()
            return whole
    return None
