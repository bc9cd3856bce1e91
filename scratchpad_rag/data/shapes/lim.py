"""Lost in the Middle (Liu et al. 2023): multi-document questions and key-value retrieval."""

from __future__ import annotations

from typing import Any

from scratchpad_rag.data.lines import Item
from scratchpad_rag.data.normalise import question_id
from scratchpad_rag.data.shapes.base import answers_of, children, make_example, read_passage
from scratchpad_rag.records import Example, Passage


def from_lost_in_the_middle(item: Item) -> Example:
    """`ctxs` in the order shown, the gold one marked `isgold`."""
    passages = children(item, "ctxs")
    gold = [index for index, child in enumerate(passages) if child.flag("isgold")]
    # The files carry no ids; one made from the question is the same in all five gold_at files.
    identity = question_id(item.text("question"))
    return make_example(item, identity, answers_of(item), map(read_passage, passages), gold)


def from_key_values(item: Item) -> Example:
    """One passage a record (title: the key, text: the value); the gold one holds the key asked for.

    The file has no questions; the one asked is `What is the value of the key "<key>"`.
    """
    key, value = item.text("key"), item.text("value")
    passages = [
        _record(item, number, entry)
        for number, entry in enumerate(item.entries("ordered_kv_records"), 1)
    ]
    at = [index for index, passage in enumerate(passages) if passage.title == key]
    if len(at) != 1:
        times = "not" if not at else f"{len(at)} times"
        raise item.error(f"key {key!r} is {times} among ordered_kv_records; it must be once")
    if passages[at[0]].text != value:
        raise item.error(f"key {key!r} has the value {passages[at[0]].text!r}, not {value!r}")
    return Example(
        key, f'What is the value of the key "{key}"', (value,), tuple(passages), (at[0],)
    )


def _record(item: Item, number: int, entry: Any) -> Passage:
    where = f"ordered_kv_records {number}"
    if not (isinstance(entry, list) and len(entry) == 2):
        raise item.error(f"{where}: must be [key, value]")
    key = item.checked_text(entry[0], f"{where}: the key")
    return Passage(key, item.checked_text(entry[1], f"{where}: the value"))
