"""The score files of one or several runs as one set of scores, with the passages they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scratchpad_rag.errors import DataError
from scratchpad_rag.evaluate.cells import CONTEXT_FREE
from scratchpad_rag.evaluate.diagnosis import GOLD_FORCED, WRONG_FORCED
from scratchpad_rag.evaluate.questions import require_same_questions
from scratchpad_rag.evaluate.score_file import read_scores
from scratchpad_rag.evaluate.sources import SOURCES_FILE, read_sources
from scratchpad_rag.evaluate.speed import as_if_alone
from scratchpad_rag.records import Passage, Score
from scratchpad_rag.report.labels import clean, method_name

SCORES_FILE = "scores.jsonl"
# Bounds and probes: shown beside the ways of reading, and never called the best of them.
REFERENCES = CONTEXT_FREE
FORCED = (GOLD_FORCED, WRONG_FORCED)
_BETWEEN = "\x1f"  # stands in no method's and no folder's name


@dataclass(frozen=True, slots=True)
class Names:
    """What methods are called. Of several runs a method's key holds its run too."""

    runs: tuple[str, ...]

    def key(self, method: str, run: str) -> str:
        return method if len(self.runs) == 1 else f"{method}{_BETWEEN}{run}"

    def base(self, key: str) -> str:
        """The method that was run: `scratchpad`.

        >>> Names(("a", "b")).base(Names(("a", "b")).key("sft", "b"))
        'sft'
        """
        return key.partition(_BETWEEN)[0]

    def run(self, key: str) -> str:
        """The run that a key is of."""
        return key.partition(_BETWEEN)[2] or self.runs[0]

    def full(self, key: str) -> str:
        """The name for people, with the run where there are several.

        >>> names = Names(("135M", "360M"))
        >>> names.full(names.key("sft", "360M")), Names(("135M",)).full("sft")
        ('SFT · 360M', 'SFT')
        """
        base = method_name(self.base(key))
        return base if len(self.runs) == 1 else f"{base} · {clean(self.run(key))}"

    def pair(self, first: str, second: str) -> str:
        """Two methods held against each other, the run named once where it is the same.

        >>> names = Names(("135M", "360M"))
        >>> names.pair(names.key("scratchpad", "360M"), names.key("sft", "360M"))
        'Scratchpad − SFT · 360M'
        >>> names.pair(names.key("sft", "360M"), names.key("sft", "135M"))
        'SFT · 360M − 135M'
        """
        if len(self.runs) > 1 and self.run(first) == self.run(second):
            return f"{method_name(self.base(first))} − {self.full(second)}"
        if len(self.runs) > 1 and self.base(first) == self.base(second):
            return f"{self.full(first)} − {clean(self.run(second))}"
        return f"{self.full(first)} − {self.full(second)}"


@dataclass(frozen=True, slots=True)
class GridScores:
    """All scores, their methods being keys of `names`; `passages` by their ids, maybe none.

    `by_run` holds the same with the methods as they were run, `folders` where runs lie. `gold`
    holds the ids of the gold passages of a question, by data set and question, as far as scores
    that show all of the passages tell.
    """

    scores: tuple[Score, ...]
    by_run: Mapping[str, Sequence[Score]]
    folders: Mapping[str, Path]
    passages: Mapping[str, Passage]
    names: Names
    gold: Mapping[tuple[str, str], frozenset[str]]

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(score.dataset for score in self.scores))

    @property
    def methods(self) -> tuple[str, ...]:
        """Keys in the order of the tables: as methods first appear, those of all runs together."""
        keys = dict.fromkeys(score.method for score in self.scores)
        order = list(dict.fromkeys(map(self.names.base, keys)))
        return tuple(sorted(keys, key=lambda key: order.index(self.names.base(key))))


def read_runs(paths: Sequence[Path]) -> GridScores:
    """The scores of every run; a run is a folder with `scores.jsonl`, or such a file.

    No file is changed: a run that goes on meanwhile is read as far as it is. Raises DataError where
    there is none, and for runs of different questions, with the difference.
    """
    files = [path / SCORES_FILE if path.is_dir() else path for path in paths]
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: no score file; name a folder that holds {SCORES_FILE}")
    by_run = {
        run: as_if_alone(read_scores(file, mend=False))
        for run, file in zip(run_names(files), files, strict=True)
    }
    for file, own in zip(files, by_run.values(), strict=True):
        if not own:
            raise DataError(f"{file}: no scores in it; evaluate first")
    require_same_questions(by_run)
    names = Names(tuple(by_run))
    passages: dict[str, Passage] = {}
    for file in files:
        passages |= read_sources(file.with_name(SOURCES_FILE), mend=False)
    scores = tuple(
        score if len(by_run) == 1 else replace(score, method=names.key(score.method, run))
        for run, own in by_run.items()
        for score in own
    )
    folders = dict(zip(by_run, (file.parent for file in files), strict=True))
    return GridScores(scores, by_run, folders, passages, names, _gold_ids(scores))


def run_names(files: Sequence[Path]) -> list[str]:
    """The names of the folders; where two are the same, as much of their paths as tells them apart.

    >>> run_names([Path("/a/nq/scores.jsonl"), Path("/b/nq/scores.jsonl")])
    ['a/nq', 'b/nq']
    """
    folders = [file.resolve().parent for file in files]
    if len(set(folders)) < len(folders):
        twice = next(folder for folder in folders if folders.count(folder) > 1)
        raise DataError(f"{twice}: named twice; a run is compared with another one")
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _gold_ids(scores: Sequence[Score]) -> dict[tuple[str, str], frozenset[str]]:
    gold: dict[tuple[str, str], frozenset[str]] = {}
    for score in scores:
        if score.gold_positions and len(score.shown) == score.num_documents:
            known = gold.get((score.dataset, score.example_id), frozenset())
            ids = {score.shown[at] for at in score.gold_positions if at < len(score.shown)}
            gold[score.dataset, score.example_id] = known | ids
    return gold
