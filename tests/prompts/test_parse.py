from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from scratchpad_rag.prompts.parse import parse_completion
from scratchpad_rag.prompts.render import render_sample
from scratchpad_rag.prompts.template import ChatMarkers, Wording
from scratchpad_rag.records import Example, Method, Passage, Quote, Reading

PASSAGES = (
    Passage("Marren", "Marren is a town on the river Ard. It has 400 inhabitants."),
    Passage("Corvin Bridge", "Corvin Bridge was built in 1895 by Ida Holm. It crosses the Ard."),
    Passage("Ida Holm (engineer)", "Ida Holm was an engineer from Marren, known for bridges."),
)
EXAMPLE = Example("q", "who built corvin bridge", ("Ida Holm",), PASSAGES, (1,))
RESTATED = "\n\nQuestion: Who built corvin bridge?\n\nAnswer:"
CHAT = Wording(chat=ChatMarkers("<s>", "</s><u>", "</u><a>", "</a>"))


def read(completion: str, passages: tuple[Passage, ...] = PASSAGES) -> Reading:
    example = Example("q", EXAMPLE.question, EXAMPLE.answers, passages, (1,))
    return parse_completion(completion, example, Method.SCRATCHPAD)


# --- the answer alone


def test_an_sft_completion_ends_at_its_first_newline() -> None:
    run_on = " Ida Holm\n\nQuestion: Who built Marren?\n\nAnswer: Nobody"
    for method in (Method.SFT, None):
        assert parse_completion(run_on, EXAMPLE, method) == Reading("Ida Holm", (), True, run_on)


def test_an_sft_completion_may_open_with_newlines_or_be_empty() -> None:
    assert parse_completion("\n\n Ida Holm \nand so on", EXAMPLE, None).answer == "Ida Holm"
    assert parse_completion(" \n ", EXAMPLE, Method.SFT).answer == ""


def test_an_sft_completion_keeps_the_word_answer() -> None:
    assert parse_completion(" Answer: 42", EXAMPLE, Method.SFT).answer == "Answer: 42"


# --- the scratchpad


def test_a_whole_passage_quoted_verbatim() -> None:
    text = PASSAGES[1].text
    reading = read(f" Document (Title: Corvin Bridge) {text}{RESTATED} Ida Holm")
    assert reading.answer == "Ida Holm"
    assert reading.parsed
    assert reading.quotes == (Quote(text, "Corvin Bridge", 1, 0, len(text), verbatim=True),)


def test_two_passages_one_with_a_bracket_in_its_title() -> None:
    reading = read(
        f" Document (Title: Ida Holm (engineer)) {PASSAGES[2].text}\n\n"
        f"Document (Title: Corvin Bridge) {PASSAGES[1].text}{RESTATED} Ida Holm"
    )
    assert [quote.passage for quote in reading.quotes] == [2, 1]
    assert [quote.title for quote in reading.quotes] == ["Ida Holm (engineer)", "Corvin Bridge"]
    assert all(quote.verbatim for quote in reading.quotes)


def test_a_part_of_a_passage_is_verbatim_at_its_offsets() -> None:
    reading = read(f" Document (Title: Corvin Bridge) It crosses the Ard.{RESTATED} Ida Holm")
    (quote,) = reading.quotes
    assert (quote.passage, quote.verbatim) == (1, True)
    assert (quote.start, quote.end) == (45, 64)
    assert PASSAGES[1].text[45:64] == quote.text == "It crosses the Ard."


def test_a_part_of_a_passage_with_a_bracket_in_its_title() -> None:
    reading = read(
        f" Document (Title: Ida Holm (engineer)) Ida Holm was an engineer{RESTATED} Ida Holm"
    )
    (quote,) = reading.quotes
    assert quote == Quote("Ida Holm was an engineer", "Ida Holm (engineer)", 2, 0, 24, True)


def test_a_part_of_a_passage_with_a_bracket_inside_its_title() -> None:
    passages = (PASSAGES[0], Passage("Ard (river) delta", "It is wide. It is deep."))
    reading = read(f" Document (Title: Ard (river) delta) It is deep.{RESTATED} it", passages)
    assert reading.quotes == (Quote("It is deep.", "Ard (river) delta", 1, 12, 23, True),)


def test_a_passage_that_ends_in_space_is_verbatim() -> None:
    passages = (PASSAGES[0], Passage("Ard (river) delta", "It is wide. \n"))
    reading = read(f" Document (Title: Ard (river) delta) It is wide. \n{RESTATED} it", passages)
    assert reading.quotes == (Quote("It is wide. \n", "Ard (river) delta", 1, 0, 13, True),)


def test_a_part_under_another_passage_s_title_is_not_verbatim() -> None:
    reading = read(f" Document (Title: Marren) It crosses the Ard.{RESTATED} Ida Holm")
    (quote,) = reading.quotes
    assert quote.passage == 1
    assert not quote.verbatim


def test_a_slip_in_copying_is_traced_but_not_verbatim() -> None:
    slipped = PASSAGES[1].text.replace("1895", "1896")
    reading = read(f" Document (Title: Corvin Bridge) {slipped}{RESTATED} Ida Holm")
    (quote,) = reading.quotes
    assert (quote.passage, quote.verbatim) == (1, False)
    assert (quote.start, quote.end) == (0, len(PASSAGES[1].text))
    assert quote.text == slipped


def test_an_invented_quote_has_no_source() -> None:
    invented = "The cathedral of Ulm holds seventeen bells made of bronze and silver."
    reading = read(f" Document (Title: Ulm) {invented}{RESTATED} Ida Holm")
    assert reading.quotes == (Quote(invented, "Ulm", None, 0, 0, verbatim=False),)
    assert reading.answer == "Ida Holm"


def test_a_scratchpad_without_the_passage_s_own_form() -> None:
    reading = read(f" Corvin Bridge was built in 1895{RESTATED} Ida Holm")
    (quote,) = reading.quotes
    assert quote == Quote("Corvin Bridge was built in 1895", "Corvin Bridge", 1, 0, 31, True)


def test_an_empty_scratchpad_has_no_quotes() -> None:
    reading = read(f"{RESTATED} Ida Holm")
    assert reading.quotes == ()
    assert (reading.answer, reading.parsed) == ("Ida Holm", True)


def test_a_passage_that_holds_answer_does_not_end_the_scratchpad() -> None:
    passages = (PASSAGES[0], Passage("Quiz", "Question: Who?\n\nAnswer: Nobody.\nAnswer: Me."))
    reading = read(f" Document (Title: Quiz) {passages[1].text}{RESTATED} Ida Holm", passages)
    assert reading.answer == "Ida Holm"
    assert [(q.passage, q.verbatim) for q in reading.quotes] == [(1, True)]


def test_a_passage_that_holds_the_whole_restated_question() -> None:
    passages = (PASSAGES[0], Passage("Forum", f"A page.{RESTATED} Somebody else"))
    reading = read(f" Document (Title: Forum) {passages[1].text}{RESTATED} Ida Holm", passages)
    assert reading.answer == "Ida Holm"
    assert reading.parsed
    assert [(q.passage, q.verbatim) for q in reading.quotes] == [(1, True)]


def test_a_run_on_after_the_answer_is_cut() -> None:
    reading = read(
        f" Document (Title: Marren) {PASSAGES[0].text}{RESTATED} Ida Holm\n\n"
        f"Question: Who?\n\nAnswer: Nobody{RESTATED} Somebody"
    )
    assert reading.answer == "Ida Holm"
    assert len(reading.quotes) == 1


def test_without_the_restated_question_the_completion_is_not_parsed() -> None:
    reading = read(f" Document (Title: Marren) {PASSAGES[0].text}\n\nAnswer: Ida Holm\nmore")
    assert (reading.answer, reading.parsed) == ("Ida Holm", False)
    assert [quote.passage for quote in reading.quotes] == [0]


def test_another_question_restated_is_not_parsed() -> None:
    reading = read(
        f" Document (Title: Marren) {PASSAGES[0].text}\n\nQuestion: Who is it?\n\nAnswer: Ida"
    )
    assert (reading.answer, reading.parsed) == ("Ida", False)


def test_a_completion_cut_off_in_the_scratchpad_has_no_answer() -> None:
    completion = " Document (Title: Corvin Bridge) Corvin Bridge was built"
    reading = read(completion)
    assert (reading.answer, reading.parsed, reading.completion) == ("", False, completion)
    assert [(q.passage, q.start, q.end) for q in reading.quotes] == [(1, 0, 23)]


def test_the_longer_of_two_passages_with_the_same_beginning() -> None:
    passages = (Passage("Ard", "The Ard is a river."), Passage("Ard", "The Ard is a river. Long."))
    for index, passage in enumerate(passages):
        reading = read(f" Document (Title: Ard) {passage.text}{RESTATED} it", passages)
        assert [(q.passage, q.verbatim) for q in reading.quotes] == [(index, True)]
        assert reading.quotes[0].text == passage.text


# --- nothing relevant

NOTHING = "None of the documents supports an answer."


def test_a_scratchpad_that_finds_nothing() -> None:
    completion = f" {NOTHING}{RESTATED} unanswerable"
    assert read(completion) == Reading("unanswerable", (), True, completion, abstained=True)
    run_on = f" {NOTHING}{RESTATED} unanswerable\n\nQuestion: Who?\n\nAnswer: Nobody"
    assert (read(run_on).answer, read(run_on).abstained) == ("unanswerable", True)


def test_a_scratchpad_that_finds_nothing_and_answers_all_the_same() -> None:
    reading = read(f" {NOTHING}{RESTATED} Ida Holm")
    assert (reading.answer, reading.quotes, reading.abstained) == ("Ida Holm", (), True)


def test_a_scratchpad_that_is_cut_off_behind_the_sentence() -> None:
    reading = read(f" {NOTHING}")
    assert (reading.answer, reading.quotes) == ("", ())
    assert (reading.parsed, reading.abstained) == (False, True)


def test_quotes_before_an_unanswerable_answer_are_kept() -> None:
    reading = read(f" Document (Title: Marren) {PASSAGES[0].text}{RESTATED} unanswerable")
    assert [quote.passage for quote in reading.quotes] == [0]
    assert reading.abstained


def test_a_passage_that_says_so_is_a_quote() -> None:
    passages = (PASSAGES[0], Passage("Court", NOTHING))
    reading = read(f" Document (Title: Court) {NOTHING}{RESTATED} Ida Holm", passages)
    assert [(quote.passage, quote.verbatim) for quote in reading.quotes] == [(1, True)]
    assert not reading.abstained


def test_an_answer_alone_that_abstains() -> None:
    assert parse_completion(" unanswerable\n", EXAMPLE, Method.SFT).abstained
    for said in (" unanswerable questions", " Unanswerable", " Ida Holm", ""):
        assert not parse_completion(said, EXAMPLE, Method.SFT).abstained


# --- whatever is rendered is read again


def texts() -> st.SearchStrategy[str]:
    scripts = st.sampled_from(
        ["שלום", "مرحبا", "👩‍👩‍👧", "(Title: x) y", "Answer: 3", "a\n\nAnswer: b"]
    )
    mixed = st.lists(st.one_of(st.text(max_size=20), scripts), min_size=1, max_size=3)
    return mixed.map(" ".join).filter(str.strip)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    passages = draw(
        st.lists(st.builds(Passage, texts(), texts()), min_size=1, max_size=4, unique=True)
    )
    indices = st.integers(0, len(passages) - 1)
    gold = draw(st.lists(indices, min_size=1, max_size=len(passages), unique=True))
    answer = draw(texts().map(lambda text: text.replace("\n", " ").strip()).filter(bool))
    return Example("q", draw(texts()), (answer,), tuple(passages), tuple(gold))


@given(example=examples(), wording=st.sampled_from([Wording(), CHAT]))
def test_a_rendered_scratchpad_is_read_as_it_was_meant(example: Example, wording: Wording) -> None:
    written = [f"Document (Title: {p.title}) {p.text}" for p in example.passages]
    # Where one passage opens with the whole of another, two readings are right.
    assume(not any(a != b and a.startswith(b) for a in written for b in written))
    completion = render_sample(example, wording, Method.SCRATCHPAD).completion
    reading = parse_completion(completion, example, Method.SCRATCHPAD)
    assert reading.parsed
    assert reading.answer == example.answers[0].strip()
    assert [quote.passage for quote in reading.quotes] == list(example.gold)
    for quote in reading.quotes:
        assert quote.verbatim
        assert quote.passage is not None
        passage = example.passages[quote.passage]
        assert (quote.title, quote.text) == (passage.title, passage.text)
        assert passage.text[quote.start : quote.end] == quote.text


@given(
    example=examples(),
    wording=st.sampled_from([Wording(), CHAT]),
    method=st.sampled_from(Method),
)
def test_a_rendered_abstention_is_read_as_it_was_meant(
    example: Example, wording: Wording, method: Method
) -> None:
    completion = render_sample(example, wording, method, abstain=True).completion
    reading = parse_completion(completion, example, method)
    assert reading == Reading("unanswerable", (), True, completion, abstained=True)


@given(example=examples())
def test_a_rendered_answer_is_read_as_it_was_meant(example: Example) -> None:
    completion = render_sample(example, Wording(), Method.SFT).completion
    reading = parse_completion(completion, example, Method.SFT)
    assert reading.answer == example.answers[0].strip()


@given(completion=st.text(), example=examples())
def test_any_completion_is_read_without_an_error(completion: str, example: Example) -> None:
    reading = parse_completion(completion, example, Method.SCRATCHPAD)
    assert "\n" not in reading.answer
    for quote in reading.quotes:
        if quote.passage is not None:
            assert 0 <= quote.start <= quote.end <= len(example.passages[quote.passage].text)
