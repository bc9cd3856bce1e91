"""Who answers the questions of an evaluation: the backend here, or workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from scratchpad_rag.app.progress import above_bar
from scratchpad_rag.backends.base import Backend, load_backend, open_model
from scratchpad_rag.backends.ray import RayBackend, ray_settings
from scratchpad_rag.config import ModelConfig, RunConfig, generate_for
from scratchpad_rag.models.adapters import active_adapter, merge_for_good, merged_adapter
from scratchpad_rag.models.checkpoints import Adapter
from scratchpad_rag.models.load import LoadedModel
from scratchpad_rag.reader import load_reader
from scratchpad_rag.records import Method

Notify = Callable[[str], None]


@contextmanager
def answering(
    loaded: LoadedModel, method: Method | None, config: RunConfig, notify: Notify
) -> Iterator[Backend]:
    """The backend of an evaluation, with the model's adapter, by the config's executor."""
    generate = generate_for(config.generate, method)
    if config.evaluate.executor == "ray":
        settled = replace(config, model=_findable(config.model), generate=generate)
        open_there = partial(open_on_worker, settled, loaded.adapter)
        settings = ray_settings(config.evaluate, generate)
        yield RayBackend(open_there, settings, above_bar(notify))
        return
    with merged_adapter(loaded, active_adapter(loaded)):
        yield load_backend(loaded, generate, above_bar(notify))


def open_driver_model(config: RunConfig, notify: Notify) -> LoadedModel:
    """The model as this process needs it: without weights where workers load them."""
    return open_model(
        config.model, config.generate, notify, weights=config.evaluate.executor == "local"
    )


def open_on_worker(config: RunConfig, adapter: Adapter | None, notify: Notify) -> Backend:
    """The backend with weights of its own. `config.generate` is settled for the method."""
    loaded = open_model(config.model, config.generate, notify)
    if adapter is not None:
        loaded, _ = load_reader(loaded, adapter, config)
    return load_backend(merge_for_good(loaded), config.generate, notify)


def _findable(config: ModelConfig) -> ModelConfig:
    """A model's folder or file by its full path: workers do not start where this process did."""
    path = Path(config.pretrained_model_name_or_path).expanduser()
    if not path.exists():
        return config
    return replace(config, pretrained_model_name_or_path=str(path.resolve()))
