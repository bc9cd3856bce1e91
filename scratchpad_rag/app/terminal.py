"""`demo.py`: a question, the prompt, the quotes and the answer, one after the other.

Where nobody sits at the terminal (standard input or output is a pipe), nothing is asked: one
question is answered with the defaults, without colour.
"""

from __future__ import annotations

import argparse
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol

from scratchpad_rag.app.flags import (
    DEFAULT_EXPERIMENT,
    DEMO_FLAGS,
    PAGE_FLAGS,
    add_flag,
    config_from,
    existing_checkpoint,
    run_command,
    say,
)
from scratchpad_rag.app.sample_questions import validation_questions
from scratchpad_rag.app.screen import Leave, Screen
from scratchpad_rag.config import DataConfig, RunConfig, max_new_tokens_for
from scratchpad_rag.data.given import make_example, passage_from
from scratchpad_rag.data.lines import read_items
from scratchpad_rag.data.place import place
from scratchpad_rag.errors import DataError, UserError
from scratchpad_rag.prompts.growing import SoFar, read_so_far
from scratchpad_rag.reader import (
    Answered,
    Reader,
    model_name_of,
)
from scratchpad_rag.records import (
    Example,
    Method,
    Passage,
    Piece,
    Progress,
    Rendered,
    ScratchpadForm,
)

_JSON_SUFFIXES = (".json", ".jsonl", ".gz")


class AnyReader(Protocol):
    """The part of `reader.Reader` that the demo needs."""

    method: Method | None

    @property
    def form(self) -> ScratchpadForm: ...

    def prompt(self, example: Example) -> Rendered: ...

    def stream_example(
        self, example: Example, max_new_tokens: int | None = None
    ) -> Iterator[Piece | Progress | Answered]: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, also on leaving; 2 for what the user can put right."""
    flags = vars(make_parser().parse_args(arguments))
    return run_command(lambda: run(flags))


def run(flags: Mapping[str, Any]) -> None:
    """The demo as the flags say: in the terminal, or as a page."""
    if flags.get("web"):
        from scratchpad_rag.app.web.serve import run as run_page

        for name in ("question", "documents"):
            if flags.get(name) is not None:
                raise UserError(f"--{name} is for the terminal, and this is the page")
        run_page(flags)
        return
    for flag in PAGE_FLAGS:
        if flags.get(flag.name) is not None:
            raise UserError(f"--{flag.name} is for the page, and this is the terminal")
    run_terminal(flags)


def make_parser() -> argparse.ArgumentParser:
    """The flags of demo.py."""
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__)
    for flag in DEMO_FLAGS:
        add_flag(parser, flag)
    parser.set_defaults(experiment_config=DEFAULT_EXPERIMENT)
    parser.add_argument("--web", action="store_true", help="a page in the browser instead")
    for flag in PAGE_FLAGS:
        add_flag(parser, replace(flag, help=f"with --web: {flag.help}"))
    return parser


def run_terminal(flags: Mapping[str, Any]) -> None:
    """The demo in the terminal. Ctrl-D leaves it, and Ctrl-C unless it ends an answer under way; in
    a pipe Ctrl-C is an interrupt."""
    screen = Screen()
    try:
        _converse(flags, screen)
    except Leave:
        screen.goodbye()
    except KeyboardInterrupt:
        if not screen.interactive:
            raise
        screen.goodbye()


def _converse(flags: Mapping[str, Any], screen: Screen) -> None:
    checkpoint = existing_checkpoint(flags.get("checkpoint_path"))
    config = resolve(flags, checkpoint)
    with screen.working("Reading the documents"):
        source = _open_source(flags, config, screen)
    with screen.working(f"Loading {config.model_name}"):
        reader = open_reader(config, checkpoint, say)
    screen.show_title(config.model_name, reader.method, checkpoint)
    questions = source.questions(flags.get("question"))
    for example in questions if screen.interactive else [next(questions)]:
        try:
            _answer(reader, source.shown(example), _room(config, reader), screen)
        except UserError as error:
            if not screen.interactive:
                raise
            screen.show_error(error)


def resolve(flags: Mapping[str, Any], checkpoint: Path | None) -> RunConfig:
    """The config. The demo places the gold passage itself, so one position is enough to read."""
    model = flags.get("model_config") or model_name_of(checkpoint)
    return config_from({**flags, "model_config": model, "gold_at": ["0"]})


def open_reader(
    config: RunConfig, checkpoint: Path | None, notify: Callable[[str], None]
) -> AnyReader:
    """The reader to talk to; its progress bars would garble the screen, so they are off."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the libraries', about one another
        return Reader.from_config(config, checkpoint, notify)


def _room(config: RunConfig, reader: AnyReader) -> int:
    """Tokens to generate where nothing else is asked: flag, experiment, method, in this order."""
    return max_new_tokens_for(config.generate, reader.method)


def _answer(reader: AnyReader, example: Example, room: int, screen: Screen) -> None:
    max_new_tokens = screen.ask_number("Tokens to generate", room, 1, 1 << 20)
    prompt = reader.prompt(example)
    screen.show_prompt(prompt)
    count = len(example.passages)
    doing = f"Reading {count} document{'' if count == 1 else 's'}"
    try:
        with screen.streaming(doing, example, reader.method) as show:
            answered = _stream(reader, example, max_new_tokens, show)
    except KeyboardInterrupt:  # at a question it leaves the demo, here only this answer
        if not screen.interactive:
            raise
        screen.show_stopped()
        return
    screen.show_quotes(answered.reading, example, reader.method)
    screen.show_answer(answered, example)


def _stream(
    reader: AnyReader, example: Example, max_new_tokens: int, show: Callable[[SoFar], None]
) -> Answered:
    text = ""
    for item in reader.stream_example(example, max_new_tokens):
        if isinstance(item, Answered):
            return item
        if isinstance(item, Piece):
            text += item.text
            show(read_so_far(text, example, reader.method, reader.form))
    raise AssertionError("a stream ends with what was answered")


def _open_source(flags: Mapping[str, Any], config: RunConfig, screen: Screen) -> Source:
    path, question = flags.get("documents"), flags.get("question")
    if question is not None:
        make_example(question)  # refused now if there is nothing in it
    if path is None:
        return DrawnQuestions(validation_questions(config.data), config.data, screen)
    documents = read_documents(Path(path))
    if question is None and not screen.interactive:
        raise UserError("--documents needs --question where standard input is no terminal")
    return OwnDocuments(documents, config.data.total_docs, screen)


class Source(Protocol):
    """Where questions come from, and the passages that they are shown with."""

    def questions(self, first: str | None) -> Iterator[Example]: ...

    def shown(self, example: Example) -> Example: ...


@dataclass
class OwnDocuments:
    """Questions that are typed, asked of the documents of a file."""

    documents: list[Passage]
    total_docs: int
    screen: Screen

    def questions(self, first: str | None) -> Iterator[Example]:
        typed = first
        while True:
            if typed:
                yield _typed(typed)
            typed = self.screen.ask_next("Type a question")

    def shown(self, example: Example) -> Example:
        self.screen.show_question(make_example(example.question))
        return _retrieve(example.question, self.documents, self.total_docs, self.screen)


class DrawnQuestions:
    """The validation questions in a drawn order, and typed ones asked of all their passages."""

    def __init__(self, examples: Sequence[Example], config: DataConfig, screen: Screen) -> None:
        self.examples = examples
        self.total_docs = config.total_docs
        self.screen = screen
        self.random = random.Random(config.seed)

    def questions(self, first: str | None) -> Iterator[Example]:
        drawn = cycle(self.examples)
        typed = first
        while True:
            yield _typed(typed) if typed else next(drawn)
            typed = self.screen.ask_next("Enter for the next question, or type your own")

    def shown(self, example: Example) -> Example:
        """The gold passages stand together at a drawn place; a typed question has none."""
        if not example.passages:
            self.screen.show_question(make_example(example.question))
            collection = list(dict.fromkeys(p for e in self.examples for p in e.passages))
            return _retrieve(example.question, collection, self.total_docs, self.screen)
        self.screen.show_question(example)
        gold = len(example.gold)
        available = len(example.passages)
        total = self.screen.ask_number(
            f"Documents to retrieve, at most {available}",
            min(self.total_docs, available),
            max(gold, 1),
            available,
        )
        position = self.random.randrange(total - gold + 1) if gold else None
        return place(example, total, position)


def _typed(question: str) -> Example:
    """A typed question, unchecked: it is refused, and asked for again, when it is shown."""
    return Example("question", question, (), (), ())


def _retrieve(question: str, pool: list[Passage], total_docs: int, screen: Screen) -> Example:
    """The documents that match a question best by BM25, or all of them in their own order."""
    total = screen.ask_number(
        f"Documents to retrieve, at most {len(pool):,}", min(total_docs, len(pool)), 1, len(pool)
    )
    chosen: Sequence[int] = range(len(pool))
    if total < len(pool):
        from scratchpad_rag.data.retrieve import rank_passages

        with screen.working("Retrieving"):
            chosen = rank_passages(question, pool)[:total]
    return make_example(question, [pool[index] for index in chosen])


def read_documents(path: Path) -> list[Passage]:
    """One's own documents: JSON lines or an array of `text` and perhaps `title`, or plain text.

    Plain text is split at blank lines. Files named `.json`, `.jsonl` or `.gz`, and those that
    begin with `{`, are read as JSON. A document without a title is called after the file.
    Raises DataError naming the file and the line.
    """
    name = path.name.partition(".")[0]
    if path.suffix not in _JSON_SUFFIXES and not _read_text(path).lstrip().startswith("{"):
        blocks = "\n".join(line.rstrip() for line in _read_text(path).splitlines()).split("\n\n")
        texts = [block.strip() for block in blocks if block.strip()]
        if not texts:
            raise DataError(f"{path}: the file is empty")
        return [Passage(f"{name} {n}", text) for n, text in enumerate(texts, start=1)]
    items = enumerate(read_items(path), start=1)
    return [passage_from(item, f"{name} {number}") for number, item in items]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start})") from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
