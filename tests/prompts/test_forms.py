"""Scratchpads of every form, to the letter, and read again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scratchpad_rag.data.sentences import split_sentences
from scratchpad_rag.data.support import supporting_sentences
from scratchpad_rag.errors import DataError
from scratchpad_rag.prompts.parse import parse_completion
from scratchpad_rag.prompts.render import render_forced, render_prompt, render_sample
from scratchpad_rag.prompts.template import ChatMarkers, Wording
from scratchpad_rag.records import (
    Example,
    Method,
    Passage,
    Quote,
    Reading,
    Region,
    ScratchpadForm,
)

PASSAGE, TITLE, SENTENCE, INDEX = ScratchpadForm
CHAT = Wording(chat=ChatMarkers("<s>", "</s><u>", "</u><a>", "</a>"))
RESTATED = "\n\nQuestion: Who built corvin bridge?\n\nAnswer:"
PASSAGES = (
    Passage("Marren", "Marren is a town. It lies on the Ard."),
    Passage("Corvin Bridge", "It crosses the Ard. Ida Holm built it in 1895. It fell."),
    Passage("Holm (engineer)", "Ida Holm was born in Marren."),
    Passage("Marren", "Marren is also a beetle."),
)
EXAMPLE = Example("q", "who built corvin bridge", ("Ida Holm",), PASSAGES, (1, 2))


def wording(form: ScratchpadForm, base: Wording | None = None) -> Wording:
    return replace(base or Wording(), form=form)


def completion(form: ScratchpadForm, gold: tuple[int, ...] = (1, 2)) -> str:
    example = replace(EXAMPLE, gold=gold)
    return render_sample(example, wording(form), Method.SCRATCHPAD).completion


def read(form: ScratchpadForm, scratchpad: str) -> Reading:
    return parse_completion(f"{scratchpad}{RESTATED} Ida Holm", EXAMPLE, Method.SCRATCHPAD, form)


# --- what is written


def test_the_forms_by_hand() -> None:
    assert completion(PASSAGE) == (
        " Document (Title: Corvin Bridge) It crosses the Ard. Ida Holm built it in 1895. It fell."
        "\n\nDocument (Title: Holm (engineer)) Ida Holm was born in Marren."
        f"{RESTATED} Ida Holm"
    )
    assert completion(TITLE) == (
        f" Document (Title: Corvin Bridge)\n\nDocument (Title: Holm (engineer)){RESTATED} Ida Holm"
    )
    assert completion(SENTENCE) == (
        " Document (Title: Corvin Bridge) Ida Holm built it in 1895."
        "\n\nDocument (Title: Holm (engineer)) Ida Holm was born in Marren."
        f"{RESTATED} Ida Holm"
    )
    assert completion(INDEX) == (
        " Document [2](Title: Corvin Bridge) It crosses the Ard. Ida Holm built it in 1895. It "
        "fell.\n\nDocument [3](Title: Holm (engineer)) Ida Holm was born in Marren."
        f"{RESTATED} Ida Holm"
    )


def test_a_chat_turn_opens_without_a_space() -> None:
    sample = render_sample(EXAMPLE, wording(TITLE, CHAT), Method.SCRATCHPAD)
    assert sample.completion.startswith("Document (Title: Corvin Bridge)\n\n")


def test_only_numbered_scratchpads_change_the_prompt() -> None:
    plain = render_prompt(EXAMPLE, Wording()).text
    assert render_prompt(EXAMPLE, wording(TITLE)).text == plain
    assert render_prompt(EXAMPLE, wording(SENTENCE)).text == plain
    numbered = render_prompt(EXAMPLE, wording(INDEX)).text
    assert "Context:\nDocument [1](Title: Marren) Marren is a town." in numbered
    assert "\n\nDocument [4](Title: Marren) Marren is also a beetle.\n\nQuestion" in numbered
    for number in range(1, 5):
        numbered = numbered.replace(f"Document [{number}](", "Document (")
    assert numbered == plain


def test_marked_sentences_are_those_quoted() -> None:
    marked = replace(EXAMPLE, support=("It fell.",))
    sample = render_sample(marked, wording(SENTENCE), Method.SCRATCHPAD)
    assert sample.completion.startswith(" Document (Title: Corvin Bridge) It fell.\n\nDocument")


def test_a_title_of_two_gold_passages_stands_once() -> None:
    assert completion(TITLE, (3, 1, 0)) == (
        f" Document (Title: Marren)\n\nDocument (Title: Corvin Bridge){RESTATED} Ida Holm"
    )


@pytest.mark.parametrize("form", ScratchpadForm)
def test_abstaining_is_the_same_in_every_form(form: ScratchpadForm) -> None:
    nothing = replace(EXAMPLE, gold=())
    sample = render_sample(nothing, wording(form), Method.SCRATCHPAD, abstain=True)
    said = f" None of the documents supports an answer.{RESTATED} unanswerable"
    assert sample.completion == said
    expected = Reading("unanswerable", (), True, said, abstained=True)
    assert parse_completion(said, nothing, Method.SCRATCHPAD, form) == expected
    with pytest.raises(DataError, match="shows no gold passage"):
        render_sample(nothing, wording(form), Method.SCRATCHPAD)


@pytest.mark.parametrize("form", ScratchpadForm)
@pytest.mark.parametrize("base", [Wording(), CHAT])
def test_spans_are_the_blocks_and_what_stands_between(form: ScratchpadForm, base: Wording) -> None:
    sample = render_sample(EXAMPLE, wording(form, base), Method.SCRATCHPAD)
    assert [(a.end, b.start) for a, b in zip(sample.spans, sample.spans[1:], strict=False)] == [
        (b.start, b.start) for b in sample.spans[1:]
    ]
    assert sample.form is form
    blocks = [span for span in sample.spans if span.region is Region.SCRATCHPAD]
    assert [span.passage for span in blocks] == [1, 2]
    written = [sample.text[span.start : span.end] for span in blocks]
    assert "\n\n".join(written) == sample.completion.split(RESTATED)[0].lstrip()
    for span in blocks:
        assert span.passage is not None
        assert (span.text is None) is (form is TITLE)
        if span.text is not None:
            assert sample.text[span.text : span.end] in PASSAGES[span.passage].text


@pytest.mark.parametrize("form", ScratchpadForm)
def test_a_forced_scratchpad_is_how_a_sample_begins(form: ScratchpadForm) -> None:
    forced = render_forced(EXAMPLE, wording(form), (1, 2))
    sample = render_sample(EXAMPLE, wording(form), Method.SCRATCHPAD)
    assert sample.text == forced.text + " Ida Holm"
    assert forced.form is form


def test_a_method_without_a_scratchpad_has_the_plain_wording() -> None:
    assert wording(INDEX).writing(Method.SFT) == Wording()
    assert wording(INDEX).writing(None, TITLE) == Wording()
    assert wording(INDEX).writing(Method.SCRATCHPAD) == wording(INDEX)
    assert Wording().writing(Method.SCRATCHPAD, TITLE) == wording(TITLE)


# --- what is read


def test_titles_are_quotes_without_text() -> None:
    reading = read(TITLE, " Document (Title: Corvin Bridge)\n\nDocument (Title: Holm (engineer))")
    assert (reading.answer, reading.parsed) == ("Ida Holm", True)
    assert reading.quotes == (
        Quote("", "Corvin Bridge", 1, 0, 0, verbatim=True),
        Quote("", "Holm (engineer)", 2, 0, 0, verbatim=True),
    )


def test_a_title_of_several_passages_names_the_first() -> None:
    assert read(TITLE, " Document (Title: Marren)").quotes == (
        Quote("", "Marren", 0, 0, 0, verbatim=True),
    )


def test_an_invented_title_names_none() -> None:
    assert read(TITLE, " Document (Title: Marren (town))").quotes == (
        Quote("", "Marren (town)", None, 0, 0, verbatim=False),
    )


def test_text_behind_a_title_is_a_quote_like_any() -> None:
    [quote] = read(TITLE, " Document (Title: Marren) It lies on the Ard.").quotes
    assert quote == Quote("It lies on the Ard.", "Marren", 0, 18, 37, verbatim=True)


def test_a_sentence_is_traced_to_its_characters() -> None:
    [quote] = read(SENTENCE, " Document (Title: Corvin Bridge) Ida Holm built it in 1895.").quotes
    assert quote == Quote("Ida Holm built it in 1895.", "Corvin Bridge", 1, 20, 46, verbatim=True)


def test_the_number_is_a_part_of_what_is_quoted() -> None:
    text = PASSAGES[3].text
    [right] = read(INDEX, f" Document [4](Title: Marren) {text}").quotes
    assert right == Quote(text, "Marren", 3, 0, len(text), verbatim=True)
    [wrong] = read(INDEX, f" Document [1](Title: Marren) {text}").quotes
    assert (wrong.passage, wrong.verbatim, wrong.title) == (3, False, "Marren")
    [beyond] = read(INDEX, f" Document [9](Title: Marren) {text}").quotes
    assert (beyond.passage, beyond.verbatim) == (3, False)
    [none] = read(INDEX, f" Document (Title: Marren) {text}").quotes
    assert (none.passage, none.verbatim) == (3, True)


def test_the_number_tells_equal_passages_apart() -> None:
    twice = replace(EXAMPLE, passages=(PASSAGES[0], PASSAGES[0]))
    said = f" Document [2](Title: Marren) {PASSAGES[0].text}{RESTATED} x"
    [quote] = parse_completion(said, twice, Method.SCRATCHPAD, INDEX).quotes
    assert quote.passage == 1


def test_a_number_is_no_head_of_plain_passages() -> None:
    [quote] = read(PASSAGE, f" Document [2](Title: Marren) {PASSAGES[0].text}").quotes
    assert (quote.passage, quote.verbatim, quote.title) == (0, False, "")


def test_a_sentence_that_holds_the_restated_question() -> None:
    forum = Passage("Forum", f"A page{RESTATED} nobody. Ida Holm did.")
    example = replace(EXAMPLE, passages=(forum,), gold=(0,), support=(forum.text[:-14],))
    sample = render_sample(example, wording(SENTENCE), Method.SCRATCHPAD)
    reading = parse_completion(sample.completion, example, Method.SCRATCHPAD, SENTENCE)
    assert reading.answer == "Ida Holm"
    assert [quote.text for quote in reading.quotes] == [f"A page{RESTATED} nobody."]


# --- whatever is rendered is read again


def texts() -> st.SearchStrategy[str]:
    pieces = st.sampled_from(
        [
            "שלום.",
            "👩‍👩‍👧",
            "(Title: x) y",
            "Answer: 3",
            "a.\n\nAnswer: b",
            "It is. ",
            "[3](Title: ",
        ]
    )
    mixed = st.lists(st.one_of(st.text(max_size=12), pieces), min_size=1, max_size=4)
    return mixed.map(" ".join).filter(str.strip)


def titles() -> st.SearchStrategy[str]:
    return texts().map(lambda text: " ".join(text.split()))


@st.composite
def examples(draw: st.DrawFn) -> Example:
    passages = draw(
        st.lists(st.builds(Passage, titles(), texts()), min_size=1, max_size=4, unique=True)
    )
    indices = st.integers(0, len(passages) - 1)
    gold = draw(st.lists(indices, min_size=1, max_size=len(passages), unique=True))
    answer = draw(titles().filter(bool))
    return Example("q", draw(texts()), (answer,), tuple(passages), tuple(gold))


@pytest.mark.parametrize("form", [TITLE, SENTENCE, INDEX])
@given(example=examples(), base=st.sampled_from([Wording(), CHAT]))
def test_a_rendered_scratchpad_is_read_as_it_was_meant(
    form: ScratchpadForm, example: Example, base: Wording
) -> None:
    shown = example.passages
    if form is not TITLE:  # where two sources hold one text, two readings are right
        assume(len({p.title for p in shown}) == len(shown))
    said = render_sample(example, wording(form, base), Method.SCRATCHPAD).completion
    reading = parse_completion(said, example, Method.SCRATCHPAD, form)
    assert reading.parsed
    assert reading.answer == example.answers[0].strip()
    assert all(quote.verbatim for quote in reading.quotes)
    quoted = [(quote.passage, quote.start, quote.end) for quote in reading.quotes]
    if form is TITLE:
        first = {p.title: number for number, p in reversed([*enumerate(shown)])}
        named = dict.fromkeys(first[p.title] for p in example.gold_passages)
        assert quoted == [(number, 0, 0) for number in named]
    elif form is SENTENCE:
        for (passage, start, end), index in zip(quoted, example.gold, strict=True):
            begin, stop = supporting_sentences(example, index)
            assert passage == index
            assert shown[index].text[start:end] == shown[index].text[begin:stop]
            assert stop in [last for _, last in split_sentences(shown[index].text)]
    else:
        assert quoted == [(index, 0, len(shown[index].text)) for index in example.gold]


@pytest.mark.parametrize("form", [TITLE, SENTENCE, INDEX])
@given(said=st.one_of(st.text(), texts()), example=examples())
def test_any_completion_is_read_without_an_error(
    form: ScratchpadForm, said: str, example: Example
) -> None:
    reading = parse_completion(said, example, Method.SCRATCHPAD, form)
    for quote in reading.quotes:
        if quote.passage is not None:
            assert 0 <= quote.start <= quote.end <= len(example.passages[quote.passage].text)
