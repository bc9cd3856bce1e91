"""What every backend does: prompts in, completions out, with what each one cost."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from scratchpad_rag.config import GenerateConfig, ModelConfig, max_new_tokens_for
from scratchpad_rag.errors import ConfigError
from scratchpad_rag.records import Completion, Method, Piece, Progress, Rendered

if TYPE_CHECKING:
    from scratchpad_rag.backends.http import HttpSettings
    from scratchpad_rag.models.load import LoadedModel


class Backend(Protocol):
    """Greedy generation. Completions come in the order of the prompts, each when it is done."""

    def generate(self, prompts: Sequence[Rendered]) -> Iterator[Completion]:
        """Raises SampleTooLongError for a prompt that leaves no room for `max_new_tokens`."""
        ...


Load = Callable[["LoadedModel", GenerateConfig, "Notify"], Backend]
Notify = Callable[[str], None]


def _load_native(loaded: LoadedModel, config: GenerateConfig, notify: Notify) -> Backend:
    from scratchpad_rag.backends.native import NativeBackend, why_not_native

    problem = why_not_native(loaded.model)
    if problem is None:
        return NativeBackend(loaded, config, notify)
    if config.verbatim:
        raise ConfigError(f"--verbatim needs the native backend, and with this model {problem}")
    notify(f"the native backend does not read this model ({problem}); using transformers")
    return _load_transformers(loaded, config, notify)


def _load_transformers(loaded: LoadedModel, config: GenerateConfig, notify: Notify) -> Backend:
    from scratchpad_rag.backends.transformers import TransformersBackend

    return TransformersBackend(loaded, config)


def _load_vllm(loaded: LoadedModel, config: GenerateConfig, notify: Notify) -> Backend:
    from scratchpad_rag.backends.vllm import VllmBackend

    return VllmBackend(loaded, config, loaded.adapter, notify)


def _load_http(loaded: LoadedModel, config: GenerateConfig, notify: Notify) -> Backend:
    from scratchpad_rag.backends.http import HttpBackend

    model = loaded.config.pretrained_model_name_or_path
    return HttpBackend(model, _http_settings(config), notify)


def _http_settings(config: GenerateConfig) -> HttpSettings:
    from scratchpad_rag.backends.http import HttpSettings

    if config.base_url is None:
        raise ConfigError("--backend http needs --base_url, such as http://localhost:8000/v1")
    return HttpSettings(
        base_url=config.base_url,
        max_new_tokens=max_new_tokens_for(config, None),
        endpoint=config.endpoint,
        api_key_env=config.api_key_env,
        concurrency=config.concurrency,
        timeout_seconds=config.timeout_seconds,
        max_retries=config.max_retries,
    )


_BACKENDS: dict[str, Load] = {
    "native": _load_native,
    "transformers": _load_transformers,
    "vllm": _load_vllm,
    "http": _load_http,
}
LOCAL_BACKENDS = ("native", "transformers")  # those that read with weights loaded here


def require_backend(config: GenerateConfig) -> None:
    """Refuse an unknown backend, or what the one named cannot do, before anything is loaded."""
    name = config.backend
    if name not in _BACKENDS:
        raise ConfigError(f"unknown backend {name!r}; choose from {', '.join(sorted(_BACKENDS))}")
    if config.quote not in ("passage", "sentence"):
        raise ConfigError(f"unknown quote {config.quote!r}; choose from passage, sentence")
    if config.quote != "passage" and not config.verbatim:
        raise ConfigError("--quote sentence says what --verbatim quotes, so it needs --verbatim")
    if config.verbatim and name != "native":
        raise ConfigError(
            f"--verbatim needs the native backend: {name} cannot hold quotes to the context"
        )
    if name == "http":
        _http_settings(config)
    elif config.base_url is not None:
        raise ConfigError(f"--base_url is for the http backend; {name} asks no server")
    if config.prompt_lookup_num_tokens is not None and name != "transformers":
        raise ConfigError(
            f"prompt_lookup_num_tokens is for the transformers backend; {name} has no use for it"
        )


def require_local(config: GenerateConfig, what: str) -> None:
    """Refuse work that needs the weights here where the backend runs them elsewhere."""
    if config.backend not in LOCAL_BACKENDS:
        raise ConfigError(
            f"{what} needs the weights here; --backend {config.backend} only answers (--eval_only)"
        )


def open_model(
    config: ModelConfig,
    generate: GenerateConfig,
    notify: Notify = lambda _: None,
    *,
    weights: bool = True,
) -> LoadedModel:
    """The model as the backend needs it: its weights, only its tokenizer, or only its name.

    Without `weights` other processes load them, and here is no more than the tokenizer.
    """
    from scratchpad_rag.models.load import engine_model, load_model, remote_model

    if generate.backend == "http":
        return remote_model(config)
    if generate.backend == "vllm" or not weights:
        return engine_model(config, notify)
    return load_model(config, notify)


def require_verbatim_method(config: GenerateConfig, method: Method | None) -> None:
    """Refuse to hold a scratchpad to the context where the reader writes none."""
    if config.verbatim and method is not Method.SCRATCHPAD:
        raise ConfigError(
            "--verbatim holds scratchpads to the context, and this reader "
            f"({method or 'zero-shot'}) writes none"
        )


def stream_from(backend: Backend, prompt: Rendered) -> Generator[Piece | Progress | Completion]:
    """Pieces of a completion as they come, what it took so far, and the completion; all at once
    where a backend cannot stream. Closing it ends the work."""
    stream = getattr(backend, "stream", None)
    if stream is not None:
        yield from stream(prompt)
        return
    [completion] = backend.generate([prompt])
    yield Piece(completion.text, None, 0, 0)
    yield completion


def as_done(backend: Backend, prompts: Sequence[Rendered]) -> Iterator[tuple[int, Completion]]:
    """Completions with the numbers of their prompts, from 0: in the order in which they are done
    where a backend tells it, else in that of the prompts."""
    numbered = getattr(backend, "generate_as_done", None)
    if numbered is not None:
        yield from numbered(prompts)
        return
    yield from zip(range(len(prompts)), backend.generate(prompts), strict=True)


def load_backend(
    loaded: LoadedModel, config: GenerateConfig, notify: Notify = lambda _: None
) -> Backend:
    """The backend that the config names; its module is imported only now.

    `notify` is told where another one has to do the work. Raises ConfigError.
    """
    require_backend(config)
    return _BACKENDS[config.backend](loaded, config, notify)
