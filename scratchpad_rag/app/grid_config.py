"""A grid's YAML -> frozen dataclasses; everything that can be refused by reading it alone is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from scratchpad_rag.config import (
    PASSAGE_ORDERS,
    DataConfig,
    GenerateConfig,
    ModelConfig,
    PeftConfig,
    bare_name,
    build,
    find_config,
    load_experiment,
    load_model_config,
    load_peft_config,
    nearest,
    plain_config,
    read_yaml,
    resource,
)
from scratchpad_rag.errors import ConfigError
from scratchpad_rag.records import Method, Options

# Places of the gold passages by a word; "turns": the questions take turns over all places.
PLACES = ("first", "middle", "last", "turns")
# Orders in which the gold passages are put at a place, and those in which they stand where they do.
INSERTED = ("ranked", "reversed", "shuffled")
# Keys of DataConfig that a grid settles itself, or that only training has a use for.
_SETTLED = (
    "gold_at",
    "passage_order",
    "num_train_samples",
    "num_val_samples",
    "train_total_docs",
    "train_positions",
    "train_min_docs",
    "no_gold_rate",
    "train_passages",
    "val_order",
)


class ReadBy(NamedTuple):
    """How a method reads: the adapter and what it writes, which passages it is shown, and what of
    its completion is not its own choice."""

    method: Method | None  # which is also the adapter's name; None: the base model
    shows: str = "cell"  # cell | best (BM25's first of the cell) | gold | nothing
    verbatim: bool = False
    forces: str = ""  # gold | wrong: whose scratchpad is written for it


METHODS = {
    "closed_book": ReadBy(None, "nothing"),
    "zero_shot": ReadBy(None),
    "sft": ReadBy(Method.SFT),
    "scratchpad": ReadBy(Method.SCRATCHPAD),
    "scratchpad_verbatim": ReadBy(Method.SCRATCHPAD, verbatim=True),
    "gold_only": ReadBy(Method.SFT, "gold"),
    "rerank_then_read": ReadBy(Method.SFT, "best"),
    "scratchpad_gold_forced": ReadBy(Method.SCRATCHPAD, forces="gold"),
    "scratchpad_wrong_forced": ReadBy(Method.SCRATCHPAD, forces="wrong"),
}


@dataclass(frozen=True)
class GridFile:
    """The keys of a grid's YAML. `datasets` maps a name to the keys of `DataKeys` or of
    `DataConfig`, with which a data set differs from the rest."""

    model: str = "smollm2_135m"
    datasets: dict[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] = tuple(METHODS)
    checkpoints: dict[str, str] = field(default_factory=dict)  # scratchpad, sft: a .pt or a folder
    peft: str | None = None  # of checkpoints that are bare state dicts
    total_docs: tuple[int, ...] | None = None  # numbers of documents; not given: the experiment's
    gold_at: tuple[str, ...] | None = None  # numbers from 0, first, middle, last, or turns
    passage_order: tuple[str, ...] | None = None
    no_gold: bool = False  # a cell without gold for each number of documents
    questions: int | None = None  # of each data set; not given: all that are to validate on
    max_new_tokens: int = 320  # of a scratchpad with its answer
    answer_tokens: int = 32  # of an answer without one
    quote: str = "passage"  # passage | sentence: what scratchpad_verbatim quotes are made of
    abstain: bool = True  # scratchpad_verbatim may say that nothing shown supports an answer
    backend: str = "native"
    batch_size: int | None = None
    base_url: str | None = None  # http: the server
    seed: int = 0  # of the draw of questions, and of shuffled passages


@dataclass(frozen=True)
class DataKeys:
    """What a data set of the YAML may say itself, beside the keys of `DataConfig`."""

    experiment: str = "examples"
    total_docs: tuple[int, ...] | None = None
    gold_at: tuple[str, ...] | None = None
    passage_order: tuple[str, ...] | None = None
    no_gold: bool | None = None
    questions: int | None = None


@dataclass(frozen=True)
class GridData:
    """One data set of a grid, resolved."""

    experiment: str
    data: DataConfig  # the file, its split and its order of gold passages
    total_docs: tuple[int, ...]
    gold_at: tuple[str, ...]
    passage_order: tuple[str, ...]
    no_gold: bool
    questions: int | None


@dataclass(frozen=True)
class Grid:
    """Everything that a grid depends on; saved beside its results."""

    model_name: str
    model: ModelConfig
    datasets: dict[str, GridData]
    methods: tuple[str, ...]
    checkpoints: dict[str, str]
    peft: PeftConfig | None
    max_new_tokens: int
    answer_tokens: int
    generate: GenerateConfig
    seed: int

    def options(self, name: str) -> Options:
        """What completions of a method may be."""
        way = METHODS[name]
        writes = way.method is Method.SCRATCHPAD and not way.forces
        return Options(
            self.max_new_tokens if writes else min(self.answer_tokens, self.max_new_tokens),
            way.verbatim,
            self.generate.quote if way.verbatim else "passage",
            way.verbatim and self.generate.abstain,
        )

    def plain(self) -> dict[str, Any]:
        """As YAML knows it."""
        plain = plain_config(self)
        for data in plain["datasets"].values():
            data["data"] = {k: v for k, v in data["data"].items() if k not in _SETTLED}
        return plain


def load_grid(name: str, overrides: Mapping[str, Any]) -> Grid:
    """A grid by name (`configs/grid`) or path; `overrides` of its keys win where they are not None.

    Raises ConfigError for what the file alone shows to be wrong.
    """
    path = find_config("grid", name)
    given = {key: value for key, value in overrides.items() if value is not None}
    file = build(GridFile, _lists({**read_yaml(path), **given}), path)
    own = {"questions", "total_docs"} & given.keys()  # these flags win over a data set's own
    if own:
        datasets = {
            name: {k: v for k, v in data.items() if k not in own}
            if isinstance(data, dict)
            else data
            for name, data in file.datasets.items()
        }
        file = replace(file, datasets=datasets)
    return resolve(file, str(path))


def resolve(file: GridFile, where: str) -> Grid:
    """Every data set with all that it says and all that it takes from the rest."""
    if not file.datasets:
        raise ConfigError(f"{where}: datasets is empty; name one data set or more")
    _check_methods(file, where)
    for key, number in (
        ("max_new_tokens", file.max_new_tokens),
        ("answer_tokens", file.answer_tokens),
        ("batch_size", 1 if file.batch_size is None else file.batch_size),
    ):
        if number < 1:
            raise ConfigError(f"{where}: {key} is {number}; it must be 1 or more")
    return Grid(
        model_name=bare_name(file.model),
        model=load_model_config(file.model),
        datasets={key: _dataset(file, key, where) for key in file.datasets},
        methods=file.methods,
        checkpoints={key: file.checkpoints[key] for key in _adapters(file.methods)},
        peft=load_peft_config(file.peft) if file.peft else None,
        max_new_tokens=file.max_new_tokens,
        answer_tokens=file.answer_tokens,
        generate=GenerateConfig(
            backend=file.backend,
            batch_size=file.batch_size,
            quote=file.quote,
            abstain=file.abstain,
            base_url=file.base_url,
        ),
        seed=file.seed,
    )


def _adapters(methods: tuple[str, ...]) -> list[str]:
    named = (METHODS[name].method for name in methods)
    return [method.value for method in dict.fromkeys(named) if method is not None]


def _check_methods(file: GridFile, where: str) -> None:
    if not file.methods:
        raise ConfigError(f"{where}: methods is empty; name one or more of {', '.join(METHODS)}")
    for name in file.methods:
        if name not in METHODS:
            raise ConfigError(f"{where}: unknown method {name!r}{nearest(name, list(METHODS))}")
        if file.methods.count(name) > 1:
            raise ConfigError(f"{where}: method {name} is named twice")
    kinds = [method.value for method in Method]
    for key in file.checkpoints:
        if key not in kinds:
            raise ConfigError(f"{where}: checkpoints: unknown key {key!r}{nearest(key, kinds)}")
    for name in file.methods:
        adapter = METHODS[name].method
        if adapter is None:
            continue
        if adapter.value not in file.checkpoints:
            raise ConfigError(
                f"{where}: method {name} is read by the adapter of {adapter}, and checkpoints "
                f"names none; add checkpoints: {{{adapter}: a .pt file or an adapter folder}}"
            )


def _dataset(file: GridFile, name: str, where: str) -> GridData:
    place = f"{where}: datasets: {name}"
    given = {} if file.datasets[name] is None else file.datasets[name]
    if not isinstance(given, dict):
        raise ConfigError(f"{place}: a data set is keys and values, not {given!r}")
    shown = [f.name for f in fields(DataKeys)]
    of_data = [f.name for f in fields(DataConfig) if f.name not in (*_SETTLED, *shown)]
    known = sorted([*shown, *of_data])
    for key in given:
        if key not in known:
            raise ConfigError(f"{place}: unknown key {key!r}{nearest(str(key), known)}")
    keys = build(DataKeys, _lists({k: v for k, v in given.items() if k in shown}), place)
    base = load_experiment(keys.experiment)[0]["data"]
    own = {key: given[key] for key in of_data if key in given}
    if "path" in own and "name" not in own:
        own["name"] = "examples"

    def chosen(key: str) -> Any:
        values = (getattr(keys, key), getattr(file, key), base.get(key))
        return next((value for value in values if value is not None), getattr(DataConfig(), key))

    data = GridData(
        experiment=keys.experiment,
        data=build(DataConfig, {**_without_settled(base), **own}, place),
        total_docs=tuple(_listed(chosen("total_docs"))),
        gold_at=tuple(str(at) for at in _listed(chosen("gold_at"))),
        passage_order=tuple(_listed(chosen("passage_order"))),
        no_gold=file.no_gold if keys.no_gold is None else keys.no_gold,
        questions=file.questions if keys.questions is None else keys.questions,
    )
    _check_dataset(data, place)
    return data


def _lists(values: Mapping[str, Any]) -> dict[str, Any]:
    """One value where a list is asked for is a list of one."""
    listed = ("methods", "total_docs", "gold_at", "passage_order")
    return {
        key: _listed(value) if key in listed and value is not None else value
        for key, value in values.items()
    }


def _without_settled(base: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in base.items() if key not in _SETTLED}


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _check_dataset(data: GridData, where: str) -> None:
    for key, values in (
        ("total_docs", data.total_docs),
        ("gold_at", data.gold_at),
        ("passage_order", data.passage_order),
    ):
        if not values:
            raise ConfigError(f"{where}: {key} is empty, so there is no cell; name one or more")
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise ConfigError(f"{where}: {key} names {twice[0]} twice")
    for number in data.total_docs:
        if number < 1:
            raise ConfigError(f"{where}: total_docs is {number}; it must be 1 or more")
    for order in data.passage_order:
        if order not in PASSAGE_ORDERS:
            raise ConfigError(
                f"{where}: unknown passage_order {order!r}{nearest(order, list(PASSAGE_ORDERS))}"
            )
    for place in data.gold_at:
        if place not in PLACES and not place.isdecimal():
            raise ConfigError(
                f"{where}: gold_at {place!r} is neither a number from 0 nor one of "
                + ", ".join(PLACES)
            )
    if "turns" in data.gold_at and len(data.gold_at) > 1:
        raise ConfigError(f"{where}: gold_at turns is already every place; name it alone")
    if data.questions is not None and data.questions < 1:
        raise ConfigError(f"{where}: questions is {data.questions}; it must be 1 or more")
    if data.data.name == "nq_lim" and not set(data.passage_order) <= set(INSERTED):
        raise ConfigError(
            f"{where}: passage_order retrieved and given need a file of passages as they were "
            "found; in nq_lim's files the gold passage was put at its place"
        )


def find_checkpoint(path: str) -> Path:
    """A checkpoint from here, or one that the project ships. Raises ConfigError."""
    if Path(path).exists():
        return Path(path)
    try:
        return resource(path)
    except ConfigError as error:
        raise ConfigError(f"there is no checkpoint {path}") from error
