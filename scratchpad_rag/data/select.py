"""The samples of a run: which questions, split how, with the gold passage where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from scratchpad_rag.config import DataConfig, resource
from scratchpad_rag.data.curriculum import Curriculum
from scratchpad_rag.data.download import BASE_URL, ensure_lim_files
from scratchpad_rag.data.place import order_support, place, show
from scratchpad_rag.data.readers import read_examples, read_with_splits
from scratchpad_rag.data.split import Draw, Split, draw_samples, split_by_question
from scratchpad_rag.errors import ConfigError, DataError
from scratchpad_rag.records import EvalSplit, Example

Notify = Callable[[str], None]
DATASETS = ("nq_lim", "examples")


class Selection(NamedTuple):
    """Examples to train on and to evaluate on; no question is on both sides.

    Those to evaluate on are placed. Those to train on are too, unless there is a `curriculum`: they
    then have all their passages, and it places them anew every epoch.
    """

    train: list[Example]
    val: list[Example]
    curriculum: Curriculum | None = None


def select_samples(
    config: DataConfig, view: EvalSplit, notify: Notify, base_url: str = BASE_URL
) -> Selection:
    """Read, split by question, draw and place. `view` says which passages are shown.

    Where the gold passage stands only matters where others are shown, so each question is drawn
    once for the views without, and no curriculum places it. Fewer samples than asked for are said,
    not an error.
    Raises DataError for bad files and ConfigError for an unknown data set.
    """
    source = _open_source(config, base_url)
    split = source.split()
    train_shown = _shown_in_training(config)
    curriculum = _curriculum(config) if view is EvalSplit.ALL else None
    train = _draw(
        split.train,
        config.num_train_samples,
        _positions(train_shown, view) if curriculum is None else (0,),  # once each
        config.seed,
        "question",
        notify,
    )
    val = _draw(
        split.val,
        config.num_val_samples,
        _positions(config, view),
        config.seed,
        config.val_order,
        notify,
    )
    if curriculum is None:
        train_side = source.placed(train, train_shown.total_docs)
    else:
        train_side = [question for question, _ in train]
    return Selection(
        [order_support(show(example, view), config.support_order) for example in train_side],
        [
            order_support(show(example, view), config.support_order)
            for example in source.placed(val, config.total_docs)
        ],
        curriculum,
    )


def source_files(config: DataConfig, base_url: str = BASE_URL) -> list[Path]:
    """The files and folders that `select_samples` reads; raises what it raises for them."""
    source = _open_source(config, base_url)
    return [source.path] if isinstance(source, _FileSource) else list(source.paths.values())


def _open_source(config: DataConfig, base_url: str) -> _Source:
    if config.name == "nq_lim":
        return _LimSource(config, base_url)
    if config.name == "examples":
        return _FileSource(config)
    raise ConfigError(f"unknown dataset name {config.name!r}; choose from {', '.join(DATASETS)}")


def _curriculum(config: DataConfig) -> Curriculum | None:
    if config.train_positions == "fixed":
        return None
    most = config.train_total_docs or config.total_docs
    return Curriculum(config.train_min_docs or most, most, config.no_gold_rate, config.seed)


def _shown_in_training(config: DataConfig) -> DataConfig:
    if config.train_total_docs is None:
        return config
    shown = config.train_total_docs
    return replace(config, total_docs=shown, gold_at=tuple(range(shown)))


def _positions(config: DataConfig, view: EvalSplit) -> tuple[int, ...]:
    moved = view is EvalSplit.ALL and config.passage_order not in ("given", "retrieved")
    return config.gold_at if moved else config.gold_at[:1]


def _draw(
    examples: Sequence[Example],
    wanted: int | None,
    gold_at: Sequence[int],
    seed: int,
    by: str,
    notify: Notify,
) -> list[tuple[Example, int]]:
    if wanted is None and by == "question":
        wanted = len(examples)  # once each; more rounds, at other positions, only when asked for
    draw: Draw = draw_samples(examples, wanted, gold_at, seed, by)
    if draw.is_short:
        purpose = "training" if by == "question" else "validation"
        notify(
            f"{draw.asked} {purpose} samples were asked for and there are {draw.available}; "
            "going on with all of them"
        )
    return draw.samples


class _FileSource:
    """Examples with ranked passages, in any format that is read; the gold one is placed here."""

    def __init__(self, config: DataConfig) -> None:
        if config.path is None:
            raise ConfigError("this experiment names no file to read: give --data_path")
        self.config = config
        path = Path(config.path)
        self.path = path if path.exists() or path.is_absolute() else _shipped(path)

    def split(self) -> Split:
        rows = read_with_splits(self.path)
        if rows and rows[0].split is not None:
            return Split(
                [row.example for row in rows if row.split == "train"],
                [row.example for row in rows if row.split == "val"],
            )
        examples = [row.example for row in rows]
        return split_by_question(examples, self.config.train_ratio, self.config.seed)

    def placed(self, pairs: Sequence[tuple[Example, int]], total_docs: int) -> list[Example]:
        order, seed = self.config.passage_order, self.config.seed
        return [place(example, total_docs, at, order, seed) for example, at in pairs]


class _LimSource:
    """Lost in the Middle's files, one a gold position, which are read as they are."""

    def __init__(self, config: DataConfig, base_url: str) -> None:
        self.config = config
        folder = Path(config.data_dir or "data/qa_data")
        paths = ensure_lim_files(folder, config.total_docs, config.gold_at, base_url)
        self.paths: Mapping[int, Path] = dict(zip(config.gold_at, paths, strict=True))

    def split(self) -> Split:
        examples = read_examples(self.paths[self.config.gold_at[0]])
        return split_by_question(examples, self.config.train_ratio, self.config.seed)

    def placed(self, pairs: Sequence[tuple[Example, int]], total_docs: int) -> list[Example]:
        if total_docs != self.config.total_docs:
            return [place(example, total_docs, position) for example, position in pairs]
        found: dict[tuple[str, int], Example] = {}
        for position, path in self.paths.items():
            wanted = {example.id for example, at in pairs if at == position}
            if wanted:
                for example in read_examples(path):
                    if example.id in wanted:
                        found[example.id, position] = example
        absent = [example for example, at in pairs if (example.id, at) not in found]
        if absent:
            raise DataError(
                f"the files of {len(self.paths)} gold positions hold different questions: "
                f"{absent[0].question!r} is not in all of them"
            )
        return [found[example.id, at] for example, at in pairs]


_Source = _FileSource | _LimSource


def _shipped(path: Path) -> Path:
    try:
        return resource(str(path))
    except ConfigError as error:
        raise DataError(f"there is no data file or folder {path}") from error
