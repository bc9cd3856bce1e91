"""The library's face: a reader that quotes the documents it answers from.

    reader = Reader.load("checkpoints/smollm2_135m/scratchpad_rag.pt")
    reading = reader.answer("Who built the bridge?", ["The bridge was built by Ida Holm in 1911."])
    reading.answer, reading.quotes

This module imports no torch; a model is imported when one is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from scratchpad_rag.backends.base import (
    Backend,
    load_backend,
    open_model,
    require_backend,
    require_verbatim_method,
    stream_from,
)
from scratchpad_rag.config import (
    GenerateConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    bare_name,
    load_model_config,
    load_peft_config,
    max_new_tokens_for,
)
from scratchpad_rag.data.given import Document, make_example
from scratchpad_rag.errors import CheckpointError, ConfigError, UserError
from scratchpad_rag.prompts.parse import parse_completion
from scratchpad_rag.prompts.render import render_prompt
from scratchpad_rag.records import (
    Completion,
    Example,
    Method,
    Piece,
    Progress,
    Reading,
    Rendered,
    ScratchpadForm,
)

if TYPE_CHECKING:
    from scratchpad_rag.models.checkpoints import Adapter
    from scratchpad_rag.models.load import LoadedModel

Notify = Callable[[str], None]
DEFAULT_MODEL = "smollm2_135m"  # the packaged weights, which need no network


class Answered(NamedTuple):
    """A reading with the completion that it was parsed from, which says what it cost."""

    reading: Reading
    completion: Completion


class Reader:
    """A model, with or without an adapter, that answers questions from documents.

    `method` is what its completions hold: quotes and the answer (scratchpad), the answer alone
    (sft), or, for a model without an adapter, whatever it was made for (None, zero-shot).
    """

    def __init__(
        self,
        loaded: LoadedModel,
        method: Method | None,
        generate: GenerateConfig | None = None,
        notify: Notify = lambda _: None,
    ) -> None:
        self.loaded = loaded
        self.method = method
        self.notify = notify
        self.generate = generate or GenerateConfig()
        self._backend_of: tuple[int, Backend] | None = None  # and the room that it has
        self._opening = Lock()

    @property
    def form(self) -> ScratchpadForm:
        """What its scratchpads hold, if it writes any."""
        return self.loaded.wording.form

    @classmethod
    def load(
        cls,
        checkpoint: str | Path | None = None,
        model: str | ModelConfig | None = None,
        *,
        train_method: str | None = None,
        scratchpad_form: str | None = None,
        peft: str | None = None,
        max_new_tokens: int | None = None,
        verbatim: bool = False,
        quote: str = "passage",
        backend: str = "native",
        notify: Notify = lambda _: None,
    ) -> Reader:
        """Load a `.pt` checkpoint or the folder of one, or, with none, the model alone.

        `model` is the name of a model config, a YAML file, or a ModelConfig; without it the
        checkpoint says which it was trained with, and without a checkpoint it is smollm2_135m.
        `train_method`, `scratchpad_form` (without one: passage) and `peft` (a PEFT config) are for
        bare state dicts, which do not tell theirs. With `verbatim` a scratchpad holds nothing but
        whole passages of the documents, or whole sentences with `quote="sentence"`, or what its
        form is. `notify` receives a line for each thing worth knowing.
        Raises CheckpointError, ConfigError or ModelError, before the model is loaded if it can.
        """
        adapter = _read_adapter(checkpoint)
        chosen = model if model is not None else _model_of(adapter)
        method = _as_method(train_method)
        if method is None and adapter is not None and adapter.metadata is not None:
            method = Method(adapter.metadata.method)
        config = RunConfig(
            model=chosen if isinstance(chosen, ModelConfig) else load_model_config(chosen),
            peft=load_peft_config(peft) if peft else None,
            train=TrainConfig(scratchpad_form=_as_form(scratchpad_form)),
            train_method=method,
            model_name="" if isinstance(chosen, ModelConfig) else bare_name(chosen),
            generate=GenerateConfig(
                backend=backend,
                max_new_tokens=_checked_room(max_new_tokens, default_max_new_tokens(method)),
                verbatim=verbatim,
                quote=quote,
            ),
        )
        return cls._assemble(config, adapter, notify)

    @classmethod
    def from_config(
        cls, config: RunConfig, checkpoint: Path | None = None, notify: Notify = lambda _: None
    ) -> Reader:
        """The same from a resolved config. Without a checkpoint the reader is zero-shot."""
        return cls._assemble(config, _read_adapter(checkpoint), notify)

    @classmethod
    def _assemble(cls, config: RunConfig, adapter: Adapter | None, notify: Notify) -> Reader:
        from scratchpad_rag.models.adapters import merge_for_good

        require_backend(config.generate)
        if adapter is None:
            require_verbatim_method(config.generate, None)
            return cls(
                open_model(config.model, config.generate, notify), None, config.generate, notify
            )
        loaded = open_model(config.model, config.generate, notify)
        loaded, method = load_reader(loaded, adapter, config, notify=notify)
        require_verbatim_method(config.generate, method)
        return cls(merge_for_good(loaded), method, config.generate, notify)

    def answer(
        self,
        question: str,
        documents: Iterable[Document] = (),
        max_new_tokens: int | None = None,
    ) -> Reading:
        """Answer a question from documents, in the order given.

        A document is its text, a pair of title and text, a Passage, or a mapping with `text` and
        perhaps `title`; one without a title is called `Document N`, counted from 1. Each quote
        names its document by its index from 0 and the characters `start:end` of that text.
        Without documents the question is asked closed-book, which a scratchpad reader cannot do.
        Raises UserError for bad input and SampleTooLongError where the model's context is short.
        """
        return self.read(make_example(question, documents), max_new_tokens).reading

    def answer_many(
        self,
        questions: Sequence[str],
        documents: Sequence[Iterable[Document]],
        max_new_tokens: int | None = None,
    ) -> list[Reading]:
        """Answer `questions[i]` from `documents[i]`; all are checked before the first is asked."""
        if isinstance(questions, str) or isinstance(documents, str | Mapping):
            raise UserError("answer_many takes a list of questions and a list of document lists")
        if len(questions) != len(documents):
            raise UserError(
                f"there are {len(questions)} questions and {len(documents)} lists of documents"
            )
        pairs = zip(questions, documents, strict=True)
        examples = [make_example(question, given) for question, given in pairs]
        return [answered.reading for answered in self._read(examples, max_new_tokens)]

    def prompt(self, example: Example) -> Rendered:
        """The prompt for an example, as the model sees it."""
        return render_prompt(example, self.loaded.wording)

    def read(self, example: Example, max_new_tokens: int | None = None) -> Answered:
        """Answer an example from the passages that it shows."""
        return self._read([example], max_new_tokens)[0]

    def stream(
        self, question: str, documents: Iterable[Document] = (), max_new_tokens: int | None = None
    ) -> Iterator[Piece | Reading]:
        """Answer as `answer` does, piece by piece as the text is decided; last comes the Reading.

        Each Piece names the document and the characters that it was copied from. Closing the
        iterator, or dropping it, ends the work before the next pass.
        """
        example = make_example(question, documents)
        with closing(self.stream_example(example, max_new_tokens)) as items:
            for item in items:
                if isinstance(item, Answered):
                    yield item.reading
                elif isinstance(item, Piece):
                    yield item

    def stream_example(
        self, example: Example, max_new_tokens: int | None = None
    ) -> Generator[Piece | Progress | Answered]:
        """The same for an example, with what it took so far between the pieces; last comes what
        `read` returns."""
        self._refuse_nothing_to_quote([example])
        backend = self._backend(self._room(max_new_tokens))
        with closing(stream_from(backend, self.prompt(example))) as items:
            for item in items:
                if isinstance(item, Completion):
                    yield Answered(self._parse(item, example), item)
                else:
                    yield item

    def _read(self, examples: Sequence[Example], max_new_tokens: int | None) -> list[Answered]:
        self._refuse_nothing_to_quote(examples)
        backend = self._backend(self._room(max_new_tokens))
        completions = backend.generate([self.prompt(example) for example in examples])
        return [
            Answered(self._parse(completion, example), completion)
            for example, completion in zip(examples, completions, strict=True)
        ]

    def _parse(self, completion: Completion, example: Example) -> Reading:
        return parse_completion(completion.text, example, self.method, self.form)

    def _refuse_nothing_to_quote(self, examples: Sequence[Example]) -> None:
        if self.method is Method.SCRATCHPAD and not all(e.passages for e in examples):
            raise UserError(
                "there are no documents, and a scratchpad reader quotes before answering"
            )

    def _room(self, asked: int | None) -> int:
        return _checked_room(asked, max_new_tokens_for(self.generate, self.method))

    def _backend(self, max_new_tokens: int) -> Backend:
        with self._opening:
            if self._backend_of is None or self._backend_of[0] != max_new_tokens:
                self._backend_of = None  # its memory is free before another takes its own
                config = replace(self.generate, max_new_tokens=max_new_tokens)
                self._backend_of = max_new_tokens, load_backend(self.loaded, config, self.notify)
            return self._backend_of[1]


def default_max_new_tokens(method: Method | None) -> int:
    """How long a completion may become where nothing else is said."""
    return max_new_tokens_for(GenerateConfig(), method)


def load_reader(
    loaded: LoadedModel,
    checkpoint: Path | Adapter,
    config: RunConfig,
    name: str = "default",
    notify: Notify = lambda _: None,
) -> tuple[LoadedModel, Method]:
    """Put a checkpoint on the model; the method is the checkpoint's own, and so is the form of its
    scratchpads, for which the model is asked from then on.

    Raises CheckpointError where it has no metadata and no flag says the method.
    """
    from scratchpad_rag.models.checkpoints import read_adapter
    from scratchpad_rag.models.restore import load_adapter, precision_note

    adapter = read_adapter(checkpoint) if isinstance(checkpoint, Path) else checkpoint
    if loaded.tokenizer is None:
        raise CheckpointError(
            f"{adapter.path}: the server at --base_url reads with its own weights"
        )
    if adapter.metadata is None and config.train_method is None:
        raise CheckpointError(f"{adapter.path} has no metadata; say its --train_method")
    if adapter.metadata is None:
        assert config.train_method is not None
        method = config.train_method
    else:
        method = Method(adapter.metadata.method)
        if config.train_method not in (None, method):
            raise CheckpointError(
                f"{adapter.path} was trained as {method}, and --train_method says "
                f"{config.train_method}"
            )
        trained_format = adapter.metadata.prompt_format
        if trained_format != prompt_format(loaded):
            raise CheckpointError(
                f"{adapter.path} was trained with prompt_format {trained_format}, and the model "
                f"config gives {prompt_format(loaded)}"
            )
    form = trained_form(adapter, config.train.scratchpad_form)
    loaded = replace(loaded, wording=loaded.wording.writing(method, form))
    if loaded.model is None:
        # The engine's weights are not here to be compared; their config's name is.
        trained = adapter.metadata.model_name if adapter.metadata else config.model_name
        if config.model_name and trained != config.model_name:
            raise CheckpointError(
                f"{adapter.path} was trained on {trained}, and the engine reads {config.model_name}"
            )
        return _for_engine(loaded, adapter), method
    note = precision_note(loaded, adapter)
    if note is not None:
        notify(note)
    return load_adapter(loaded, adapter, config.peft, name), method


def trained_form(adapter: Adapter, asked: ScratchpadForm | None) -> ScratchpadForm:
    """The form of a checkpoint's scratchpads; where it has no metadata, the one asked for.

    Raises CheckpointError where another one is asked for.
    """
    metadata = adapter.metadata
    if metadata is None or Method(metadata.method) is not Method.SCRATCHPAD:
        return asked or ScratchpadForm.PASSAGE
    form = ScratchpadForm(metadata.scratchpad_form)
    if asked not in (None, form):
        raise CheckpointError(
            f"{adapter.path} was trained with scratchpad_form {form}, and --scratchpad_form says "
            f"{asked}"
        )
    return form


def _for_engine(loaded: LoadedModel, adapter: Adapter) -> LoadedModel:
    """An engine loads an adapter beside the model's weights, a finetuned model instead of them."""
    if not adapter.is_full:
        return replace(loaded, adapter=adapter)
    if not adapter.path.is_dir():
        raise CheckpointError(
            f"{adapter.path} holds all weights of a model, which the engine reads from a folder; "
            "name the run's adapter folder"
        )
    finetuned = replace(loaded.config, pretrained_model_name_or_path=str(adapter.path))
    return replace(loaded, config=finetuned)


def prompt_format(loaded: LoadedModel) -> str:
    """`chat` or `plain`: what the prompts of a loaded model look like."""
    return "plain" if loaded.wording.chat is None else "chat"


def model_name_of(checkpoint: Path | None) -> str:
    """The model config that a checkpoint was trained with; without one, the default's name.

    Raises CheckpointError where the checkpoint does not tell.
    """
    return _model_of(_read_adapter(checkpoint))


def _model_of(adapter: Adapter | None) -> str:
    if adapter is None:
        return DEFAULT_MODEL
    if adapter.metadata is None:
        raise CheckpointError(f"{adapter.path} has no metadata; say its model config")
    return adapter.metadata.model_name


def _read_adapter(checkpoint: str | Path | None) -> Adapter | None:
    if checkpoint is None:
        return None
    from scratchpad_rag.models.checkpoints import read_adapter

    return read_adapter(Path(checkpoint).expanduser())


def _as_method(name: str | None) -> Method | None:
    if name is not None and name not in tuple(Method):
        raise ConfigError(f"unknown train_method {name!r}; choose from {', '.join(Method)}")
    return None if name is None else Method(name)


def _as_form(name: str | None) -> ScratchpadForm | None:
    if name is not None and name not in tuple(ScratchpadForm):
        raise ConfigError(
            f"unknown scratchpad_form {name!r}; choose from {', '.join(ScratchpadForm)}"
        )
    return None if name is None else ScratchpadForm(name)


def _checked_room(asked: int | None, default: int) -> int:
    if asked is None:
        return default
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
        raise UserError(f"max_new_tokens is {asked!r}; it must be a whole number from 1")
    return asked
