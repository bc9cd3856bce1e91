"""One JSON object -> one Example, for every shape of question file that is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from scratchpad_rag.data.lines import Item, json_type
from scratchpad_rag.data.normalise import question_id
from scratchpad_rag.records import Example, Passage


def reader_for(item: Item) -> Callable[[Item], Example]:
    """How to read a file whose first object is `item`; DataError if no shape fits."""
    for key, reader in _SHAPES.items():
        if key in item.fields:
            return reader
    raise item.error(
        "unknown shape of file; known are our own (field 'passages'), Lost in the Middle ('ctxs'),"
        " HotpotQA ('supporting_facts'), and a folder of passages.jsonl and questions.jsonl (.gz)"
    )


def _from_inline(item: Item) -> Example:
    passages = _children(item, "passages")
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
    return _example(item, item.text("id"), _answers(item), map(read_passage, passages), gold)


def _gold_mark(item: Item) -> bool | int | None:
    """None for a distractor, True for a gold passage, or its number in the order of reasoning."""
    mark = item.fields.get("gold", False)
    if not isinstance(mark, int) or (not isinstance(mark, bool) and mark < 1):
        raise item.error(f"field 'gold' must be true, false or a number from 1, not {mark!r}")
    return None if mark is False else mark


def _from_lost_in_the_middle(item: Item) -> Example:
    passages = _children(item, "ctxs")
    gold = [index for index, child in enumerate(passages) if child.flag("isgold")]
    # The files carry no ids; one made from the question is the same in all five gold_at files.
    identity = question_id(item.text("question"))
    return _example(item, identity, _answers(item), map(read_passage, passages), gold)


def _from_hotpotqa(item: Item) -> Example:
    """Gold passages stand in the order of the supporting facts, which is that of the reasoning.

    In the fullwiki setting the paragraphs were retrieved: gold ones that were not found are not
    marked, and `context` may even be empty.
    """
    passages = [_paragraph(item, number) for number in range(len(item.entries("context")))]
    gold: list[int] = []
    titles = [passage.title for passage in passages]
    for number, fact in enumerate(item.entries("supporting_facts"), 1):
        if not (isinstance(fact, list) and fact and isinstance(fact[0], str)):
            raise item.error(f"supporting_facts {number}: must be [title, sentence number]")
        if titles.count(fact[0]) > 1:
            raise item.error(f"gold title {fact[0]!r} occurs twice in the context")
        if fact[0] in titles and titles.index(fact[0]) not in gold:
            gold.append(titles.index(fact[0]))
    # Copies of the sets on the Hub have questions whose id is the text "None".
    named = item.has("_id") and item.fields["_id"] != "None"
    identity = item.text("_id") if named else question_id(item.text("question"))
    return _example(item, identity, (item.text("answer"),), passages, gold)


def _paragraph(item: Item, number: int) -> Passage:
    entry = item.fields["context"][number]
    where = f"context {number + 1}"
    if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], list)):
        raise item.error(f"{where}: must be [title, [sentences]]")
    for sentence in entry[1]:
        if not isinstance(sentence, str):
            raise item.error(f"{where}: a sentence must be a string, not {json_type(sentence)}")
    text = item.checked_text(join_sentences(entry[1]), f"{where}: the text")
    return Passage(item.checked_text(entry[0], f"{where}: the title"), text)


def join_sentences(sentences: Iterable[str]) -> str:
    """Sentences as running text; those of HotpotQA mostly bring their own leading space.

    Where they do not, a space goes between, but not inside quotation marks or before a full stop
    that the sentence splitter tore off.

    >>> join_sentences(["One.", " Two.", "Three."])
    'One. Two. Three.'
    >>> join_sentences(['They made "Pool It!', '" in 1987.'])
    'They made "Pool It!" in 1987.'
    """
    text = ""
    for sentence in sentences:
        in_quotes = text.count('"') % 2 == 1
        torn_off = in_quotes and (sentence.startswith('"') or text.endswith('"'))
        if not text or not sentence or sentence[0].isspace() or sentence[0] in ".,;:)]" or torn_off:
            text += sentence
        else:
            text += " " + sentence
    return text.strip()


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
    passages = (pool[identity] for identity in gold + distractors)
    return _example(item, item.text("id"), _answers(item), passages, range(len(gold)))


def _example(
    item: Item,
    identity: str,
    answers: tuple[str, ...],
    passages: Iterable[Passage],
    gold: Iterable[int],
) -> Example:
    return Example(identity, item.text("question"), answers, tuple(passages), tuple(gold))


def read_passage(item: Item) -> Passage:
    """An object of `title` and `text`; both must hold something."""
    return Passage(item.text("title"), item.text("text"))


def _children(item: Item, key: str) -> list[Item]:
    children = item.items(key)
    if not children:
        raise item.error(f"the question has no passages (field {key!r} is empty)")
    return children


def _answers(item: Item) -> tuple[str, ...]:
    answers = item.texts("answers")
    if not answers:
        raise item.error("the question has no answers")
    return answers


_SHAPES: dict[str, Callable[[Item], Example]] = {
    "ctxs": _from_lost_in_the_middle,
    "supporting_facts": _from_hotpotqa,
    "passages": _from_inline,
}
