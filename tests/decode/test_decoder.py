"""The decoder writes what plain greedy decoding writes, whatever is drafted and however batched."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scratchpad_rag.decode import decoder as decoder_module
from scratchpad_rag.decode.decoder import DecodeConfig, Decoded, Decoder
from scratchpad_rag.decode.draft import Draft, Drafter, Kind
from scratchpad_rag.errors import ModelError
from scratchpad_rag.tokens.layout import Layout, PassageTokens
from tests.decode.models import ARCHITECTURES, WORDS, greedy, tiny_model

STOP, OTHER_STOP = 2, 3
ROOM = 9
words = st.integers(min_value=4, max_value=WORDS - 1)
prompts = st.lists(words, min_size=1, max_size=40)


def with_stop(found: list[int], decoded: Decoded) -> list[int]:
    """The decoded tokens, with the stop token that plain decoding ended on."""
    return [*decoded.token_ids, *found[len(decoded.token_ids) : decoded.new_tokens]]


def decode(model: Any, ids: list[list[int]], **options: Any) -> list[Decoded]:
    config = DecodeConfig(**{"max_new_tokens": ROOM, "stop_token_ids": (STOP,), **options})
    return list(Decoder(model, config).decode([Layout(tuple(prompt)) for prompt in ids]))


@pytest.mark.parametrize("kind", ARCHITECTURES)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batch=st.lists(prompts, min_size=1, max_size=4), rows=st.integers(1, 3))
def test_equals_plain_greedy_exactly(kind: str, batch: list[list[int]], rows: int) -> None:
    model = tiny_model(kind)
    for prompt, decoded in zip(batch, decode(model, batch, rows=rows), strict=True):
        expected = greedy(model, prompt, ROOM, (STOP,))
        assert with_stop(expected, decoded) == expected
        assert decoded.new_tokens == len(expected)
        assert decoded.finish_reason == ("stop" if expected[-1] == STOP else "length")


@st.composite
def corrupted(draw: st.DrawFn) -> list[int | None]:
    """Which token of a draft is wrong, draft by draft; None: none is."""
    return draw(st.lists(st.none() | st.integers(0, 5), min_size=1, max_size=6))


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Drafts made from the right completion, wrong at the places that a test says."""
    plan: dict[str, Any] = {"truth": {}, "wrong": [None], "length": 6}

    def draft(self: Drafter, room: int) -> Draft:
        prompt = self.grammar.layout.ids
        rest = plan["truth"][prompt][len(self.written) :][: min(room, plan["length"])]
        calls = plan.setdefault("calls", {})
        turn = calls[prompt] = calls.get(prompt, -1) + 1
        wrong = plan["wrong"][turn % len(plan["wrong"])]
        if wrong is not None and wrong < len(rest):
            rest[wrong] = rest[wrong] % (WORDS - 1) + 1
        return Draft(rest, [Kind.COPY] * len(rest), [])

    monkeypatch.setattr(Drafter, "draft", draft)
    return plan


@pytest.mark.parametrize("kind", ARCHITECTURES)
@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batch=st.lists(prompts, min_size=1, max_size=3), wrong=corrupted(), rows=st.integers(1, 3))
def test_drafts_accepted_in_part_change_nothing(
    oracle: dict[str, Any],
    kind: str,
    batch: list[list[int]],
    wrong: list[int | None],
    rows: int,
) -> None:
    model = tiny_model(kind)
    truth = {tuple(prompt): greedy(model, prompt, ROOM, (STOP,)) for prompt in batch}
    oracle.update(truth=truth, wrong=wrong, calls={})
    for prompt, decoded in zip(batch, decode(model, batch, rows=rows), strict=True):
        expected = truth[tuple(prompt)]
        assert with_stop(expected, decoded) == expected
        assert decoded.accepted_tokens <= decoded.drafted_tokens
        if wrong == [0]:  # nothing is accepted: a pass a token
            assert decoded.accepted_tokens == 0
            assert decoded.forward_passes == len(expected)
        if wrong == [None]:  # six drafted tokens and the choice behind them, a pass
            assert decoded.forward_passes == -(-len(expected) // 7)
            assert decoded.accepted_tokens == decoded.drafted_tokens


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_rolled_back_cache_equals_a_fresh_prefill(kind: str) -> None:
    """The same row, after a completion was taken back, holds the same."""
    model = tiny_model(kind)
    first, second = list(range(4, 30)), [*range(4, 20), 40, 41, 42]
    decoder = Decoder(model, DecodeConfig(ROOM, (STOP,)))
    [_, rolled] = list(decoder.decode([Layout(tuple(first)), Layout(tuple(second))]))
    assert rolled.prefilled_tokens == 3  # the sixteen tokens before were kept
    [fresh] = decode(model, [second])
    assert fresh.prefilled_tokens == len(second)
    assert rolled.token_ids == fresh.token_ids
    held = decoder.rows[0].cached
    assert decoder.cache is not None
    with torch.inference_mode():
        anew = model(torch.tensor([held]), use_cache=True).past_key_values
    for kept, layer in zip(decoder.cache.layers, anew.layers, strict=True):
        # A sliding layer of transformers holds the last tokens of its window only.
        width = layer.keys.shape[2]
        assert torch.allclose(
            kept.keys[0, :, len(held) - width : len(held)], layer.keys[0], atol=1e-9
        )
        assert torch.allclose(
            kept.values[0, :, len(held) - width : len(held)], layer.values[0], atol=1e-9
        )


@pytest.mark.parametrize("room", [0, 1, 2, 7])
def test_max_new_tokens_is_kept_to_the_token(room: int) -> None:
    model = tiny_model("llama")
    prompt = list(range(5, 25))
    [decoded] = decode(model, [prompt], max_new_tokens=room, stop_token_ids=(0,))
    assert list(decoded.token_ids) == greedy(model, prompt, room, (0,))
    assert decoded.new_tokens == room
    assert decoded.finish_reason == "length"


def test_a_stop_inside_a_draft_ends_there(oracle: dict[str, Any]) -> None:
    model = tiny_model("llama")
    prompt = list(range(5, 25))
    free = greedy(model, prompt, ROOM, ())
    stop = free[3]
    first = free.index(stop)
    oracle.update(truth={tuple(prompt): free}, wrong=[None], length=10)
    for stops in ((stop,), (stop, 0), (0, stop)):
        oracle["calls"] = {}
        [decoded] = decode(model, [prompt], stop_token_ids=stops)
        assert list(decoded.token_ids) == free[:first]
        assert decoded.finish_reason == "stop"
        assert decoded.new_tokens == first + 1
        assert decoded.forward_passes == 1


def test_rows_are_given_to_waiting_prompts() -> None:
    model = tiny_model("mistral_sliding")
    batch = [[4 + (i * j) % 40 for j in range(3 + 5 * i)] for i in range(1, 8)]
    together, alone = decode(model, batch, rows=3), [decode(model, [p])[0] for p in batch]
    assert [d.token_ids for d in together] == [d.token_ids for d in alone]
    assert [d.prompt_tokens for d in together] == [len(p) for p in batch]


def test_shared_prefixes_are_computed_once() -> None:
    model = tiny_model("llama")
    stem = list(range(4, 34))
    batch = [[*stem, 40 + k] for k in range(4)] + [[*stem[:10], 45, 46]]
    shared, apart = decode(model, batch), decode(model, batch, share=False)
    assert [d.token_ids for d in shared] == [d.token_ids for d in apart]
    assert [d.prefilled_tokens for d in shared] == [31, 1, 1, 1, 2]
    assert [d.prefilled_tokens for d in apart] == [31, 31, 31, 31, 12]


def test_shared_prefixes_are_copied_between_rows() -> None:
    model = tiny_model("qwen3_hybrid")
    stem = list(range(4, 34))
    batch = [[*stem, 40 + k] for k in range(4)]
    shared = decode(model, batch, rows=4)
    assert [d.prefilled_tokens for d in shared] == [31, 1, 1, 1]
    assert [d.token_ids for d in shared] == [decode(model, [p])[0].token_ids for p in batch]


def test_busy_until_the_last_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module, "_WINDOW", 1)  # prompts put in order at a time
    decoder = Decoder(tiny_model("llama"), DecodeConfig(2, (STOP,)))
    decoding = decoder.decode([Layout((5, 6, 7)), Layout((8, 9)), Layout((5, 7))])
    assert not decoder.busy
    for _ in decoding:
        assert decoder.busy
    assert not decoder.busy
    decoding = decoder.decode([Layout((5, 6, 7)), Layout((8, 9))])
    next(decoding)
    decoding.close()  # type: ignore[attr-defined]
    assert not decoder.busy


def test_same_prompt_twice() -> None:
    model = tiny_model("llama")
    [one, two] = decode(model, [[5, 6, 7], [5, 6, 7]])
    assert one.token_ids == two.token_ids
    assert two.prefilled_tokens == 1  # what follows the last token is asked again


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ModelError, match="a prompt is empty"):
        decode(tiny_model("llama"), [[5], []])


class Broken:
    """A model that fails as told, and else is the model inside."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.config = model.config
        self.dtype = model.dtype
        self.widest = 0

    def parameters(self) -> Any:
        return self.model.parameters()

    def __call__(self, **inputs: Any) -> Any:
        raise NotImplementedError


class WithoutNumbers(Broken):
    def __call__(self, **inputs: Any) -> Any:
        output = self.model(**inputs)
        output.logits[..., 7] = float("nan")
        return output


class ShortOfMemory(Broken):
    def __call__(self, **inputs: Any) -> Any:
        rows = inputs["input_ids"].shape[0]
        self.widest = max(self.widest, rows)
        if rows > 2:
            raise torch.OutOfMemoryError("out of memory")
        return self.model(**inputs)


def test_nan_stops_with_a_line() -> None:
    with pytest.raises(ModelError, match=r"no number \(NaN\)"):
        decode(WithoutNumbers(tiny_model("llama")), [[5, 6, 7]])


def test_out_of_memory_halves_the_rows_and_goes_on() -> None:
    model = tiny_model("llama")
    batch = [[4 + (i * j) % 40 for j in range(3 + 5 * i)] for i in range(1, 8)]
    said: list[str] = []
    short = ShortOfMemory(model)
    decoder = Decoder(short, DecodeConfig(ROOM, (STOP,), rows=6), said.append)
    decoded = list(decoder.decode([Layout(tuple(prompt)) for prompt in batch]))
    assert [d.token_ids for d in decoded] == [decode(model, [p])[0].token_ids for p in batch]
    assert said == [
        "out of memory with 6 rows; going on with 3",
        "out of memory with 3 rows; going on with 1",
    ]


def test_out_of_memory_with_one_row_is_an_error() -> None:
    class Never(Broken):
        def __call__(self, **inputs: Any) -> Any:
            raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(ModelError, match="out of memory with one prompt of 3 tokens"):
        decode(Never(tiny_model("llama")), [[5, 6, 7]])


def test_rows_that_did_not_fit_are_not_tried_again() -> None:
    model = tiny_model("llama")
    batch = [Layout((5, 6, 7 + number)) for number in range(6)]
    said: list[str] = []
    decoder = Decoder(ShortOfMemory(model), DecodeConfig(ROOM, (STOP,), rows=4), said.append)
    first, again = list(decoder.decode(batch)), list(decoder.decode(batch))
    assert said == ["out of memory with 4 rows; going on with 2"]
    assert [d.token_ids for d in first] == [d.token_ids for d in again]


def test_fewer_rows_take_less_memory() -> None:
    """Rows of short prompts are not kept for long ones."""
    model = tiny_model("llama")
    decoder = Decoder(model, DecodeConfig(ROOM, (STOP,), rows=4))
    list(decoder.decode([Layout((5, 6, 7 + number)) for number in range(4)]))
    assert decoder.cache is not None
    # Layers, keys and values, rows, key heads, slots, head size, float64.
    assert decoder.cache.bytes_held == 3 * 2 * 4 * 2 * 512 * 8 * 8
    decoder.config = DecodeConfig(ROOM, (STOP,), rows=1)
    prompt = [4 + number % 40 for number in range(600)]
    [decoded] = decoder.decode([Layout(tuple(prompt))])
    assert decoder.cache.bytes_held == 3 * 2 * 1 * 2 * 1024 * 8 * 8
    assert with_stop(greedy(model, prompt, ROOM, (STOP,)), decoded) == greedy(
        model, prompt, ROOM, (STOP,)
    )


def test_dropped_caches_are_freed_at_once() -> None:
    decoder = Decoder(tiny_model("llama"), DecodeConfig(ROOM, (STOP,)))
    list(decoder.decode([Layout((5, 6, 7))]))
    assert decoder.cache is not None
    keys = weakref.ref(decoder.cache.layers[0].keys)
    assert keys() is not None
    gc.disable()  # no collector is needed
    try:
        del decoder
        assert keys() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["llama", "mistral_sliding"])
def test_a_pass_that_was_broken_off_leaves_nothing_behind(kind: str) -> None:
    class Interrupted(Broken):
        left = 3

        def __call__(self, **inputs: Any) -> Any:
            self.left -= 1
            output = self.model(**inputs)
            if self.left == 0:
                raise KeyboardInterrupt
            return output

    model = tiny_model(kind)
    decoder = Decoder(Interrupted(model), DecodeConfig(ROOM, (0,), rows=2, draft=False))
    prompts = [list(range(4, 30)), [*range(4, 20), 40, 41]]
    with pytest.raises(KeyboardInterrupt):
        list(decoder.decode([Layout(tuple(prompt)) for prompt in prompts]))
    assert not decoder.busy
    for prompt, decoded in zip(
        prompts, decoder.decode([Layout(tuple(prompt)) for prompt in prompts]), strict=True
    ):
        assert list(decoded.token_ids) == greedy(model, prompt, ROOM, (0,))


def test_idle_rows_at_the_ends_are_not_computed() -> None:
    class Watched(Broken):
        def __init__(self, model: Any) -> None:
            super().__init__(model)
            self.rows: list[int] = []

        def __call__(self, **inputs: Any) -> Any:
            self.rows.append(inputs["input_ids"].shape[0])
            return self.model(**inputs)

    model = tiny_model("llama")
    prompts = [[5, 6, 7], [8, 9, 10], [11, 12, 13]]
    stop = greedy(model, prompts[0], 1, ())[0]
    assert all(stop not in greedy(model, prompt, 4, ()) for prompt in prompts[1:])
    watched = Watched(model)
    decoder = Decoder(watched, DecodeConfig(4, (stop,), rows=3, draft=False))
    found = list(decoder.decode([Layout(tuple(prompt)) for prompt in prompts]))
    assert [d.new_tokens for d in found] == [1, 4, 4]
    assert watched.rows == [1, 1, 1, 2, 2, 2]  # three prompts are read, two go on
    assert list(found[2].token_ids) == greedy(model, prompts[2], 4, ())


def test_the_models_attention_is_put_back() -> None:
    model = tiny_model("llama")
    before = model.config._attn_implementation
    decode(model, [[5, 6, 7]])
    assert model.config._attn_implementation == before == "sdpa"


def scratchpad_layout(passages: list[list[int]], question: list[int]) -> Layout:
    """A prompt laid out by hand: 4 opens a passage, 5 joins blocks, 6 stands for `Answer:`."""
    ids, places = [10, 11], []
    for passage in passages:
        start = len(ids)
        ids += [4, *passage]
        places.append(PassageTokens(start, start + 1, start + 1, len(ids), ()))
        ids.append(5)
    asked = (len(ids), len(ids) + len(question) + 1)
    ids += [*question, 6]
    offsets = tuple((i, i + 1) for i in range(len(ids)))
    return Layout(
        tuple(ids),
        tuple(places),
        asked,
        opening=(4,),
        separator=(5,),
        offsets=offsets,
        texts=tuple((p.body, p.end) for p in places),
    )


passage_words = st.lists(st.integers(12, 30), min_size=1, max_size=8)


@pytest.mark.parametrize("kind", ["llama", "mistral_sliding", "qwen3", "gemma3"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    passages=st.lists(passage_words, min_size=1, max_size=5),
    question=st.lists(st.integers(31, 47), min_size=1, max_size=4),
    seed=st.integers(0, 3),
)
def test_verbatim_quotes_nothing_else(
    kind: str, passages: list[list[int]], question: list[int], seed: int
) -> None:
    """Written by hand: passages of the prompt, each once, joined by 5, then question and 6."""
    model = tiny_model(kind, seed)
    layout = scratchpad_layout(passages, question)
    config = DecodeConfig(80, (STOP,), verbatim=True)
    [decoded] = list(Decoder(model, config).decode([layout]))
    tokens = list(decoded.token_ids)
    end = tokens.index(6, 0) if 6 in tokens else None
    assert end is not None  # with room for all passages it always comes to the answer
    scratchpad = tokens[: end + 1]
    assert scratchpad[-len(question) - 1 :] == [*question, 6]
    blocks: list[list[int]] = []
    for token in scratchpad[: -len(question) - 1]:
        if token == 4:
            blocks.append([])
        else:
            blocks[-1].append(token)
    assert blocks
    assert all(block[-1] == 5 and block[:-1] in passages for block in blocks)
    assert len(blocks) <= len(passages)
    # Behind `Answer:` it goes on as plain greedy decoding does.
    rest = greedy(model, [*layout.ids, *scratchpad], 80 - len(scratchpad), (STOP,))
    assert with_stop([*scratchpad, *rest], decoded) == [*scratchpad, *rest]


def test_verbatim_without_room_for_a_quote_is_refused() -> None:
    layout = scratchpad_layout([[12, 13], [14, 15, 16]], [31, 32])
    # The opening, two words with what joins them to the question, the question, `Answer:`, a word.
    with pytest.raises(ModelError, match="takes 8 tokens, and max_new_tokens is 7"):
        list(Decoder(tiny_model("llama"), DecodeConfig(7, (STOP,), verbatim=True)).decode([layout]))


@pytest.mark.parametrize("room", [9, 10, 14])
def test_verbatim_ends_within_the_room(room: int) -> None:
    model = tiny_model("llama", 2)
    layout = scratchpad_layout([[12, 13], [14, 15, 16, 17], [18]], [31, 32])
    config = DecodeConfig(room, (STOP,), verbatim=True)
    [decoded] = list(Decoder(model, config).decode([layout]))
    tokens = list(decoded.token_ids)
    assert tokens[tokens.index(6) - 2 : tokens.index(6)] == [31, 32]
    assert tokens.index(6) < room - 1  # a word of an answer fits


def test_verbatim_takes_the_likeliest_of_what_is_allowed() -> None:
    """Step by step by hand, with the whole sequence anew for every choice."""
    model = tiny_model("llama", 1)
    passages, question = [[12, 13, 14], [12, 15], [16, 17, 18, 19]], [31, 32]
    layout = scratchpad_layout(passages, question)
    config = DecodeConfig(30, (STOP,), verbatim=True)
    [decoded] = list(Decoder(model, config).decode([layout]))

    def likeliest(written: list[int], allowed: list[int]) -> int:
        with torch.inference_mode():
            logits = model(torch.tensor([[*layout.ids, *written]])).logits[0, -1]
        return max(allowed, key=lambda token: float(logits[token]))

    written, left = [4], list(passages)
    while written[-1] != 6:
        place = 0
        open_passages = left
        while True:
            following = sorted({p[place] for p in open_passages if place < len(p)})
            token = likeliest(written, following)
            written.append(token)
            open_passages = [p for p in open_passages if place < len(p) and p[place] == token]
            place += 1
            if any(len(p) == place for p in open_passages):
                break
        written.append(5)
        left = [p for p in left if p not in open_passages]
        if left and likeliest(written, [4, 31]) == 4:
            written.append(4)
        else:
            written += [*question, 6]
    assert list(decoded.token_ids)[: len(written)] == written


NOTHING = [7, 8, 9, 5]


def all_scratchpads(passages: list[list[int]], question: list[int]) -> list[list[int]]:
    """Every scratchpad that may be written, each as a whole: quotes in any order, or nothing."""
    distinct = list({tuple(passage): passage for passage in passages}.values())
    orders = [
        order for count in range(1, len(distinct) + 1) for order in permutations(distinct, count)
    ]
    quoting = [[token for p in order for token in (4, *p, 5)] for order in orders]
    return [[*scratchpad, *question, 6] for scratchpad in (NOTHING, *quoting)]


def brute_force(model: Any, ids: tuple[int, ...], possible: list[list[int]]) -> list[int]:
    """Greedy over what any possible scratchpad goes on with, computed anew for every token."""
    written: list[int] = []
    while written[-1:] != [6]:
        following = {p[len(written)] for p in possible if p[: len(written)] == written}
        with torch.inference_mode():
            logits = model(torch.tensor([[*ids, *written]])).logits[0, -1]
        written.append(max(sorted(following), key=lambda token: float(logits[token])))
    return written


@pytest.mark.parametrize("kind", ["llama", "mistral_sliding", "gemma3"])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    passages=st.lists(passage_words, min_size=1, max_size=3),
    question=st.lists(st.integers(31, 47), min_size=1, max_size=4),
    seed=st.integers(0, 7),
)
def test_verbatim_that_may_abstain_is_greedy_over_all_that_is_allowed(
    kind: str, passages: list[list[int]], question: list[int], seed: int
) -> None:
    model = tiny_model(kind, seed)
    layout = replace(scratchpad_layout(passages, question), nothing=tuple(NOTHING))
    expected = brute_force(model, layout.ids, all_scratchpads(passages, question))
    for draft in (True, False):
        config = DecodeConfig(60, (STOP,), verbatim=True, abstain=True, draft=draft)
        [decoded] = list(Decoder(model, config).decode([layout]))
        assert list(decoded.token_ids)[: len(expected)] == expected


def test_models_abstain_or_quote_as_they_like() -> None:
    """Else the test above would compare quotes alone."""
    layout = replace(scratchpad_layout([[12, 13], [14]], [31, 32]), nothing=tuple(NOTHING))
    begun = set()
    for seed in range(8):
        config = DecodeConfig(30, (STOP,), verbatim=True, abstain=True)
        [decoded] = list(Decoder(tiny_model("llama", seed), config).decode([layout]))
        begun.add(decoded.token_ids[0])
        if decoded.token_ids[0] == NOTHING[0]:
            assert list(decoded.token_ids[:7]) == [*NOTHING, 31, 32, 6]
            assert decoded.sources[:4] == (None,) * 4
    assert begun == {4, NOTHING[0]}
