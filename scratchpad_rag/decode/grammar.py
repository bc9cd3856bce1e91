"""What a scratchpad may go on with: passages of the prompt, the question, `Answer:`.

A cursor is the place of the next token on a tape, which holds the prompt's tokens and behind them
the few that a scratchpad writes otherwise. A state holds several cursors as long as several
passages begin alike.
"""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from scratchpad_rag.tokens.layout import Layout


class State(NamedTuple):
    """Where a scratchpad stands. `free`: `Answer:` is written, and anything may follow.

    Without cursors and not free it has left the grammar. `used` are the passages quoted so far.
    """

    cursors: frozenset[int]
    used: frozenset[int] = frozenset()
    free: bool = False
    ended: frozenset[int] = frozenset()  # used too, unless the text goes on within them

    @property
    def inside(self) -> bool:
        """Whether the grammar says what comes next."""
        return bool(self.cursors) and not self.free


OUTSIDE = State(frozenset())


class Grammar:
    """The scratchpads over one prompt. Each passage is quoted once at most, whole.

    With `sentences`, a quote is a title and a run of whole sentences behind it.
    Building it takes time with the number of passages (and of sentences), not of tokens.
    """

    def __init__(self, layout: Layout, *, sentences: bool = False) -> None:
        self.layout = layout
        self.tape = (*layout.ids, *layout.opening, *layout.separator)
        opening = len(layout.ids)
        self._separator = opening + len(layout.opening)
        self._opening_last = self._separator - 1
        self._tape_last = len(self.tape) - 1
        self.question = layout.question[0]
        self._question_last = layout.question[1] - 1
        following = [*(passage.start for passage in layout.passages[1:]), self.question]
        # The last token of what joins a passage to the next block, and of a sentence.
        self._closes = {end - 1: number for number, end in enumerate(following)}
        # Where a block begins, or what stands between two.
        self._blocks = {passage.start for passage in layout.passages}
        self._blocks |= {self.question, self._separator}
        self._choices: dict[int, frozenset[int]] = {}
        self._ends: dict[int, int] = {}
        for number, passage in enumerate(layout.passages if sentences else ()):
            if passage.sentences:
                starts = frozenset(first for first, _ in passage.sentences)
                self._choices[passage.text - 1] = starts
                self._ends.update({last - 1: number for _, last in passage.sentences[:-1]})
                self._add_end(number, passage.sentences[-1][1], passage.end)
        self.start = State(frozenset({opening}) if layout.passages else frozenset())

    def _add_end(self, number: int, last: int, end: int) -> None:
        # Where the passage's last token joins it with what follows, the prompt's own tokens go on.
        if last < end:
            self._ends[last - 1] = number

    def allowed(self, state: State) -> frozenset[int] | None:
        """The tokens that may come next; None for any."""
        if state.free:
            return None
        return frozenset(self.tape[cursor] for cursor in state.cursors)

    def opens_block(self, cursors: Set[int]) -> bool:
        """Whether a passage or the question begins at all of the cursors."""
        return cursors <= self._blocks

    def advance(self, state: State, token: int) -> State:
        """The state behind a token; OUTSIDE where the grammar does not allow it."""
        if state.free:
            return state
        moved = [cursor for cursor in state.cursors if self.tape[cursor] == token]
        return self.behind(moved, state.used, state.ended) if moved else OUTSIDE

    def behind(
        self, moved: list[int], used: frozenset[int], ended: frozenset[int] = frozenset()
    ) -> State:
        """The state behind tokens of the tape, of which one was written."""
        if ended and not self._blocks.isdisjoint(moved):
            used = used | ended
        if len(moved) == 1 and self._is_plain(moved[0]):
            return State(frozenset({moved[0] + 1}), used)
        done = {self._closes[cursor] for cursor in moved if cursor in self._closes}
        done |= {self._ends[cursor] for cursor in moved if cursor in self._ends}
        following: set[int] = set()
        for cursor in moved:
            if cursor == self._question_last:
                return State(frozenset(), used | done, free=True)
            following.update(self._following(cursor, used | done))
        if done and not following <= self._blocks:
            return State(frozenset(following), used, ended=frozenset(done))
        return State(frozenset(following), used | done)

    def _is_plain(self, cursor: int) -> bool:
        return not (
            cursor in self._closes
            or cursor in self._ends
            or cursor in self._choices
            or cursor in (self._opening_last, self._question_last, self._tape_last)
        )

    def _following(self, cursor: int, used: frozenset[int]) -> frozenset[int] | set[int]:
        passages = self.layout.passages
        if cursor == self._opening_last:
            return {passage.body for number, passage in enumerate(passages) if number not in used}
        if cursor in self._closes or cursor == self._tape_last:
            heads = {p.start for number, p in enumerate(passages) if number not in used}
            return heads | {self.question}
        if cursor in self._choices:
            return self._choices[cursor]
        if cursor in self._ends:
            return {cursor + 1, self._separator}
        return {cursor + 1}
