"""Questions and documents that are given in a call."""

from __future__ import annotations

from typing import Any

import pytest

from scratchpad_rag.data.given import make_example
from scratchpad_rag.errors import UserError
from scratchpad_rag.records import Passage

BRIDGE = "The bridge was built in 1895. It stands by the river."
TOWN = "The town lies by the river."


class TestMakeExample:
    def test_every_kind_of_document(self) -> None:
        example = make_example(
            "who", [BRIDGE, ("Town", TOWN), Passage("", "Ada."), {"text": "Ida.", "title": None}]
        )
        assert example.passages == (
            Passage("Document 1", BRIDGE),
            Passage("Town", TOWN),
            Passage("Document 3", "Ada."),
            Passage("Document 4", "Ida."),
        )
        assert example.question == "who"
        assert example.answers == ()

    def test_a_title_becomes_one_line_and_a_text_stays_as_it_is(self) -> None:
        passage = make_example("who", [("A\n title", " two\n\nparts ")]).passages[0]
        assert passage == Passage("A title", " two\n\nparts ")

    @pytest.mark.parametrize(
        ("documents", "message"),
        [
            ("a text", "documents must be a list of documents, not 'a text'"),
            ({"text": "a"}, "documents must be a list"),
            (None, "documents must be a list of documents, not None"),
            ([""], "document 1: field 'text' is empty"),
            (["a", 7], "document 2 is 7; it must be a text"),
            ([("a", "b", "c")], "document 1 is"),
            ([("a", None)], "document 1: field 'text' must be a string, not null"),
            ([{"title": "a"}], "document 1: field 'text' is missing"),
            ([(5, "b")], "document 1: field 'title' must be a string, not a number"),
            (["half \ud83d"], "document 1: field 'text' holds half a character"),
        ],
    )
    def test_bad_documents_are_refused_in_one_line(self, documents: Any, message: str) -> None:
        with pytest.raises(UserError) as caught:
            make_example("who", documents)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("question", ["", "  \n", "?", " ?? ", None, 7])
    def test_bad_questions_are_refused(self, question: Any) -> None:
        with pytest.raises(UserError, match="question"):
            make_example(question, ["a"])
