"""The native backend on whole prompts: text in, quotes that can be traced out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from scratchpad_rag.backends.base import load_backend, require_backend, stream_from
from scratchpad_rag.backends.native import NativeBackend, why_not_native
from scratchpad_rag.backends.transformers import TransformersBackend
from scratchpad_rag.config import DataConfig, GenerateConfig, ModelConfig, load_model_config
from scratchpad_rag.data.select import select_samples
from scratchpad_rag.data.sentences import split_sentences
from scratchpad_rag.decode.draft import Drafter, Habits
from scratchpad_rag.decode.grammar import Grammar
from scratchpad_rag.errors import ConfigError, SampleTooLongError
from scratchpad_rag.models.load import LoadedModel, load_model
from scratchpad_rag.prompts.parse import parse_completion
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.reader import Reader
from scratchpad_rag.records import (
    Completion,
    EvalSplit,
    Example,
    Method,
    Passage,
    Piece,
    Progress,
    Rendered,
)
from scratchpad_rag.tokens.encode import encode_prompt
from scratchpad_rag.tokens.layout import encode_layout

NEW = 24
NATIVE = GenerateConfig(max_new_tokens=NEW)
PLAIN = GenerateConfig(backend="transformers", max_new_tokens=NEW, prompt_lookup_num_tokens=0)
MakeExample = Callable[..., Example]


@pytest.fixture(scope="module", params=["tiny_mistral", "tiny_chat_mistral"])
def loaded(request: pytest.FixtureRequest) -> LoadedModel:
    """In float64, where the shape of a batch changes no choice; once plain, once chat."""
    folder: Path = request.getfixturevalue(request.param)
    return load_model(ModelConfig(str(folder), torch_dtype="float64"))


def prompts_of(loaded: LoadedModel, examples: list[Example]) -> list[Rendered]:
    return [render_prompt(example, loaded.wording) for example in examples]


def answer(
    loaded: LoadedModel, prompts: list[Rendered], config: GenerateConfig
) -> list[Completion]:
    return list(load_backend(loaded, config).generate(prompts))


@pytest.mark.parametrize("rows", [1, 3])
def test_writes_what_transformers_writes(
    loaded: LoadedModel, make_example: MakeExample, rows: int
) -> None:
    examples = [make_example(documents=n, number=n) for n in (4, 1, 7, 3)]
    prompts = prompts_of(loaded, examples)
    ours = answer(loaded, prompts, replace(NATIVE, batch_size=rows))
    theirs = answer(loaded, prompts, PLAIN)
    for one, other in zip(ours, theirs, strict=True):
        assert one.token_ids == other.token_ids
        assert one.text == other.text
        assert one.finish_reason == other.finish_reason
        assert one.new_tokens == other.new_tokens
        assert one.prompt_tokens == other.prompt_tokens


def test_accounting(loaded: LoadedModel, make_example: MakeExample) -> None:
    [completion] = answer(loaded, prompts_of(loaded, [make_example(documents=4)]), NATIVE)
    assert completion.prefilled_tokens == completion.prompt_tokens
    assert completion.accepted_tokens <= completion.drafted_tokens
    # A pass brings its accepted tokens and one more.
    assert completion.new_tokens == completion.accepted_tokens + completion.forward_passes
    assert 0 < completion.first_token_seconds <= completion.wall_seconds


def test_positions_of_one_question_share_their_prefixes(
    loaded: LoadedModel, make_example: MakeExample
) -> None:
    example = make_example(documents=6, gold=(0,))
    orders = [[*range(1, 1 + p), 0, *range(1 + p, 6)] for p in (0, 2, 4, 5)]
    placed = [replace(example, passages=tuple(example.passages[i] for i in o)) for o in orders]
    prompts = prompts_of(loaded, placed)
    shared = answer(loaded, prompts, NATIVE)
    apart = [answer(loaded, [prompt], NATIVE)[0] for prompt in prompts]
    assert [c.token_ids for c in shared] == [c.token_ids for c in apart]
    assert sum(c.prefilled_tokens for c in shared) < 0.8 * sum(c.prompt_tokens for c in shared)


HARD = (
    Passage("A (b) c", "It closes. Answer: not here!"),
    Passage("Twin", "The same words. Twice."),
    Passage("Twin", "The same words. Twice."),
    Passage("One", "x"),
    Passage("Stop", "It says </s> and <|im_end|> in passing."),
    Passage("Nested", "a\n\nQuestion: Why?\n\nAnswer: because"),
    Passage("Naïve café", "Ünïcödé 漢字 😀 ends here"),
    Passage("Copied", "Document (Title: Twin) The same words."),
)


@contextmanager
def wanting(loaded: LoadedModel, token: int) -> Iterator[None]:
    """While it lasts the model finds one token likelier than any other."""

    def favour(_module: Any, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        logits[..., token] += 1e3
        return logits

    hook = loaded.model.get_output_embeddings().register_forward_hook(favour)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("quote", ["passage", "sentence"])
def test_verbatim_may_abstain(loaded: LoadedModel, quote: str) -> None:
    example = Example("q", "what is it", (), HARD[:3], ())
    [prompt] = prompts_of(loaded, [example])
    none = encode_layout(prompt, loaded.tokenizer).nothing[0]
    config = replace(NATIVE, max_new_tokens=600, verbatim=True, quote=quote)
    with wanting(loaded, none):
        *pieces, completion = stream_from(load_backend(loaded, config), prompt)
        held = answer(loaded, [prompt], replace(config, abstain=False))[0]
    assert isinstance(completion, Completion)
    sentence = "None of the documents supports an answer.\n\nQuestion: What is it?\n\nAnswer:"
    assert completion.text.lstrip(" ").startswith(sentence)
    reading = parse_completion(completion.text, example, Method.SCRATCHPAD)
    assert (reading.abstained, reading.parsed, reading.quotes) == (True, True, ())
    assert "".join(p.text for p in pieces if isinstance(p, Piece)) == completion.text
    assert {p.passage for p in pieces if isinstance(p, Piece)} == {None}
    # Without leave to abstain it quotes.
    assert parse_completion(held.text, example, Method.SCRATCHPAD).quotes


@pytest.mark.parametrize("count", [1, 2, 5, 8])
@pytest.mark.parametrize("quote", ["passage", "sentence"])
def test_verbatim_quotes_are_verbatim(loaded: LoadedModel, count: int, quote: str) -> None:
    example = Example("q", "what is it", (), HARD[-count:], ())
    config = replace(NATIVE, max_new_tokens=600, verbatim=True, quote=quote, abstain=False)
    [completion] = answer(loaded, prompts_of(loaded, [example]), config)
    reading = parse_completion(completion.text, example, Method.SCRATCHPAD)
    assert reading.parsed
    assert reading.quotes
    for found in reading.quotes:
        assert found.verbatim
        assert found.passage is not None
        text = example.passages[found.passage].text
        assert text[found.start : found.end] == found.text
        if quote == "passage":
            assert found.text == text
        else:
            sentences = split_sentences(text)
            assert found.start in {begin for begin, _ in sentences}
            assert found.end in {end for _, end in sentences}


def test_verbatim_needs_room_for_a_quote(loaded: LoadedModel) -> None:
    """The shortest passage, the restated question and a word; no less, and no more."""
    example = Example("q", "what is it", (), HARD[:2], ())
    prompts = prompts_of(loaded, [example])
    layout = encode_layout(prompts[0], loaded.tokenizer)
    least = Grammar(layout).least
    config = replace(NATIVE, verbatim=True, max_new_tokens=least, abstain=False)
    [completion] = answer(loaded, prompts, config)
    reading = parse_completion(completion.text, example, Method.SCRATCHPAD)
    assert reading.parsed
    assert [(quote.verbatim, quote.text) for quote in reading.quotes] == [(True, HARD[1].text)]
    with pytest.raises(ConfigError, match=f"needs max_new_tokens {least} or more here"):
        answer(loaded, prompts, replace(config, max_new_tokens=least - 1))


def test_two_hundred_passages(loaded: LoadedModel) -> None:
    passages = tuple(Passage(f"T{i}", f"Word {i} stands.") for i in range(200))
    example = Example("q", "which", (), passages, ())
    prompts = prompts_of(loaded, [example])
    assert (
        answer(loaded, prompts, NATIVE)[0].token_ids == answer(loaded, prompts, PLAIN)[0].token_ids
    )
    held = answer(
        loaded, prompts, replace(NATIVE, verbatim=True, max_new_tokens=40, abstain=False)
    )[0]
    first = held.text.strip().split("\n\n")[0]
    assert first in {f"Document (Title: {p.title}) {p.text}" for p in passages}


@pytest.mark.parametrize("verbatim", [False, True])
def test_streamed_pieces_are_the_text_and_know_their_source(
    loaded: LoadedModel, verbatim: bool
) -> None:
    example = Example("q", "what is it", (), HARD[:1] + HARD[2:], ())
    config = replace(NATIVE, max_new_tokens=300, verbatim=verbatim, abstain=False)
    prompt = prompts_of(loaded, [example])[0]
    items = list(stream_from(load_backend(loaded, config), prompt))
    completion = items[-1]
    assert isinstance(completion, Completion)
    pieces = [item for item in items[:-1] if isinstance(item, Piece)]
    assert "".join(piece.text for piece in pieces) == completion.text
    assert completion == replace(
        answer(loaded, [prompt], config)[0],
        wall_seconds=completion.wall_seconds,
        first_token_seconds=completion.first_token_seconds,
    )
    quoted = [piece for piece in pieces if piece.passage is not None]
    for piece in quoted:
        assert piece.passage is not None
        text = example.passages[piece.passage].text
        assert piece.text.endswith(text[piece.start : piece.end].strip())
    if verbatim:
        assert {piece.passage for piece in quoted}
        whole = "".join(p.text for p in quoted).strip()
        assert whole.startswith(("Document (Title: ", "(Title: "))


TWINS = (
    Passage("Twin", "The same words. Twice, here by the river."),
    Passage("Twin", "The same words. Twice, there on the hill."),
    Passage("Other", "Nothing of the kind."),
)


def test_streams_at_the_same_time_do_not_meet(loaded: LoadedModel) -> None:
    config = replace(NATIVE, max_new_tokens=60)
    examples = [Example("q", question, (), HARD[:4], ()) for question in ("what is it", "who")]
    prompts = prompts_of(loaded, examples)
    alone = [answer(loaded, [prompt], config)[0] for prompt in prompts]
    backend = load_backend(loaded, config)
    streams = [stream_from(backend, prompt) for prompt in prompts]
    found: list[list[Piece | Progress | Completion]] = [[], []]
    for first, second in zip_longest(*streams):
        found[0] += [first] if first else []
        found[1] += [second] if second else []
        between = next(iter(backend.generate([prompts[1]])))
        assert between.token_ids == alone[1].token_ids
    for items, expected in zip(found, alone, strict=True):
        *pieces, completion = items
        assert isinstance(completion, Completion)
        assert completion.token_ids == expected.token_ids
        assert "".join(p.text for p in pieces if isinstance(p, Piece)) == expected.text


def test_no_prompts_no_answers(loaded: LoadedModel) -> None:
    for config in (NATIVE, replace(NATIVE, verbatim=True)):
        backend = load_backend(loaded, config)
        assert list(backend.generate([])) == []


def test_decoders_are_kept_and_taken_again(loaded: LoadedModel) -> None:
    """As many as streams at the same time, and no more."""
    prompts = prompts_of(loaded, [Example("q", "what is it", (), HARD[:2], ())])
    backend = NativeBackend(loaded, NATIVE)
    list(backend.generate(prompts))
    first, second = (backend.stream(prompts[0]) for _ in range(2))
    next(first), next(second)
    assert [decoder.busy for decoder in backend._decoders] == [True, True]
    list(first), list(second)
    [again] = backend.generate(prompts)
    assert [decoder.busy for decoder in backend._decoders] == [False, False]
    assert again.prefilled_tokens == 1  # what the decoder read before is still there


def test_a_stream_tells_what_it_took(loaded: LoadedModel) -> None:
    prompt = prompts_of(loaded, [Example("q", "what is it", (), HARD[:2], ())])[0]
    *items, completion = NativeBackend(loaded, NATIVE).stream(prompt)
    assert isinstance(completion, Completion)
    told = [item for item in items if isinstance(item, Progress)]
    length = completion.prompt_tokens
    assert told[0] == items[0] == Progress(length, 0, 0)
    assert [one.forward_passes for one in told] == [*range(completion.forward_passes)]
    tokens = [one.new_tokens for one in told]
    assert tokens == sorted(tokens)
    assert 0 < tokens[-1] <= completion.new_tokens
    assert {one.prompt_tokens for one in told} == {length}


@pytest.mark.parametrize("items", [1, 2, 3, 6])
@pytest.mark.parametrize("drop", [False, True])
def test_a_stream_that_is_left_makes_no_further_pass(
    loaded: LoadedModel, items: int, drop: bool
) -> None:
    """Left before the first pass, behind it, or later: the decoder is free, and its cache right."""
    prompts = prompts_of(loaded, [Example("q", f"what is {n}", (), HARD[:3], ()) for n in "ab"])
    alone = answer(loaded, prompts, NATIVE)
    backend = NativeBackend(loaded, NATIVE)
    passes: list[int] = []
    hook = loaded.model.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        stream = backend.stream(prompts[0])
        for _ in range(items):
            next(stream)
        made = len(passes)
        assert made == items - 1 or items > 2
        if drop:
            del stream
            gc.collect()
        else:
            stream.close()
        assert len(passes) == made
    finally:
        hook.remove()
    assert [decoder.busy for decoder in backend._decoders] == [False]
    again = [next(backend.generate([prompt])) for prompt in (prompts[1], prompts[0])]
    assert [one.token_ids for one in again] == [alone[1].token_ids, alone[0].token_ids]
    assert len(backend._decoders) == 1


def test_threads_on_one_backend_do_not_meet(loaded: LoadedModel) -> None:
    examples = [Example("q", f"what is {n}", (), HARD[:3], ()) for n in range(6)]
    prompts = prompts_of(loaded, examples)
    alone = answer(loaded, prompts, NATIVE)
    backend = load_backend(loaded, NATIVE)
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda prompt: next(backend.generate([prompt])), prompts))
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]


def test_pieces_of_passages_that_begin_alike_name_the_right_one(loaded: LoadedModel) -> None:
    """Which of two is quoted is decided behind the words that they share."""
    example = Example("q", "where is it", (), TWINS, ())
    prompt = prompts_of(loaded, [example])[0]
    layout = encode_layout(prompt, loaded.tokenizer)
    for number in (0, 1):
        passage = layout.passages[number]
        drafter = Drafter(layout, Habits(24.0))
        drafter.extend([*layout.opening])
        told = len(layout.opening)
        for token in range(passage.body, passage.end):
            drafter.extend([layout.ids[token]])
            assert told <= drafter.settled <= len(drafter.written)
            told = drafter.settled
        assert drafter.settled == len(drafter.written)
        assert drafter.sources[len(layout.opening) :] == list(range(passage.body, passage.end))


class Unstreamed:
    """A backend that has no `stream`."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.generate = load_backend(loaded, PLAIN).generate


def test_a_backend_that_cannot_stream_gives_one_piece(
    loaded: LoadedModel, make_example: MakeExample
) -> None:
    prompt = prompts_of(loaded, [make_example()])[0]
    [piece, completion] = stream_from(Unstreamed(loaded), prompt)
    assert isinstance(piece, Piece)
    assert isinstance(completion, Completion)
    assert piece.text == completion.text


def test_a_prompt_at_the_contexts_end_is_refused_with_both_numbers(
    loaded: LoadedModel, make_example: MakeExample
) -> None:
    prompts = prompts_of(loaded, [make_example(documents=4)])
    length = len(encode_prompt(prompts[0], loaded.tokenizer))
    tight = replace(loaded, context_length=length + NEW - 1)
    with pytest.raises(SampleTooLongError, match=rf"{length + NEW - 1} tokens.*{length}\)"):
        answer(tight, prompts, NATIVE)
    assert answer(replace(loaded, context_length=length + NEW), prompts, NATIVE)


def test_verbatim_needs_documents(loaded: LoadedModel, make_example: MakeExample) -> None:
    with pytest.raises(ConfigError, match="no documents to quote"):
        answer(
            loaded,
            prompts_of(loaded, [make_example(documents=0, gold=())]),
            replace(NATIVE, verbatim=True),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "transformers", "verbatim": True}, "transformers cannot hold quotes"),
        ({"backend": "http", "base_url": "http://x/v1", "verbatim": True}, "http cannot hold"),
        ({"quote": "sentence"}, "needs --verbatim"),
        ({"quote": "word", "verbatim": True}, "choose from passage, sentence"),
        ({"prompt_lookup_num_tokens": 4}, "native has no use for it"),
        ({"base_url": "http://x/v1"}, "native asks no server"),
        ({"backend": "http"}, "needs --base_url"),
        ({"backend": "nativ"}, "choose from http, native, transformers, vllm"),
    ],
)
def test_what_a_backend_cannot_do_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require_backend(GenerateConfig(**options))


class TestWhichModels:
    def test_tiny_models_are_read(self, loaded: LoadedModel) -> None:
        assert why_not_native(loaded.model) is None
        assert isinstance(load_backend(loaded, NATIVE), NativeBackend)

    def test_a_state_space_model_goes_to_transformers(self, loaded: LoadedModel) -> None:
        mamba = MambaForCausalLM(
            MambaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, state_size=4)
        )
        said: list[str] = []
        other = loaded.with_model(mamba)
        backend = load_backend(other, NATIVE, said.append)
        assert isinstance(backend, TransformersBackend)
        assert said == [
            "the native backend does not read this model (its state cannot be rolled back); "
            "using transformers"
        ]
        with pytest.raises(ConfigError, match="its state cannot be rolled back"):
            load_backend(other, replace(NATIVE, verbatim=True))

    def test_linear_attention_is_known_by_its_layers(self) -> None:
        config = AutoConfig.for_model(
            "qwen3_next",
            vocab_size=16,
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            num_experts=2,
        )
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        assert why_not_native(model) == "its state cannot be rolled back"

    @pytest.mark.parametrize(
        ("family", "rope"),
        [
            (
                "phi3",
                {"rope_type": "longrope", "long_factor": [1.0] * 2, "short_factor": [1.0] * 2},
            ),
            ("llama", {"rope_type": "dynamic", "factor": 2.0}),
        ],
    )
    def test_rotary_positions_that_change_with_the_length(
        self, family: str, rope: dict[str, Any]
    ) -> None:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                AutoConfig.for_model(
                    family,
                    vocab_size=16,
                    hidden_size=8,
                    intermediate_size=8,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    pad_token_id=0,
                    original_max_position_embeddings=32,
                    rope_parameters={"rope_theta": 1e4, **rope},
                )
            )
        assert why_not_native(model) == "its rotary positions change with the length of the text"

    def test_positions_of_its_own(self) -> None:
        with torch.device("meta"):
            opt = OPTForCausalLM(
                OPTConfig(vocab_size=16, hidden_size=8, ffn_dim=8, num_hidden_layers=1,
                          num_attention_heads=1, word_embed_proj_dim=8)
            )  # fmt: skip
        reason = why_not_native(opt)
        assert reason is None or "takes no" in reason

    def test_layers_of_an_unknown_kind(self) -> None:
        text = SimpleNamespace(layer_types=["chunked_attention", "full_attention"])
        config = SimpleNamespace(get_text_config=lambda: text)
        reason = why_not_native(SimpleNamespace(config=config))
        assert reason is not None
        assert "chunked_attention" in reason


class TestWithTheShippedReader:
    """SmolLM2 in float32 and bfloat16: other tokens only where two are all but equally likely."""

    @pytest.mark.slow
    @pytest.mark.parametrize(("dtype", "tie"), [("float32", 1e-3), ("bfloat16", 0.25)])
    def test_differences_to_plain_greedy_are_near_ties(
        self, smollm2_folder: Path, dtype: str, tie: float
    ) -> None:
        model = replace(load_model_config("smollm2_135m"), torch_dtype=dtype)
        reader = Reader.load("checkpoints/smollm2_135m/scratchpad_rag.pt", model)
        prompts = [reader.prompt(example) for example in sample_questions(3)]
        config = replace(NATIVE, max_new_tokens=100)
        ours = answer(reader.loaded, prompts, config)
        theirs = answer(reader.loaded, prompts, replace(PLAIN, max_new_tokens=100))
        for prompt, one, other in zip(prompts, ours, theirs, strict=True):
            assert one.accepted_tokens > 60  # the quote was drafted
            assert one.forward_passes < 20
            gap = logit_gap(reader.loaded, prompt, list(one.token_ids), list(other.token_ids))
            assert gap < tie, f"{one.text!r} and {other.text!r} differ by {gap}"


def sample_questions(documents: int) -> list[Example]:
    """Two held-out questions of the sample set with so many documents."""
    data = DataConfig(
        name="examples",
        path="data/qa_data/sample",
        total_docs=documents,
        gold_at=(0, documents - 1),
        num_train_samples=1,
        num_val_samples=2,
        val_order="question",
    )
    return select_samples(data, EvalSplit.ALL, lambda _: None).val


def logit_gap(loaded: LoadedModel, prompt: Rendered, one: list[int], other: list[int]) -> float:
    """How far apart the logits are where two completions part; 0 where they do not."""
    if one == other:
        return 0.0
    stop = loaded.stop_token_ids[0]
    one, other = [*one, stop], [*other, stop]
    shared = next(k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    ids = [*encode_prompt(prompt, loaded.tokenizer), *one[:shared]]
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([ids])).logits[0, -1]
    return abs(float(logits[one[shared]]) - float(logits[other[shared]]))
