"""What the page needs: something that loads, questions, readers, and a way to follow them.

`loading.Loading`, `questions.Questions` and `follow.follow` have it with a model; tests have their
own, which need none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from scratchpad_rag.app.web.views import RunView
from scratchpad_rag.records import Example


class State(Protocol):
    """How far the loading is; `message` says what is being done, or why it failed."""

    @property
    def message(self) -> str: ...
    @property
    def done(self) -> bool: ...
    @property
    def failed(self) -> bool: ...
    @property
    def seconds(self) -> float: ...


class Named(Protocol):
    """A reader as far as the page knows it. `quoting`: it quotes before it answers."""

    @property
    def name(self) -> str: ...
    @property
    def quoting(self) -> bool: ...


class Asks(Protocol):
    """The sample questions, and what is shown with them or with a typed one.

    Positions count from 0; `total_docs` may be 0. A typed question has no gold passage.
    """

    @property
    def labels(self) -> Sequence[str]: ...
    def example(self, index: int, /) -> Example: ...
    def shown(self, index: int, total_docs: int, position: int | None, /) -> Example: ...
    def typed(self, question: str, total_docs: int, /) -> Example: ...


class Source(Protocol):
    """What is being loaded; readers and questions are there once `state.done`."""

    @property
    def state(self) -> State: ...
    @property
    def readers(self) -> Sequence[Any]: ...  # each Named, and what Follow takes
    @property
    def questions(self) -> Asks: ...


# The readers' views of one example, until all have ended; closed early it stops at the next pass.
Follow = Callable[[Sequence[Any], Example, int | None], Iterator[RunView]]
