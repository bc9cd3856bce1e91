"""What is shown of a completion that still comes is never taken back."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.prompts.growing import GrowingReading, Grown
from scratchpad_rag.prompts.parse import parse_completion
from scratchpad_rag.prompts.template import NO_SUPPORT, format_passage, restated_question
from scratchpad_rag.records import Example, Method, Passage, Quote, Reading

BRIDGE = Passage("Bridge", "The bridge was built in 1895. It stands by the river.")
TOWN = Passage("Town", "The town lies by the river.\n\nIt is old.")
EXAMPLE = Example("q", "when was it built", ("1895",), (TOWN, BRIDGE), (1,))
ASKED = restated_question(EXAMPLE.question)


def grow(*texts: str, example: Example = EXAMPLE) -> Grown:
    reading = GrowingReading(example, Method.SCRATCHPAD)
    for text in texts[:-1]:
        reading.add(text)
    return reading.add(texts[-1])


class TestQuotes:
    def test_a_quote_grows_in_its_passage(self) -> None:
        assert grow(" Docu") == grow("", " Document (Title: Br") == Grown()
        [quote] = grow(" Document (Title: Bridge) The bridge was").quotes
        assert quote == Quote("The bridge was", "Bridge", 1, 0, 14, verbatim=True)

    def test_one_that_begins_with_a_later_sentence(self) -> None:
        [quote] = grow("Document (Title: Bridge) It stands").quotes
        assert quote == Quote("It stands", "Bridge", 1, 30, 39, verbatim=True)

    def test_is_held_back_while_it_may_stand_at_two_places(self) -> None:
        twins = (Passage("Twin", "The same. The same, here."), Passage("Twin", "The same, there."))
        example = Example("q", "where", (), twins, ())
        head = "Document (Title: Twin) The same"
        assert grow(head, example=example) == Grown()
        assert grow(head, ". T", example=example).quotes[0].passage == 0
        [quote] = grow(head, ", t", example=example).quotes
        assert quote == Quote("The same, t", "Twin", 1, 0, 11, verbatim=True)

    def test_the_first_of_equal_passages_is_the_source(self) -> None:
        example = Example("q", "where", (), (TOWN, BRIDGE, BRIDGE), ())
        [quote] = grow("Document (Title: Bridge) The bri", example=example).quotes
        assert (quote.passage, quote.start, quote.end) == (1, 0, 7)

    def test_a_slip_keeps_the_place_where_it_was_word_for_word(self) -> None:
        [quote] = grow("Document (Title: Bridge) The bridge was opened").quotes
        assert quote == Quote("The bridge was opened", "Bridge", 1, 0, 15, verbatim=False)

    def test_an_invented_one_has_no_place(self) -> None:
        [quote] = grow("Document (Title: Atlantis) Lost for good.").quotes
        assert quote == Quote("Lost for good.", "Atlantis", None, 0, 0, verbatim=False)

    def test_a_blank_line_within_a_passage_ends_nothing(self) -> None:
        text = format_passage(TOWN)
        assert grow(text[:-12]).quotes[0].end == len(TOWN.text) - 12
        assert grow(text).quotes == (Quote(TOWN.text, "Town", 0, 0, 39, verbatim=True),)

    def test_a_passage_within_a_longer_one_waits_until_it_is_known_which(self) -> None:
        passages = (Passage("A", "It is old."), Passage("A", "It is old. It is high."))
        example = Example("q", "where", (), passages, ())
        head = "Document (Title: A) It is old."
        assert grow(head, " It is hi", example=example) == Grown()
        assert [q.passage for q in grow(head, " It is high.\n", example=example).quotes] == [1]
        assert [q.passage for q in grow(head, " So", example=example).quotes] == [0, None]

    def test_several(self) -> None:
        text = f" {format_passage(BRIDGE)}\n\n{format_passage(TOWN)}"
        assert [quote.end for quote in grow(text[:-5]).quotes] == [len(BRIDGE.text), 34]


class TestAnswer:
    def test_grows_behind_its_label(self) -> None:
        head = f" {format_passage(BRIDGE)}{ASKED}"
        for cut in range(1, len(ASKED) + 1):
            grown = grow(head[:-cut])
            assert grown.quotes[0].text == BRIDGE.text
            assert not grown.answering
        assert grow(head) == grow(head + " ") == Grown(grow(head).quotes, "", answering=True)
        assert grow(head, " in 18").answer == "in 18"
        assert grow(head, " in 1895\n\nQuestion: And").answer == "in 1895"

    def test_is_held_back_behind_a_label_that_is_not_the_formats(self) -> None:
        grown = grow(f" {format_passage(BRIDGE)}\nAnswer: 1895")
        assert (grown.answer, grown.answering) == ("", False)
        assert [quote.text for quote in grown.quotes] == [BRIDGE.text]

    def test_of_one_that_does_not_quote_is_the_text(self) -> None:
        reading = GrowingReading(EXAMPLE, None)
        assert reading.add(" In 1") == Grown((), "In 1", answering=True)
        assert reading.add("895.\nAnd").answer == "In 1895."

    def test_abstaining_is_no_quote(self) -> None:
        for cut in range(1, len(NO_SUPPORT) + 1):
            assert grow(f" {NO_SUPPORT}"[: cut + 1]) == Grown()
        assert grow(f" {NO_SUPPORT}{ASKED} un") == Grown((), "un", answering=True, abstained=True)
        assert grow(f" {NO_SUPPORT} Or").quotes[0].text == f"{NO_SUPPORT} Or"


def is_beginning(grown: Grown, reading: Reading) -> bool:
    """Whether what was shown of a completion is a beginning of what it became."""
    if not reading.answer.startswith(grown.answer) or len(grown.quotes) > len(reading.quotes):
        return False
    if grown.abstained and not reading.abstained:
        return False
    pairs = list(zip(grown.quotes, reading.quotes, strict=False))
    return all(shown == became for shown, became in pairs[:-1]) and all(
        shown.title == became.title
        and became.text.startswith(shown.text)
        and (shown.verbatim or not became.verbatim)
        and (not became.verbatim or within(shown, became))
        for shown, became in pairs
    )


def within(shown: Quote, became: Quote) -> bool:
    return (shown.passage, shown.start) == (
        became.passage,
        became.start,
    ) and shown.end <= became.end


# Passages that hold one another, the format's own words, and titles that end like heads.
_A = Passage("A", "B) a b")
_HARD = (
    _A,
    Passage("A) B", "a b c"),
    Passage("A", "a b"),
    Passage("A", f"a b{restated_question('q')} c"),
    Passage("A", "a b. c a b. "),
    Passage("T", f"a\n\n{format_passage(_A)}"),
    Passage("T", f"a\n\n{format_passage(_A)}\n\nc"),
    Passage("T", "a\n\nAnswer: b"),
    Passage("T", "c a b a"),
    _A,
)
_BITS = st.sampled_from(
    [
        *map(format_passage, _HARD),
        *(format_passage(passage)[:-2] for passage in _HARD),
        restated_question("q"),
        restated_question("q")[:-3],
        NO_SUPPORT,
        "Document (Title: A) ",
        "Document (Title: X) a b",
        "Document (Title: A",
        "Answer:",
        "\nAnswer:",
        "\n\n",
        "\n",
        " ",
        "a b",
        "c",
        "unanswerable",
    ]
)


@given(
    passages=st.lists(st.sampled_from(_HARD), min_size=1, max_size=5),
    bits=st.lists(_BITS, max_size=7),
    cuts=st.lists(st.integers(0, 300), max_size=8),
    method=st.sampled_from([Method.SCRATCHPAD, Method.SCRATCHPAD, Method.SFT, None]),
    parted=st.booleans(),
)
def test_whatever_comes_nothing_is_taken_back(
    passages: list[Passage], bits: list[str], cuts: list[int], method: Method | None, parted: bool
) -> None:
    example = Example("q", "q", (), tuple(passages), ())
    text = ("\n\n" if parted else "").join(bits)
    reading = parse_completion(text, example, method)
    growing = GrowingReading(example, method)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    before = Grown()
    for start, end in itertools.pairwise(places):
        grown = growing.add(text[start:end])
        assert is_beginning(grown, reading)
        assert len(grown.quotes) >= len(before.quotes)
        assert grown.answer.startswith(before.answer)
        before = grown


@pytest.mark.parametrize("size", [1, 3, 17])
def test_the_whole_is_shown_when_the_format_is_kept(size: int) -> None:
    text = f" {format_passage(BRIDGE)}\n\n{format_passage(TOWN)}{ASKED} 1895"
    reading = parse_completion(text, EXAMPLE, Method.SCRATCHPAD)
    growing = GrowingReading(EXAMPLE, Method.SCRATCHPAD)
    for start in range(0, len(text), size):
        grown = growing.add(text[start : start + size])
    assert (grown.quotes, grown.answer) == (reading.quotes, reading.answer)
