"""What every backend does: prompts in, completions out, with what each one cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from scratchpad_rag.config import GenerateConfig
from scratchpad_rag.errors import ConfigError
from scratchpad_rag.records import Completion, Rendered

if TYPE_CHECKING:
    from scratchpad_rag.models.load import LoadedModel


class Backend(Protocol):
    """Greedy generation. Completions come in the order of the prompts, each when it is done."""

    def generate(self, prompts: Sequence[Rendered]) -> Iterator[Completion]:
        """Raises SampleTooLongError for a prompt that leaves no room for `max_new_tokens`."""
        ...


def _load_transformers(loaded: LoadedModel, config: GenerateConfig) -> Backend:
    from scratchpad_rag.backends.transformers import TransformersBackend

    return TransformersBackend(loaded, config)


_BACKENDS: dict[str, Callable[[LoadedModel, GenerateConfig], Backend]] = {
    "transformers": _load_transformers,
}


def require_backend(name: str) -> None:
    """Refuse an unknown backend before anything is loaded."""
    if name not in _BACKENDS:
        raise ConfigError(f"unknown backend {name!r}; choose from {', '.join(sorted(_BACKENDS))}")


def load_backend(loaded: LoadedModel, config: GenerateConfig) -> Backend:
    """The backend that the config names; its module is imported only now."""
    require_backend(config.backend)
    return _BACKENDS[config.backend](loaded, config)
