"""Questions without their passages, which are found in a corpus: a user's own table, and KILT."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from scratchpad_rag.data.lines import Item
from scratchpad_rag.data.normalise import question_id
from scratchpad_rag.data.shapes.base import (
    GoldName,
    Reader,
    Row,
    answers_in_text,
    answers_of,
    make_example,
)
from scratchpad_rag.records import Passage

SEPARATOR = "|"


def each_row(read: Callable[[Item], Row]) -> Reader:
    """A reader of files whose every object is one question."""

    def reader(items: Iterator[Item]) -> Iterator[Row]:
        return map(read, items)

    return reader


def from_table(item: Item) -> Row:
    """A row of `question` and `answers` (or `answer`), and what it may have besides: `id`, `split`,
    `gold`.

    Answers are a list, or one string with `|` between them; so is `gold`, whose entries are titles,
    names of files or whole passages of the corpus. Without `id` one is made from the question.
    """
    key = "answers" if item.has("answers") or not item.has("answer") else "answer"
    answers = answers_in_text(item, key, SEPARATOR)
    identity = str(item.fields["id"]) if type(item.fields.get("id")) is int else ""
    if not identity:
        identity = item.text("id") if item.has("id") else question_id(item.text("question"))
    names = answers_in_text(item, "gold", SEPARATOR) if _given(item, "gold") else ()
    example = make_example(item, identity, answers, (), ())
    return Row(item, example, tuple(GoldName(name) for name in names))


def _given(item: Item, key: str) -> bool:
    return item.has(key) and item.fields[key] != []


def from_kilt(item: Item) -> Row:
    """KILT (Petroni et al. 2021): `input`, and `output` of answers with their provenance.

    Every output is one acceptable answer. Gold is what the first output with a provenance names,
    in its order: the pages by title, and in `meta.evidence_span` what the passage holds. Provenance
    that carries its `text` needs no corpus: those texts are the question's passages, all gold.
    """
    question = Item({**item.fields, "question": item.text("input")}, item.where)
    outputs = item.items("output")
    given = [output.text("answer") for output in outputs if output.has("answer")]
    answers = answers_of(Item({**item.fields, "answers": list(dict.fromkeys(given))}, item.where))
    sources = next(
        (output.items("provenance") for output in outputs if output.fields.get("provenance")), []
    )
    identity = str(item.fields["id"]) if type(item.fields.get("id")) is int else item.text("id")
    if sources and all(source.has("text") for source in sources):
        texts = dict.fromkeys(Passage(s.text("title"), s.text("text")) for s in sources)
        example = make_example(question, identity, answers, texts, range(len(texts)))
        return Row(question, example)
    evidence: dict[str, list[str]] = {}
    for source in sources:
        spans = source.fields.get("meta") or {}
        found = spans.get("evidence_span", []) if isinstance(spans, dict) else []
        evidence.setdefault(source.text("title"), []).extend(
            span for span in found if isinstance(span, str)
        )
    names = tuple(GoldName(title, tuple(spans)) for title, spans in evidence.items())
    return Row(question, make_example(question, identity, answers, (), ()), names)
