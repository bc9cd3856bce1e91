from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchpad_rag.data.sentences import split_sentences

# The same examples on every run, however busy the machine.
steady = settings(deadline=None, derandomize=True)


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


# --- by hand


def test_ranges_are_characters_of_the_text() -> None:
    assert split_sentences("One. Two!  Three?") == [(0, 4), (5, 9), (11, 17)]
    assert split_sentences("  One.\nTwo") == [(2, 6), (7, 10)]


@pytest.mark.parametrize("text", ["", " ", " \n\t\n ", "\u00a0"])
def test_where_nothing_stands_there_is_no_sentence(text: str) -> None:
    assert split_sentences(text) == []


@pytest.mark.parametrize("text", ["Ida Holm was born", "x", ".", "?", '."', "One.Two", "Built.\n"])
def test_one_sentence(text: str) -> None:
    assert sentences(text) == [text.strip()]


def test_the_last_sentence_may_lack_its_stop() -> None:
    assert sentences("She left. Then he") == ["She left.", "Then he"]


def test_newlines_part_sentences_only_behind_a_stop() -> None:
    assert sentences("She left.\nHe stayed.\n\nThey met") == [
        "She left.",
        "He stayed.",
        "They met",
    ]
    assert sentences("The bridge\n\nIt was built.") == ["The bridge\n\nIt was built."]


@pytest.mark.parametrize(
    "text",
    [
        "She met Dr. Holm.",
        "She met (Mr. Holm).",
        'The "St. Corvin" sank.',
        "He was born at No. 5.",
        "Marren vs. Corvin.",
        "Holm Inc. Was founded.",
        "Ropes, nails, etc. Were sold.",
        "It was ca. Forty.",
    ],
)
def test_a_usual_abbreviation_ends_no_sentence(text: str) -> None:
    assert sentences(text) == [text]


def test_the_end_of_a_longer_word_is_no_abbreviation() -> None:
    assert sentences("It was best. She left.") == ["It was best.", "She left."]
    assert sentences("He came in disco. She left.") == ["He came in disco.", "She left."]


def test_initials_and_dotted_letters_end_no_sentence() -> None:
    assert sentences("George W. Holm came. J. R. Ard left.") == [
        "George W. Holm came.",
        "J. R. Ard left.",
    ]
    assert sentences("She moved to the U.S. In May she left. Ok.") == [
        "She moved to the U.S. In May she left.",
        "Ok.",
    ]
    assert sentences("At 5 p.m. She left.") == ["At 5 p.m. She left."]
    # An initial that a question mark or a bracket follows is the end of a sentence all the same.
    assert sentences("Is it plan B? Yes.") == ["Is it plan B?", "Yes."]


def test_quotation_marks_and_brackets_close_behind_the_stop() -> None:
    assert sentences('"Stop." She left.') == ['"Stop."', "She left."]
    assert sentences("(She left.) He stayed [there!] So.") == [
        "(She left.)",
        "He stayed [there!]",
        "So.",
    ]
    assert sentences("“Why?” ‘Ah!’ «Oui.» End.") == ["“Why?”", "‘Ah!’", "«Oui.»", "End."]
    assert sentences("He said (\"No.\"). 'Yes.'") == ['He said ("No.").', "'Yes.'"]


def test_an_ellipsis_ends_a_sentence_unless_a_small_letter_follows() -> None:
    assert sentences("Wait... What? Well… Yes.") == ["Wait...", "What?", "Well…", "Yes."]
    assert sentences("Wait... what? He left… or not.") == ["Wait... what?", "He left… or not."]


def test_a_small_letter_goes_on_with_the_sentence() -> None:
    assert sentences('"Why?" she asked. "So."') == ['"Why?" she asked.', '"So."']
    assert sentences("Was? élan. Ja.") == ["Was? élan.", "Ja."]
    assert sentences("Yahoo!\n\nwas founded. Then.") == ["Yahoo!\n\nwas founded.", "Then."]


def test_digits() -> None:
    assert sentences("It is 3.5 miles long. It cost 1,000.50.") == [
        "It is 3.5 miles long.",
        "It cost 1,000.50.",
    ]
    assert sentences("She left. 1911 came.") == ["She left.", "1911 came."]
    assert sentences("Built in 1911. Opened.") == ["Built in 1911.", "Opened."]


def test_letters_without_case_begin_sentences() -> None:
    assert sentences("Ja. שלום. 日本!") == ["Ja.", "שלום.", "日本!"]


# --- any text

pieces = st.sampled_from(
    [*".!?…\"')]”» \n\tAbz3日", "U.S.", "Dr.", " J. ", ". ", "e\u0301", "\u00a0"]
)
texts = st.one_of(st.lists(pieces, max_size=30).map("".join), st.text(max_size=40))


@steady
@given(text=texts)
def test_every_character_stands_in_one_sentence(text: str) -> None:
    ranges = split_sentences(text)
    position = 0
    for start, end in ranges:
        assert position <= start < end
        assert text[position:start].strip() == ""
        assert text[start:end] == text[start:end].strip()
        position = end
    assert text[position:].strip() == ""
    # Between two sentences there is white space, or they would be one.
    assert all(end < start for (_, end), (start, _) in pairwise(ranges))


@steady
@given(text=texts)
def test_a_sentence_ends_at_a_stop_and_begins_with_no_small_letter(text: str) -> None:
    found = sentences(text)
    for sentence, following in pairwise(found):
        assert sentence.rstrip("\"'”’»)]")[-1] in ".!?…"
        assert not following[0].islower()


words = st.sampled_from(
    ["bridge", "naïve", "3.5", "1911", "it's", "(old)", "日本", "x-ray", "U.S."]
)


@st.composite
def sentence_texts(draw: st.DrawFn) -> str:
    """Words between a capital letter and a stop, of which none is an abbreviation before it."""
    first = draw(st.sampled_from(["The", '"One', "(Marren", "1874", "Über"]))
    middle = draw(st.lists(words, max_size=4))
    last = draw(st.sampled_from(["bridge", "1911", "日本", "naïve"]))
    stop = draw(st.sampled_from([".", "!", "?", "…", "...", "?!", '."', ".)", "!”", '.)"']))
    return " ".join([first, *middle, last]) + stop


@steady
@given(
    expected=st.lists(sentence_texts(), min_size=1, max_size=5),
    spaces=st.lists(st.sampled_from([" ", "  ", "\n", "\n\n", " \t"]), min_size=6, max_size=6),
)
def test_sentences_put_together_are_found_again(expected: list[str], spaces: list[str]) -> None:
    text = "".join(space + sentence for space, sentence in zip(spaces, expected, strict=False))
    assert sentences(text + spaces[-1]) == expected
