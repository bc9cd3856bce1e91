"""The sample set that comes with the package: questions about a fictional encyclopedia.

Every name in it is invented, so that nothing can be answered without the passages, and the
passages share names, places and relations, so that a word match does not find the right one.
The same seed gives the same bytes.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import bm25s
import numpy as np
import numpy.typing as npt

from scratchpad_rag.data.sample_prose import Draft, Questioner, normalize, write_passage
from scratchpad_rag.data.sample_world import Entity, Kind, build_world, load_encyclopedia
from scratchpad_rag.errors import DataError

PASSAGES_FILE = "passages.jsonl.gz"
QUESTIONS_FILE = "questions.jsonl.gz"
README_FILE = "README.md"


@dataclass(frozen=True)
class SampleConfig:
    """What to generate.

    About `name_share` of the questions name what they ask about; the rest describe it by other
    facts, which is what makes a word match fail.
    """

    seed: int = 0
    num_questions: int = 3000
    num_passages: int = 6000
    val_fraction: float = 1 / 3
    num_distractors: int = 29
    name_share: float = 0.25


@dataclass(frozen=True, slots=True)
class SamplePassage:
    """A passage of the encyclopedia, about one entity."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class SampleQuestion:
    """A question, its answers, its gold passages and its distractors, ids ranked best first."""

    id: str
    question: str
    answers: tuple[str, ...]
    gold: tuple[str, ...]
    distractors: tuple[str, ...]
    split: str  # "train" | "val"


@dataclass(frozen=True, slots=True)
class SampleSet:
    """Passages and the questions about them."""

    config: SampleConfig
    passages: tuple[SamplePassage, ...]
    questions: tuple[SampleQuestion, ...]


class Top1(NamedTuple):
    """Share of questions whose gold passage BM25 ranks first, in 0..1."""

    shown: float  # among the gold passage and the best distractors
    pool: float  # among all passages


class _Written(NamedTuple):
    kind: Kind
    entity: Entity
    draft: Draft


def build_sample(config: SampleConfig) -> SampleSet:
    """Generate the encyclopedia, ask about it and mine the distractors.

    Raises DataError where the counts cannot be met, before anything is mined.
    """
    _check(config)
    rng = Random(config.seed)
    written = _write_encyclopedia(config, rng)
    passages = tuple(
        SamplePassage(f"p{number:05}", entry.entity.name, entry.draft.text)
        for number, entry in enumerate(written)
    )
    questions = _ask(written, config, rng)
    return SampleSet(config, passages, _mine(questions, passages, config.num_distractors))


def write_sample(sample: SampleSet, folder: Path) -> None:
    """Write the passages, the questions and a README; each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / PASSAGES_FILE, _json_lines(map(_passage_json, sample.passages)))
    _replace(folder / QUESTIONS_FILE, _json_lines(map(_question_json, sample.questions)))
    _replace(folder / README_FILE, _readme(sample).encode())


def bm25_top1(sample: SampleSet, shown: int = 20) -> Top1:
    """How often BM25 alone ranks the gold passage first: among `shown` passages, and among all."""
    index_of = {passage.id: number for number, passage in enumerate(sample.passages)}
    first_shown = first_pool = 0
    scores_of = _Bm25(sample.passages)
    for question in sample.questions:
        scores = scores_of(question.question)
        gold = scores[index_of[question.gold[0]]]
        rivals = [index_of[name] for name in question.distractors[: shown - 1]]
        first_shown += bool(gold > scores[rivals].max())
        first_pool += int(scores.argmax()) == index_of[question.gold[0]]
    count = len(sample.questions)
    return Top1(first_shown / count, first_pool / count)


class _Bm25:
    """BM25 scores of all passages (title and text) for a question."""

    def __init__(self, passages: Sequence[SamplePassage]) -> None:
        corpus = [f"{passage.title} {passage.text}" for passage in passages]
        self.retriever = bm25s.BM25()
        self.retriever.index(
            bm25s.tokenize(corpus, stopwords="en", show_progress=False), show_progress=False
        )

    def __call__(self, question: str) -> npt.NDArray[np.float64]:
        tokens = bm25s.tokenize(question, stopwords="en", return_ids=False, show_progress=False)[0]
        known = [token for token in tokens if token in self.retriever.vocab_dict]
        # rounded, so that a last bit that differs between machines does not change the ranks
        scores: npt.NDArray[np.float64] = np.round(
            self.retriever.get_scores(known).astype(np.float64), 3
        )
        return scores


def _check(config: SampleConfig) -> None:
    if not 0 <= config.val_fraction <= 1:
        raise DataError(f"val_fraction is {config.val_fraction}; it must lie in 0..1")
    if config.num_questions > config.num_passages:
        raise DataError(
            f"{config.num_questions} questions need as many passages, not {config.num_passages}"
        )
    if not 1 <= config.num_distractors < config.num_passages:
        raise DataError(f"num_distractors is {config.num_distractors}; it must be at least 1")


def _write_encyclopedia(config: SampleConfig, rng: Random) -> list[_Written]:
    encyclopedia = load_encyclopedia()
    world = build_world(encyclopedia, config.num_passages, rng)
    written = [
        _Written(kind, entity, write_passage(kind, entity, rng))
        for kind in encyclopedia.kinds
        for entity in world.entities[kind.name]
    ]
    rng.shuffle(written)  # so that the number of a passage says nothing about its kind
    return written


class _Unmined(NamedTuple):
    question: str
    answers: tuple[str, ...]
    gold: int
    split: str


def _ask(written: Sequence[_Written], config: SampleConfig, rng: Random) -> list[_Unmined]:
    """One question a passage, on as many passages as questions are wanted; split by passage."""
    by_kind: dict[str, list[Entity]] = {}
    for entry in written:
        by_kind.setdefault(entry.kind.name, []).append(entry.entity)
    questioners = {entry.kind.name: entry.kind for entry in written}
    ask = {name: Questioner(kind, by_kind[name]).ask for name, kind in questioners.items()}
    num_val = round(config.num_questions * config.val_fraction)
    questions: list[_Unmined] = []
    for gold in rng.sample(range(len(written)), len(written)):
        if len(questions) == config.num_questions:
            return questions
        entry = written[gold]
        asked = ask[entry.kind.name](entry.entity, entry.draft.stated, config.name_share, rng)
        if asked is not None:
            split = "val" if len(questions) < num_val else "train"
            questions.append(_Unmined(asked.question, asked.answers, gold, split))
    if len(questions) < config.num_questions:
        raise DataError(f"only {len(questions)} of {config.num_questions} questions could be asked")
    return questions


def _mine(
    questions: Sequence[_Unmined], passages: Sequence[SamplePassage], count: int
) -> tuple[SampleQuestion, ...]:
    """Add to each question the best-ranked passages that do not hold an answer."""
    scores_of = _Bm25(passages)
    normalized = [f" {normalize(f'{passage.title} {passage.text}')} " for passage in passages]
    mined = []
    for number, question in enumerate(questions):
        needles = [f" {normalize(answer)} " for answer in question.answers]
        distractors: list[str] = []
        for index in np.argsort(-scores_of(question.question), kind="stable").tolist():
            if index == question.gold or any(needle in normalized[index] for needle in needles):
                continue
            distractors.append(passages[index].id)
            if len(distractors) == count:
                break
        if len(distractors) < count:
            raise DataError(f"only {len(distractors)} distractors for {question.question!r}")
        gold = (passages[question.gold].id,)
        mined.append(
            SampleQuestion(
                f"q{number:05}",
                question.question,
                question.answers,
                gold,
                tuple(distractors),
                question.split,
            )
        )
    return tuple(mined)


def _passage_json(passage: SamplePassage) -> dict[str, Any]:
    return {"id": passage.id, "title": passage.title, "text": passage.text}


def _question_json(question: SampleQuestion) -> dict[str, Any]:
    return {
        "id": question.id,
        "question": question.question,
        "answers": question.answers,
        "gold": question.gold,
        "distractors": question.distractors,
        "split": question.split,
    }


def _json_lines(objects: Iterable[dict[str, Any]]) -> bytes:
    lines = "".join(json.dumps(fields, ensure_ascii=False) + "\n" for fields in objects)
    return gzip.compress(lines.encode(), compresslevel=9, mtime=0)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


_README = """\
# The sample set: a fictional encyclopedia

{num_passages:,} passages of 80 to 130 words about people, towns, rivers, bridges, battles, novels
and other things that do not exist, and {num_questions:,} questions about them ({num_train:,}
`train`, {num_val:,} `val`; no passage is gold in both). Every name is invented, so the questions
cannot be answered without the passages, and the passages share names, places and relations.

- `passages.jsonl.gz`: `{{"id", "title", "text"}}`, one passage a line.
- `questions.jsonl.gz`: `{{"id", "question", "answers", "gold", "distractors", "split"}}`, one
  question a line. `gold` is the id of the one passage that answers the question; `distractors`
  are {num_distractors} ids ranked best first by BM25, none of which holds an answer.

How hard it is for a word match (BM25 with the question as query, title and text as document):

| BM25 ranks the gold passage first | share of questions |
|---|---|
| among 20 passages (gold and 19 distractors) | {shown:.1%} |
| among all {num_passages:,} passages | {pool:.1%} |

Make it again, byte for byte: `scratchpad-rag data sample --out DIR --seed {seed}`

Licence: CC0 1.0 (public domain dedication). The text was written for this project and generated by
`scratchpad_rag/data/sample.py` from the phrasings in `scratchpad_rag/data/encyclopedia/`.
"""


def _readme(sample: SampleSet) -> str:
    top1 = bm25_top1(sample)
    num_val = sum(question.split == "val" for question in sample.questions)
    return _README.format(
        num_passages=len(sample.passages),
        num_questions=len(sample.questions),
        num_train=len(sample.questions) - num_val,
        num_val=num_val,
        num_distractors=sample.config.num_distractors,
        shown=top1.shown,
        pool=top1.pool,
        seed=sample.config.seed,
    )
