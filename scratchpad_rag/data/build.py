"""Questions and a pool of passages -> examples: with mined distractors, or as retrieved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from scratchpad_rag.data.mix import Mixture, mix, with_splits
from scratchpad_rag.data.own import resolve_gold
from scratchpad_rag.data.readers import (
    Question,
    SplitExample,
    read_passages,
    read_questions,
    write_examples,
)
from scratchpad_rag.data.retrieve.base import Retriever
from scratchpad_rag.data.retrieve.dense import DENSE_MODEL
from scratchpad_rag.data.retrieve.found import as_retrieved, count_absent, recall_at
from scratchpad_rag.data.retrieve.load import REAL, RetrieverConfig, load_retriever
from scratchpad_rag.data.retrieve.mine import MiningRules, mine, with_distractors
from scratchpad_rag.data.retrieve.near import NEAR_DUPLICATE, Pool
from scratchpad_rag.errors import DataError
from scratchpad_rag.records import Example, Passage

TRAIN_RATIO = 0.8  # of the questions of a file without splits, where several are mixed
_RECALLS = (1, 5, 10, 20)


@dataclass(frozen=True)
class BuildConfig:
    """What `build_examples` reads, does and writes; `MiningRules` and `RetrieverConfig` say more.

    `as_retrieved` passages are shown as they were ranked, and nothing is mined. `skip_missing`
    leaves questions out that name gold passages which are not in the pool. `train_ratio` None: a
    single file without splits stays without, several are split by 0.8. Of several files each gives
    `most_training` training questions at most. The seed is that of the
    split and of a random retriever. Raises DataError for what cannot be done.
    """

    questions: tuple[Path, ...]
    passages: Path
    out: Path
    num_distractors: int = 29
    total_passages: int | None = None
    keep_distractors: bool = False
    near_duplicate: float = NEAR_DUPLICATE
    retriever: str = "bm25"
    retriever_model: str = DENSE_MODEL
    as_retrieved: int | None = None
    skip_missing: bool = False
    train_ratio: float | None = None
    most_training: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self.mining_rules()
        self.retriever_config()
        if not self.questions:
            raise DataError("no file of questions is given")
        if self.out.is_dir() or self.out in (*self.questions, self.passages):
            raise DataError(
                f"{self.out}: cannot be the file to write; name a new .jsonl or .jsonl.gz file"
            )
        if self.most_training is not None:
            if self.most_training < 1:
                raise DataError(f"most_training must be 1 or more, not {self.most_training}")
            if len(self.questions) == 1:
                raise DataError("most_training balances several files; only one is given")
        if self.train_ratio is not None and not 0 <= self.train_ratio <= 1:
            raise DataError(f"train_ratio {self.train_ratio} is outside 0..1")
        if self.as_retrieved is not None:
            self._check_as_retrieved(self.as_retrieved)

    def mining_rules(self) -> MiningRules:
        """How many distractors, and what is none."""
        return MiningRules(
            self.num_distractors, self.total_passages, self.keep_distractors, self.near_duplicate
        )

    def retriever_config(self) -> RetrieverConfig:
        """Which retriever."""
        return RetrieverConfig(self.retriever, self.retriever_model, self.seed)

    def _check_as_retrieved(self, count: int) -> None:
        if count < 1:
            raise DataError(f"as_retrieved must be 1 or more, not {count}")
        if self.retriever not in REAL:
            raise DataError(
                f"as_retrieved shows what a real retriever finds; choose from {', '.join(REAL)},"
                f" not {self.retriever}"
            )
        if self.keep_distractors or self.total_passages is not None:
            raise DataError("as_retrieved mines nothing: leave keep_distractors and total_passages")


class BuildReport(NamedTuple):
    """What `build_examples` wrote.

    `skipped` questions were left out, `short` ones have fewer distractors than asked for. As
    retrieved: `recalls` by number of passages (see `recall_at`), and `absent` questions have gold
    passages none of which is in the pool. `mixture` is None where nothing was mixed.
    """

    config: BuildConfig
    questions: int
    pool_passages: int
    seconds: float
    skipped: int = 0
    short: int = 0
    absent: int = 0
    recalls: dict[int, float] | None = None
    mixture: Mixture | None = None

    def lines(self) -> list[str]:
        """The report for people, a line a matter."""
        config = self.config
        if config.as_retrieved is not None:
            what = f"the {config.as_retrieved} best passages each by {config.retriever}"
        elif config.total_passages is not None:
            what = f"{config.total_passages} passages each"
        else:
            what = f"{config.num_distractors} distractors each"
        lines = [
            f"{self.questions} questions with {what} from {self.pool_passages} passages in"
            f" {self.seconds:.1f} s: {config.out}"
        ]
        if self.skipped:
            lines.append(
                f"{self.skipped} questions left out: their gold passages are not in the pool"
            )
        if self.short:
            lines.append(f"{self.short} questions have fewer distractors: the pool holds no more")
        if self.recalls:
            shares = [f"{share:.1%} at {count}" for count, share in self.recalls.items()]
            lines.append(f"recall of the gold passages: {', '.join(shares)}")
        if self.absent:
            lines.append(f"{self.absent} questions have no gold passage in the pool")
        return lines + self._lines_of_mixture()

    def _lines_of_mixture(self) -> list[str]:
        if self.mixture is None:
            return []
        sides = list(self.mixture.splits.values())
        lines = [
            f"{sides.count('train')} questions for training, {sides.count('val')} for validation"
        ]
        if self.mixture.moved:
            lines.append(
                f"{self.mixture.moved} questions went from training to validation: another file"
                " validates on them"
            )
        if self.mixture.near:
            lines.append(f"{self.mixture.near} pairs of questions of two files are nearly the same")
        if self.mixture.near_apart:
            lines.append(
                f"{self.mixture.near_apart} questions left out of training: one for validation is"
                " nearly the same"
            )
        if self.mixture.surplus:
            lines.append(
                f"{self.mixture.surplus} questions left out of training: their files give at most"
                f" {self.config.most_training} each"
            )
        return lines


def build_examples(config: BuildConfig, progress: bool = False) -> BuildReport:
    """Questions with their gold passages and a pool of passages -> our own inline JSON lines.

    Each question's passages are its gold ones in the order of the reasoning, its own distractors
    if they are kept, then those mined, best first; or as retrieved, the best of the pool. Several
    files of questions are built one by one and then mixed. Raises DataError for bad input.
    """
    started = time.perf_counter()
    asked = _read_files(config.questions)
    passages = read_passages(config.passages)
    _check_depth(config, len(passages))
    files = {name: _resolve(part, passages, config) for name, part in asked.items()}
    pool = Pool(passages)
    retriever = load_retriever(config.retriever_config(), passages, progress)
    built = {name: _build(rows, pool, retriever, config, progress) for name, rows in files.items()}
    examples, splits, mixture = _gather(built, config)
    write_examples(examples, config.out, splits)
    report = BuildReport(
        config=config,
        questions=len(examples),
        pool_passages=len(pool),
        seconds=time.perf_counter() - started,
        skipped=sum(map(len, asked.values())) - sum(map(len, files.values())),
        mixture=mixture,
    )
    questions = [row.example for rows in files.values() for row in rows]
    if config.as_retrieved is None:
        filled = [row.example for rows in built.values() for row in rows]
        return report._replace(short=_count_short(questions, filled, config))
    return report._replace(
        absent=count_absent(questions, examples, pool),
        recalls=_recalls(examples, config.as_retrieved),
    )


def _read_files(paths: Sequence[Path]) -> dict[str, list[Question]]:
    """The questions of each file by a short name that no other has."""
    files: dict[str, list[Question]] = {}
    for path in paths:
        stem = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
        name, number = stem, 1
        while name in files:
            number += 1
            name = f"{stem}{number}"
        files[name] = read_questions(path)
    return files


def _resolve(
    questions: Sequence[Question], passages: Sequence[Passage], config: BuildConfig
) -> list[SplitExample]:
    if not any(question.gold for question in questions):
        return [SplitExample(question.example, question.split) for question in questions]
    return resolve_gold(questions, passages, config.skip_missing)


def _check_depth(config: BuildConfig, size: int) -> None:
    if config.as_retrieved is not None and config.as_retrieved > size:
        raise DataError(
            f"as_retrieved {config.as_retrieved} asks for more passages than the {size} of"
            f" {config.passages}"
        )


def _build(
    rows: Sequence[SplitExample],
    pool: Pool,
    retriever: Retriever,
    config: BuildConfig,
    progress: bool,
) -> list[SplitExample]:
    questions = [row.example for row in rows]
    if config.as_retrieved is not None:
        built = as_retrieved(questions, pool, retriever, config.as_retrieved, config.near_duplicate)
    else:
        rules = config.mining_rules()
        mined = mine(questions, pool, retriever, rules, progress)
        built = [
            with_distractors(question, [pool.passages[index] for index in chosen], rules)
            for question, chosen in zip(questions, mined, strict=True)
        ]
    return [SplitExample(example, row.split) for example, row in zip(built, rows, strict=True)]


class _Gathered(NamedTuple):
    examples: list[Example]
    splits: dict[str, str] | None
    mixture: Mixture | None


def _gather(built: dict[str, list[SplitExample]], config: BuildConfig) -> _Gathered:
    """The examples of all files and their splits, which a single file without any may lack."""
    ratio = TRAIN_RATIO if config.train_ratio is None else config.train_ratio
    if len(built) > 1:
        mixture = mix(built, ratio, config.seed, config.most_training)
        return _Gathered(mixture.examples, mixture.splits, mixture)
    (rows,) = built.values()
    if config.train_ratio is not None:
        rows = with_splits(rows, ratio, config.seed)
    splits = {row.example.id: row.split for row in rows if row.split is not None}
    return _Gathered([row.example for row in rows], splits or None, None)


def _count_short(
    questions: Sequence[Example], built: Sequence[Example], config: BuildConfig
) -> int:
    rules = config.mining_rules()
    return sum(
        len(after.passages) - len(after.gold) - len(rules.own(question)) < rules.wanted(question)
        for question, after in zip(questions, built, strict=True)
    )


def _recalls(examples: Sequence[Example], count: int) -> dict[int, float]:
    counts = sorted({*(few for few in _RECALLS if few < count), count})
    shares = {few: recall_at(examples, few) for few in counts}
    return {few: share for few, share in shares.items() if share is not None}
