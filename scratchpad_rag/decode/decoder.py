"""Draft, verify in one pass, commit: greedy decoding that copies whole passages at once.

Each pass takes a row's last decided token and a draft behind it. The model's choice behind each
of them tells how much of the draft plain greedy decoding would have written; the rest is rolled
back by lowering the row's length in the cache.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from scratchpad_rag.decode.attention import grouped_attention_in
from scratchpad_rag.decode.cache import RowCache
from scratchpad_rag.decode.choose import choose, needed_places
from scratchpad_rag.decode.draft import Draft, Drafter, Habits
from scratchpad_rag.decode.masks import additive, masks_by_layer
from scratchpad_rag.decode.schedule import shared_prefix, trie_order
from scratchpad_rag.errors import ModelError
from scratchpad_rag.records import Options
from scratchpad_rag.tokens.layout import Layout

Notify = Callable[[str], None]
# A pass costs as much as so many more tokens in one, measured by benchmarks/decode.py.
_PASS_TOKENS = {"cpu": 24.0, "cuda": 400.0}
# So many prompts are put in the order of their shared prefixes at a time.
_WINDOW = 512
# After so many prompts freed memory is handed back, which takes some milliseconds.
_TRIM_EVERY = 32


@dataclass(frozen=True)
class DecodeConfig:
    """How completions are decoded, where a prompt has no options of its own.

    `quote` is what verbatim mode lets quotes be made of, and with `abstain` it lets a scratchpad
    say, in place of quotes, that nothing supports an answer.
    """

    max_new_tokens: int
    stop_token_ids: tuple[int, ...]
    rows: int = 1
    verbatim: bool = False
    quote: str = "passage"  # passage | sentence
    abstain: bool = False
    draft: bool = True
    share: bool = True

    @property
    def options(self) -> Options:
        """Those of a completion."""
        return Options(self.max_new_tokens, self.verbatim, self.quote, self.abstain)


@dataclass(frozen=True, slots=True)
class Decoded:
    """The tokens of one completion, without the stop token, and what they cost.

    `new_tokens` counts the stop token. `wall_seconds` are the prompt's share of the passes that it
    took part in, so that those of all prompts add up; `first_token_seconds` is the time from its
    first pass until its first token.
    """

    token_ids: tuple[int, ...]
    sources: tuple[int | None, ...]
    finish_reason: str
    prompt_tokens: int
    prefilled_tokens: int
    new_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    forward_passes: int
    first_token_seconds: float
    wall_seconds: float


class Commit(NamedTuple):
    """Tokens that were decided for a prompt, with the prompt's tokens that they were copied from.

    `decoded` comes with the last ones.
    """

    prompt: int
    tokens: list[int]
    sources: list[int | None]
    decoded: Decoded | None


@dataclass
class _Row:
    """A slot of the cache and the completion that is written in it."""

    number: int
    cached: list[int] = field(default_factory=list)  # the tokens whose keys and values it holds
    prompt: int | None = None
    drafter: Drafter | None = None
    room: int = 0  # tokens that may be written
    pending: list[int] = field(default_factory=list)  # decided, not yet in the cache
    written: list[int] = field(default_factory=list)
    prefilled: int = 0
    drafted: int = 0
    accepted: int = 0
    passes: int = 0
    seconds: float = 0.0
    first_token_seconds: float = 0.0
    told: int = 0  # tokens that were reported

    def begin(
        self, prompt: int, ids: Sequence[int], shared: int, drafter: Drafter, room: int
    ) -> None:
        self.cached = list(ids[:shared])
        self.pending = list(ids[shared:])
        self.prompt, self.drafter, self.room = prompt, drafter, room
        self.prefilled = len(self.pending)
        self.written = []
        self.drafted = self.accepted = self.passes = self.told = 0
        self.seconds = self.first_token_seconds = 0.0


class Decoder:
    """Decodes completions with a decoder-only transformers model, one `run` at a time.

    What it learns about a reader's habits while decoding makes later drafts better.
    """

    def __init__(self, model: Any, config: DecodeConfig, notify: Notify = lambda _: None) -> None:
        self.model = model
        self.config = config
        self.notify = notify
        self.device = next(model.parameters()).device
        self.habits = Habits(_PASS_TOKENS.get(self.device.type, _PASS_TOKENS["cuda"]))
        self.cache: RowCache | None = None
        self.rows: list[_Row] = []
        self._finished = 0
        self.busy = False  # while a run is under way, also between what it yields
        self._most_rows = sys.maxsize  # fewer where the memory did not hold as many

    def decode(
        self, layouts: Sequence[Layout], options: Sequence[Options] | None = None
    ) -> Iterator[Decoded]:
        """Completions in the order of the prompts, each as soon as those before it are done.

        `options[i]` are those of prompt i; without them all have the config's.
        """
        asked = options or [self.config.options] * len(layouts)
        with self._at_work():
            for start in range(0, len(layouts), _WINDOW):
                window = slice(start, start + _WINDOW)
                done: dict[int, Decoded] = {}
                following = 0
                for commit in self._run(layouts[window], asked[window]):
                    if commit.decoded is not None:
                        done[commit.prompt] = commit.decoded
                    while following in done:
                        yield done.pop(following)
                        following += 1

    def run(self, layouts: Sequence[Layout]) -> Generator[Commit]:
        """What is decided, pass by pass. Prompts come in the order of their shared prefixes.

        Raises ModelError for an empty prompt, where the model computes what is no number, and
        where the memory does not hold a single prompt.
        """
        with self._at_work():
            yield from self._run(layouts, [self.config.options] * len(layouts))

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        self.busy = True
        try:
            yield
        except GeneratorExit:  # between two passes: what the cache holds is whole
            raise
        except BaseException:
            self._drop_rows()  # a pass that was broken off may have left anything in them
            raise
        finally:
            self.busy = False

    def _run(self, layouts: Sequence[Layout], options: Sequence[Options]) -> Iterator[Commit]:
        if any(not layout.ids for layout in layouts):
            raise ModelError("a prompt is empty: it has no tokens to go on from")
        ids = [layout.ids for layout in layouts]
        waiting = deque(trie_order(ids) if self.config.share else range(len(ids)))
        for prompt in [prompt for prompt in waiting if not options[prompt].max_new_tokens]:
            waiting.remove(prompt)
            yield Commit(prompt, [], [], _nothing(len(ids[prompt])))
        if not waiting:
            return
        self._make_rows(min(self.config.rows, self._most_rows, len(layouts)))
        while waiting or any(row.prompt is not None for row in self.rows):
            try:
                yield from self._round(layouts, options, waiting)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                if len(self.rows) == 1:
                    raise ModelError(
                        f"out of memory with one prompt of {self._longest(layouts)} tokens; show "
                        "fewer documents, or use a smaller model or precision"
                    ) from error
                waiting.extendleft(row.prompt for row in self.rows if row.prompt is not None)
                before, half = len(self.rows), len(self.rows) // 2
                self._drop_rows()
                self.notify(f"out of memory with {before} rows; going on with {half}")
                self._most_rows = half
                self._make_rows(half)

    def _longest(self, layouts: Sequence[Layout]) -> int:
        return max(len(layouts[row.prompt].ids) for row in self.rows if row.prompt is not None)

    def _round(
        self, layouts: Sequence[Layout], options: Sequence[Options], waiting: deque[int]
    ) -> Iterator[Commit]:
        """Fill the free rows, and take every busy one a pass further."""
        for row in self.rows:
            if row.prompt is None and waiting:
                self._admit(row, waiting[0], layouts[waiting[0]], options[waiting[0]])
                waiting.popleft()
                yield from self._advance([row], [self._draft(row)])
        busy = [row for row in self.rows if row.prompt is not None]
        drafts = {row.number: self._draft(row) for row in busy}
        # A long draft in a batch makes every other row compute as many tokens for nothing.
        narrow = [row for row in busy if len(drafts[row.number].tokens) <= self.habits.pass_tokens]
        for row in busy:
            if row not in narrow or len(narrow) == 1:
                yield from self._advance([row], [drafts[row.number]])
        if len(narrow) > 1:
            yield from self._advance(narrow, [drafts[row.number] for row in narrow])

    def _make_rows(self, count: int) -> None:
        if self.cache is None or not count <= len(self.rows) <= self.config.rows:
            self._drop_rows()
            self.cache = RowCache(count)
            self.rows = [_Row(number) for number in range(count)]
        for row in self.rows:
            row.prompt = None

    def _drop_rows(self) -> None:
        self.cache, self.rows = None, []
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _admit(self, row: _Row, prompt: int, layout: Layout, options: Options) -> None:
        """Give a free row a prompt, with the longest prefix that any row holds already."""
        assert self.cache is not None
        shared, donor = 0, row
        if self.config.share:
            # The last token of the prompt is always computed: what follows it is asked of it.
            shared, donor = max(
                ((shared_prefix(layout.ids[:-1], other.cached), other) for other in self.rows),
                key=lambda pair: (pair[0], pair[1] is row),
            )
        self.cache.reserve(len(layout.ids) + options.max_new_tokens)
        row.cached = row.cached if donor is row else []
        if donor is not row and shared:
            self.cache.copy_prefix(donor.number, row.number, shared)
        verbatim = options.verbatim and bool(layout.passages)
        drafter = Drafter(
            layout,
            self.habits,
            bound=verbatim,
            sentences=options.quote == "sentence",
            room=options.max_new_tokens,
            abstain=options.abstain,
        )
        if verbatim and drafter.grammar.least > options.max_new_tokens:
            raise ModelError(
                f"the shortest quote of a prompt takes {drafter.grammar.least} tokens, and "
                f"max_new_tokens is {options.max_new_tokens}"
            )
        row.begin(prompt, layout.ids, shared, drafter, options.max_new_tokens)

    def _draft(self, row: _Row) -> Draft:
        assert row.drafter is not None
        room = row.room - len(row.written) - 1
        return row.drafter.draft(room if self.config.draft else 0)

    def _advance(self, rows: list[_Row], drafts: list[Draft]) -> Iterator[Commit]:
        """One pass over some rows: verify their drafts and commit what holds."""
        begin = time.perf_counter()
        choices = self._verify(rows, drafts)
        commits = [
            self._commit(row, draft, chosen)
            for row, draft, chosen in zip(rows, drafts, choices, strict=True)
        ]
        seconds = time.perf_counter() - begin
        for row, tokens in zip(rows, commits, strict=True):
            row.passes += 1
            row.seconds += seconds / len(rows)
            if len(row.written) == len(tokens):
                row.first_token_seconds = seconds
            yield self._report(row)

    def _verify(self, rows: list[_Row], drafts: list[Draft]) -> list[list[int]]:
        """The model's choice behind each row's last decided token and behind each drafted one."""
        inputs = [row.pending + draft.tokens for row, draft in zip(rows, drafts, strict=True)]
        asked = [len(draft.tokens) + 1 for draft in drafts]
        with torch.inference_mode(), grouped_attention_in(self.model.config):
            if len(rows) == 1:
                needed = needed_places(drafts[0])
                first = len(inputs[0]) - asked[0]
                logits = self._pass_row(rows[0], inputs[0], [first + k for k in needed])
                return choose(logits, drafts, [needed])
            logits = self._pass_rows(rows, inputs)
            return choose(logits, drafts, [list(range(count)) for count in asked])

    def _pass_row(self, row: _Row, ids: list[int], kept: list[int]) -> torch.Tensor:
        """One pass over one row. (1, kept, words)"""
        assert self.cache is not None
        start = len(row.cached)
        self.cache.open_row(row.number, start, len(ids))
        positions = torch.arange(start, start + len(ids), device=self.device)[None]
        return self._forward(torch.tensor([ids], device=self.device), positions, None, kept)

    def _pass_rows(self, rows: list[_Row], inputs: list[list[int]]) -> torch.Tensor:
        """One pass over several rows, and over the idle ones between them. (rows, width, words)"""
        assert self.cache is not None
        width = max(map(len, inputs))
        first, last = rows[0].number, rows[-1].number + 1
        ids = torch.zeros(last - first, width, dtype=torch.long)
        for row, tokens in zip(rows, inputs, strict=True):
            ids[row.number - first, : len(tokens)] = torch.tensor(tokens)
        starts = [len(row.cached) for row in self.rows[first:last]]
        positions = self.cache.open_rows(first, starts, width).to(self.device)
        slots = torch.arange(self.cache.stop, device=self.device)
        mask = slots <= positions[:, :, None]  # (rows, width, slots)
        masks = masks_by_layer(self.model.config, mask[:, None], positions, slots)
        if getattr(self.model.config, "_attn_implementation", "") == "eager":
            masks = additive(masks, self.model.dtype)
        logits = self._forward(ids.to(self.device), positions, masks, list(range(width)))
        busy = [row.number - first for row in rows]
        return logits if len(busy) == last - first else logits[busy]

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, mask: Any, kept: list[int]
    ) -> torch.Tensor:
        output = self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            # On the CPU: of a model on several devices the last one asks, not that of the inputs.
            logits_to_keep=torch.tensor(kept, dtype=torch.long),
        )
        logits: torch.Tensor = output.logits
        return logits

    def _commit(self, row: _Row, draft: Draft, choices: list[int]) -> list[int]:
        """Keep what plain greedy decoding would have written, and the choice behind it."""
        assert row.drafter is not None
        accepted = 0
        while accepted < len(draft.tokens) and draft.tokens[accepted] == choices[accepted]:
            accepted += 1
        self.habits.learn(draft, accepted)
        tokens = choices[: accepted + 1]
        stops = self.config.stop_token_ids
        end = next((k for k, token in enumerate(tokens) if token in stops), None)
        if end is not None:
            tokens = tokens[: end + 1]
        row.cached += row.pending + tokens[:-1]
        row.pending = tokens[-1:]
        row.written += tokens
        row.drafted += len(draft.tokens)
        row.accepted += min(accepted, len(tokens))
        row.drafter.extend(tokens)
        return tokens

    def _report(self, row: _Row) -> Commit:
        """What is decided of a row and not told yet, as far as it is known where it comes from."""
        assert row.prompt is not None
        assert row.drafter is not None
        stopped = row.written[-1] in self.config.stop_token_ids
        done = stopped or len(row.written) == row.room
        end = len(row.written) - stopped if done else row.drafter.settled
        told = slice(row.told, end)
        row.told = end
        prompt, decoded = row.prompt, None
        tokens, sources = row.written[told], row.drafter.sources[told]
        if done:
            decoded = self._finish(row, stopped)
        return Commit(prompt, tokens, sources, decoded)

    def _finish(self, row: _Row, stopped: bool) -> Decoded:
        assert row.drafter is not None
        length = len(row.written) - stopped
        row.prompt = None
        self._finished += 1
        if self.device.type == "cpu" and self._finished % _TRIM_EVERY == 0:
            _give_back_memory()
        return Decoded(
            token_ids=tuple(row.written[:length]),
            sources=tuple(row.drafter.sources[:length]),
            finish_reason="stop" if stopped else "length",
            prompt_tokens=len(row.drafter.grammar.layout.ids),
            prefilled_tokens=row.prefilled,
            new_tokens=len(row.written),
            drafted_tokens=row.drafted,
            accepted_tokens=row.accepted,
            forward_passes=row.passes,
            first_token_seconds=row.first_token_seconds,
            wall_seconds=row.seconds,
        )


def _give_back_memory() -> None:
    """Prompts of ever other lengths leave holes in the C library's heap, which it keeps."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        if trim is not None:
            trim(0)


def _nothing(prompt_tokens: int) -> Decoded:
    return Decoded((), (), "length", prompt_tokens, 0, 0, 0, 0, 0, 0.0, 0.0)


def _is_out_of_memory(error: BaseException) -> bool:
    # The CPU's allocator reports it as a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "not enough memory" in str(error) or "can't allocate memory" in str(error)
    )
