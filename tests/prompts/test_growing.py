"""A completion that is still coming: what is shown of it, and that it ends in the Reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.prompts.growing import SoFar, read_so_far
from scratchpad_rag.prompts.parse import parse_completion
from scratchpad_rag.prompts.render import render_sample
from scratchpad_rag.prompts.template import (
    NO_SUPPORT,
    Wording,
    format_passage,
    restated_question,
)
from scratchpad_rag.records import Example, Method, Passage, Quote, Reading, ScratchpadForm

MARREN = Passage("Marren", "A town by a river. It has a mill.")
MILL = Passage("Mill (Marren)", "Built in 1895.\n\nIt stands.")
EXAMPLE = Example("q", "when was the mill built", ("1895",), (MARREN, MILL), (1,))
WHOLE = (
    " Document (Title: Mill (Marren)) Built in 1895.\n\nIt stands.\n\n"
    "Question: When was the mill built?\n\nAnswer: 1895"
)


def grown(length: int, text: str = WHOLE) -> SoFar:
    return read_so_far(text[:length], EXAMPLE, Method.SCRATCHPAD)


def quote(text: str, number: int = 1) -> Quote:
    return Quote(text, EXAMPLE.passages[number].title, number, 0, len(text), verbatim=True)


def test_nothing_is_told_before_the_title_is_whole() -> None:
    assert grown(0) == SoFar()
    assert grown(len(" Document (Title: Mill (Marr")) == SoFar()


def test_a_title_names_its_passage_before_any_of_its_text() -> None:
    assert grown(len(" Document (Title: Mill (Marren))")).quotes == (quote(""),)


def test_a_quote_grows_letter_by_letter() -> None:
    assert grown(len(" Document (Title: Mill (Marren)) Built in")).quotes == (quote("Built in"),)


def test_a_blank_line_of_the_passage_is_shown_once_it_cannot_be_the_format_s() -> None:
    head = " Document (Title: Mill (Marren)) "
    assert grown(len(head + "Built in 1895.\n\n")).quotes == (quote("Built in 1895."),)
    assert grown(len(head + "Built in 1895.\n\nIt")).quotes == (quote("Built in 1895.\n\nIt"),)


def test_the_restated_question_is_never_shown_as_quoted() -> None:
    for length in range(WHOLE.index("Question"), WHOLE.index("Answer:") + len("Answer:")):
        assert grown(length).quotes == (quote(MILL.text),), WHOLE[:length]


def test_the_answer_comes_behind_the_last_label() -> None:
    assert not grown(WHOLE.index("Answer:")).answering
    assert grown(len(WHOLE) - 2) == SoFar((quote(MILL.text),), "18", answering=True)
    assert grown(len(WHOLE)) == SoFar((quote(MILL.text),), "1895", answering=True)


def test_the_sentence_that_abstains_is_no_quote() -> None:
    text = f" {NO_SUPPORT}{restated_question(EXAMPLE.question)} unanswerable"
    for length in range(len(text)):
        assert grown(length, text).quotes == ()
    assert grown(len(text), text) == SoFar((), "unanswerable", answering=True)


def test_what_departs_from_the_passage_is_not_verbatim() -> None:
    text = " Document (Title: Marren) A town by a lake. It has"
    [departed] = grown(len(text), text).quotes
    assert (departed.passage, departed.verbatim) == (0, False)


def test_a_reader_that_quotes_nothing_answers_from_the_first_letter() -> None:
    assert read_so_far(" 189", EXAMPLE, None) == SoFar((), "189", answering=True)


TEXTS = st.text("ab .\n", min_size=1, max_size=30).map(lambda text: f"X{text}X")
CONTEXTS = st.lists(TEXTS, min_size=1, max_size=4).map(
    lambda texts: tuple(Passage(f"{n} town", text) for n, text in enumerate(texts))
)


@given(CONTEXTS, st.data())
def test_every_beginning_is_a_beginning_of_the_reading(
    passages: tuple[Passage, ...], data: st.DataObject
) -> None:
    """Copies of whole passages only ever grow, however the text is cut, and end as it is parsed."""
    quoted = data.draw(st.lists(st.sampled_from(passages), min_size=1, max_size=3, unique=True))
    example = Example("q", "why", ("x",), passages, ())
    text = " " + "\n\n".join(map(format_passage, quoted)) + restated_question("why") + " The x"
    reading = parse_completion(text, example, Method.SCRATCHPAD)
    before = SoFar()
    for length in range(len(text) + 1):
        now = read_so_far(text[:length], example, Method.SCRATCHPAD)
        assert len(before.quotes) <= len(now.quotes) <= len(reading.quotes)
        for earlier, later in zip(before.quotes, now.quotes, strict=False):
            assert later.text.startswith(earlier.text)
        for growing, final in zip(now.quotes, reading.quotes, strict=False):
            assert growing.passage == final.passage
            assert final.text.startswith(growing.text)
            assert growing.verbatim
        assert reading.answer.startswith(now.answer)
        before = now
    assert (before.quotes, before.answer) == (reading.quotes, reading.answer)


BRIDGE = Passage("Bridge", "The bridge was built in 1895. It stands by the river.")
TOWN = Passage("Town", "The town lies by the river.\n\nIt is old.")
TWO = Example("q", "when was it built", ("1895",), (TOWN, BRIDGE), (1,))
ASKED = restated_question(TWO.question)


def grow(*texts: str, example: Example = TWO) -> SoFar:
    return read_so_far("".join(texts), example, Method.SCRATCHPAD)


class TestQuotes:
    def test_a_quote_grows_in_its_passage(self) -> None:
        assert grow(" Docu") == grow("", " Document (Title: Br") == SoFar()
        [quote] = grow(" Document (Title: Bridge) The bridge was").quotes
        assert quote == Quote("The bridge was", "Bridge", 1, 0, 14, verbatim=True)

    def test_one_that_begins_with_a_later_sentence(self) -> None:
        [quote] = grow("Document (Title: Bridge) It stands").quotes
        assert quote == Quote("It stands", "Bridge", 1, 30, 39, verbatim=True)

    def test_is_held_back_while_it_may_stand_at_two_places(self) -> None:
        twins = (Passage("Twin", "The same. The same, here."), Passage("Twin", "The same, there."))
        example = Example("q", "where", (), twins, ())
        head = "Document (Title: Twin) The same"
        assert grow(head, example=example) == SoFar()
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
        assert grow(head, " It is hi", example=example) == SoFar()
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
        assert grow(head) == grow(head + " ") == SoFar(grow(head).quotes, "", answering=True)
        assert grow(head, " in 18").answer == "in 18"
        assert grow(head, " in 1895\n\nQuestion: And").answer == "in 1895"

    def test_is_held_back_behind_a_label_that_is_not_the_formats(self) -> None:
        grown = grow(f" {format_passage(BRIDGE)}\nAnswer: 1895")
        assert (grown.answer, grown.answering) == ("", False)
        assert [quote.text for quote in grown.quotes] == [BRIDGE.text]

    def test_behind_a_sentence_that_only_begins_as_the_abstaining_one(self) -> None:
        assert grow(f" {NO_SUPPORT} Or").quotes[0].text == f"{NO_SUPPORT} Or"


def is_beginning(so_far: SoFar, reading: Reading) -> bool:
    """Whether what was shown of a completion is a beginning of what it became."""
    if not reading.answer.startswith(so_far.answer) or len(so_far.quotes) > len(reading.quotes):
        return False
    pairs = list(zip(so_far.quotes, reading.quotes, strict=False))
    return all(shown == became for shown, became in pairs[:-1]) and all(
        not shown.text  # of which only the passage is known
        or (
            shown.title == became.title
            and became.text.startswith(shown.text)
            and (shown.verbatim or not became.verbatim)
            and (not became.verbatim or within(shown, became))
        )
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
    before = SoFar()
    for end in sorted({*(cut for cut in cuts if cut < len(text)), len(text)}):
        so_far = read_so_far(text[:end], example, method)
        assert is_beginning(so_far, reading)
        assert len(so_far.quotes) >= len(before.quotes)
        assert so_far.answer.startswith(before.answer)
        assert so_far.answering >= before.answering
        before = so_far


# --- scratchpads of other forms

OTHERS = [form for form in ScratchpadForm if form is not ScratchpadForm.PASSAGE]


@pytest.mark.parametrize("form", OTHERS)
def test_scratchpads_of_other_forms_only_ever_grow(form: ScratchpadForm) -> None:
    """Twelve passages, so that a number may be the beginning of another."""
    towns = tuple(Passage(f"Town {n}", f"It lies {n} miles away. It is old.") for n in range(10))
    mill = Passage("Mill (Marren)", "Built in 1895. It stands.")
    example = Example("q", EXAMPLE.question, ("1895",), (*towns, MARREN, mill), (11, 0, 10))
    text = render_sample(example, Wording(form=form), Method.SCRATCHPAD).completion
    reading = parse_completion(text, example, Method.SCRATCHPAD, form)
    assert [found.passage for found in reading.quotes] == [11, 0, 10]
    before = SoFar()
    for length in range(len(text) + 1):
        now = read_so_far(text[:length], example, Method.SCRATCHPAD, form)
        assert len(before.quotes) <= len(now.quotes)
        assert is_beginning(now, reading)
        before = now
    assert (before.quotes, before.answer) == (reading.quotes, "1895")


def test_a_numbered_quote_grows_behind_its_head() -> None:
    text = " Document [2](Title: Bridge) The bridge was"
    form = ScratchpadForm.INDEX
    assert read_so_far(text[:20], TWO, Method.SCRATCHPAD, form) == SoFar()
    plain = Example("q", "when", (), (MARREN, BRIDGE), ())
    [quote] = read_so_far(text, plain, Method.SCRATCHPAD, form).quotes
    assert quote == Quote("The bridge was", "Bridge", 1, 0, 14, verbatim=True)
    [quote] = read_so_far(text + " opened", plain, Method.SCRATCHPAD, form).quotes
    assert quote == Quote("The bridge was opened", "Bridge", 1, 0, 15, verbatim=False)


def test_a_title_is_told_once_it_is_known_to_be_one() -> None:
    plain = Example("q", "when", (), (MARREN, Passage("Marren (A)", "x")), ())
    form, text = ScratchpadForm.TITLE, " Document (Title: Marren)"
    assert read_so_far(text, plain, Method.SCRATCHPAD, form) == SoFar()
    [quote] = read_so_far(text + "\n\nDocument (Title: ", plain, Method.SCRATCHPAD, form).quotes
    assert quote == Quote("", "Marren", 0, 0, 0, verbatim=True)


def test_a_passage_that_holds_a_break_holds_all_back() -> None:
    holds = Example("q", "when", (), (Passage("A", "a\n\nDocument (Title: A) b."),), ())
    text = " Document (Title: A) a\n\nDocument (Title: A) b."
    assert read_so_far(text, holds, Method.SCRATCHPAD, ScratchpadForm.SENTENCE) == SoFar()


_NUMBERED = tuple(dict.fromkeys(p for p in _HARD if "\n" not in p.text))


@pytest.mark.parametrize("form", OTHERS)
@given(
    passages=st.lists(st.sampled_from(_NUMBERED), min_size=1, max_size=4),
    bits=st.lists(
        st.one_of(
            _BITS,
            st.sampled_from(
                [format_passage(p, n) for p in _NUMBERED for n in (1, 2)]
                + [
                    "Document [1](Title: A) a",
                    "Document [2](Title: A) ",
                    "Document (Title: A)",
                    "Document (Title: A) B)",
                    "Document (Title: A) c a b. ",
                ]
            ),
        ),
        max_size=6,
    ),
    cuts=st.lists(st.integers(0, 200), max_size=8),
    parted=st.booleans(),
)
def test_whatever_comes_in_another_form_nothing_is_taken_back(
    form: ScratchpadForm, passages: list[Passage], bits: list[str], cuts: list[int], parted: bool
) -> None:
    example = Example("q", "q", (), tuple(passages), ())
    text = ("\n\n" if parted else "").join(bits)
    reading = parse_completion(text, example, Method.SCRATCHPAD, form)
    before = SoFar()
    for end in sorted({*(cut for cut in cuts if cut < len(text)), len(text)}):
        so_far = read_so_far(text[:end], example, Method.SCRATCHPAD, form)
        assert is_beginning(so_far, reading)
        assert len(so_far.quotes) >= len(before.quotes)
        assert so_far.answer.startswith(before.answer)
        assert so_far.answering >= before.answering
        before = so_far
