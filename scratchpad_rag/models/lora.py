"""LoRA configs: checked against PEFT and the model before anything is trained."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, NoReturn

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from peft.utils.other import AuxiliaryTrainingWrapper, get_pattern_key

from scratchpad_rag.errors import ConfigError
from scratchpad_rag.models.load import LoadedModel, is_quantized

ALL_LINEAR = "all-linear"
# First weights that PEFT takes out of the base; on saving they are converted (see conversion).
_FROM_BASE = re.compile(r"olora|pissa(_niter_[1-9]\d*)?")
_OTHER_FIRST_WEIGHTS = (True, False, "gaussian", "orthogonal", "mica")
# What takes more than a config: samples seen beforehand, a loss of its own, another model.
_UNSUPPORTED = {
    "alora_invocation_tokens": "it needs the place of those tokens in every prompt",
    "arrow_config": "it mixes adapters that are trained already",
    "kasa_config": "it changes the base model, which other adapters share",
    "layer_replication": "it changes the base model, which other adapters share",
    "megatron_config": "it is for Megatron's own trainer",
    "monteclora_config": "it needs a loss of its own",
}
# Always in the metadata, also where they are PEFT's defaults, which another version may change.
_SHAPE = ("r", "lora_alpha", "lora_dropout", "target_modules")


def lora_config(kwargs: Mapping[str, Any]) -> LoraConfig:
    """PEFT's config of the keywords in a PEFT file.

    Raises ConfigError for an unknown key, a value of another type, or what is not supported.
    """
    known = [field.name for field in fields(LoraConfig) if field.init]
    for key in kwargs:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            _reject(f"unknown key {key!r}{hint}")
    _check_values(kwargs)
    _check_first_weights(kwargs)
    for key, reason in _UNSUPPORTED.items():
        if kwargs.get(key) is not None:
            _reject(f"{key} is not supported: {reason}")
    make: Any = LoraConfig  # untyped in PEFT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they warn of is refused below or does no harm
            config: LoraConfig = make(**{"task_type": "CAUSAL_LM", **kwargs})
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(rejection(error)) from error
    return config


def rejection(error: Exception) -> str:
    """PEFT's own words, on one line."""
    return f"PEFT rejects the LoRA config: {' '.join(str(error).split())[:300]}"


def _reject(reason: str) -> NoReturn:
    raise ConfigError(f"PEFT rejects the LoRA config: {reason}")


def _check_values(kwargs: Mapping[str, Any]) -> None:
    """PEFT looks at few types; a text where a number belongs fails there in the midst of it."""
    for key, wanted, holds in (
        ("r", "a whole number from 1", _is_rank),
        ("lora_alpha", "a number", _is_number),
        ("lora_dropout", "a number from 0 to 1", lambda v: _is_number(v) and 0 <= v <= 1),
        ("target_modules", "a list of names or a text", lambda v: v is None or _is_names(v, True)),
        ("exclude_modules", "a list of names or a text", lambda v: v is None or _is_names(v, True)),
        ("modules_to_save", "a list of names", lambda v: v is None or _is_names(v, False)),
        ("rank_pattern", "ranks by name", lambda v: v is None or _is_pattern(v, _is_rank)),
        ("alpha_pattern", "numbers by name", lambda v: v is None or _is_pattern(v, _is_number)),
        ("bias", "none, all or lora_only", lambda v: v in ("none", "all", "lora_only")),
        *((key, "true or false", _is_flag) for key in ("use_rslora", "use_dora", "lora_bias")),
    ):
        if key in kwargs and not holds(kwargs[key]):
            _reject(f"{key} is {kwargs[key]!r}; it must be {wanted}")


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_names(value: Any, or_text: bool) -> bool:
    listed = isinstance(value, list | tuple | set) and all(isinstance(v, str) for v in value)
    return listed or (or_text and isinstance(value, str))


def _is_pattern(value: Any, holds: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and holds(number) for key, number in value.items()
    )


def changes_base(config: Any) -> bool:
    """Whether the first weights of an adapter are taken out of the base model's own."""
    return _is_from_base(config.init_lora_weights)


def _is_from_base(first: Any) -> bool:
    return isinstance(first, str) and _FROM_BASE.fullmatch(first) is not None


def _check_first_weights(kwargs: Mapping[str, Any]) -> None:
    first, stable = kwargs.get("init_lora_weights", True), kwargs.get("use_rslora")
    if not _is_from_base(first):
        if first not in _OTHER_FIRST_WEIGHTS:
            _reject(
                f"init_lora_weights {first!r} is not supported; choose from true, false, gaussian, "
                "orthogonal, mica, olora, pissa, pissa_niter_4"
            )
        return
    for option, used in (
        ("use_dora", kwargs.get("use_dora")),
        ("use_rslora together with rank_pattern", stable and kwargs.get("rank_pattern")),
        ("use_rslora together with alpha_pattern", stable and kwargs.get("alpha_pattern")),
    ):
        if used:
            _reject(f"with init_lora_weights {first}, {option} cannot be converted to plain LoRA")


def plain_lora(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the plain LoRA that an adapter is saved as.

    What was trained less what was taken out of the base has twice the rank; alpha grows so that
    the product is scaled as before, by alpha / r, or by alpha / sqrt(r) with use_rslora.

    >>> plain_lora({"r": 8, "lora_alpha": 16, "init_lora_weights": "pissa"})
    {'r': 16, 'lora_alpha': 32}
    """
    config = lora_config(kwargs)
    if not changes_base(config):
        return dict(kwargs)
    plain = {key: value for key, value in kwargs.items() if key != "init_lora_weights"}
    plain["r"] = 2 * config.r
    plain["lora_alpha"] = config.lora_alpha * (2**0.5 if config.use_rslora else 2)
    for key in ("rank_pattern", "alpha_pattern"):
        if kwargs.get(key):
            plain[key] = {name: 2 * value for name, value in kwargs[key].items()}
    return plain


def lora_kwargs(model: PeftModel, name: str = "default") -> dict[str, Any]:
    """The config that an adapter is saved with, as plain values: its shape, and what is not
    default."""
    config: Any = model.peft_config[name]
    plain_config: Any = LoraConfig()  # untyped in PEFT
    default = plain_config.to_dict()
    plain: dict[str, Any] = {}
    for key, value in config.to_dict().items():
        value = sorted(value) if isinstance(value, set) else value
        said = key in _SHAPE or value != default.get(key)
        if said and key not in ("base_model_name_or_path", "inference_mode"):
            plain[key] = getattr(value, "value", value)
    return plain_lora(plain)


def require_modules(loaded: LoadedModel, config: Any) -> None:
    """Refuse modules that the model does not have; PEFT passes most of them over in silence.

    Raises ConfigError, naming those that there are.
    """
    modules = _modules(loaded.model)
    targets = config.target_modules
    linear = [name for name, module in modules.items() if _is_target(module)]
    if isinstance(targets, str) and targets.lower() != ALL_LINEAR:
        _require_regex(targets, list(modules), linear)
    elif not isinstance(targets, str):
        _require_names("target_modules", targets or (), list(modules), linear)
    _require_saved(config.modules_to_save or (), modules)
    if config.use_dora and loaded.config.quantization == "int8" and loaded.device.type == "cpu":
        raise ConfigError("use_dora on int8 weights needs a GPU; on a CPU choose quantization nf4")
    layers = config.layers_to_transform
    count = getattr(loaded.model.config, "num_hidden_layers", None)
    for layer in [layers] if isinstance(layers, int) else layers or ():
        if count is not None and not 0 <= layer < count:
            raise ConfigError(
                f"layers_to_transform: there is no layer {layer} in this model (0 to {count - 1})"
            )
    if targets is not None and targets != ALL_LINEAR:
        _require_patterns(config, [n for n in modules if check_target_module_exists(config, n)])
    if changes_base(config):
        _require_own_weights(loaded, config, modules)


def _require_saved(names: Iterable[str], modules: Mapping[str, torch.nn.Module]) -> None:
    owning = [
        name
        for name, module in modules.items()
        if _is_target(module) or next(module.parameters(False), None) is not None
    ]
    _require_names("modules_to_save", names, list(modules), owning)
    for name, module in modules.items():
        saved = any(name.endswith(wanted) for wanted in names)  # as PEFT matches them
        if saved and not all(p.dtype.is_floating_point for p in module.parameters()):
            raise ConfigError(f"modules_to_save: {name} is quantized and cannot be trained itself")


def _modules(model: Any) -> dict[str, torch.nn.Module]:
    """The base model's modules by name, as they were before any adapter was put on them."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    found: dict[str, torch.nn.Module] = {}
    inside: tuple[str, ...] = ()
    for name, module in base.named_modules():
        if name and not (inside and name.startswith(inside)):
            found[name] = module
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            inside = (*inside, f"{name}.")
    return found


def _is_target(module: Any) -> bool:
    layer = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    return isinstance(layer, torch.nn.Linear) or type(layer).__name__ == "Conv1D"


def _require_names(key: str, names: Iterable[str], modules: list[str], choices: list[str]) -> None:
    for wanted in sorted(names):
        if not any(name == wanted or name.endswith(f".{wanted}") for name in modules):
            raise ConfigError(f"{key}: there is no module {wanted!r}{_choices(wanted, choices)}")


def _require_regex(pattern: str, modules: list[str], linear: list[str]) -> None:
    try:
        found = any(re.fullmatch(pattern, name) for name in modules)
    except re.error as error:
        raise ConfigError(f"target_modules: {pattern!r} is no regular expression") from error
    if not found:
        raise ConfigError(
            f"target_modules: {pattern!r} matches no module's whole name, such as {linear[0]!r}; "
            f"a list of names matches their ends{_choices(pattern, linear)}"
        )


def _choices(wanted: str, names: list[str]) -> str:
    """The modules' last names, sorted, the one that is most like `wanted` before the others."""
    last = sorted({name.rpartition(".")[2] for name in names})
    near = difflib.get_close_matches(wanted.rpartition(".")[2], last, n=1, cutoff=0.5)
    return f" (choose from {', '.join([*near, *(name for name in last if name not in near)])})"


def _require_patterns(config: Any, targeted: list[str]) -> None:
    for option in ("rank_pattern", "alpha_pattern"):
        for key in getattr(config, option) or ():
            try:
                matched = any(get_pattern_key([key], name) == key for name in targeted)
            except re.error as error:
                raise ConfigError(f"{option}: {key!r} is no regular expression") from error
            if not matched:
                raise ConfigError(
                    f"{option}: {key!r} matches no target module{_choices(key, targeted)}"
                )


def _require_own_weights(
    loaded: LoadedModel, config: Any, modules: Mapping[str, torch.nn.Module]
) -> None:
    """What is taken out of a weight must have been in it exactly, and in no other module's."""
    first = config.init_lora_weights
    if is_quantized(loaded.model):
        raise ConfigError(
            f"init_lora_weights {first} changes the base's weights, and these are quantized; "
            "choose quantization null, or init_lora_weights true"
        )
    if isinstance(loaded.model, PeftModel):
        raise ConfigError(
            f"init_lora_weights {first} changes the base's weights, and another adapter reads them"
        )
    owners = weight_owners(loaded.model)
    for name, module in modules.items():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, torch.Tensor) or not check_target_module_exists(config, name):
            continue
        rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern, name), config.r)
        if isinstance(module, torch.nn.Linear) and rank > min(weight.shape):
            raise ConfigError(
                f"init_lora_weights {first} finds no rank {rank} in {name}, whose weight is "
                f"{weight.shape[0]} by {weight.shape[1]}"
            )
        if len(owners[id(weight)]) > 1:
            raise ConfigError(
                f"init_lora_weights {first} changes the base's weights, and {name} shares its own "
                "with another module"
            )


def weight_owners(model: Any) -> dict[int, list[str]]:
    """The id of every parameter -> the names of the modules that hold it; tied ones have two."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(name)
    return owners
