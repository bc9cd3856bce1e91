"""Questions that need several passages: HotpotQA, 2WikiMultihopQA (the same shape) and MuSiQue."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from scratchpad_rag.data.lines import Item, json_type
from scratchpad_rag.data.normalise import question_id
from scratchpad_rag.data.shapes.base import children, make_example
from scratchpad_rag.records import Example, Passage


def from_hotpotqa(item: Item) -> Example:
    """HotpotQA (Yang et al. 2018) and 2WikiMultihopQA (Ho et al. 2020).

    Gold passages stand in the order of the supporting facts, which is that of the reasoning, and
    the sentences that the facts name are kept.
    In the fullwiki setting the paragraphs were retrieved: gold ones that were not found are not
    marked but counted in `gold_total`, and `context` may even be empty. The copies on the Hub hold
    `context` and `supporting_facts` by columns, and `id`; they are read too.
    """
    context = _rows(item, "context", ("title", "sentences"))
    passages = [_paragraph(item, number, entry) for number, entry in enumerate(context, 1)]
    titles = [passage.title for passage in passages]
    facts = _rows(item, "supporting_facts", ("title", "sent_id"))
    wanted = dict.fromkeys(_fact_title(item, number, fact) for number, fact in enumerate(facts, 1))
    for title in wanted:
        if titles.count(title) > 1:
            raise item.error(f"gold title {title!r} occurs twice in the context")
    gold = [titles.index(title) for title in wanted if title in titles]
    answers = (item.text("answer"),)
    example = make_example(item, _identity(item), answers, passages, gold, len(wanted))
    return replace(example, support=_marked(context, facts))


def _marked(context: list[Any], facts: list[Any]) -> tuple[str, ...]:
    """The supporting sentences; some facts of HotpotQA name sentences that there are not."""
    sentences = dict(context)
    found = [
        sentences[title][number].strip()
        for title, number in (fact[:2] for fact in facts if len(fact) > 1)
        if type(number) is int and 0 <= number < len(sentences.get(title, ()))
    ]
    return tuple(dict.fromkeys(sentence for sentence in found if sentence))


def _identity(item: Item) -> str:
    for key in ("_id", "id"):
        # Copies of the sets on the Hub have questions whose id is the text "None".
        if item.has(key) and item.fields[key] != "None":
            return item.text(key)
    return question_id(item.text("question"))


def _rows(item: Item, key: str, columns: tuple[str, str]) -> list[Any]:
    """A list of pairs, which may come as one object of two columns."""
    if not isinstance(item.fields.get(key), dict):
        return item.entries(key)
    table = Item(item.fields[key], f"{item.where}: {key}")
    left, right = (table.entries(column) for column in columns)
    if len(left) != len(right):
        raise table.error(f"{len(left)} of {columns[0]!r} and {len(right)} of {columns[1]!r}")
    return [list(pair) for pair in zip(left, right, strict=True)]


def _fact_title(item: Item, number: int, fact: Any) -> str:
    if not (isinstance(fact, list) and fact and isinstance(fact[0], str)):
        raise item.error(f"supporting_facts {number}: must be [title, sentence number]")
    return fact[0]


def _paragraph(item: Item, number: int, entry: Any) -> Passage:
    where = f"context {number}"
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


def from_musique(item: Item) -> Example:
    """MuSiQue (Trivedi et al. 2022): gold passages in the order of the question's decomposition.

    Supporting paragraphs that no step names follow in the order of the file. A step whose paragraph
    is not there (null) counts in `gold_total`. A question marked unanswerable has no gold passage,
    whatever supports a part of it; in MuSiQue-Full it shares its id with the answerable one, so
    `-unanswerable` is added.
    """
    paragraphs = children(item, "paragraphs")
    passages = [Passage(child.text("title"), child.text("paragraph_text")) for child in paragraphs]
    number_of = {_number(child, at): at for at, child in enumerate(paragraphs)}
    steps = item.items("question_decomposition") if item.has("question_decomposition") else []
    named = [_step(step, number_of) for step in steps]
    marked = [at for at, child in enumerate(paragraphs) if child.flag("is_supporting")]
    gold = list(dict.fromkeys([*(at for at in named if at is not None), *marked]))
    total = len(gold) + named.count(None)
    identity = item.text("id")
    if item.has("answerable") and not item.flag("answerable"):
        gold, identity = [], f"{identity}-unanswerable"
    aliases = item.texts("answer_aliases") if item.has("answer_aliases") else ()
    answers = tuple(dict.fromkeys((item.text("answer"), *aliases)))
    return make_example(item, identity, answers, passages, gold, total)


def _number(paragraph: Item, at: int) -> int:
    number = paragraph.fields.get("idx", at)
    if type(number) is not int:
        raise paragraph.error(f"field 'idx' must be a number, not {json_type(number)}")
    return number


def _step(step: Item, number_of: dict[int, int]) -> int | None:
    number = step.fields.get("paragraph_support_idx")
    if number is None:
        return None
    if type(number) is not int or number not in number_of:
        raise step.error(f"paragraph_support_idx {number!r} is not the idx of a paragraph")
    return number_of[number]
