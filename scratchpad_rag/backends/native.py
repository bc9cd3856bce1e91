"""The default backend: quotes are drafted from the prompt and verified in one pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from threading import Lock
from typing import Any

import torch

from scratchpad_rag.config import GenerateConfig, max_new_tokens_for
from scratchpad_rag.decode.decoder import DecodeConfig, Decoded, Decoder
from scratchpad_rag.decode.grammar import Grammar
from scratchpad_rag.errors import ConfigError
from scratchpad_rag.models.load import LoadedModel
from scratchpad_rag.records import (
    Completion,
    Options,
    Piece,
    Progress,
    Rendered,
    Request,
    ScratchpadForm,
)
from scratchpad_rag.tokens.encode import require_fitting
from scratchpad_rag.tokens.layout import Layout, encode_layout

Notify = Callable[[str], None]
# Rows at a time where the config names none: short prompts leave the cores idle one by one.
_CPU_ROWS = 8
_CPU_PASS_TOKENS = 256
_GPU_ROWS = 64
# A share of the GPU's free memory is left to the pass itself.
_GPU_SHARE = 0.6


class NativeBackend:
    """Greedy decoding with drafts from the prompt; for models that can be rolled back."""

    def __init__(
        self, loaded: LoadedModel, config: GenerateConfig, notify: Notify = lambda _: None
    ) -> None:
        self.loaded = loaded
        self.config = config
        self.notify = notify
        self.max_new_tokens = max_new_tokens_for(config, None)
        self._decoders: list[Decoder] = []
        self._said: set[str] = set()
        self._opening = Lock()

    def generate(self, prompts: Sequence[Rendered]) -> Iterator[Completion]:
        return self.answer([Request(prompt, self._options) for prompt in prompts])

    def answer(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """As `generate`, each prompt with options of its own: what prompts share is computed once
        however they differ in them."""
        layouts = self._layouts(requests)
        if not layouts:
            return
        options = [request.options for request in requests]
        for decoded in self._open(layouts, options).decode(layouts, options):
            yield self._complete(decoded)

    def check(self, requests: Sequence[Request]) -> None:
        """Raise what `answer` would raise of these before it answers the first."""
        self._layouts(requests)

    def stream(self, prompt: Rendered) -> Iterator[Piece | Progress | Completion]:
        """Pieces of the completion as they are decided, what it took so far behind each pass, and
        at the end the whole completion.

        Closed, or no longer referred to, it makes no further pass.
        """
        [layout] = self._layouts([Request(prompt, self._options)], traced=True)
        detokenizer = _Detokenizer(self.loaded.tokenizer, layout)
        decoder = self._open([layout], [self._options], rows=1)
        tokens = 0
        try:
            yield Progress(len(layout.ids), 0, 0)
            with closing(decoder.run([layout])) as run:
                for passes, commit in enumerate(run, start=1):
                    last = commit.decoded is not None
                    yield from detokenizer.pieces(commit.tokens, commit.sources, last)
                    if commit.decoded is not None:
                        yield self._complete(commit.decoded)
                    else:
                        tokens += len(commit.tokens)
                        yield Progress(len(layout.ids), tokens, passes)
        finally:
            decoder.busy = False

    @property
    def _options(self) -> Options:
        config = self.config
        return Options(self.max_new_tokens, config.verbatim, config.quote, config.abstain)

    def _layouts(self, requests: Sequence[Request], traced: bool = False) -> list[Layout]:
        """Only where it is `traced` does a layout keep which characters its tokens stand for."""
        made: dict[Rendered, Layout] = {}  # several requests may share a prompt
        lengths: dict[int, list[int]] = {}
        for prompt, options in requests:
            if prompt not in made:
                layout = encode_layout(prompt, self.loaded.tokenizer)
                made[prompt] = layout if traced else replace(layout, offsets=())
            lengths.setdefault(options.max_new_tokens, []).append(len(made[prompt].ids))
        for room, of_room in lengths.items():
            require_fitting(of_room, self.loaded.context_length, room)
        layouts = [made[prompt] for prompt, _ in requests]
        held = zip(layouts, (request.options for request in requests), strict=True)
        verbatim = [pair for pair in held if pair[1].verbatim]
        _require_verbatim(verbatim)
        if any(options.abstain and not layout.nothing for layout, options in verbatim):
            self._say_once(
                "this tokenizer joins the sentence that abstains with its neighbours, so a "
                "verbatim scratchpad always quotes"
            )
        return layouts

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self.notify(line)

    def _open(
        self, layouts: Sequence[Layout], options: Sequence[Options], rows: int | None = None
    ) -> Decoder:
        """A decoder, which keeps its cache and what it learnt from call to call.

        There are as many as calls were under way at the same time.
        """
        longest = max(len(layout.ids) for layout in layouts)
        room = max(one.max_new_tokens for one in options)
        with self._opening:
            idle = next((decoder for decoder in self._decoders if not decoder.busy), None)
            held = 0 if idle is None or idle.cache is None else idle.cache.bytes_held
            config = self._decode_config(
                rows or self.config.batch_size or self._best_rows(longest, room, held)
            )
            if idle is None:
                idle = Decoder(self.loaded.model, config, self.notify)
                self._decoders.append(idle)
            idle.config, idle.busy = config, True
            return idle

    def _decode_config(self, rows: int) -> DecodeConfig:
        return DecodeConfig(
            self.max_new_tokens,
            self.loaded.stop_token_ids,
            rows=rows,
            verbatim=self.config.verbatim,
            quote=self.config.quote,
            abstain=self.config.abstain,
        )

    def _best_rows(self, prompt_tokens: int, room: int, held: int) -> int:
        """Measured by benchmarks/decode.py: on a CPU a long prompt keeps the cores busy alone."""
        if self.loaded.device.type == "cpu":
            return _CPU_ROWS if prompt_tokens <= _CPU_PASS_TOKENS else 1
        device = self.loaded.device
        free, _ = torch.cuda.mem_get_info(device)
        # What PyTorch holds and does not use is free too, and so are the rows of an earlier call.
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device) + held
        needed = self._slot_bytes() * (prompt_tokens + room)
        return max(1, min(_GPU_ROWS, int(_GPU_SHARE * free / needed)))

    def _slot_bytes(self) -> int:
        """Bytes that the keys and values of one token take."""
        text = self.loaded.model.config.get_text_config()
        heads = text.num_attention_heads
        size = getattr(text, "head_dim", None) or text.hidden_size // heads
        key_heads = getattr(text, "num_key_value_heads", None) or heads
        element = next(self.loaded.model.parameters()).element_size()
        return int(2 * text.num_hidden_layers * key_heads * size * element)

    def _complete(self, decoded: Decoded) -> Completion:
        return Completion(
            text=decode_text(self.loaded.tokenizer, decoded.token_ids),
            token_ids=decoded.token_ids,
            prompt_tokens=decoded.prompt_tokens,
            new_tokens=decoded.new_tokens,
            forward_passes=decoded.forward_passes,
            wall_seconds=decoded.wall_seconds,
            finish_reason=decoded.finish_reason,
            prefilled_tokens=decoded.prefilled_tokens,
            drafted_tokens=decoded.drafted_tokens,
            accepted_tokens=decoded.accepted_tokens,
            first_token_seconds=decoded.first_token_seconds,
        )


def _require_verbatim(held: Sequence[tuple[Layout, Options]]) -> None:
    """Refuse to hold scratchpads to a context where that cannot be done, or would not fit."""
    if any(not layout.passages and not layout.problem for layout, _ in held):
        raise ConfigError("--verbatim: a prompt shows no documents to quote")
    problem = next((layout.problem for layout, _ in held if layout.problem), None)
    if problem is not None:
        raise ConfigError(
            f"--verbatim cannot be held with this tokenizer on these prompts: {problem}"
        )
    if any(
        layout.form is ScratchpadForm.TITLE and options.quote == "sentence"
        for layout, options in held
    ):
        raise ConfigError("--quote sentence: this reader's scratchpads hold titles alone")
    needs = [
        (Grammar(layout, sentences=options.quote == "sentence").least, options)
        for layout, options in held
    ]
    least, options = max(
        (need for need in needs if need[0] > need[1].max_new_tokens),
        key=lambda need: need[0],
        default=(0, None),
    )
    if options is not None:
        raise ConfigError(
            f"--verbatim needs max_new_tokens {least} or more here, and it is "
            f"{options.max_new_tokens}: the shortest quote of a prompt and the restated question "
            "have to fit"
        )


def decode_text(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """The text of generated tokens, letter by letter as they say it."""
    text: str = tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text


def why_not_native(model: Any) -> str | None:
    """Why a model's cache cannot be rolled back or masked as the decoder needs it; None if it can.

    State-space and linear-attention layers keep one running state, which forgets nothing singly.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    text = base.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or [])
    if getattr(base, "_is_stateful", False) or kinds & {"linear_attention", "mamba", "recurrent"}:
        return "its state cannot be rolled back"
    foreign = kinds - {"full_attention", "sliding_attention"}
    if foreign:
        return f"it has layers of a kind that is not known here ({', '.join(sorted(foreign))})"
    if any(kind in ("longrope", "dynamic") for kind in _rope_types(text)):
        return "its rotary positions change with the length of the text"
    if base.config.is_encoder_decoder:
        return "it is no decoder-only model"
    parameters = inspect.signature(base.forward).parameters
    missing = {"position_ids", "past_key_values", "logits_to_keep"} - set(parameters)
    if missing:
        return f"its forward takes no {', '.join(sorted(missing))}"
    return None


def _rope_types(text: Any) -> Iterator[str]:
    """The kinds of rotary positions of all layers; a config holds them singly or by layer type."""
    for name in ("rope_parameters", "rope_scaling"):
        parameters = getattr(text, name, None)
        for found in (parameters, *(parameters or {}).values()):
            if isinstance(found, dict):
                yield str(found.get("rope_type") or found.get("type"))


class _Detokenizer:
    """Tokens in, pieces of text out; a character that is not whole yet waits for its rest."""

    def __init__(self, tokenizer: Any, layout: Layout) -> None:
        self.tokenizer = tokenizer
        self.layout = layout
        self.ids: list[int] = []
        self.told = 0  # characters already given
        self.text = ""
        self.run: list[int | None] = []  # the sources of what is not given yet

    def pieces(
        self, tokens: Sequence[int], sources: Sequence[int | None], last: bool
    ) -> Iterator[Piece]:
        for index, (token, source) in enumerate(zip(tokens, sources, strict=True)):
            self.ids.append(token)
            self.run.append(source)
            following = sources[index + 1] if index + 1 < len(sources) else None
            end = index + 1 == len(tokens)
            if end or not self._joined(source, following):
                piece = self._piece(self.run, whole=last and end)
                if piece is not None:
                    yield piece
                    self.run = []
        if last and not tokens:
            piece = self._piece(self.run, whole=True)
            if piece is not None:
                yield piece

    def _joined(self, source: int | None, following: int | None) -> bool:
        """Whether two tokens were copied from one passage, the one right behind the other."""
        if source is None or following is None:
            return source is following
        here, there = self.layout.source(source), self.layout.source(following)
        if here is None or there is None:
            return here is there
        return following == source + 1 and here[0] == there[0]

    def _piece(self, run: Sequence[int | None], whole: bool) -> Piece | None:
        self.text = decode_text(self.tokenizer, self.ids)
        if self.text.endswith("�") and not whole:
            return None
        text, self.told = self.text[self.told :], len(self.text)
        if not text:
            return None
        places = [self.layout.source(source) for source in run if source is not None]
        known = [place for place in places if place is not None]
        if not known:
            return Piece(text, None, 0, 0)
        return Piece(text, known[0][0], known[0][1], known[-1][2])
