"""Our own formats: a question with its passages beside it, or with their ids in a pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from scratchpad_rag.data.lines import Item
from scratchpad_rag.data.shapes.base import answers_of, children, make_example, read_passage
from scratchpad_rag.records import Example, Passage


def from_inline(item: Item) -> Example:
    """`passages`, best first; gold ones are marked `true` or with their number of reasoning."""
    passages = children(item, "passages")
    marks = [_gold_mark(child) for child in passages]
    numbered = [mark for mark in marks if mark is not None and mark is not True]
    if numbered and len(numbered) < sum(mark is not None for mark in marks):
        raise item.error("field 'gold' must be true in all gold passages or a number in all")
    if len(set(numbered)) < len(numbered):
        raise item.error("two gold passages carry the same number in field 'gold'")
    gold = sorted(  # stable: `true` everywhere keeps the order of the passages
        (index for index, mark in enumerate(marks) if mark is not None),
        key=lambda index: int(marks[index] or 0),
    )
    holding = tuple(at for at, child in enumerate(passages) if child.flag("holds_answer"))
    if set(holding) & set(gold):
        raise item.error("field 'holds_answer' is for passages that are not gold")
    example = _example(item, tuple(map(read_passage, passages)), tuple(gold))
    return replace(example, also_hold=holding)


def from_compact(item: Item, pool: Mapping[str, Passage]) -> Example:
    """A question that names its passages by their ids in `pool`: gold first, then distractors."""
    gold, distractors = item.texts("gold"), item.texts("distractors")
    if not gold and not distractors:
        raise item.error("the question has no passages")
    seen: set[str] = set()
    for identity in gold + distractors:
        if identity not in pool:
            raise item.error(f"passage {identity!r} is not among the passages of the folder")
        if identity in seen:
            raise item.error(f"passage {identity!r} is named twice in 'gold' and 'distractors'")
        seen.add(identity)
    passages = tuple(pool[identity] for identity in gold + distractors)
    return _example(item, passages, tuple(range(len(gold))))


def _example(item: Item, passages: tuple[Passage, ...], gold: tuple[int, ...]) -> Example:
    total = item.fields.get("gold_total")
    if total is not None and (type(total) is not int or total < len(gold)):
        raise item.error(
            f"field 'gold_total' must be a number from {len(gold)}, the gold passages marked,"
            f" not {total!r}"
        )
    example = make_example(item, item.text("id"), answers_of(item), passages, gold, total)
    return replace(example, support=item.texts("support") if item.has("support") else ())


def _gold_mark(item: Item) -> bool | int | None:
    """None for a distractor, True for a gold passage, or its number in the order of reasoning."""
    mark = item.fields.get("gold", False)
    if not isinstance(mark, int) or (not isinstance(mark, bool) and mark < 1):
        raise item.error(f"field 'gold' must be true, false or a number from 1, not {mark!r}")
    return None if mark is False else mark
