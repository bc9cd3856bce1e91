"""What a scratchpad may go on with: passages of the prompt, or parts of them, or the sentence that
none is of use, then the question and `Answer:`.

A cursor is the place of the next token on a tape, which holds the prompt's tokens and behind them
the few that a scratchpad writes otherwise. A state holds several cursors as long as several
passages begin alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import NamedTuple

from scratchpad_rag.records import ScratchpadForm
from scratchpad_rag.tokens.layout import Exit, Layout, PassageTokens

_ANY_NUMBER = 1 << 60


class State(NamedTuple):
    """Where a scratchpad stands. `free`: `Answer:` is written, and anything may follow.

    Without cursors and not free it has left the grammar. `used` are the passages quoted so far,
    `left` the number of tokens that may still be written.
    """

    cursors: frozenset[int]
    used: frozenset[int] = frozenset()
    free: bool = False
    ended: frozenset[int] = frozenset()  # used too, unless the text goes on within them
    left: int = _ANY_NUMBER

    @property
    def inside(self) -> bool:
        """Whether the grammar says what comes next."""
        return bool(self.cursors) and not self.free


OUTSIDE = State(frozenset())


class Grammar:
    """The scratchpads over one prompt, of its form. Each passage is quoted once at most, whole.

    Of a form of titles a quote is the title alone; of a form of sentences, or with `sentences`, it
    is a title and a run of whole sentences behind it. Only what leaves enough of the `room` to
    restate the question and begin an answer is let through, so that nothing is cut off; `least` is
    the room that the shortest quote takes. With `abstain` the layout's `nothing` may stand in place
    of all quotes.
    Building it takes time with the number of passages (and of sentences), not of tokens.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        sentences: bool = False,
        room: int = _ANY_NUMBER,
        abstain: bool = False,
    ) -> None:
        self.layout = layout
        self._titles_only = layout.form is ScratchpadForm.TITLE
        sentences = sentences or layout.form is ScratchpadForm.SENTENCE
        copied = [*layout.ids, *layout.opening]
        self._opening_last = len(copied) - 1
        self._joins: dict[tuple[int, ...], int] = {}  # what leaves a quote: where it begins
        exits = [leave.tokens for passage in layout.passages for leave in passage.exits]
        for tokens in dict.fromkeys([layout.separator, *exits]):
            self._joins[tokens] = len(copied)
            copied += tokens
        self.nothing = len(copied)  # where what abstains begins on the tape
        self.tape = (*copied, *layout.nothing) if abstain else tuple(copied)
        opening = len(layout.ids)
        self._joined = {begin + len(tokens) - 1 for tokens, begin in self._joins.items()}
        self._nothing_last = len(self.tape) - 1 if len(self.tape) > self.nothing else -1
        self.question = layout.question[0]
        self._question_last = layout.question[1] - 1
        following = [*(passage.start for passage in layout.passages[1:]), self.question]
        # The last token of what joins a passage to the next block, and of a sentence.
        self._closes = {end - 1: number for number, end in enumerate(following)}
        # Where a block begins, or what stands between two.
        self._blocks = {passage.start for passage in layout.passages}
        self._blocks |= {self.question, *self._joins.values()}
        self._choices: dict[int, frozenset[int]] = {}
        self._titles: dict[int, int] = {}  # where a sentence begins: the end of its title
        # The last of the prompt's tokens in a quote that ends there: its passage, and what follows.
        self._ends: dict[int, tuple[int, int]] = {}
        # How many tokens it takes from a place until the quote there may end.
        self._needs: dict[int, int] = {}
        for number, passage in enumerate(layout.passages):
            end = following[number]
            if self._titles_only:
                self._add_title(number, passage)
            elif sentences and passage.sentences:
                self._add_sentences(number, passage, end)
            else:
                self._needs |= {head: end - head for head in (passage.start, passage.body)}
        self._closing = layout.question[1] - layout.question[0] + 1
        self.least = self._closing + len(layout.opening)
        self.least += min((self._needs[passage.body] for passage in layout.passages), default=0)
        self.start = State(
            self._starts(opening, room) if layout.passages else frozenset(), left=room
        )

    def _starts(self, opening: int, room: int) -> frozenset[int]:
        nothing = len(self.tape) - self.nothing
        if 0 < nothing <= room - self._closing:
            return frozenset({opening, self.nothing})
        return frozenset({opening})

    def _add_title(self, number: int, passage: PassageTokens) -> None:
        [leave] = passage.exits
        self._add_exit(number, leave)
        reached = leave.place + len(leave.tokens)
        self._needs |= {head: reached - head for head in (passage.start, passage.body)}

    def _add_exit(self, number: int, leave: Exit) -> None:
        self._ends[leave.place - 1] = number, self._joins[leave.tokens]

    def _add_sentences(self, number: int, passage: PassageTokens, end: int) -> None:
        firsts, stops = (list(places) for places in zip(*passage.sentences, strict=True))
        self._choices[passage.text - 1] = frozenset(firsts)
        self._titles.update(dict.fromkeys(firsts, passage.text - 1))
        # Where the passage's last token joins it with what follows, the prompt's own tokens go on.
        separator = self.layout.separator
        exits = passage.exits or [Exit(stop, separator) for stop in stops if stop < passage.end]
        for leave in exits:
            self._add_exit(number, leave)
        leaving = [leave.place for leave in exits]
        # Behind a sentence the quote is left, or goes on where that is shorter; last comes the end.
        reached = [*(leave.place + len(leave.tokens) for leave in exits), end]
        for place in range(len(reached) - 2, -1, -1):
            reached[place] = min(reached[place : place + 2])
        for begins, theirs in ((leaving, reached[1:]), (firsts, reached)):
            for begin, there in zip(begins, theirs, strict=False):
                self._needs[begin] = there - begin
        shortest = min(self._needs[first] for first in firsts)
        for head in (passage.start, passage.body):
            self._needs[head] = passage.text - head + shortest

    def _fitting(self, cursors: Iterable[int], left: int) -> set[int]:
        room = left - self._closing
        return {cursor for cursor in cursors if self._needs.get(cursor, 0) <= room}

    def allowed(self, state: State) -> frozenset[int] | None:
        """The tokens that may come next; None for any."""
        if state.free:
            return None
        return frozenset(self.tape[cursor] for cursor in state.cursors)

    def places_before(self, cursor: int) -> tuple[int, ...]:
        """What may have been written before a token of a passage: the one before it, or the end of
        the title where a sentence begins."""
        title = self._titles.get(cursor)
        return (cursor - 1,) if title is None else (cursor - 1, title)

    def opens_block(self, cursors: Set[int]) -> bool:
        """Whether a passage or the question begins at all of the cursors."""
        return cursors <= self._blocks

    def advance(self, state: State, token: int) -> State:
        """The state behind a token; OUTSIDE where the grammar does not allow it."""
        if state.free:
            return state
        moved = [cursor for cursor in state.cursors if self.tape[cursor] == token]
        return self.behind(moved, state.used, state.ended, state.left - 1) if moved else OUTSIDE

    def behind(
        self,
        moved: list[int],
        used: frozenset[int],
        ended: frozenset[int] = frozenset(),
        left: int = _ANY_NUMBER,
    ) -> State:
        """The state behind tokens of the tape, of which one was written."""
        if ended and not self._blocks.isdisjoint(moved):
            used = used | ended
        if len(moved) == 1 and self._is_plain(moved[0]):
            return State(frozenset({moved[0] + 1}), used, left=left)
        done = {self._closes[cursor] for cursor in moved if cursor in self._closes}
        done |= {self._ends[cursor][0] for cursor in moved if cursor in self._ends}
        following: set[int] = set()
        for cursor in moved:
            if cursor == self._question_last:
                return State(frozenset(), used | done, free=True, left=left)
            following.update(self._following(cursor, used | done, left))
        if done and not following <= self._blocks:
            return State(frozenset(following), used, ended=frozenset(done), left=left)
        return State(frozenset(following), used | done, left=left)

    def _is_plain(self, cursor: int) -> bool:
        return not (
            cursor in self._closes
            or cursor in self._ends
            or cursor in self._choices
            or cursor in (self._opening_last, self._question_last, self._nothing_last)
            or cursor in self._joined
        )

    def _following(self, cursor: int, used: frozenset[int], left: int) -> set[int]:
        passages = self.layout.passages
        if cursor == self._opening_last:
            heads = (p.body for number, p in enumerate(passages) if number not in used)
            return self._fitting(heads, left)
        if cursor == self._nothing_last:
            return {self.question}
        if cursor in self._closes or cursor in self._joined:
            heads = (p.start for number, p in enumerate(passages) if number not in used)
            return self._fitting(heads, left) | {self.question}
        if cursor in self._choices:
            return self._fitting(self._choices[cursor], left)
        if cursor in self._ends:
            leave = {self._ends[cursor][1]}
            return leave if self._titles_only else self._fitting([cursor + 1], left) | leave
        return {cursor + 1}
