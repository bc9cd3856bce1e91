"""What the demo shows and asks: calm on a terminal of 80 columns, plain in a pipe."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from scratchpad_rag.errors import UserError
from scratchpad_rag.evaluate.metrics import answer_match
from scratchpad_rag.prompts.growing import SoFar
from scratchpad_rag.reader import Answered
from scratchpad_rag.records import Example, Method, Passage, Quote, Reading, Rendered

_WIDEST = 100  # columns; longer lines are hard to read
_LABEL = 11  # columns of the labels on the left
_HEAD, _TAIL = 6, 5  # lines of a folded prompt
_QUIT = ("q", "quit", "exit")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Leave(Exception):  # noqa: N818  it is no error
    """The user wants to go."""


class Screen:
    """A terminal to show and ask on; where nobody sits there, defaults are taken."""

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # for terminals that lack a character
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        if self.interactive:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  gives `input` line editing and history
        self.console = Console(highlight=False, force_terminal=None if self.interactive else False)
        if self.console.width > _WIDEST:
            self.console.width = _WIDEST
        self._prompt: Rendered | None = None
        self._written = 0  # quotes of the answer at hand that stand in the pipe already

    @contextmanager
    def working(self, doing: str) -> Iterator[None]:
        """Shows what is being done until it is done; nothing in a pipe."""
        if not self.interactive:
            yield
            return
        with self.console.status(f"{doing}…", spinner_style="cyan"):
            yield

    def show_title(self, model: str, method: Method | None, checkpoint: Path | None) -> None:
        trained = f"{method}, {checkpoint.name}" if checkpoint else "zero-shot, no checkpoint"
        self._line(Text.assemble(("Scratchpad-RAG", "bold"), f"  {model} · {trained}"))
        if self.interactive:
            self._line(Text("p shows the last prompt whole, q or Ctrl-D leaves", "dim"))

    def show_question(self, example: Example) -> None:
        if self.interactive:
            self.console.print(Rule(style="dim"))
        self._field("Question", Text(_clean(example.question), "bold"))

    def show_prompt(self, prompt: Rendered) -> None:
        """The prompt, folded to its first and last lines; whole in a pipe."""
        self._prompt = prompt
        lines = _clean(prompt.prompt).splitlines()
        if not self.interactive:
            self._line(Text("Prompt:"))
            self._line(Text("\n".join(lines)))
            return
        self.console.print()
        hidden = len(lines) - _HEAD - _TAIL
        shown = lines if hidden < 2 else [*lines[:_HEAD], "", *lines[-_TAIL:]]
        for number, line in enumerate(shown):
            folded = hidden >= 2 and number == _HEAD
            text = f"… {hidden} lines; p shows them" if folded else line
            style = "cyan" if folded else "dim"
            self.console.print(
                Padding(Text(text, style, no_wrap=True, overflow="ellipsis"), (0, 0, 0, 2))
            )
        self.console.print()

    @contextmanager
    def streaming(
        self, doing: str, example: Example, method: Method | None
    ) -> Iterator[Callable[[SoFar], None]]:
        """Shows a completion as it comes, each quote under its source; `doing` until it begins.

        On a terminal all of it goes again at the end, when `show_quotes` and `show_answer` show
        the whole. In a pipe a quote is written as soon as the next thing begins, and for good.
        """
        self._written = 0
        if not self.interactive:
            yield lambda so_far: self._write_ended(so_far, example)
            return
        with Live(
            Spinner("dots", f"{doing}…", style="cyan"), console=self.console, transient=True
        ) as live:
            yield lambda so_far: live.update(self._growing(so_far, example, method))

    def _write_ended(self, so_far: SoFar, example: Example) -> None:
        ended = so_far.quotes if so_far.answering else so_far.quotes[:-1]
        for quote in ended[self._written :]:
            self._show_quote(quote, example, "")
        self._written = max(self._written, len(ended))

    def _growing(self, so_far: SoFar, example: Example, method: Method | None) -> Group:
        """The last quote with its text, those before it by their sources, and the answer."""
        rows = []
        for quote in so_far.quotes:
            head, style = describe_quote(quote, example.passages)
            rows.append(_grid("Quote", Text(_clean(head), f"bold {style}")))
        if so_far.quotes:
            rows.append(_grid("", Text(_clean(so_far.quotes[-1].text).strip(), style)))
        if so_far.answering:
            rows.append(_grid("Answer", Text(_clean(so_far.answer), "bold")))
        elif not rows and method is Method.SCRATCHPAD:
            rows.append(_grid("Quote", Text("…", "dim")))
        return Group(*rows)

    def show_quotes(self, reading: Reading, example: Example, method: Method | None) -> None:
        """Each quote with its document's number, counted from 1, and whether it is verbatim."""
        if method is not Method.SCRATCHPAD:
            return
        if not reading.quotes:
            self._field("Quotes", Text("none", "yellow"))
        for quote in reading.quotes[self._written :]:
            self._show_quote(quote, example, reading.answer)

    def _show_quote(self, quote: Quote, example: Example, answer: str) -> None:
        head, style = describe_quote(quote, example.passages)
        text = Text(_clean(quote.text).strip(), style)
        if answer:
            text.highlight_words([_clean(answer)], "bold", case_sensitive=False)
        if self.interactive:
            self._field("Quote", Text(_clean(head), f"bold {style}"))
            if text:  # a quote may be a title alone
                self._field("", text)
            self.console.print()
        else:
            self._field("Quote", Text(_clean(head)))
            if text:
                self._line(text)

    def show_answer(self, answered: Answered, example: Example) -> None:
        """The answer, the true one where it is known, and what it cost."""
        reading, completion = answered
        if reading.answer:
            self._field("Answer", Text(_clean(reading.answer), "bold"))
        elif completion.finish_reason == "length":
            self._field("Answer", Text(f"none in {completion.new_tokens} tokens", "yellow"))
        else:
            self._field("Answer", Text("none: the reader stopped before it", "yellow"))
        if example.answers:
            where = ", ".join(str(index + 1) for index in example.gold)
            truth = Text(" | ".join(_clean(answer) for answer in example.answers))
            if example.gold and reading.quotes:
                truth.append(f"  (document {where})", "dim")
            self._field("True answer", truth)
            right = answer_match(reading, example.answers) > 0
            self._field("", Text("✓ right", "green") if right else Text("✗ wrong", "red"))
        cost = (
            f"{completion.prompt_tokens:,} tokens read, {completion.new_tokens:,} generated in "
            f"{completion.forward_passes:,} passes, {completion.wall_seconds:.1f} s"
        )
        self._field("", Text(cost, "dim"))

    def show_stopped(self) -> None:
        self._field("", Text("stopped; Ctrl-C once more leaves", "yellow"))

    def show_error(self, error: UserError) -> None:
        self._line(Text(_clean(str(error)), "red"))

    def goodbye(self) -> None:
        self._line(Text("\nGoodbye." if self.interactive else "Goodbye."))

    def ask_number(self, what: str, default: int, lowest: int, highest: int) -> int:
        """A whole number; Enter and a pipe take the default. Raises Leave."""
        while self.interactive:
            typed = self._ask(f"{what} [{default}]: ")
            if not typed:
                break
            if typed.isascii() and typed.isdigit() and lowest <= int(typed) <= highest:
                return int(typed)
            self._line(Text(f"a whole number from {lowest} to {highest:,}, please", "yellow"))
        return default

    def ask_next(self, hint: str) -> str:
        """What to do after an answer: an own question, or "" for Enter. Raises Leave."""
        self.console.print()
        return self._ask(f"{hint} (p prompt, q quit): ")

    def _ask(self, prompt: str) -> str:
        """A line that is typed. `p` shows the last prompt whole and asks again."""
        while True:
            try:
                typed = input(prompt).strip()
            except EOFError as error:
                raise Leave from error
            if typed.lower() in _QUIT:
                raise Leave
            if typed.lower() != "p" or self._prompt is None:
                return typed
            self._line(Text(_clean(self._prompt.prompt), "dim"))

    def _field(self, label: str, content: Text) -> None:
        """A labelled text whose further lines stand under its first."""
        if not self.interactive:
            self._line(Text.assemble(f"{label}: " if label else "", content))
            return
        self.console.print(_grid(label, content))

    def _line(self, text: Text) -> None:
        self.console.print(text, soft_wrap=not self.interactive)


def _grid(label: str, content: Text) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=_LABEL, style="dim")
    grid.add_column(ratio=1)
    grid.add_row(label, content)
    return grid


def describe_quote(quote: Quote, passages: Sequence[Passage]) -> tuple[str, str]:
    """The line above a quote, and its colour. Documents are counted from 1 here.

    >>> describe_quote(Quote("town", "", 0, 2, 6, verbatim=True), [Passage("Marren", "A town.")])
    ('[1] Marren · word for word', 'green')
    """
    if quote.passage is None:
        title = f"{quote.title} · " if quote.title else ""
        return f"[?] {title}in none of the documents", "red"
    head = f"[{quote.passage + 1}] {passages[quote.passage].title}"
    if quote.verbatim:
        return f"{head} · word for word", "green"
    return f"{head} · not word for word", "yellow"


def _clean(text: str) -> str:
    """Text without the control characters by which it could command the terminal."""
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
