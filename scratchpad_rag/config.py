"""One frozen dataclass a stage, and the reading of YAML files and flags into them.

A name such as `mistral_7b` is looked up as `configs/<kind>/mistral_7b.yaml` in the current
folder, then among the configs that the package carries. A path to a YAML file works too.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scratchpad_rag.errors import ConfigError
from scratchpad_rag.records import EvalSplit, LossRegion, Method

T = TypeVar("T")
PASSAGE_ORDERS = ("ranked", "reversed", "shuffled", "given", "retrieved")
SUPPORT_ORDERS = ("given", "position")
TRACKERS = ("tensorboard", "trackio", "wandb")


@dataclass(frozen=True)
class DataConfig:
    """Which questions are read, and how many documents are shown with the gold one where."""

    name: str = "nq_lim"  # nq_lim (Lost in the Middle's) | examples (any file) | a public set
    path: str | None = None  # the file or folder, from here or from the package
    data_dir: str | None = None  # downloads: nq_lim's files, a public set's folder; data/qa_data
    total_docs: int = 20
    gold_at: tuple[int, ...] = (0, 4, 9, 14, 19)
    passage_order: str = "ranked"  # of the distractors around gold_at: ranked | reversed | shuffled
    # given: all passages where the file has them | retrieved: its first ones, gold or not
    support_order: str = "given"  # of gold passages in a scratchpad: given (reasoning) | position
    train_ratio: float = 0.8  # share of questions to train on, where the file has no splits
    num_train_samples: int | None = None  # not given: every training question once
    num_val_samples: int | None = None  # not given: all
    train_total_docs: int | None = (
        None  # where fewer are shown in training; gold anywhere among them
    )
    train_positions: str = "fixed"  # fixed (gold_at, drawn once) | uniform (anew every epoch)
    train_min_docs: int | None = None  # uniform: fewest documents; not given: always the most
    no_gold_rate: float = 0.0  # uniform: share of samples that show no gold and learn to abstain
    val_order: str = "position"  # position: a question at every position before the next | question
    seed: int = 0


@dataclass(frozen=True)
class ModelConfig:
    """Which weights are loaded, and how."""

    pretrained_model_name_or_path: str = (
        ""  # Hub id | folder | file.gguf | package:module/file.gguf
    )
    cache_dir: str | None = None  # where downloads are kept; not given: the Hub's own cache
    revision: str | None = None  # of a Hub id: branch, tag or commit
    torch_dtype: str = "auto"  # auto | bfloat16 | float16 | float32 | float64
    attn_implementation: str = "sdpa"  # flash_attention_2 falls back to sdpa where it is missing
    device_map: str | None = None  # auto spreads over GPUs; without one it has no effect
    quantization: str | None = None  # int8 | nf4 (both need bitsandbytes)
    rope_theta: float | None = None  # replaces the model's own base of rotary embeddings
    low_cpu_mem_usage: bool | None = None  # always so in transformers 5; false is said, not obeyed
    trust_remote_code: bool = False  # runs code that comes with the weights
    prompt_format: str = "auto"  # auto | plain | chat


@dataclass(frozen=True)
class PeftConfig:
    """What is trained: an adapter, whose `kwargs` go to PEFT's LoraConfig as they are, or all."""

    method: str = "lora"  # lora | none (full finetuning: all weights of the model)
    kwargs: dict[str, Any] = field(default_factory=dict)  # LoraConfig's


@dataclass(frozen=True)
class TrainConfig:
    """How the adapter is trained."""

    num_train_epochs: float = 3.0
    lr: float = 1e-4
    weight_decay: float = 0.01
    scheduler: str = "none"  # none (a constant rate) | linear | cosine
    warmup_ratio: float = 0.0
    batch_size: int = 1  # samples a device and step; the CPU is fastest with one, unpadded
    gradient_accumulation_steps: int = 8
    packing: bool | None = None  # samples share rows; not given: on a GPU with flash attention
    gradient_checkpointing: bool | None = None  # not given: where memory asks for it
    max_grad_norm: float = 1.0  # gradients are clipped to this norm
    loss_region: LossRegion = LossRegion.SAMPLE
    logging_steps: int = 5  # updates between two entries of the log
    save_steps: int | None = None  # updates between checkpoints; not given: 50, or once an epoch
    save_total_limit: int = 1  # checkpoints kept beside the best one
    eval_steps: int | None = None  # updates between validations by answering; not given: none
    eval_questions: int = 24  # validation questions answered each time, at most
    early_stopping_patience: int | None = None  # validations without a better one before the end
    report_to: tuple[str, ...] = ()  # trackers: tensorboard, wandb, trackio
    seed: int = 0  # of the order of samples and the first weights


@dataclass(frozen=True)
class GenerateConfig:
    """How answers are generated; always greedy."""

    backend: str = "native"  # native | transformers | vllm | http
    max_new_tokens: int | None = None  # not given: 512 with a scratchpad, else 128
    batch_size: int | None = None  # prompts at a time; not given: what is fastest (transformers: 1)
    verbatim: bool = False  # scratchpads are held to whole passages of the context (native)
    quote: str = "passage"  # passage | sentence: what --verbatim lets quotes be made of
    abstain: bool = True  # verbatim: the sentence that none supports an answer may replace quotes
    prompt_lookup_num_tokens: int | None = None  # transformers: 10 if not given; 0: plain decoding
    base_url: str | None = None  # http: the server, such as http://localhost:8000/v1
    endpoint: str = "chat"  # http: chat (the server's own template) | completions
    api_key_env: str = "OPENAI_API_KEY"  # http: the variable that holds the key, never the key
    concurrency: int = 8  # http: requests at a time
    timeout_seconds: float = 60.0  # http: of one try
    max_retries: int = 5  # http: after the first try


def max_new_tokens_for(config: GenerateConfig, method: Method | None) -> int:
    """The longest completion of a method where the config names none: a scratchpad is long."""
    if config.max_new_tokens is not None:
        return config.max_new_tokens
    return 512 if method is Method.SCRATCHPAD else 128


def generate_for(config: GenerateConfig, method: Method | None) -> GenerateConfig:
    """The config settled for a method: its `max_new_tokens`, and nothing to hold verbatim where
    no scratchpad is written."""
    quoting = method is Method.SCRATCHPAD
    return replace(
        config,
        max_new_tokens=max_new_tokens_for(config, method),
        verbatim=config.verbatim and quoting,
        quote=config.quote if quoting else "passage",
    )


@dataclass(frozen=True)
class EvaluateConfig:
    """What is shown, scored and printed, and where the answers are computed."""

    eval_split: EvalSplit = EvalSplit.ALL
    last_answer_only: bool = False
    print_outputs: bool = False
    executor: str = "local"  # local (this process) | ray (workers of a Ray cluster)
    num_actors: int | None = None  # ray: workers; not given: one a GPU, without GPUs one a machine
    ray_address: str | None = None  # ray: not given: a running cluster, else one on this machine


@dataclass(frozen=True)
class RunConfig:
    """Everything that one run depends on; saved beside its results."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    peft: PeftConfig | None = None
    train: TrainConfig = field(default_factory=TrainConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    train_method: Method | None = None
    model_name: str = ""  # the model config's name, which checkpoints are filed under


# Keys of the paper repo's files: ours, or None where the key has no effect here.
THEIR_DATASET_KEYS: dict[str, str | None] = {
    "cache_dir": "data_dir",
    "include_support": None,
}
THEIR_EXPERIMENT_KEYS = ("pretrained_model_config", "preprocess_config")


def resource(relative: str) -> Path:
    """A file or folder that the project ships: in the checkout, or inside the installed package."""
    package = Path(__file__).resolve().parent
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
    _check_values(config)
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


def _check_values(config: RunConfig) -> None:
    data, train, generate = config.data, config.train, config.generate
    checks = [
        (data.total_docs >= 1, f"total_docs is {data.total_docs}; it must be 1 or more"),
        (
            data.train_total_docs is None or data.train_total_docs >= 1,
            f"train_total_docs is {data.train_total_docs}; it must be 1 or more",
        ),
        (
            data.val_order in ("position", "question"),
            f"unknown val_order {data.val_order!r}; choose from position, question",
        ),
        (
            data.passage_order in PASSAGE_ORDERS,
            f"unknown passage_order {data.passage_order!r}; choose from "
            + ", ".join(PASSAGE_ORDERS),
        ),
        (
            data.support_order in SUPPORT_ORDERS,
            f"unknown support_order {data.support_order!r}; choose from "
            + ", ".join(SUPPORT_ORDERS),
        ),
        *_curriculum_checks(data),
        (len(data.gold_at) > 0, "gold_at is empty; name one position or more"),
        (
            0 < data.train_ratio < 1,
            f"train_ratio is {data.train_ratio}; it must be between 0 and 1",
        ),
        (train.lr > 0, f"lr is {train.lr}; it must be above 0"),
        (train.num_train_epochs > 0, f"num_train_epochs is {train.num_train_epochs}"),
        *(
            (number >= 1, f"{name} is {number}; it must be 1 or more")
            for name, number in (
                ("batch_size", train.batch_size),
                ("gradient_accumulation_steps", train.gradient_accumulation_steps),
                ("logging_steps", train.logging_steps),
                ("save_steps", 1 if train.save_steps is None else train.save_steps),
                ("save_total_limit", train.save_total_limit),
                ("eval_steps", 1 if train.eval_steps is None else train.eval_steps),
                ("eval_questions", train.eval_questions),
                (
                    "early_stopping_patience",
                    1 if train.early_stopping_patience is None else train.early_stopping_patience,
                ),
                (
                    "max_new_tokens",
                    1 if generate.max_new_tokens is None else generate.max_new_tokens,
                ),
                (
                    "batch_size of generate",
                    1 if generate.batch_size is None else generate.batch_size,
                ),
            )
        ),
        *(
            (number >= 0, f"{name} is {number}; it must be 0 or more")
            for name, number in (
                ("weight_decay", train.weight_decay),
                ("warmup_ratio", train.warmup_ratio),
                ("max_grad_norm", train.max_grad_norm),
                ("1 - warmup_ratio", 1 - train.warmup_ratio),
                ("prompt_lookup_num_tokens", generate.prompt_lookup_num_tokens or 0),
            )
        ),
        (
            train.scheduler in ("none", "linear", "cosine"),
            f"unknown scheduler {train.scheduler!r}; choose from none, linear, cosine",
        ),
        (
            train.early_stopping_patience is None or train.eval_steps is not None,
            "early_stopping_patience needs eval_steps: it counts validations",
        ),
        *(
            (name in TRACKERS, f"unknown tracker {name!r}; choose from {', '.join(TRACKERS)}")
            for name in train.report_to
        ),
        *(
            (number is None or number >= 1, f"the number of samples is {number}")
            for number in (data.num_train_samples, data.num_val_samples)
        ),
        *(
            (
                0 <= position < data.total_docs,
                f"gold position {position} is outside the {data.total_docs} documents shown "
                f"(0 to {data.total_docs - 1})",
            )
            for position in data.gold_at
        ),
    ]
    for holds, message in checks:
        if not holds:
            raise ConfigError(message)


def _curriculum_checks(data: DataConfig) -> list[tuple[bool, str]]:
    most = data.train_total_docs or data.total_docs
    fewest = most if data.train_min_docs is None else data.train_min_docs
    drawn = data.train_positions == "uniform"
    return [
        (
            data.train_positions in ("fixed", "uniform"),
            f"unknown train_positions {data.train_positions!r}; choose from fixed, uniform",
        ),
        (
            1 <= fewest <= most,
            f"train_min_docs is {fewest}; it must be from 1 to the {most} documents of training",
        ),
        (
            0 <= data.no_gold_rate < 1,
            f"no_gold_rate is {data.no_gold_rate}; it must be 0 or more and below 1",
        ),
        *(
            (drawn or not given, f"{name} needs train_positions uniform")
            for name, given in (
                ("train_min_docs", data.train_min_docs is not None),
                ("no_gold_rate", data.no_gold_rate != 0),
            )
        ),
    ]


@cache
def config_names(kind: str) -> tuple[str, ...]:
    """Names of the configs that the package carries."""
    return tuple(sorted(path.stem for path in resource(f"configs/{kind}").glob("*.yaml")))
