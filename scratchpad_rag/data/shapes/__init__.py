"""Every shape of question file that is known: its first object tells which one a file has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from scratchpad_rag.data.lines import Item
from scratchpad_rag.data.shapes import dpr, squad
from scratchpad_rag.data.shapes.base import GoldName, Reader, Row, each, read_passage
from scratchpad_rag.data.shapes.inline import from_compact, from_inline
from scratchpad_rag.data.shapes.lim import from_key_values, from_lost_in_the_middle
from scratchpad_rag.data.shapes.multihop import from_hotpotqa, from_musique, join_sentences
from scratchpad_rag.data.shapes.table import each_row, from_kilt, from_table

__all__ = ["GoldName", "Row", "from_compact", "join_sentences", "read_passage", "read_rows"]

Fields = Mapping[str, Any]


class _Shape(NamedTuple):
    name: str
    fits: Callable[[Fields], bool]
    read: Reader


def read_rows(items: Iterator[Item]) -> Iterator[Row]:
    """The examples of a file's objects; DataError if no shape fits the first of them."""
    first = next(items)
    for shape in _SHAPES:
        if shape.fits(first.fields):
            return shape.read(chain([first], items))
    known = ", ".join(dict.fromkeys(shape.name for shape in _SHAPES))
    raise first.error(
        f"unknown shape of file; known are {known},"
        " and a folder of passages.jsonl and questions.jsonl (.gz)"
    )


def _has(*keys: str) -> Callable[[Fields], bool]:
    return lambda fields: all(key in fields for key in keys)


def _is_dpr_retrieved(fields: Fields) -> bool:
    """Lost in the Middle marks `isgold` and writes `hasanswer`, DPR's readers `has_answer`."""
    passages = fields.get("ctxs")
    return isinstance(passages, list) and any(
        isinstance(passage, dict) and "has_answer" in passage and "isgold" not in passage
        for passage in passages
    )


def _is_squad_row(fields: Fields) -> bool:
    return isinstance(fields.get("context"), str) and isinstance(fields.get("answers"), dict)


_OWN = "our own (field 'passages')"
_DPR = "DPR's ('positive_ctxs', or 'ctxs' with 'has_answer')"
_LIM = "Lost in the Middle's ('ctxs', 'ordered_kv_records')"
_HOTPOT = "HotpotQA and 2WikiMultihopQA ('supporting_facts')"
_SQUAD = "SQuAD ('data')"
_TABLE = "a table ('question', 'answers')"
_SHAPES = (  # the first that fits
    _Shape(_OWN, _has("passages"), each(from_inline)),
    _Shape(_LIM, _has("ordered_kv_records"), each(from_key_values)),
    _Shape(_DPR, _has("positive_ctxs"), dpr.read_training),
    _Shape(_DPR, _is_dpr_retrieved, dpr.read_retrieved),
    _Shape(_LIM, _has("ctxs"), each(from_lost_in_the_middle)),
    _Shape(_HOTPOT, _has("supporting_facts"), each(from_hotpotqa)),
    _Shape("MuSiQue ('paragraphs')", _has("paragraphs", "question"), each(from_musique)),
    _Shape(_SQUAD, _has("data"), squad.read_squad),
    _Shape(_SQUAD, _is_squad_row, squad.read_squad_rows),
    _Shape("KILT ('input', 'output')", _has("input", "output"), each_row(from_kilt)),
    _Shape(_TABLE, _has("question", "answers"), each_row(from_table)),
    _Shape(_TABLE, _has("question", "answer"), each_row(from_table)),
)
