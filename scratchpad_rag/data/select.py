"""The samples of a run: which questions, split how, with the gold passage where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from scratchpad_rag.config import DataConfig, resource
from scratchpad_rag.data.catalogue import CATALOGUE, DATA_DIR, PublicSet
from scratchpad_rag.data.curriculum import Curriculum
from scratchpad_rag.data.download import BASE_URL, check_file, ensure_lim_files, read_checksums
from scratchpad_rag.data.normalise import normalise_question
from scratchpad_rag.data.place import order_support, place, show
from scratchpad_rag.data.readers import read_examples, read_with_splits
from scratchpad_rag.data.split import Draw, Split, draw_samples, split_by_question
from scratchpad_rag.errors import ConfigError, DataError
from scratchpad_rag.records import EvalSplit, Example

Notify = Callable[[str], None]
DATASETS = ("nq_lim", "examples", *CATALOGUE)


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
    source = _open_source(config, base_url, notify)
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

    def shown(pairs: Sequence[tuple[Example, int]], total_docs: int) -> list[Example]:
        placed = source.placed(pairs, total_docs)
        return [order_support(show(example, view), config.support_order) for example in placed]

    # A curriculum places gold passages in the order of `gold`: that of the reasoning is left as it
    # is. Where they stand is then in that order too, so that both support orders are the same.
    train_side = (
        shown(train, train_shown.total_docs)
        if curriculum is None
        else [question for question, _ in train]
    )
    return Selection(train_side, shown(val, config.total_docs), curriculum)


def read_split(
    config: DataConfig, notify: Notify = lambda _: None, base_url: str = BASE_URL
) -> Split:
    """All questions with all of their passages, none placed: those to train on and to validate on.

    Of Lost in the Middle's files the one with the gold passage first is read.
    """
    return _open_source(ranked_file(config, base_url), base_url, notify).split()


def ranked_file(config: DataConfig, base_url: str = BASE_URL) -> DataConfig:
    """Lost in the Middle's gold-at-0 file as any other file of ranked passages: fewer documents can
    be taken from it, and the gold one placed anew. Other data sets stay as they are."""
    if config.name != "nq_lim":
        return config
    folder = Path(config.data_dir or "data/qa_data")
    path = ensure_lim_files(folder, config.total_docs, [0], base_url)[0]
    return replace(config, name="examples", path=str(path))


def _open_source(config: DataConfig, base_url: str, notify: Notify) -> _Source:
    if config.name == "nq_lim":
        return _LimSource(config, base_url)
    if config.name == "examples":
        return _FileSource(config)
    if config.name in CATALOGUE:
        return _PublicSource(config, CATALOGUE[config.name], notify)
    raise ConfigError(f"unknown dataset name {config.name!r}; choose from {', '.join(DATASETS)}")


def source_files(config: DataConfig, base_url: str = BASE_URL) -> list[Path]:
    """The files and folders that `select_samples` reads; raises what it raises for them."""
    source = _open_source(config, base_url, lambda _: None)
    if isinstance(source, _LimSource):
        return list(source.paths.values())
    if isinstance(source, _PublicSource) and config.path is None:
        return [path for path in source.files.values() if path is not None]
    return [source.path]


def _curriculum(config: DataConfig) -> Curriculum | None:
    if config.train_positions == "fixed":
        return None
    most = config.train_total_docs or config.total_docs
    return Curriculum(
        config.train_min_docs or most,
        most,
        config.no_gold_rate,
        config.seed,
        sentences=config.train_passages == "sentences",
    )


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
        return self._split_file(self.path)

    def _split_file(self, path: Path) -> Split:
        rows = read_with_splits(path)
        if not any(row.example.passages for row in rows):
            raise DataError(
                f"{path}: the questions bring no passages; build a set of both with"
                " 'scratchpad-rag data build --questions FILE --passages FILE_OR_FOLDER --out FILE'"
            )
        if rows[0].split is not None:
            return Split(
                [row.example for row in rows if row.split == "train"],
                [row.example for row in rows if row.split == "val"],
            )
        examples = [row.example for row in rows]
        return split_by_question(examples, self.config.train_ratio, self.config.seed)

    def placed(self, pairs: Sequence[tuple[Example, int]], total_docs: int) -> list[Example]:
        order, seed = self.config.passage_order, self.config.seed
        return [place(example, total_docs, at, order, seed) for example, at in pairs]


class _PublicSource(_FileSource):
    """A set of the catalogue: the file that the config names, else those that were downloaded.

    Not every question of the public sets fits every cell: those with too few passages, or without a
    gold one where a position is asked for, are left out of both sides, and their number is said.
    """

    def __init__(self, config: DataConfig, chosen: PublicSet, notify: Notify) -> None:
        self.chosen, self.notify = chosen, notify
        if config.path is not None:
            super().__init__(config)
            return
        self.config = config
        data_dir = DATA_DIR if config.data_dir is None else Path(config.data_dir)
        self.files = {split: chosen.found(split, data_dir) for split in chosen.splits}
        if not any(self.files.values()):
            raise DataError(
                f"{chosen.name} is not in {chosen.folder(data_dir)}: bring it with"
                f" 'scratchpad-rag data download {chosen.name}', or name a file with --data_path"
            )
        known = read_checksums(chosen.folder(data_dir))
        for path in self.files.values():
            if path is not None and path.name in known:
                check_file(path, known[path.name])

    def split(self) -> Split:
        whole = self._split_file(self.path) if self.config.path is not None else self._split_sets()
        return Split(
            self._fitting(whole.train, _shown_in_training(self.config).total_docs),
            self._fitting(whole.val, self.config.total_docs),
        )

    def _split_sets(self) -> Split:
        train, val = self.files.get("train"), self.files.get("val")
        if train is None or val is None:
            [only] = [path for path in (train, val) if path is not None]
            return self._split_file(only)
        held_out = read_examples(val)
        asked = {normalise_question(example.question) for example in held_out}
        learned = read_examples(train)
        kept = [e for e in learned if normalise_question(e.question) not in asked]
        if len(kept) < len(learned):
            twice = len(learned) - len(kept)
            self.notify(f"{twice} training questions are among those to validate on: left out")
        return Split(kept, held_out)

    def _fitting(self, examples: list[Example], total_docs: int) -> list[Example]:
        order = self.config.passage_order
        kept = [example for example in examples if _fits(example, total_docs, order)]
        if len(kept) < len(examples):
            placed = "" if order in ("given", "retrieved") else " or no gold one"
            self.notify(
                f"{len(examples) - len(kept)} of {len(examples)} questions of {self.chosen.name}"
                f" have fewer than {total_docs} passages{placed}: left out"
            )
        if not kept and examples:
            raise DataError(f"no question of {self.chosen.name} has {total_docs} passages to show")
        return kept


def _fits(example: Example, total_docs: int, order: str) -> bool:
    if order == "retrieved":
        return len(example.passages) >= total_docs
    enough = len(example.passages) - len(example.also_hold) >= total_docs
    return enough and (order == "given" or bool(example.gold))


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
        order, seed = self.config.passage_order, self.config.seed
        if total_docs != self.config.total_docs or order != "ranked":
            return [place(example, total_docs, at, order, seed) for example, at in pairs]
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


_Source = _FileSource | _LimSource  # a set of the catalogue is read from files too


def _shipped(path: Path) -> Path:
    try:
        return resource(str(path))
    except ConfigError as error:
        raise DataError(f"there is no data file or folder {path}") from error
