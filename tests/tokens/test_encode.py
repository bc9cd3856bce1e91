from __future__ import annotations

import copy
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scratchpad_rag.errors import ModelError, SampleTooLongError
from scratchpad_rag.prompts.render import render_forced, render_prompt, render_sample
from scratchpad_rag.prompts.template import ChatMarkers, Wording
from scratchpad_rag.records import (
    Encoded,
    Example,
    LossRegion,
    Method,
    Passage,
    Region,
    Rendered,
    ScratchpadForm,
)
from scratchpad_rag.tokens.encode import (
    IGNORED,
    encode_prompt,
    encode_sample,
    require_fitting,
    token_regions,
    token_span,
    tokenize_piece,
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
INST = Wording(chat=ChatMarkers("<s>[INST] ", None, " [/INST]", "</s>"))
# Tokenizer fixture and wording: each of the formats that a model is really used with.
KINDS = [
    pytest.param(("smollm2_tokenizer", CHATML), id="smollm2-chat"),
    pytest.param(("smollm2_tokenizer", PLAIN), id="smollm2-plain"),
    pytest.param(("byte_level_tokenizer", PLAIN), id="byte-level-plain"),
    pytest.param(("chat_tokenizer", CHATML), id="byte-level-chat"),
    pytest.param(("trimming_tokenizer", PLAIN), id="trimmed-offsets-plain"),
    pytest.param(("metaspace_tokenizer", PLAIN), id="metaspace-plain"),
    pytest.param(("metaspace_tokenizer", INST), id="metaspace-inst"),
]


@pytest.fixture(scope="module")
def trimming_tokenizer(byte_level_tokenizer: Any) -> Any:
    """Leaves the space before a word out of the word's offsets, as Llama 3's does."""
    from tokenizers import processors

    tokenizer = copy.deepcopy(byte_level_tokenizer)
    opening = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    trimming = processors.ByteLevel(trim_offsets=True)
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([trimming, opening])
    offsets = tokenizer("in a", add_special_tokens=False, return_offsets_mapping=True)
    assert offsets["offset_mapping"][-1] == (3, 4)
    return tokenizer


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> tuple[Any, Wording]:
    name, wording = request.param
    return request.getfixturevalue(name), wording


def end_of(tokenizer: Any, wording: Wording) -> int:
    ending = wording.chat.end_of_turn if wording.chat else tokenizer.eos_token
    return tokenizer.convert_tokens_to_ids(ending)


def kind_is_metaspace(tokenizer: Any) -> bool:
    return "▁the" in tokenizer.get_vocab()


def decode(tokenizer: Any, ids: Any) -> str:
    return tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


def learnt(sample: Encoded) -> list[int]:
    return [label for label in sample.labels if label != IGNORED]


EXAMPLE = Example(
    "q",
    "who opened the lighthouse",
    ("Ida Holm",),
    (
        Passage("Corvin", "The lighthouse of Corvin was opened in 1874."),
        Passage("Keeper (naïve)", "Ida Holm — 🌍 — opened it.\n\nAnswer: no. שלום"),
    ),
    (1,),
)


# --- labels by hand


def test_prompt_ids_open_the_sample_and_the_end_closes_it(kind: tuple[Any, Wording]) -> None:
    tokenizer, wording = kind
    end = end_of(tokenizer, wording)
    prompt = encode_prompt(render_prompt(EXAMPLE, wording), tokenizer)
    for method in Method:
        rendered = render_sample(EXAMPLE, wording, method)
        sample = encode_sample(rendered, tokenizer, LossRegion.SAMPLE, end)
        assert list(sample.input_ids[: len(prompt)]) == prompt
        assert sample.prompt_length == len(prompt)
        assert sample.input_ids[-1] == sample.labels[-1] == end
        assert len(sample.input_ids) == len(sample.labels) == len(sample.regions) == len(sample)


def test_the_opening_token_is_the_tokenizer_s_own(
    byte_level_tokenizer: Any, smollm2_tokenizer: Any
) -> None:
    rendered = render_prompt(EXAMPLE, PLAIN)
    assert encode_prompt(rendered, byte_level_tokenizer)[0] == byte_level_tokenizer.bos_token_id
    with_bos = encode_prompt(rendered, byte_level_tokenizer)
    assert with_bos.count(byte_level_tokenizer.bos_token_id) == 1
    # SmolLM2 opens texts with nothing.
    assert encode_prompt(rendered, smollm2_tokenizer) == smollm2_tokenizer(rendered.text).input_ids


def test_what_each_loss_region_learns(kind: tuple[Any, Wording]) -> None:
    tokenizer, wording = kind
    end = end_of(tokenizer, wording)
    rendered = render_sample(EXAMPLE, wording, Method.SCRATCHPAD)
    by_region = {region: encode_sample(rendered, tokenizer, region, end) for region in LossRegion}
    whole = by_region[LossRegion.SAMPLE]
    assert whole.labels == (IGNORED, *whole.input_ids[1:])

    completion = learnt(by_region[LossRegion.COMPLETION])
    assert completion[-1] == end
    assert decode(tokenizer, completion[:-1]).strip() == (
        "Document (Title: Keeper (naïve)) Ida Holm — 🌍 — opened it.\n\nAnswer: no. שלום\n\n"
        "Question: Who opened the lighthouse?\n\nAnswer: Ida Holm"
    )

    answer = learnt(by_region[LossRegion.ANSWER])
    assert answer[-1] == end
    assert decode(tokenizer, answer[:-1]).strip() == "Ida Holm"


def test_the_answer_of_an_sft_sample(kind: tuple[Any, Wording]) -> None:
    tokenizer, wording = kind
    end = end_of(tokenizer, wording)
    rendered = render_sample(EXAMPLE, wording, Method.SFT)
    for region in (LossRegion.COMPLETION, LossRegion.ANSWER):
        labels = learnt(encode_sample(rendered, tokenizer, region, end))
        assert labels[-1] == end
        assert decode(tokenizer, labels[:-1]).strip() == "Ida Holm"


def test_labels_stand_at_the_place_of_their_token(kind: tuple[Any, Wording]) -> None:
    tokenizer, wording = kind
    rendered = render_sample(EXAMPLE, wording, Method.SCRATCHPAD)
    for region in LossRegion:
        sample = encode_sample(rendered, tokenizer, region, 2)
        for token, label in zip(sample.input_ids, sample.labels, strict=True):
            assert label in (IGNORED, token)
        assert sample.labels[0] == IGNORED


def test_regions_of_tokens_spell_the_regions_of_characters(kind: tuple[Any, Wording]) -> None:
    tokenizer, wording = kind
    rendered = render_sample(EXAMPLE, wording, Method.SCRATCHPAD)
    sample = encode_sample(rendered, tokenizer, LossRegion.SAMPLE, 2)
    quoted = decode(
        tokenizer,
        [
            token
            for token, region in zip(sample.input_ids, sample.regions, strict=True)
            if region is Region.SCRATCHPAD
        ],
    ).strip()
    passage = "Document (Title: Keeper (naïve)) Ida Holm — 🌍 — opened it.\n\nAnswer: no. שלום"
    # A first token that holds the space before the passage may belong to that space.
    assert quoted in (passage, passage.removeprefix("Document "))
    asked = [
        token
        for token, region in zip(sample.input_ids, sample.regions, strict=True)
        if region is Region.QUESTION
    ]
    assert decode(tokenizer, asked).count("opened the lighthouse?") == 3
    assert sample.regions[-1] is Region.ANSWER


# --- text that looks like a special token


@pytest.mark.parametrize("method", list(Method))
def test_special_tokens_in_a_passage_are_plain_text(
    kind: tuple[Any, Wording], method: Method
) -> None:
    tokenizer, wording = kind
    names = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    assert len(names) >= 3
    number = {tokenizer.convert_tokens_to_ids(name) for name in names}
    text = "A page about " + " and ".join(names) + "."
    forged = Example("q", f"what is {names[-1]}", (f"{names[1]} it",), (Passage("P", text),), (0,))
    plain = Example("q", "what is x", ("y it",), (Passage("P", "A page."),), (0,))

    def specials(example: Example) -> list[int]:
        rendered = render_sample(example, wording, method)
        sample = encode_sample(rendered, tokenizer, LossRegion.SAMPLE, end_of(tokenizer, wording))
        prompt = encode_prompt(render_prompt(example, wording), tokenizer)
        assert list(sample.input_ids[: sample.prompt_length]) == prompt
        return [token for token in sample.input_ids if token in number]

    # Only those that the format itself writes, which a harmless example has too.
    assert specials(forged) == specials(plain)


def test_forged_specials_are_still_spelt_out(kind: tuple[Any, Wording]) -> None:
    tokenizer, wording = kind
    name = tokenizer.added_tokens_decoder[2].content
    passage = Passage("P", f"Say {name} aloud.")
    rendered = render_prompt(Example("q", "why", ("y",), (passage,), (0,)), wording)
    assert f"Say {name} aloud." in decode(tokenizer, encode_prompt(rendered, tokenizer))


# --- too long, and other refusals


def test_a_sample_that_is_too_long_is_refused_with_both_numbers() -> None:
    require_fitting([10, 12], 12)
    with pytest.raises(SampleTooLongError) as caught:
        require_fitting([10, 13, 40, 12], 12)
    message = str(caught.value)
    assert "2 of 4 samples" in message
    assert "context of 12 tokens" in message
    assert "the longest has 40" in message


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="no fast tokenizer"):
        encode_prompt(render_prompt(EXAMPLE, PLAIN), Slow())  # type: ignore[arg-type]


def test_a_token_across_the_border_is_refused() -> None:
    class Joining:
        """Makes one token of every two characters."""

        is_fast = True

        def __call__(self, text: str, **_: Any) -> dict[str, Any]:
            cuts = [(i, min(i + 2, len(text))) for i in range(0, len(text), 2)]
            ids = [sum(map(ord, text[a:b])) for a, b in cuts]
            return {"input_ids": ids, "offset_mapping": cuts}

    rendered = Rendered("abcde", 3, render_sample(EXAMPLE, PLAIN, Method.SFT).spans[:1], ends=True)
    with pytest.raises(ModelError, match="joins the prompt's end"):
        encode_sample(rendered, Joining(), LossRegion.SAMPLE, 0)  # type: ignore[arg-type]


def test_token_spans_and_regions_by_hand() -> None:
    offsets = [(0, 0), (0, 3), (3, 7), (7, 9), (9, 9)]
    assert token_span(offsets, (0, 1)) == (1, 2)
    assert token_span(offsets, (2, 4)) == (1, 3)
    assert token_span(offsets, (3, 7)) == (2, 3)
    assert token_span(offsets, (8, 9)) == (3, 4)
    assert token_span(offsets, (9, 9)) == (0, 0)
    example = Example("q", "ab", ("z",), (), ())
    rendered = render_prompt(example, Wording(system="Sys."))
    assert rendered.text == "Sys.\n\nQuestion: Ab?\n\nAnswer:"
    #        bos     "Sy"    "s.\n"  "\nQuestion: " "Ab"     "?\n\n"   "Answer:"
    cuts = [(0, 0), (0, 2), (2, 5), (5, 16), (16, 18), (18, 21), (21, 28)]
    assert token_regions(cuts, rendered) == [
        Region.SCAFFOLD,
        Region.SYSTEM,
        Region.SYSTEM,  # a token belongs where its first character does
        Region.SCAFFOLD,
        Region.QUESTION,
        Region.QUESTION,
        Region.SCAFFOLD,
    ]


# --- any text


# What every vocabulary can spell: SmolLM2's has no token for some control characters, and for
# bytes that only the empty planes of Unicode use.
ALPHABET = st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co")) | st.sampled_from("\n\t")


def texts() -> st.SearchStrategy[str]:
    scripts = st.sampled_from(
        [
            "שלום",
            "مرحبا",
            "👩‍👩‍👧",
            "日本",
            "e\u0301",
            "a\n\nb",
            "  two",
            "<|im_end|>",
            "</s>",
            "<s>",
        ]
    )
    mixed = st.lists(st.one_of(st.text(ALPHABET, max_size=12), scripts), min_size=1, max_size=3)
    # U+2581 is how Metaspace writes a space: it cannot be told from one again.
    return mixed.map(" ".join).filter(lambda text: text.strip() and "\u2581" not in text)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    passages = draw(st.lists(st.builds(Passage, texts(), texts()), min_size=1, max_size=3))
    indices = st.integers(0, len(passages) - 1)
    gold = draw(st.lists(indices, min_size=1, max_size=len(passages), unique=True))
    return Example("q", draw(texts()), (draw(texts()),), tuple(passages), tuple(gold))


def test_threads_take_turns_at_a_tokenizer() -> None:
    """What one sets for its call, such as whether special tokens are split, no other changes."""
    inside: list[int] = []
    together: list[int] = []

    def tokenizer(text: str, **_: Any) -> dict[str, Any]:
        inside.append(1)
        together.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return {"input_ids": [1], "offset_mapping": [(0, len(text))]}

    turns: Any = tokenizer
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: tokenize_piece("a", "b", "c", turns), range(8)))
    assert together == [1] * 8


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(example=examples(), method=st.sampled_from(Method))
def test_any_sample_is_learnt_to_the_letter(
    kind: tuple[Any, Wording], example: Example, method: Method
) -> None:
    tokenizer, wording = kind
    end = end_of(tokenizer, wording)
    rendered = render_sample(example, wording, method)
    prompt = encode_prompt(render_prompt(example, wording), tokenizer)
    sample = encode_sample(rendered, tokenizer, LossRegion.COMPLETION, end)
    assert list(sample.input_ids[: len(prompt)]) == prompt
    assert sample.labels[: len(prompt)] == (IGNORED,) * len(prompt)
    assert sample.labels[len(prompt) :] == sample.input_ids[len(prompt) :]
    assert sample.labels[-1] == end
    # Decoded after one visible word, so that no decoder takes the first space away.
    word = tokenizer("x", add_special_tokens=False).input_ids
    said = decode(tokenizer, [*word, *learnt(sample)[:-1]])
    answer = learnt(encode_sample(rendered, tokenizer, LossRegion.ANSWER, end))[:-1]
    answered = decode(tokenizer, [*word, *answer])
    if kind_is_metaspace(tokenizer):
        # Pieces that are tokenized apart each open with a space of their own.
        said, answered = said.replace(" ", ""), answered.replace(" ", "")
        assert said == "x" + rendered.completion.replace(" ", "")
        assert answered == "x" + example.answers[0].strip().replace(" ", "")
        return
    assert said == "x" + rendered.completion
    assert answered.removeprefix("x").removeprefix(" ") == example.answers[0].strip()


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(example=examples())
def test_a_forced_scratchpad_is_what_a_training_sample_begins_with(
    kind: tuple[Any, Wording], example: Example
) -> None:
    tokenizer, wording = kind
    forced = render_forced(example, wording, example.gold)
    ids = encode_prompt(forced, tokenizer)
    sample = encode_sample(
        render_sample(example, wording, Method.SCRATCHPAD),
        tokenizer,
        LossRegion.ANSWER,
        end_of(tokenizer, wording),
    )
    assert list(sample.input_ids[: len(ids)]) == ids
    # Behind it stands what is learnt as the answer, and nothing else.
    assert sample.labels[: len(ids)] == (IGNORED,) * len(ids)
    assert IGNORED not in sample.labels[len(ids) :]


# --- tokens that choose what is quoted


@pytest.mark.parametrize(
    ("form", "gold", "expected"),
    [
        (ScratchpadForm.PASSAGE, (0,), [" Town"]),
        (ScratchpadForm.PASSAGE, (1,), [" River", " ("]),
        (ScratchpadForm.PASSAGE, (2,), [" River", ")"]),
        (ScratchpadForm.PASSAGE, (1, 0), [" River", " (", " Town"]),
        (ScratchpadForm.TITLE, (2,), [" River", ")"]),
        (ScratchpadForm.SENTENCE, (1,), [" River", " (", " It"]),
        (ScratchpadForm.INDEX, (1,), ["2"]),
    ],
)
def test_choices_by_hand(
    smollm2_tokenizer: Any, form: ScratchpadForm, gold: tuple[int, ...], expected: list[str]
) -> None:
    """Of the title's first word, and a second among the titles that begin with it."""
    passages = (
        Passage("Town", "The bridge."),
        Passage("River (A)", "The bridge. It fell."),
        Passage("River", "The bridge."),
    )
    example = Example("q", "what fell", ("x",), passages, gold)
    rendered = render_sample(example, replace(PLAIN, form=form), Method.SCRATCHPAD)
    encoded = encode_sample(rendered, smollm2_tokenizer, LossRegion.COMPLETION, 0)
    said = [smollm2_tokenizer.decode([encoded.input_ids[token]]) for token in encoded.choices]
    assert said == expected
    assert {encoded.regions[token] for token in encoded.choices} == {Region.SCRATCHPAD}


def test_nothing_is_chosen_where_there_is_no_other(smollm2_tokenizer: Any) -> None:
    passage = Passage("Marren", "The town. It is old.")
    for shown in ((passage,), (passage, passage)):
        example = Example("q", "who", ("x",), shown, (0,))
        assert render_sample(example, PLAIN, Method.SCRATCHPAD).choices == ()
    sentences = replace(PLAIN, form=ScratchpadForm.SENTENCE)
    example = Example("q", "is it old", ("x",), (passage,), (0,))
    encoded = encode_sample(
        render_sample(example, sentences, Method.SCRATCHPAD),
        smollm2_tokenizer,
        LossRegion.SAMPLE,
        0,
    )
    assert [smollm2_tokenizer.decode([encoded.input_ids[t]]) for t in encoded.choices] == [" It"]


@pytest.mark.parametrize(
    ("gold", "abstain", "expected"),
    [
        ((0,), False, [" Document", "Question"]),
        ((1, 0), False, [" Document", "Document", "Question"]),
        ((), True, [" None"]),
    ],
)
def test_turns_by_hand(
    smollm2_tokenizer: Any, gold: tuple[int, ...], abstain: bool, expected: list[str]
) -> None:
    """Whether anything is quoted, whether a further passage is, and the end of quoting."""
    passages = (Passage("Town", "The bridge."), Passage("River", "It fell."))
    example = Example("q", "what fell", ("x",), passages, gold)
    rendered = render_sample(example, PLAIN, Method.SCRATCHPAD, abstain=abstain)
    encoded = encode_sample(rendered, smollm2_tokenizer, LossRegion.COMPLETION, 0)
    said = [smollm2_tokenizer.decode([encoded.input_ids[token]]) for token in encoded.turns]
    assert said == expected
    assert not set(encoded.turns) & set(encoded.choices)
