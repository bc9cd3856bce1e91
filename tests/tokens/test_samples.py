from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scratchpad_rag.data.curriculum import Curriculum
from scratchpad_rag.errors import DataError, ModelError
from scratchpad_rag.prompts.template import ChatMarkers, Wording
from scratchpad_rag.records import Encoded, Example, LossRegion, Method, Passage, Region
from scratchpad_rag.tokens.encode import IGNORED
from scratchpad_rag.tokens.samples import DrawnSamples, EpochSamples, FixedSamples, SampleFormat

CHATML = Wording(
    chat=ChatMarkers(
        "<|im_start|>system\n",
        "<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>",
    )
)
END = 2
KINDS = [
    pytest.param(("byte_level_tokenizer", Wording()), id="byte-level-plain"),
    pytest.param(("chat_tokenizer", CHATML), id="byte-level-chat"),
    pytest.param(("metaspace_tokenizer", Wording()), id="metaspace-plain"),
]
ExampleMaker = Callable[..., Example]


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> tuple[Any, Wording]:
    name, wording = request.param
    return request.getfixturevalue(name), wording


def form(
    kind: tuple[Any, Wording],
    method: Method = Method.SCRATCHPAD,
    region: LossRegion = LossRegion.COMPLETION,
) -> SampleFormat:
    return SampleFormat(kind[1], kind[0], method, region, END)


def text(kind: tuple[Any, Wording], ids: Any) -> str:
    return kind[0].decode(list(ids), clean_up_tokenization_spaces=False)


def learnt(kind: tuple[Any, Wording], sample: Encoded) -> str:
    assert sample.labels[-1] == END
    return text(kind, [label for label in sample.labels[:-1] if label != IGNORED])


# --- a list


def test_fixed_samples_are_the_same_every_epoch(
    kind: tuple[Any, Wording], make_example: ExampleMaker
) -> None:
    encoded = [form(kind).encode(make_example(number=n, words=5 * n)) for n in range(3)]
    samples: EpochSamples = FixedSamples(encoded)
    assert len(samples) == 3
    for epoch in (0, 7):
        assert [samples.sample(epoch, index) for index in range(3)] == encoded
        assert list(samples.lengths(epoch)) == [len(one.input_ids) for one in encoded]


# --- drawn samples


def test_a_sample_shows_what_the_plan_says(
    kind: tuple[Any, Wording], make_example: ExampleMaker
) -> None:
    asked = [make_example(documents=6, number=number) for number in range(4)]
    samples = DrawnSamples(asked, Curriculum(2, 5, no_gold_rate=0.25), form(kind))
    assert len(samples) == 4
    without = 0
    for epoch in range(4):
        for index, placement in enumerate(samples.plan(epoch)):
            sample = samples.sample(epoch, index)
            prompt = text(kind, sample.input_ids[: sample.prompt_length])
            shown = prompt.split("Document (Title: ")[1:]
            assert len(shown) == placement.total_docs
            at = [place for place, passage in enumerate(shown) if passage.startswith("Bridge")]
            assert at == ([] if placement.gold_at is None else [placement.gold_at])
            answer = "unanswerable" if placement.gold_at is None else str(1800 + index)
            assert learnt(kind, sample).endswith(f"Answer: {answer}")
            without += placement.gold_at is None
    assert without == 4


def words() -> st.SearchStrategy[str]:
    odd = st.sampled_from(["שלום", "👩‍👩‍👧", "a\n\nb", "Answer: 3", "<|im_end|>", "x  \n"])
    pieces = st.one_of(st.text(max_size=12), odd)
    return st.lists(pieces, min_size=1, max_size=3).map(" ".join).filter(str.strip)


@st.composite
def examples(draw: st.DrawFn, number: int) -> Example:
    shown = draw(st.lists(st.builds(Passage, words(), words()), min_size=4, max_size=6))
    gold = (Passage("the gold one", draw(words())), *shown)
    return Example(f"q{number}", draw(words()), (draw(words()),), gold, (0,))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), epoch=st.integers(0, 9), method=st.sampled_from(Method))
def test_lengths_are_those_of_the_samples(
    kind: tuple[Any, Wording], data: st.DataObject, epoch: int, method: Method
) -> None:
    asked = [data.draw(examples(number)) for number in range(3)]
    samples = DrawnSamples(asked, Curriculum(1, 5, no_gold_rate=0.34), form(kind, method))
    try:
        encoded = [samples.sample(epoch, index) for index in range(3)]
    except ModelError:  # an answer that the tokenizer joins with the end of a prompt
        return
    assert list(samples.lengths(epoch)) == [len(one.input_ids) for one in encoded]


def test_samples_in_sentences_show_and_quote_what_would_support(kind: tuple[Any, Wording]) -> None:
    """The gold passage's sentence with the answer, and of each distractor the one most like the
    question; the count is of these texts too."""
    passages = (
        Passage("Ida", "Ida was born. She built it in 1911."),
        Passage("Ard", "It floods. The bridge over it was built of oak."),
    )
    asked = [Example("q", "when was the bridge built", ("1911",), passages, (0,))]
    samples = DrawnSamples(asked, Curriculum(2, 2, sentences=True), form(kind))
    sample = samples.sample(0, 0)
    assert samples.lengths(0) == (len(sample),)
    shown = text(kind, sample.input_ids)
    assert "She built it in 1911." in shown
    assert "The bridge over it was built of oak." in shown
    assert "Ida was born." not in shown
    assert "It floods." not in shown
    assert "Document (Title: Ida) She built it in 1911.\n" in learnt(kind, sample)


def test_a_resumed_training_sees_the_same_samples(
    kind: tuple[Any, Wording], make_example: ExampleMaker
) -> None:
    asked = [make_example(documents=6, number=number) for number in range(5)]
    curriculum = Curriculum(2, 5, no_gold_rate=0.2, seed=3)
    first = DrawnSamples(asked, curriculum, form(kind))
    seen = {(e, i): first.sample(e, i) for e in range(4) for i in range(5)}
    resumed = DrawnSamples(list(asked), curriculum, form(kind))
    for (epoch, index), sample in reversed(seen.items()):
        assert resumed.sample(epoch, index) == sample
    assert len({sample.input_ids for sample in seen.values()}) > 15


def test_drawn_samples_can_be_sent_to_another_process(
    byte_level_tokenizer: Any, make_example: ExampleMaker
) -> None:
    asked = [make_example(number=number) for number in range(3)]
    samples = DrawnSamples(asked, Curriculum(3, 3), form((byte_level_tokenizer, Wording())))
    samples.lengths(0)
    sent = pickle.loads(pickle.dumps(samples))
    assert sent.sample(2, 1) == samples.sample(2, 1)


def test_questions_that_do_not_fit_are_refused_at_once(
    kind: tuple[Any, Wording], make_example: ExampleMaker
) -> None:
    with pytest.raises(DataError, match="'q0' has 5 passages, and up to 6 documents"):
        DrawnSamples([make_example(documents=5)], Curriculum(3, 6), form(kind))


def test_a_token_over_the_border_is_refused_when_counted(metaspace_tokenizer: Any) -> None:
    """An instruction marker without a token of its own, and an answer that goes on with it."""
    wording = Wording(chat=ChatMarkers("", None, " the br", "</s>"))
    joined = (metaspace_tokenizer, wording)
    example = Example("q", "who", ("idge",), (Passage("T", "t"), Passage("S", "s")), (0,))
    samples = DrawnSamples([example], Curriculum(2, 2), form(joined, Method.SFT))
    with pytest.raises(ModelError, match="joins the prompt's end with the completion"):
        samples.sample(0, 0)
    with pytest.raises(ModelError, match="joins the prompt's end with the completion"):
        samples.lengths(0)


# --- labels where there is nothing to quote

NOTHING = "None of the documents supports an answer."
RESTATED = "\n\nQuestion: When was bridge 0 built?\n\nAnswer: unanswerable"


def test_what_an_abstaining_sample_learns(
    kind: tuple[Any, Wording], make_example: ExampleMaker
) -> None:
    example = make_example(gold=())
    for method, written in ((Method.SCRATCHPAD, NOTHING + RESTATED), (Method.SFT, "unanswerable")):
        sample = form(kind, method).encode(example, abstain=True)
        assert learnt(kind, sample).strip() == written
        assert form(kind, method).count(example, abstain=True) == len(sample)
        answer = form(kind, method, LossRegion.ANSWER).encode(example, abstain=True)
        assert learnt(kind, answer).strip() == "unanswerable"
        whole = form(kind, method, LossRegion.SAMPLE).encode(example, abstain=True)
        assert whole.labels == (IGNORED, *whole.input_ids[1:])


def test_the_sentence_is_the_scratchpad(
    kind: tuple[Any, Wording], make_example: ExampleMaker
) -> None:
    sample = form(kind).encode(make_example(gold=()), abstain=True)
    pairs = zip(sample.input_ids, sample.regions, strict=True)
    scratchpad = [token for token, region in pairs if region is Region.SCRATCHPAD]
    assert text(kind, scratchpad).strip() == NOTHING
