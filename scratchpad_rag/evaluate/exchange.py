"""Score files of Lost in the Middle's scripts (Liu et al. 2023): theirs -> Score, Score -> theirs.

Their scripts write a JSON line a question: the question with its answers and passages as it was
read, and what the model was shown and wrote in fields that begin with `model`. Their rule scores
the first line of `model_answer` by `best_subspan_em`; for key-value retrieval it looks for the
value anywhere in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scratchpad_rag.data.lines import Item, json_type, read_items
from scratchpad_rag.data.normalise import question_id
from scratchpad_rag.data.shapes.lim import from_key_values
from scratchpad_rag.errors import DataError
from scratchpad_rag.evaluate.metrics import (
    exact_match,
    normalize_answer,
    subspan_exact_match,
    token_f1,
)
from scratchpad_rag.evaluate.score_file import Key, score_key
from scratchpad_rag.evaluate.sources import passage_id
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.prompts.template import Wording
from scratchpad_rag.records import Example, Passage, Score

FORMATS = ("litm", "litm_kv")
# What our own export says of a score beside their fields, so that reading it again files it alike.
_OURS = "scratchpad_rag"


class Read(NamedTuple):
    """A line of their files as a score, with the passages that were shown."""

    score: Score
    passages: tuple[Passage, ...]


class _Shown(NamedTuple):
    """What a line says was asked: passages in the order shown, the places of the gold ones."""

    identity: str
    question: str
    answers: tuple[str, ...]
    passages: tuple[Passage, ...]
    gold: tuple[int, ...]
    gold_total: int | None


def first_line_of(model_answer: str) -> str:
    """The part of an answer that their rule scores.

    It may be empty where the answer is not: some of their scripts keep a leading newline.

    >>> first_line_of(" Paris \\nQuestion:"), first_line_of("\\nParis")
    ('Paris', '')
    """
    return model_answer.split("\n")[0].strip()


def read_responses(path: Path, method: str | None = None, dataset: str = "") -> Iterator[Read]:
    """The lines of a response file (JSON lines, perhaps gzipped) as scores.

    Scores are filed under `method`; not given: `closed_book` where no documents were shown, else
    the model's name. What their files do not tell (tokens, passes, seconds) is 0; there are no
    quotes. A key-value answer is scored by their own rule. Raises DataError, naming file and line,
    for a line without the fields that are needed, of two models in one file, and for an answer that
    the file holds twice.
    """
    models: dict[str, str] = {}
    seen: dict[Key, str] = {}
    for item in read_items(path):
        read = _read(item, method, dataset)
        models.setdefault(item.text("model"), item.where)
        if len(models) > 1:
            (one, there), (other, here) = models.items()
            raise DataError(
                f"{here}: answers of model {other!r}, and those at {there} are of {one!r}; "
                "a file holds the answers of one model: split it"
            )
        key = score_key(read.score)
        if seen.setdefault(key, item.where) != item.where:
            raise item.error(
                f"question {read.score.question!r} was answered before, at {seen[key]}"
            )
        yield read


def _read(item: Item, method: str | None, dataset: str) -> Read:
    if item.has("ordered_kv_records"):
        shown = _key_values(item)
    elif item.has("question"):
        shown = _question(item)
    else:
        raise item.error(
            "no line of Lost in the Middle's response files: it has neither 'question' nor "
            "'ordered_kv_records'"
        )
    answer = _answer(item)
    said = answer.strip() if item.has("ordered_kv_records") else first_line_of(answer)
    ours = item.fields.get(_OURS)
    known = ours if isinstance(ours, dict) else {}
    filed = method or str(known.get("method") or "")
    order = "shuffled" if item.flag("model_use_random_ordering") else "ranked"
    score = Score(
        method=filed or ("closed_book" if not shown.passages else item.text("model")),
        example_id=shown.identity,
        question=shown.question,
        answers=shown.answers,
        num_documents=len(shown.passages),
        gold_positions=shown.gold,
        prediction=said,
        completion=answer,
        quotes=(),
        parsed=True,
        subspan_exact_match=_correct(item, answer, shown.answers),
        exact_match=exact_match(said, shown.answers),
        f1=token_f1(said, shown.answers),
        completion_subspan_exact_match=subspan_exact_match(answer, shown.answers),
        quote_precision=None,
        quote_recall=None,
        verbatim_rate=None,
        prompt_tokens=0,
        new_tokens=0,
        forward_passes=0,
        wall_seconds=0.0,
        dataset=dataset or str(known.get("dataset") or ""),
        passage_order=str(known.get("passage_order") or order),
        gold_total=shown.gold_total,
        shown=tuple(map(passage_id, shown.passages)),
    )
    return Read(score, shown.passages)


def _answer(item: Item) -> str:
    if "model_answer" not in item.fields:
        raise item.error(
            "field 'model_answer' is missing; questions without a model's answers are data, not "
            "responses"
        )
    answer = item.fields["model_answer"]
    if not isinstance(answer, str):
        raise item.error(f"field 'model_answer' must be a string, not {json_type(answer)}")
    return item.checked_text(answer, "field 'model_answer'") if answer.strip() else answer


def _correct(item: Item, answer: str, answers: Sequence[str]) -> float:
    if item.has("ordered_kv_records"):
        return float(answers[0].lower() in answer.lower())
    return subspan_exact_match(first_line_of(answer), answers)


def _question(item: Item) -> _Shown:
    """`model_documents` is what was shown; older files have it in `ctxs` alone."""
    question, answers = item.text("question"), item.texts("answers")
    if not answers:
        raise item.error("the question has no answers")
    documents = item.items("model_documents" if item.has("model_documents") else "ctxs")
    gold = tuple(index for index, child in enumerate(documents) if _is_gold(child))
    known = item.items("ctxs") if item.has("ctxs") else documents
    passages = tuple(Passage(child.text("title"), child.text("text")) for child in documents)
    total = sum(map(_is_gold, known))
    return _Shown(question_id(question), question, answers, passages, gold, total or None)


def _is_gold(document: Item) -> bool:
    return document.has("isgold") and document.flag("isgold")


def _key_values(item: Item) -> _Shown:
    """As the records were shown, if the file says so."""
    shown = item.fields.get("model_ordered_kv_records") or item.fields["ordered_kv_records"]
    asked = from_key_values(Item({**item.fields, "ordered_kv_records": shown}, item.where))
    return _Shown(asked.id, asked.question, asked.answers, asked.passages, asked.gold, 1)


class Written(NamedTuple):
    """Scores in their shape, one JSON object a line, and the mean that their rule gives these."""

    lines: list[str]
    mean: float
    ours: float


def to_responses(
    scores: Sequence[Score], passages: Mapping[str, Passage], model: str, kind: str = "litm"
) -> Written:
    """Scores as lines of their response files; `passages` are those of the run by their ids.

    `model_answer` is the final answer. An answer that abstains and is not right is written as none,
    since `unanswerable` has "era" and "able" in it, which their rule would find. `model_prompt`
    lacks a chat template's markers, which scores do not hold. Raises DataError for scores that do
    not name the passages shown, and with kind `litm_kv` for questions that ask for no key's value.
    """
    gold = _gold_passages(scores)
    rows = []
    for score in scores:
        shown = _passages_of(score, passages)
        if kind == "litm_kv":
            fields = _key_value_fields(score, shown)
        else:
            fields = _question_fields(score, shown, gold.get((score.dataset, score.example_id)))
        rows.append({**fields, **_model_fields(score, shown, model), _OURS: _filed(score)})
    if kind == "litm_kv":
        right = [float(row["value"].lower() in row["model_answer"].lower()) for row in rows]
    else:
        right = [_their_score(row["model_answer"], row["answers"]) for row in rows]
    return Written(
        [json.dumps(row, ensure_ascii=False) for row in rows],
        sum(right) / len(right),
        sum(score.subspan_exact_match for score in scores) / len(scores),
    )


def _their_score(model_answer: str, answers: Sequence[str]) -> float:
    said = normalize_answer(first_line_of(model_answer))
    return float(any(normalize_answer(answer) in said for answer in answers))


def _passages_of(score: Score, passages: Mapping[str, Passage]) -> list[Passage]:
    if score.num_documents and not score.shown and score.method != "closed_book":
        raise DataError(
            f"the scores of {score.method} do not name the passages shown: the run was made by an "
            "older version; answer again with --overwrite"
        )
    missing = [identity for identity in score.shown if identity not in passages]
    if missing:
        raise DataError(
            f"passages.jsonl, which stands beside the scores, lacks passage {missing[0]} of "
            f"question {score.question!r}"
        )
    return [passages[identity] for identity in score.shown]


def _gold_passages(scores: Sequence[Score]) -> dict[tuple[str, str], set[str]]:
    """The ids of a question's gold passages, from scores whose prompt showed all of its passages:
    a method that picks passages shows others than those that its positions count."""
    gold: dict[tuple[str, str], set[str]] = {}
    for score in scores:
        if len(score.shown) == score.num_documents:
            ids = {score.shown[at] for at in score.gold_positions}
            gold.setdefault((score.dataset, score.example_id), set()).update(ids)
    return gold


def _question_fields(
    score: Score, shown: Sequence[Passage], gold: set[str] | None
) -> dict[str, Any]:
    """Gold by its positions where all passages were shown, else by its ids where they are known."""
    whole = len(shown) == score.num_documents
    documents = []
    for index, (identity, passage) in enumerate(zip(score.shown, shown, strict=True)):
        known = None if gold is None else identity in gold
        documents.append(
            {
                "title": passage.title,
                "text": passage.text,
                "id": identity,
                "score": None,
                "hasanswer": None,
                "isgold": index in score.gold_positions if whole else known,
                "original_retrieval_index": None,
            }
        )
    return {
        "question": score.question,
        "answers": list(score.answers),
        "ctxs": documents,
        "model_documents": documents,
    }


def _key_value_fields(score: Score, shown: Sequence[Passage]) -> dict[str, Any]:
    records = [[passage.title, passage.text] for passage in shown]
    pair = [score.example_id, score.answers[0] if score.answers else ""]
    if pair not in records:
        raise DataError(
            f"question {score.question!r} asks for no key's value; write it with --format litm"
        )
    return {
        "ordered_kv_records": records,
        "key": pair[0],
        "value": pair[1],
        "model_ordered_kv_records": records,
    }


def _model_fields(score: Score, shown: Sequence[Passage], model: str) -> dict[str, Any]:
    example = Example(score.example_id, score.question, score.answers, tuple(shown), ())
    silent = score.abstained and not score.subspan_exact_match
    return {
        "model_prompt": render_prompt(example, Wording()).prompt,
        "model_answer": "" if silent else score.prediction,
        "model": model,
        "model_temperature": 0.0,
        "model_top_p": 1.0,
        "model_prompt_mention_random_ordering": False,
        "model_use_random_ordering": score.passage_order == "shuffled",
    }


def _filed(score: Score) -> dict[str, Any]:
    return {
        "method": score.method,
        "dataset": score.dataset,
        "passage_order": score.passage_order,
        "abstained": score.abstained,
        "completion": score.completion,
    }
