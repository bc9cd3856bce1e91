from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from threading import Event, Thread

import pytest
import torch
from transformers import GenerationConfig

from scratchpad_rag.backends.base import load_backend
from scratchpad_rag.backends.transformers import TransformersBackend
from scratchpad_rag.config import GenerateConfig, ModelConfig
from scratchpad_rag.errors import ConfigError, SampleTooLongError
from scratchpad_rag.models.load import LoadedModel, load_model
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.records import Completion, Example, Piece, Progress, Rendered
from scratchpad_rag.tokens.encode import encode_prompt

NEW = 24
PLAIN = GenerateConfig(backend="transformers", max_new_tokens=NEW, prompt_lookup_num_tokens=0)
LOOKUP = GenerateConfig(backend="transformers", max_new_tokens=NEW, prompt_lookup_num_tokens=10)


@pytest.fixture(scope="module")
def loaded(tiny_mistral: Path) -> LoadedModel:
    """In float64, where the shape of a batch changes no choice."""
    return load_model(ModelConfig(str(tiny_mistral), torch_dtype="float64"))


@pytest.fixture(scope="module")
def prompts(loaded: LoadedModel, make_example: Callable[..., Example]) -> list[Rendered]:
    """Three prompts of different lengths."""
    return [
        render_prompt(make_example(documents=count, number=count), loaded.wording)
        for count in (4, 1, 7)
    ]


def answer(
    loaded: LoadedModel, prompts: list[Rendered], config: GenerateConfig
) -> list[Completion]:
    return list(load_backend(loaded, config).generate(prompts))


def argmax_loop(loaded: LoadedModel, prompt: Rendered, stops: tuple[int, ...]) -> list[int]:
    """Greedy decoding by hand: the whole sequence anew for every token, no cache."""
    ids = encode_prompt(prompt, loaded.tokenizer)
    found: list[int] = []
    while len(found) < NEW:
        with torch.inference_mode():
            logits = loaded.model(torch.tensor([ids + found]), use_cache=False).logits[0, -1]
        found.append(int(logits.argmax()))
        if found[-1] in stops:
            break
    return found


@pytest.mark.parametrize("config", [PLAIN, LOOKUP], ids=["plain", "lookup"])
def test_greedy_is_an_argmax_loop(
    loaded: LoadedModel, prompts: list[Rendered], config: GenerateConfig
) -> None:
    for prompt, completion in zip(prompts, answer(loaded, prompts, config), strict=True):
        expected = argmax_loop(loaded, prompt, loaded.stop_token_ids)
        assert len(set(expected)) > 2  # else anything would do
        assert list(completion.token_ids) == expected
        assert completion.text == loaded.tokenizer.decode(expected)
        assert completion.prompt_tokens == len(encode_prompt(prompt, loaded.tokenizer))


def test_a_models_own_penalties_are_set_aside(loaded: LoadedModel, prompts: list[Rendered]) -> None:
    expected = [completion.token_ids for completion in answer(loaded, prompts, PLAIN)]
    own = loaded.model.generation_config
    try:
        loaded.model.generation_config = GenerationConfig(repetition_penalty=5.0)
        given = loaded.model.generation_config
        assert [completion.token_ids for completion in answer(loaded, prompts, PLAIN)] == expected
        assert loaded.model.generation_config is given
    finally:
        loaded.model.generation_config = own


def test_max_new_tokens_is_exact(loaded: LoadedModel, prompts: list[Rendered]) -> None:
    for limit in (1, 5):
        for lookup in (0, 10):
            config = GenerateConfig(
                backend="transformers", max_new_tokens=limit, prompt_lookup_num_tokens=lookup
            )
            (completion,) = answer(loaded, prompts[:1], config)
            assert completion.new_tokens == len(completion.token_ids) == limit
            assert completion.finish_reason == "length"


@pytest.mark.parametrize("lookup", [0, 10])
def test_a_stop_token_ends_the_answer_and_is_not_in_it(
    loaded: LoadedModel, prompts: list[Rendered], lookup: int
) -> None:
    free = argmax_loop(loaded, prompts[0], ())
    stop = free[6]
    first = free.index(stop)
    # The second of two stop tokens stops as well.
    stopping = replace(loaded, stop_token_ids=(loaded.tokenizer.eos_token_id, stop))
    config = GenerateConfig(
        backend="transformers", max_new_tokens=NEW, prompt_lookup_num_tokens=lookup
    )
    (completion,) = answer(stopping, prompts[:1], config)
    assert list(completion.token_ids) == free[:first]
    assert completion.text == loaded.tokenizer.decode(free[:first])
    assert completion.new_tokens == first + 1  # the stop token was generated too
    assert completion.finish_reason == "stop"


def test_a_batch_of_uneven_prompts_equals_single_ones(
    loaded: LoadedModel, prompts: list[Rendered]
) -> None:
    free = argmax_loop(loaded, prompts[1], ())
    stopping = replace(loaded, stop_token_ids=(free[5], loaded.tokenizer.eos_token_id))
    for model in (loaded, stopping):  # one row stops before the others
        singles = answer(model, prompts, PLAIN)
        for size in (2, 3, 8):
            together = answer(model, prompts, replace(PLAIN, batch_size=size))
            assert [c.token_ids for c in together] == [c.token_ids for c in singles]
            assert [c.text for c in together] == [c.text for c in singles]
            assert [c.finish_reason for c in together] == [c.finish_reason for c in singles]
            assert [c.prompt_tokens for c in together] == [c.prompt_tokens for c in singles]
            assert [c.new_tokens for c in together] == [c.new_tokens for c in singles]


def test_a_prompt_that_leaves_no_room_is_refused_before_any_is_answered(
    loaded: LoadedModel, prompts: list[Rendered]
) -> None:
    lengths = [len(encode_prompt(prompt, loaded.tokenizer)) for prompt in prompts]
    longest = max(lengths)
    fitting = replace(loaded, context_length=longest + NEW)
    assert len(answer(fitting, prompts, PLAIN)) == 3
    tight = replace(loaded, context_length=longest + NEW - 1)
    with pytest.raises(SampleTooLongError) as caught:
        next(load_backend(tight, PLAIN).generate(prompts))
    message = str(caught.value)
    assert "1 of 3 prompts" in message
    assert f"the longest has {longest}" in message
    assert f"context of {longest + NEW - 1} tokens" in message
    assert f"the {NEW} of --max_new_tokens" in message


def test_forward_passes_are_counted(loaded: LoadedModel, prompts: list[Rendered]) -> None:
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    handle = loaded.model.model.register_forward_pre_hook(count)
    try:
        for config in (PLAIN, LOOKUP):
            calls = 0
            (completion,) = answer(loaded, prompts[:1], config)
            assert completion.forward_passes == calls
            if config is PLAIN:
                assert calls == NEW  # the first token comes with the prompt's own pass
            else:
                assert calls < NEW  # a random model repeats itself: lookup foresees it
    finally:
        handle.remove()
    assert completion.wall_seconds > completion.first_token_seconds > 0


def test_completions_come_one_by_one_in_order(loaded: LoadedModel, prompts: list[Rendered]) -> None:
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    handle = loaded.model.model.register_forward_pre_hook(count)
    try:
        answers = load_backend(loaded, PLAIN).generate(prompts)
        first = next(answers)
        assert calls == NEW  # the second is not begun
    finally:
        handle.remove()
    assert first.prompt_tokens == len(encode_prompt(prompts[0], loaded.tokenizer))


def test_no_prompts_are_no_completions(loaded: LoadedModel) -> None:
    assert answer(loaded, [], PLAIN) == []


def test_an_unknown_backend_is_refused_with_choices(loaded: LoadedModel) -> None:
    with pytest.raises(ConfigError, match=r"unknown backend 'vlm'; choose from .*transformers"):
        load_backend(loaded, GenerateConfig(backend="vlm"))


@pytest.mark.parametrize("config", [PLAIN, LOOKUP], ids=["plain", "lookup"])
def test_a_stream_is_the_completion_in_pieces(
    loaded: LoadedModel, prompts: list[Rendered], config: GenerateConfig
) -> None:
    [whole] = answer(loaded, prompts[:1], config)
    *items, completion = TransformersBackend(loaded, config).stream(prompts[0])
    assert isinstance(completion, Completion)
    assert (completion.token_ids, completion.text) == (whole.token_ids, whole.text)
    pieces = [item for item in items if isinstance(item, Piece)]
    assert "".join(piece.text for piece in pieces) == whole.text
    assert len(pieces) > 3
    assert {(p.passage, p.start, p.end) for p in pieces} == {(None, 0, 0)}
    told = [item for item in items if isinstance(item, Progress)]
    assert [one.forward_passes for one in told] == [*range(whole.forward_passes + 1)]
    assert (told[0].new_tokens, told[-1].new_tokens) == (0, whole.new_tokens)
    assert {one.prompt_tokens for one in told} == {whole.prompt_tokens}


@pytest.mark.parametrize("config", [PLAIN, LOOKUP], ids=["plain", "lookup"])
def test_a_closed_stream_ends_behind_the_pass_under_way(
    loaded: LoadedModel, prompts: list[Rendered], config: GenerateConfig
) -> None:
    [whole] = answer(loaded, prompts[:1], config)
    under_way, go_on = Event(), Event()
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            under_way.set()
            go_on.wait(30)

    handle = loaded.model.model.register_forward_pre_hook(count)
    stream = TransformersBackend(loaded, config).stream(prompts[0])
    try:
        next(item for item in stream if isinstance(item, Piece))
        assert under_way.wait(30)
        closing = Thread(target=stream.close)
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()  # it waits for the pass
        go_on.set()
        closing.join(30)
        assert calls == 3
    finally:
        go_on.set()
        handle.remove()
    [again] = answer(loaded, prompts[:1], config)
    assert again.token_ids == whole.token_ids


def test_what_fails_in_a_stream_fails_where_it_is_read(
    loaded: LoadedModel, prompts: list[Rendered]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no")

    handle = loaded.model.model.register_forward_pre_hook(fail)
    try:
        with pytest.raises(ValueError, match="no"):
            list(TransformersBackend(loaded, PLAIN).stream(prompts[0]))
    finally:
        handle.remove()


def test_streams_at_the_same_time_do_not_meet(loaded: LoadedModel, prompts: list[Rendered]) -> None:
    alone = answer(loaded, prompts[:2], PLAIN)
    backend = TransformersBackend(loaded, PLAIN)
    steps = list(zip_longest(*(backend.stream(prompt) for prompt in prompts[:2])))
    found = [[item for item in items if item] for items in zip(*steps, strict=True)]
    for items, expected in zip(found, alone, strict=True):
        assert isinstance(items[-1], Completion)
        assert items[-1].token_ids == expected.token_ids
