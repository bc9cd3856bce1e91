"""Prompts with options of their own, whatever the backend can do by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from scratchpad_rag.backends.base import Backend, as_done, load_backend
from scratchpad_rag.config import GenerateConfig
from scratchpad_rag.records import Completion, Options, Request

if TYPE_CHECKING:
    from scratchpad_rag.models.load import LoadedModel


def generate_with(config: GenerateConfig, options: Options) -> GenerateConfig:
    """The config of a backend all of whose prompts have the same options."""
    return replace(
        config,
        max_new_tokens=options.max_new_tokens,
        verbatim=options.verbatim,
        quote=options.quote,
        abstain=options.abstain,
    )


class RequestBackend:
    """Answers requests: all in one call where the backend takes options by the prompt, else those
    of equal options together."""

    def __init__(
        self,
        loaded: LoadedModel,
        config: GenerateConfig,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._loaded, self._config, self._notify = loaded, config, notify
        self._backends: dict[Options, Backend] = {}

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """Completions with the numbers of their requests, from 0."""
        if not requests:
            return
        backend = self._backend(requests[0].options)
        answer = getattr(backend, "answer", None)
        if answer is not None:
            yield from enumerate(answer(requests))
            return
        groups: dict[Options, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(request.options, []).append(number)
        for options, numbers in groups.items():
            prompts = [requests[number].prompt for number in numbers]
            for index, completion in as_done(self._backend(options), prompts):
                yield numbers[index], completion

    def check(self, requests: Sequence[Request]) -> None:
        """Refuse what cannot be answered, as far as the backend knows it without answering."""
        check = getattr(self._backend(requests[0].options), "check", None) if requests else None
        if check is not None:
            check(requests)

    def _backend(self, options: Options) -> Backend:
        """One for all options where it takes them by the prompt."""
        shared = next(iter(self._backends.values()), None)
        if shared is not None and hasattr(shared, "answer"):
            return shared
        if options not in self._backends:
            config = generate_with(self._config, options)
            self._backends[options] = load_backend(self._loaded, config, self._notify)
        return self._backends[options]
