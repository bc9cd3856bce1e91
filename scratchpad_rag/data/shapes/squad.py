"""SQuAD 1.1 (Rajpurkar et al. 2016): paragraphs of articles with questions about each.

A question's gold passage is its paragraph, its distractors are the other paragraphs of the same
article in their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scratchpad_rag.data.lines import Item
from scratchpad_rag.data.shapes.base import Row, answers_of
from scratchpad_rag.records import Example, Passage


def read_squad(items: Iterator[Item]) -> Iterator[Row]:
    """The official file: one object of `data`, a list of articles."""
    for whole in items:
        for article in whole.items("data"):
            yield from _read_article(article)


def _read_article(article: Item) -> Iterator[Row]:
    paragraphs = article.items("paragraphs")
    title = _title(article)
    passages = [Passage(title, paragraph.text("context")) for paragraph in paragraphs]
    others = list(dict.fromkeys(passages))
    for passage, paragraph in zip(passages, paragraphs, strict=True):
        for question in paragraph.items("qas"):
            answers = [answer.text("text") for answer in question.items("answers")]
            yield _row(question, answers, passage, others)


def read_squad_rows(items: Iterator[Item]) -> Iterator[Row]:
    """The Hub's copy: a row a question, with its paragraph and the article's title; rows of an
    article need not follow one another."""
    rows = list(items)
    articles: dict[str, dict[Passage, None]] = {}
    passages = [Passage(_title(row), row.text("context")) for row in rows]
    for passage in passages:
        articles.setdefault(passage.title, {})[passage] = None
    listed = {title: list(article) for title, article in articles.items()}
    for passage, row in zip(passages, rows, strict=True):
        texts = Item(row.fields["answers"], f"{row.where}: answers").texts("text")
        yield _row(row, texts, passage, listed[passage.title])


def _title(item: Item) -> str:
    return item.text("title").replace("_", " ")


def _row(item: Item, answers: Sequence[str], gold: Passage, article: Sequence[Passage]) -> Row:
    if item.fields.get("is_impossible") is True:
        raise item.error("the question is impossible (SQuAD 2.0); version 1.1 is read here")
    answered = Item({**item.fields, "answers": list(dict.fromkeys(answers))}, item.where)
    passages = (gold, *(passage for passage in article if passage != gold))
    question = item.text("question")
    example = Example(item.text("id"), question, answers_of(answered), passages, (0,))
    return Row(item, example)
