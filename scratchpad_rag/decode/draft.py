"""What to copy next: tokens that a completion is likely to go on with, to be verified in one pass.

A draft follows the grammar of scratchpads as long as the completion keeps to it, else the longest
and most recent match of its last tokens. How far it goes is decided by what it costs: a pass has a
fixed price, and each drafted token that is refused was computed for nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import cycle, islice
from typing import NamedTuple

from scratchpad_rag.decode.grammar import OUTSIDE, Grammar, State
from scratchpad_rag.tokens.layout import Layout

# A match of so many tokens is taken for copying; a shorter one is a guess.
_SURE_MATCH = 4
_LONGEST_MATCH = 32
_MOST_CANDIDATES = 64
_LONGEST_DRAFT = 512


class Kind(StrEnum):
    """Why a token was drafted; each kind has its own rate of acceptance."""

    COPY = "copy"  # the only way on inside a quote, or behind a long match
    GUESS = "guess"  # behind a short match
    OPENING = "opening"  # the first words of a scratchpad
    CHOICE = "choice"  # which passage comes next, or whether another one does


class Draft(NamedTuple):
    """Drafted tokens with the kind of each.

    `allowed[k]` are the tokens permitted behind the first k drafted ones, None for any; it is one
    longer than the draft where the completion is held to the grammar, else empty.
    """

    tokens: list[int]
    kinds: list[Kind]
    allowed: list[frozenset[int] | None]


@dataclass
class Rate:
    """A running share of successes, which begins at `successes / trials`."""

    successes: float
    trials: float

    @property
    def estimate(self) -> float:
        return self.successes / self.trials

    def learn(self, successes: int, failures: int) -> None:
        self.successes += successes
        self.trials += successes + failures
        if self.trials > 2000:  # what a reader did lately counts more
            self.successes, self.trials = self.successes / 2, self.trials / 2


@dataclass
class Habits:
    """What a reader's completions were like so far, shared by all prompts that it answers.

    `pass_tokens`: a pass costs as much as so many more tokens in a pass.
    """

    pass_tokens: float
    copy: Rate = field(default_factory=lambda: Rate(199.0, 200.0))
    guess: Rate = field(default_factory=lambda: Rate(4.0, 8.0))
    opening: Rate = field(default_factory=lambda: Rate(3.0, 4.0))
    # Whether a reader says, in place of quotes, that nothing supports an answer.
    abstaining: Rate = field(default_factory=lambda: Rate(1.0, 8.0))
    # Whether a reader goes on to the question behind its first quote, its second, ...
    closing: defaultdict[int, Rate] = field(
        default_factory=lambda: defaultdict(lambda: Rate(3.0, 4.0))
    )
    _lengths: dict[float, int] = field(default_factory=dict)

    def best_length(self, rate: Rate) -> int:
        """The number of tokens to draft that makes a token cheapest.

        A pass over n drafted tokens costs `pass_tokens + n + 1`; with each accepted at rate p it
        brings `(1 - p**(n + 1)) / (1 - p)` tokens.
        """
        p = min(round(rate.estimate, 3), 0.999)
        if p not in self._lengths:
            self._lengths[p] = min(
                range(_LONGEST_DRAFT),
                key=lambda n: (self.pass_tokens + n + 1) * (1 - p) / (1 - p ** (n + 1)),
            )
        return self._lengths[p]

    def worth(self, chance: float, following: int) -> bool:
        """Whether to go on past a choice: a pass is saved, or the following tokens are lost."""
        return chance * self.pass_tokens > (1 - chance) * following

    def learn(self, draft: Draft, accepted: int) -> None:
        """Count what became of a draft; tokens behind the first refused one tell nothing."""
        rates = {Kind.COPY: self.copy, Kind.GUESS: self.guess, Kind.OPENING: self.opening}
        for index, kind in enumerate(draft.kinds[: accepted + 1]):
            if kind in rates:
                rates[kind].learn(int(index < accepted), int(index >= accepted))


class Match(NamedTuple):
    """Where the text behind the longest match begins, and how many tokens matched."""

    position: int
    length: int


class NgramIndex:
    """Where each pair of tokens occurs in a growing sequence; built in time linear in it."""

    def __init__(self, sequence: Sequence[int]) -> None:
        self.sequence: list[int] = []
        self._singles: defaultdict[int, list[int]] = defaultdict(list)
        self._pairs: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        self.extend(sequence)

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens; the last one of the sequence can be matched once another follows."""
        position = len(self.sequence)
        self.sequence.extend(tokens)
        singles, pairs = self._singles, self._pairs
        # Position i is what follows token i - 1 and the pair (i - 2, i - 1).
        last = self.sequence[position - 1] if position > 0 else None
        before = self.sequence[position - 2] if position > 1 else None
        for index, token in enumerate(tokens, start=position):
            if last is not None:
                singles[last].append(index)
                if before is not None:
                    pairs[before, last].append(index)
            before, last = last, token

    def longest_match(self, tail: Sequence[int]) -> Match | None:
        """The longest match of the tail's end, the most recent of several equally long."""
        if not tail:
            return None
        candidates = self._pairs.get((tail[-2], tail[-1])) if len(tail) > 1 else None
        known = 2
        if not candidates:
            candidates, known = self._singles.get(tail[-1]), 1
        if not candidates:
            return None
        best = Match(-1, 0)
        for position in reversed(candidates[-_MOST_CANDIDATES:]):
            length = self._match_length(tail, position, known)
            if length > best.length:
                best = Match(position, length)
                if length == _LONGEST_MATCH:
                    break
        return best

    def _match_length(self, tail: Sequence[int], position: int, known: int) -> int:
        length = known
        longest = min(len(tail), position, _LONGEST_MATCH)
        while length < longest and self.sequence[position - 1 - length] == tail[-1 - length]:
            length += 1
        return length


class _Trace(NamedTuple):
    """A token of the prompt that a written one may be a copy of, and the same of those before."""

    place: int
    before: _Trace | None


class Drafter:
    """Drafts one completion. `extend` takes what was decided, `draft` says what may come next.

    Where `bound`, the completion is held to the grammar until its `Answer:` (verbatim mode), which
    comes within `room` tokens; whether it may then say that nothing supports an answer, in place of
    quotes, `abstain` tells.
    """

    def __init__(
        self,
        layout: Layout,
        habits: Habits,
        *,
        bound: bool = False,
        sentences: bool = False,
        room: int | None = None,
        abstain: bool = False,
    ) -> None:
        limit = {"room": room} if bound and room is not None else {}
        self.grammar = Grammar(layout, sentences=sentences, abstain=abstain or not bound, **limit)
        self.habits = habits
        self.bound = bound
        self.state = self.grammar.start
        # What abstains is no text to copy from.
        self._copied = self.grammar.tape[: self.grammar.nothing]
        self.index = NgramIndex(self._copied)
        self.written: list[int] = []
        self.sources: list[int | None] = []  # the token of the prompt that each was copied from
        self._traces: dict[int, _Trace] = {}  # the tokens of the prompt that the last one may be
        self._run = 0  # since where it is open, if it is, which tokens were copied
        self._used: frozenset[int] = frozenset()
        self._lost = OUTSIDE  # where the grammar was left
        self._answer = 0  # where the answer begins: what stood before says nothing about it

    def draft(self, room: int) -> Draft:
        """At most `room` tokens that are likely to come next."""
        kind = None if self.state.inside else self._find_again()
        if self.state.inside:
            return self._follow(self.state, room, kind)
        return self._continue_match(room)

    def extend(self, tokens: Sequence[int]) -> None:
        """Take tokens that were decided."""
        for number, token in enumerate(tokens, start=len(self.written)):
            self._learn_closing(token)
            self._learn_abstaining(token)
            before = self.state
            self.state = self.grammar.advance(before, token)
            inside = self.state.inside or (self.state.free and not before.free)
            self._trace(before, token, inside)
            self._used = self._used | self.state.used
            if self.state.free and not before.free:
                self._answer = number + 1
            if before.inside and not inside:
                self._lost = before
        self.written.extend(tokens)
        self.index.extend(tokens)

    @property
    def settled(self) -> int:
        """So many tokens are known to come from where `sources` says, whatever follows."""
        return self._run if len(self._traces) > 1 else len(self.written)

    def _trace(self, before: State, token: int, inside: bool) -> None:
        """Note where a token was copied from. Passages that begin alike leave it open which of
        them is quoted; as soon as one drops out, the tokens before are traced anew."""
        prompt = len(self.grammar.layout.ids)
        tape = self.grammar.tape
        places = {c for c in before.cursors if tape[c] == token and c < prompt} if inside else set()
        going_on = {
            place: _Trace(place, self._traces[previous])
            for place in places
            for previous in self.grammar.places_before(place)
            if previous in self._traces
        }
        if going_on and not self.grammar.opens_block(places):
            if len(self._traces) == 1 < len(going_on):  # sentences that begin alike, say
                self._run = len(self.sources)
            self._traces = going_on
            self._rewrite(going_on[min(going_on)].before)
        else:
            self._run = len(self.sources)
            self._traces = {place: _Trace(place, None) for place in places}
        self.sources.append(min(self._traces, default=None))

    def _rewrite(self, trace: _Trace | None) -> None:
        number = len(self.sources) - 1
        while trace is not None and self.sources[number] != trace.place:
            self.sources[number] = trace.place
            number, trace = number - 1, trace.before

    def _learn_closing(self, token: int) -> None:
        cursors = self.state.cursors
        if self.grammar.question in cursors and len(cursors) > 1:
            closes = token == self.grammar.tape[self.grammar.question]
            self.habits.closing[len(self.state.used)].learn(int(closes), int(not closes))

    def _learn_abstaining(self, token: int) -> None:
        nothing = self._abstaining(self.state)
        if nothing and nothing < self.state.cursors:
            tape = self.grammar.tape
            ways = {cursor in nothing for cursor in self.state.cursors if tape[cursor] == token}
            if len(ways) < 2:  # else the sentence and a quote begin alike so far
                abstains = ways == {True}
                self.habits.abstaining.learn(int(abstains), int(not abstains))

    def _abstaining(self, state: State) -> set[int]:
        return {cursor for cursor in state.cursors if cursor >= self.grammar.nothing}

    def _follow(self, state: State, room: int, kind: Kind | None) -> Draft:
        """Drafts along the grammar, past a choice only where that is likely to pay."""
        draft = Draft([], [], [])
        copied = 0
        rate = self.habits.guess if kind is Kind.GUESS else self.habits.copy
        limit = self.habits.best_length(rate)
        while len(draft.tokens) < min(room, _LONGEST_DRAFT) and state.inside:
            token, chance = self._likeliest(state)
            begins = state == self.grammar.start
            opens = begins and not self.bound
            if opens:
                chance = self.habits.opening.estimate
            forced = self.bound and chance == 1.0
            if not forced and copied >= limit:
                break
            following = len(self.grammar.layout.opening) if begins else limit - copied
            if chance < 1.0 and not self.habits.worth(chance, following):
                break
            if self.bound:
                draft.allowed.append(self.grammar.allowed(state))
            draft.tokens.append(token)
            draft.kinds.append(Kind.OPENING if opens else self._kind(chance, kind, forced))
            copied += not forced
            state = self.grammar.advance(state, token)
        if self.bound:
            draft.allowed.append(self.grammar.allowed(state))
        return draft

    def _kind(self, chance: float, kind: Kind | None, forced: bool) -> Kind:
        if forced or chance < 1.0:
            return Kind.CHOICE
        return kind or Kind.COPY

    def _likeliest(self, state: State) -> tuple[int, float]:
        """The token that most cursors go on with, and how likely it is to be chosen."""
        tape = self.grammar.tape
        if len(state.cursors) == 1:
            return tape[next(iter(state.cursors))], 1.0
        counts: defaultdict[int, float] = defaultdict(float)
        nothing = self._abstaining(state)
        heads = state.cursors - {self.grammar.question} - nothing
        closing = 0.0
        if self.grammar.question in state.cursors:
            closing = self.habits.closing[len(state.used)].estimate
            counts[tape[self.grammar.question]] += closing
        abstaining = self.habits.abstaining.estimate if nothing else 0.0
        for cursor in nothing:
            counts[tape[cursor]] += abstaining
        for cursor in heads:
            counts[tape[cursor]] += (1.0 - closing - abstaining) / len(heads)
        token = max(counts, key=lambda token: counts[token])
        return token, 1.0 if len(counts) == 1 else counts[token]

    def _find_again(self) -> Kind | None:
        """Behind a slip in copying: the passage that the last tokens stand in, if any."""
        lost, self._lost = self._lost, OUTSIDE
        if self.state.free or not self.grammar.layout.passages:
            return None
        match = self.index.longest_match(self.written)
        place = None if match is None else self._place_in_prompt(match.position - 1)
        if match is not None and match.length > 1 and place is not None:
            self.state = self.grammar.behind([place], self._used)
            return Kind.COPY if match.length >= _SURE_MATCH else Kind.GUESS
        if lost.inside:  # one token was written for another: the passage goes on behind it
            quoting = [cursor for cursor in lost.cursors if cursor < self.grammar.nothing]
            self.state = self.grammar.behind(quoting or list(lost.cursors), lost.used)
            if self.state.free:
                self.state = OUTSIDE
        return Kind.GUESS

    def _place_in_prompt(self, position: int) -> int | None:
        """The token of a passage or of the question that one is, or was copied from."""
        written = position - len(self._copied)
        place = position if written < 0 else self.sources[written]
        first, last = self.grammar.layout.passages[0].start, self.grammar.layout.question[1]
        return place if place is not None and first <= place < last else None

    def _continue_match(self, room: int) -> Draft:
        match = self.index.longest_match(self.written[self._answer :])
        if match is None:
            return self._unguided([], [])
        # An answer is a few words of a passage, however many of them match.
        sure = match.length >= _SURE_MATCH and not self.state.free
        rate = self.habits.copy if sure else self.habits.guess
        # A match at the very end repeats itself: what follows is drafted around and around.
        known = self.index.sequence[match.position :]
        tokens = list(islice(cycle(known), min(room, self.habits.best_length(rate))))
        return self._unguided(tokens, [Kind.COPY if sure else Kind.GUESS] * len(tokens))

    def _unguided(self, tokens: list[int], kinds: list[Kind]) -> Draft:
        allowed: list[frozenset[int] | None] = [None] * (len(tokens) + 1) if self.bound else []
        return Draft(tokens, kinds, allowed)
