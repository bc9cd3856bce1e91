from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchpad_rag.errors import DataError, ModelError
from scratchpad_rag.prompts.render import render_forced, render_prompt, render_sample
from scratchpad_rag.prompts.template import (
    ChatMarkers,
    Wording,
    choose_wording,
    format_passage,
    format_question,
)
from scratchpad_rag.records import Example, Method, Passage, Region, Rendered, Span

NOBEL = Example(
    id="nobel",
    question="who got the first nobel prize in physics",
    answers=("Wilhelm Conrad Röntgen", "Röntgen"),
    passages=(
        Passage("List of Nobel laureates", "The prize was first awarded in 1901."),
        Passage("Wilhelm Röntgen", "He got the first Nobel Prize in Physics."),
        Passage("E. E. Hall", "A miner (of coal)."),
        Passage("X-ray", "X-rays earned Röntgen the prize."),
    ),
    gold=(1, 3),
)
PLAIN = Wording()
CHATML = Wording(
    chat=ChatMarkers(
        "<|im_start|>system\n",
        "<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>",
    )
)
NO_SYSTEM_TURN = Wording(chat=ChatMarkers("[INST] ", None, " [/INST]", "</s>"))

PLAIN_PROMPT = """\
Write a high-quality answer for the given question using only the provided context \
(some of which might be irrelevant).

Question: Who got the first nobel prize in physics?

Context:
Document (Title: List of Nobel laureates) The prize was first awarded in 1901.

Document (Title: Wilhelm Röntgen) He got the first Nobel Prize in Physics.

Document (Title: E. E. Hall) A miner (of coal).

Document (Title: X-ray) X-rays earned Röntgen the prize.

Question: Who got the first nobel prize in physics?

Answer:"""
CLOSED_BOOK_PROMPT = """\
Write a high-quality answer for the given question using only the provided context \
(some of which might be irrelevant).

Question: Who got the first nobel prize in physics?

Answer:"""
SFT_COMPLETION = " Wilhelm Conrad Röntgen"
SCRATCHPAD_COMPLETION = """\
 Document (Title: Wilhelm Röntgen) He got the first Nobel Prize in Physics.

Document (Title: X-ray) X-rays earned Röntgen the prize.

Question: Who got the first nobel prize in physics?

Answer: Wilhelm Conrad Röntgen"""
CHAT_SAMPLE = """\
<|im_start|>system
Write a high-quality answer for the given question using only the provided context \
(some of which might be irrelevant).<|im_end|>
<|im_start|>user
Question: Who got the first nobel prize in physics?

Context:
Document (Title: List of Nobel laureates) The prize was first awarded in 1901.

Document (Title: Wilhelm Röntgen) He got the first Nobel Prize in Physics.

Document (Title: E. E. Hall) A miner (of coal).

Document (Title: X-ray) X-rays earned Röntgen the prize.

Question: Who got the first nobel prize in physics?

Answer:<|im_end|>
<|im_start|>assistant
Document (Title: Wilhelm Röntgen) He got the first Nobel Prize in Physics.

Document (Title: X-ray) X-rays earned Röntgen the prize.

Question: Who got the first nobel prize in physics?

Answer: Wilhelm Conrad Röntgen"""


# --- the layouts to the letter


def test_the_plain_prompt() -> None:
    rendered = render_prompt(NOBEL, PLAIN)
    assert rendered.text == PLAIN_PROMPT
    assert rendered.prompt == PLAIN_PROMPT
    assert rendered.completion == ""
    assert not rendered.ends
    assert not rendered.chat


def test_the_closed_book_prompt() -> None:
    closed = Example(NOBEL.id, NOBEL.question, NOBEL.answers, (), ())
    assert render_prompt(closed, PLAIN).text == CLOSED_BOOK_PROMPT


def test_the_sft_sample() -> None:
    rendered = render_sample(NOBEL, PLAIN, Method.SFT)
    assert rendered.text == PLAIN_PROMPT + SFT_COMPLETION
    assert rendered.prompt == PLAIN_PROMPT
    assert rendered.completion == SFT_COMPLETION
    assert rendered.ends


def test_the_scratchpad_sample() -> None:
    rendered = render_sample(NOBEL, PLAIN, Method.SCRATCHPAD)
    assert rendered.text == PLAIN_PROMPT + SCRATCHPAD_COMPLETION
    assert rendered.prompt == PLAIN_PROMPT
    assert rendered.ends


def test_gold_passages_are_quoted_in_the_order_of_reasoning() -> None:
    turned = Example(NOBEL.id, NOBEL.question, NOBEL.answers, NOBEL.passages, (3, 1))
    completion = render_sample(turned, PLAIN, Method.SCRATCHPAD).completion
    assert completion.index("X-ray)") < completion.index("Wilhelm Röntgen)")


def test_the_chat_sample() -> None:
    rendered = render_sample(NOBEL, CHATML, Method.SCRATCHPAD)
    assert rendered.text == CHAT_SAMPLE
    assert rendered.prompt.endswith("Answer:<|im_end|>\n<|im_start|>assistant\n")
    assert rendered.prompt == render_prompt(NOBEL, CHATML).text
    assert rendered.chat


def test_the_chat_sft_sample_holds_the_answer_alone() -> None:
    assert render_sample(NOBEL, CHATML, Method.SFT).completion == "Wilhelm Conrad Röntgen"


def test_without_a_system_turn_the_sentence_opens_the_user_turn() -> None:
    rendered = render_prompt(NOBEL, NO_SYSTEM_TURN)
    assert rendered.text == f"[INST] {PLAIN_PROMPT} [/INST]"


def test_a_scratchpad_without_gold_is_refused() -> None:
    without = Example("q7", NOBEL.question, NOBEL.answers, NOBEL.passages, ())
    with pytest.raises(DataError, match="'q7' shows no gold passage"):
        render_sample(without, PLAIN, Method.SCRATCHPAD)
    assert render_sample(without, PLAIN, Method.SFT).completion == SFT_COMPLETION


ABSTAINING_COMPLETION = """\
 None of the documents supports an answer.

Question: Who got the first nobel prize in physics?

Answer: unanswerable"""


def test_an_abstaining_completion() -> None:
    without = Example("q7", NOBEL.question, NOBEL.answers, NOBEL.passages, ())
    rendered = render_sample(without, PLAIN, Method.SCRATCHPAD, abstain=True)
    assert rendered.text == PLAIN_PROMPT + ABSTAINING_COMPLETION
    assert rendered.ends
    assert pieces(rendered, Region.SCRATCHPAD) == ["None of the documents supports an answer."]
    assert pieces(rendered, Region.ANSWER) == [" unanswerable"]
    chat = render_sample(without, CHATML, Method.SCRATCHPAD, abstain=True)
    assert chat.completion == ABSTAINING_COMPLETION.lstrip(" ")
    assert render_sample(without, PLAIN, Method.SFT, abstain=True).completion == " unanswerable"
    assert render_sample(without, CHATML, Method.SFT, abstain=True).completion == "unanswerable"


@pytest.mark.parametrize(
    ("question", "formatted"),
    [
        ("who?", "Who?"),
        ("Who", "Who?"),
        ("who??  ", "Who?"),
        ("  is it US or UK ? ", "Is it US or UK?"),
        ("what is NaCl", "What is NaCl?"),
        ("éa va", "Éa va?"),
        ("مَن هو", "مَن هو?"),
        ("why? because", "Why? because?"),
    ],
)
def test_the_question_gets_a_capital_and_one_mark(question: str, formatted: str) -> None:
    assert format_question(question) == formatted


# --- spans


def pieces(rendered: Rendered, region: Region) -> list[str]:
    return [rendered.text[s.start : s.end] for s in rendered.spans if s.region is region]


def test_spans_of_a_small_sample_by_hand() -> None:
    example = Example("q", "ab", ("z",), (Passage("T", "uv"), Passage("S", "w")), (1,))
    rendered = render_sample(example, Wording(system="Sys."), Method.SCRATCHPAD)
    assert rendered.text == (
        "Sys.\n\nQuestion: Ab?\n\nContext:\nDocument (Title: T) uv\n\nDocument (Title: S) w"
        "\n\nQuestion: Ab?\n\nAnswer: Document (Title: S) w\n\nQuestion: Ab?\n\nAnswer: z"
    )
    assert rendered.spans == (
        Span(0, 4, Region.SYSTEM),
        Span(4, 6, Region.SCAFFOLD),
        Span(6, 16, Region.SCAFFOLD),  # "Question: "
        Span(16, 19, Region.QUESTION),
        Span(19, 21, Region.SCAFFOLD),
        Span(21, 30, Region.SCAFFOLD),  # "Context:\n"
        Span(30, 52, Region.CONTEXT, 0, text=50),
        Span(52, 54, Region.SCAFFOLD),
        Span(54, 75, Region.CONTEXT, 1, text=74),
        Span(75, 77, Region.SCAFFOLD),
        Span(77, 87, Region.SCAFFOLD),
        Span(87, 90, Region.QUESTION),
        Span(90, 92, Region.SCAFFOLD),
        Span(92, 99, Region.SCAFFOLD),  # "Answer:"
        Span(99, 100, Region.SCAFFOLD),
        Span(100, 121, Region.SCRATCHPAD, 1, text=120),
        Span(121, 123, Region.SCAFFOLD),
        Span(123, 133, Region.SCAFFOLD),
        Span(133, 136, Region.QUESTION),
        Span(136, 138, Region.SCAFFOLD),
        Span(138, 145, Region.SCAFFOLD),
        Span(145, 147, Region.ANSWER),  # " z"
    )
    assert rendered.prompt_end == 99


def words() -> st.SearchStrategy[str]:
    """Any text that data files may hold: something to read in it, in any script."""
    scripts = st.sampled_from(
        ["שלום", "مرحبا بالعالم", "👩‍👩‍👧 🏳️‍🌈", "日本語", "e\u0301", "a\nb", "\u202eabc"]
    )
    mixed = st.lists(st.one_of(st.text(), scripts), min_size=1, max_size=3).map(" ".join)
    return st.one_of(st.text(), scripts, mixed).filter(str.strip)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    passages = draw(st.lists(st.builds(Passage, words(), words()), min_size=1, max_size=4))
    indices = st.integers(0, len(passages) - 1)
    gold = draw(st.lists(indices, min_size=1, max_size=len(passages), unique=True))
    answers = draw(st.lists(words(), min_size=1, max_size=2))
    return Example("q", draw(words()), tuple(answers), tuple(passages), tuple(gold))


@given(
    example=examples(),
    wording=st.sampled_from([PLAIN, CHATML, NO_SYSTEM_TURN]),
    method=st.sampled_from(Method),
)
def test_spans_cover_the_text_and_hold_what_they_name(
    example: Example, wording: Wording, method: Method
) -> None:
    rendered = render_sample(example, wording, method)
    position = 0
    for span in rendered.spans:
        assert span.start == position
        assert span.end > span.start
        position = span.end
    assert position == len(rendered.text)
    assert any(span.start == rendered.prompt_end for span in rendered.spans)

    assert pieces(rendered, Region.SYSTEM) == [wording.system]
    question = format_question(example.question)
    assert pieces(rendered, Region.QUESTION) == [question] * (
        3 if method is Method.SCRATCHPAD else 2
    )
    shown = [f"Document (Title: {p.title}) {p.text}" for p in example.passages]
    assert pieces(rendered, Region.CONTEXT) == shown
    quoted = [shown[index] for index in example.gold] if method is Method.SCRATCHPAD else []
    assert pieces(rendered, Region.SCRATCHPAD) == quoted
    (answer,) = pieces(rendered, Region.ANSWER)
    assert answer.lstrip(" ") == example.answers[0].strip()
    numbered = [s.passage for s in rendered.spans if s.passage is not None]
    assert numbered == [*range(len(shown)), *(example.gold if quoted else ())]


@given(example=examples(), wording=st.sampled_from([PLAIN, CHATML, NO_SYSTEM_TURN]))
def test_a_forced_scratchpad_is_all_prompt(example: Example, wording: Wording) -> None:
    forced = render_forced(example, wording, example.gold)
    sample = render_sample(example, wording, Method.SCRATCHPAD)
    assert forced.prompt == forced.text == sample.text[: len(forced.text)]
    assert sample.text[len(forced.text) :] == f" {example.answers[0].strip()}"
    assert forced.spans == sample.spans[:-1]
    assert not forced.ends


@given(example=examples(), wording=st.sampled_from([PLAIN, CHATML, NO_SYSTEM_TURN]))
def test_the_prompt_in_use_is_the_prompt_in_training(example: Example, wording: Wording) -> None:
    prompt = render_prompt(example, wording)
    for method in Method:
        sample = render_sample(example, wording, method)
        assert sample.prompt == prompt.text
        assert sample.spans[: len(prompt.spans)] == prompt.spans


@given(title=words(), text=words())
def test_a_passage_is_the_same_in_context_and_scratchpad(title: str, text: str) -> None:
    passage = Passage(title, text)
    rendered = render_sample(Example("q", "w", ("a",), (passage,), (0,)), PLAIN, Method.SCRATCHPAD)
    written = format_passage(passage)
    assert pieces(rendered, Region.CONTEXT) == pieces(rendered, Region.SCRATCHPAD) == [written]


# --- chat templates


def test_markers_are_read_from_a_chat_template(chat_tokenizer: Any) -> None:
    assert choose_wording(chat_tokenizer, "auto") == CHATML
    assert choose_wording(chat_tokenizer, "plain") == PLAIN
    whole = chat_tokenizer.apply_chat_template(
        [
            {"role": "system", "content": PLAIN_PROMPT.split("\n\n", 1)[0]},
            {"role": "user", "content": PLAIN_PROMPT.split("\n\n", 1)[1]},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert render_prompt(NOBEL, CHATML).text == whole


def test_smollm2_s_own_template(smollm2_tokenizer: Any) -> None:
    assert choose_wording(smollm2_tokenizer, "auto") == CHATML


REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
)
INST = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "[INST] {{ message['content'] }} [/INST]{% else %}{{ message['content'] }}</s>"
    "{% endif %}{% endfor %}"
)
# Mistral's older templates put the system sentence into the user turn by themselves.
FOLDS_SYSTEM = (
    "{% for message in messages %}{% if message['role'] == 'system' %}[INST] {{ message['content'] "
    "}}\n{% elif message['role'] == 'user' %}{{ message['content'] }} [/INST]{% else %}"
    "{{ message['content'] }}</s>{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    "template",
    [REFUSES_SYSTEM + INST, INST.replace("{% else", "{% elif message['role'] == 'assistant'")],
)
def test_a_template_without_system_turn(chat_tokenizer: Any, template: str) -> None:
    kept = chat_tokenizer.chat_template
    try:
        chat_tokenizer.chat_template = template
        wording = choose_wording(chat_tokenizer, "chat")
    finally:
        chat_tokenizer.chat_template = kept
    assert wording == NO_SYSTEM_TURN


def test_a_template_that_folds_the_system_turn_itself(chat_tokenizer: Any) -> None:
    kept = chat_tokenizer.chat_template
    try:
        chat_tokenizer.chat_template = FOLDS_SYSTEM
        wording = choose_wording(chat_tokenizer, "chat")
    finally:
        chat_tokenizer.chat_template = kept
    assert wording.chat == ChatMarkers("[INST] ", "\n", " [/INST]", "</s>")


def test_chat_needs_a_template_and_formats_are_known(byte_level_tokenizer: Any) -> None:
    assert choose_wording(byte_level_tokenizer, "auto") == PLAIN
    with pytest.raises(ModelError, match="no chat template"):
        choose_wording(byte_level_tokenizer, "chat")
    with pytest.raises(ModelError, match="'chatty'; choose from auto, plain, chat"):
        choose_wording(byte_level_tokenizer, "chatty")
