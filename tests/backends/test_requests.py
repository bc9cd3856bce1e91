"""Prompts with options of their own: one call answers them as calls of their own would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scratchpad_rag.backends.base import load_backend
from scratchpad_rag.backends.requests import RequestBackend, generate_with
from scratchpad_rag.config import GenerateConfig, ModelConfig
from scratchpad_rag.errors import ConfigError, SampleTooLongError
from scratchpad_rag.models.load import LoadedModel, load_model
from scratchpad_rag.prompts.render import render_forced, render_prompt
from scratchpad_rag.records import Completion, Example, Options, Request

MakeExample = Callable[..., Example]
SCRATCHPAD, VERBATIM, ANSWER = Options(40), Options(160, verbatim=True), Options(9)
NATIVE = GenerateConfig()


@pytest.fixture(scope="module", params=["tiny_mistral", "tiny_chat_mistral"])
def loaded(request: pytest.FixtureRequest) -> LoadedModel:
    """In float64, where what is computed together changes no choice; once plain, once chat."""
    folder: Path = request.getfixturevalue(request.param)
    return load_model(ModelConfig(str(folder), torch_dtype="float64"))


def requests_of(loaded: LoadedModel, make_example: MakeExample) -> list[Request]:
    """Two questions at two places each, every one read in four ways."""
    requests = []
    for number in (1, 2):
        example = make_example(documents=4, gold=(0,), number=number)
        moved = replace(example, passages=(*example.passages[1:], example.passages[0]), gold=(3,))
        for shown in (example, moved):
            prompt = render_prompt(shown, loaded.wording)
            requests += [Request(prompt, options) for options in (SCRATCHPAD, VERBATIM, ANSWER)]
            for quoted in (shown.gold, (1, 2)):
                requests.append(Request(render_forced(shown, loaded.wording, quoted), ANSWER))
    return requests


def answered(
    loaded: LoadedModel, requests: list[Request], config: GenerateConfig = NATIVE
) -> list[Completion]:
    found = dict(RequestBackend(loaded, config).answer(requests))
    assert sorted(found) == list(range(len(requests)))
    return [found[number] for number in range(len(requests))]


def alone(loaded: LoadedModel, request: Request) -> Completion:
    """A backend that knows of nothing else."""
    config = generate_with(NATIVE, request.options)
    [completion] = load_backend(loaded, config).generate([request.prompt])
    return completion


@pytest.mark.parametrize("rows", [1, 3])
def test_the_same_answers_as_one_by_one(
    loaded: LoadedModel, make_example: MakeExample, rows: int
) -> None:
    requests = requests_of(loaded, make_example)
    together = answered(loaded, requests, GenerateConfig(batch_size=rows))
    for request, ours in zip(requests, together, strict=True):
        theirs = alone(loaded, request)
        assert ours.token_ids == theirs.token_ids
        assert (ours.text, ours.finish_reason) == (theirs.text, theirs.finish_reason)
        assert ours.new_tokens <= request.options.max_new_tokens
        assert ours.prompt_tokens == theirs.prompt_tokens
    lengths = {(r.options, c.new_tokens) for r, c in zip(requests, together, strict=True)}
    assert (ANSWER, 9) in lengths  # the options differ in what comes out
    assert (SCRATCHPAD, 40) in lengths


def test_a_prompt_is_prefilled_once_for_all_of_its_options(
    loaded: LoadedModel, make_example: MakeExample
) -> None:
    prompt = render_prompt(make_example(documents=5), loaded.wording)
    forced = render_forced(make_example(documents=5), loaded.wording, (1,))
    options = (SCRATCHPAD, VERBATIM, ANSWER)
    completions = answered(
        loaded, [*(Request(prompt, o) for o in options), Request(forced, ANSWER)]
    )
    first, *others, last = (completion.prefilled_tokens for completion in completions)
    assert first == completions[0].prompt_tokens
    assert others == [1, 1]  # the last token, which is asked what follows
    assert last <= completions[-1].prompt_tokens - completions[0].prompt_tokens + 1


def test_backends_that_take_no_options_are_opened_once_for_each(
    loaded: LoadedModel, make_example: MakeExample
) -> None:
    plain = GenerateConfig(backend="transformers", prompt_lookup_num_tokens=0)
    requests = [r for r in requests_of(loaded, make_example) if not r.options.verbatim]
    ours = answered(loaded, requests)
    theirs = answered(loaded, requests, plain)
    assert [c.token_ids for c in ours] == [c.token_ids for c in theirs]


def test_options_of_one_prompt_do_not_excuse_another(
    loaded: LoadedModel, make_example: MakeExample
) -> None:
    shown = render_prompt(make_example(documents=2), loaded.wording)
    closed = render_prompt(make_example(documents=0, gold=()), loaded.wording)
    backend = RequestBackend(loaded, NATIVE)
    with pytest.raises(ConfigError, match="shows no documents to quote"):
        list(backend.answer([Request(shown, ANSWER), Request(closed, VERBATIM)]))
    with pytest.raises(ConfigError, match=r"needs max_new_tokens \d+ or more here, and it is 9"):
        list(backend.answer([Request(shown, replace(VERBATIM, max_new_tokens=9))]))
    with pytest.raises(SampleTooLongError, match="1 of 1 prompts with the 20000 of"):
        list(backend.answer([Request(shown, ANSWER), Request(shown, Options(20000))]))
    assert list(backend.answer([])) == []
