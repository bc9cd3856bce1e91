"""One frozen dataclass a stage, and the reading of YAML files and flags into them.

A name such as `mistral_7b` is looked up as `configs/<kind>/mistral_7b.yaml` in the current
folder, then among the configs that the package carries. A path to a YAML file works too.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scratchpad_rag.config.checks import check_values
from scratchpad_rag.config.stages import (
    DataConfig,
    EvaluateConfig,
    GenerateConfig,
    ModelConfig,
    PeftConfig,
    RunConfig,
    TrainConfig,
)
from scratchpad_rag.errors import ConfigError
from scratchpad_rag.records import Method

T = TypeVar("T")

# Keys of the paper repo's files: ours, or None where the key has no effect here.
THEIR_DATASET_KEYS: dict[str, str | None] = {
    "cache_dir": "data_dir",
    "include_support": None,
}
THEIR_EXPERIMENT_KEYS = ("pretrained_model_config", "preprocess_config")


def resource(relative: str) -> Path:
    """A file or folder that the project ships: in the checkout, or inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    for root in (package / "_resources", package.parent):
        if (root / relative).exists():
            return root / relative
    raise ConfigError(f"this installation holds no {relative}; install scratchpad-rag again")


def bare_name(config: str) -> str:
    """A config's name, be it given as a name or as a path.

    >>> bare_name("smollm2_1.7b"), bare_name("mine/tiny.yaml")
    ('smollm2_1.7b', 'tiny')
    """
    return Path(config).name.removesuffix(".yaml").removesuffix(".yml")


def find_config(kind: str, name: str) -> Path:
    """The YAML file of a config by name or path; `kind` is experiment, model or peft.

    Raises ConfigError naming the choices and the nearest one.
    """
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise ConfigError(f"there is no config file {name}")
    folders = [Path("configs") / kind, resource(f"configs/{kind}")]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    choices = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise ConfigError(f"unknown {kind} config {name!r}{nearest(name, choices)}")


def nearest(name: str, choices: list[str]) -> str:
    """What to say behind an unknown name: the one that was meant, and all there are."""
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint} (choose from {', '.join(choices)})"


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping; ConfigError with the line where it is malformed."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(f"{where}: {problem}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys to values")
    return content


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, as everyone who writes it means."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_experiment(name: str) -> tuple[dict[str, Any], list[str]]:
    """An experiment file as sections of RunConfig, with warnings about keys without effect."""
    path = find_config("experiment", name)
    content = read_yaml(path)
    warnings = [
        f"{path}: {key} has no effect here: the tokenizer and wording are the model's"
        for key in THEIR_EXPERIMENT_KEYS
        if key in content
    ]
    known = {"dataset", "train", "generate", "evaluate", *THEIR_EXPERIMENT_KEYS}
    _refuse_unknown(path, content, known)
    dataset = _section(path, content, "dataset")
    _refuse_unknown(path, dataset, {"name", "dataset_config"})
    data: dict[str, Any] = {"name": dataset.get("name", "nq_lim")}
    for key, value in _section(path, dataset, "dataset_config").items():
        ours = THEIR_DATASET_KEYS.get(key, key)
        if ours is None:
            warnings.append(f"{path}: {key} has no effect here: --train_method decides it")
        else:
            data[ours] = value
    _refuse_unknown(path, data, {f.name for f in fields(DataConfig)})
    sections = {key: _section(path, content, key) for key in ("train", "generate", "evaluate")}
    return {"data": data, **sections}, warnings


def _section(path: Path, content: Mapping[str, Any], key: str) -> dict[str, Any]:
    section = content.get(key)
    if section is not None and not isinstance(section, dict):
        raise ConfigError(f"{path}: {key} is a mapping of keys to values, not {section!r}")
    return section or {}


def load_model_config(name: str) -> ModelConfig:
    """A model file's `pretrained_config` section."""
    path = find_config("model", name)
    content = read_yaml(path)
    _refuse_unknown(path, content, {"pretrained_config"})
    config = build(ModelConfig, _section(path, content, "pretrained_config"), path)
    if not config.pretrained_model_name_or_path:
        raise ConfigError(f"{path}: pretrained_config has no pretrained_model_name_or_path")
    return config


def load_peft_config(name: str) -> PeftConfig:
    """A PEFT file: `method: lora` and the `kwargs` of LoraConfig, or `method: none`."""
    path = find_config("peft", name)
    config = build(PeftConfig, read_yaml(path), path)
    if config.method not in ("lora", "none"):
        raise ConfigError(f"{path}: unknown PEFT method {config.method!r}; choose from lora, none")
    if config.method == "none" and config.kwargs:
        raise ConfigError(f"{path}: method none trains all weights and takes no kwargs")
    return config


def load_config(
    experiment: str,
    model: str,
    peft: str | None,
    overrides: Mapping[str, Mapping[str, Any]],
    train_method: Method | None = None,
) -> tuple[RunConfig, list[str]]:
    """Flags over files over defaults. `overrides` maps a section to its flags; None is not given.

    Returns the config and the warnings to show.
    """
    sections, warnings = load_experiment(experiment)
    for section, flags in overrides.items():
        given = {key: value for key, value in flags.items() if value is not None}
        sections[section] = {**sections.get(section, {}), **given}
    config = RunConfig(
        data=build(DataConfig, sections.get("data", {}), experiment),
        model=load_model_config(model),
        peft=load_peft_config(peft) if peft else None,
        train=build(TrainConfig, sections.get("train", {}), experiment),
        generate=build(GenerateConfig, sections.get("generate", {}), experiment),
        evaluate=build(EvaluateConfig, sections.get("evaluate", {}), experiment),
        train_method=train_method,
        model_name=bare_name(model),
    )
    check_values(config)
    return config, warnings


def build(kind: type[T], values: Mapping[str, Any], where: object) -> T:
    """A config dataclass from plain values; unknown keys and wrong types are ConfigErrors."""
    _refuse_unknown(where, values, {f.name for f in fields(kind)})  # type: ignore[arg-type]
    try:
        merged = OmegaConf.merge(OmegaConf.structured(kind), dict(values))
        made = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {_problem(kind, values, error)}") from error
    assert isinstance(made, kind)
    return made


def _problem(kind: type[Any], values: Mapping[str, Any], error: OmegaConfBaseException) -> str:
    """The value that does not fit and why; OmegaConf's own words leave out values in lists."""
    for key, value in values.items():
        try:
            OmegaConf.merge(OmegaConf.structured(kind), {key: value})
        except OmegaConfBaseException as alone:
            reason = str(alone).splitlines()[0]
            return f"{key}: {value!r} does not fit" if "$" in reason else f"{key}: {reason}"
    return str(error).splitlines()[0]


def save_config(config: RunConfig, path: Path) -> None:
    """Write the resolved config as YAML."""
    save_plain(plain_config(config), path)


def save_plain(plain: Mapping[str, Any], path: Path) -> None:
    """Write plain values as YAML."""
    text = yaml.safe_dump(dict(plain), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def plain_config(config: Any) -> dict[str, Any]:
    """A config dataclass as YAML knows it: enums as the words that flags know, lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain


def _refuse_unknown(where: object, values: Mapping[str, Any], known: set[str]) -> None:
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}{nearest(str(key), sorted(known))}")


@cache
def config_names(kind: str) -> tuple[str, ...]:
    """Names of the configs that the package carries."""
    return tuple(sorted(path.stem for path in resource(f"configs/{kind}").glob("*.yaml")))
