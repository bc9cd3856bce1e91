"""A question and documents that are given in a call, or a file of one's own -> Example, Passage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scratchpad_rag.data.lines import Item, json_type
from scratchpad_rag.errors import UserError
from scratchpad_rag.records import Example, Passage

Document = str | tuple[str, str] | Passage | Mapping[str, Any]


def make_example(question: str, documents: Iterable[Document] = ()) -> Example:
    """A question of one's own with the documents it is asked of; it has no known answer.

    >>> make_example("Who?", ["It was Ida.", ("Marren", "A town.")]).passages
    (Passage(title='Document 1', text='It was Ida.'), Passage(title='Marren', text='A town.'))
    """
    if isinstance(documents, str | Mapping | Passage) or not isinstance(documents, Iterable):
        raise UserError(f"documents must be a list of documents, not {documents!r:.40}")
    asked = Item({"question": question}, "the question to answer").text("question")
    if not asked.strip(" ?\t\n"):
        raise UserError("the question to answer is empty")
    passages = tuple(_as_passage(document, n) for n, document in enumerate(documents, start=1))
    return Example("question", asked, (), passages, ())


def _as_passage(document: Document, number: int) -> Passage:
    where, untitled = f"document {number}", f"Document {number}"
    if isinstance(document, str):
        return passage_from(Item({"text": document}, where), untitled)
    if isinstance(document, Passage):
        return passage_from(Item({"title": document.title, "text": document.text}, where), untitled)
    if isinstance(document, Mapping):
        return passage_from(Item(dict(document), where), untitled)
    if isinstance(document, tuple | list) and len(document) == 2:
        return passage_from(Item({"title": document[0], "text": document[1]}, where), untitled)
    raise UserError(
        f"{where} is {document!r:.40}; it must be a text, a pair of title and text, a Passage or a "
        "mapping with 'title' and 'text'"
    )


def passage_from(item: Item, untitled: str) -> Passage:
    """A passage from an object with `text` and perhaps `title`; else it is called `untitled`.

    The text is kept letter for letter, so that the characters of quotes count in it; line breaks
    in the title, which is one line of the prompt, become spaces. Raises DataError.
    """
    text = item.text("text")
    title = item.fields.get("title")
    if title is None or (isinstance(title, str) and not title.strip()):
        return Passage(untitled, text)
    if not isinstance(title, str):
        raise item.error(f"field 'title' must be a string, not {json_type(title)}")
    return Passage(" ".join(item.text("title").split()), text)
