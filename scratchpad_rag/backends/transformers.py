"""The reference backend: transformers' own greedy `generate`, with its prompt lookup."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event, Lock
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from scratchpad_rag.config import GenerateConfig, max_new_tokens_for
from scratchpad_rag.models.load import LoadedModel
from scratchpad_rag.records import Completion, Piece, Progress, Rendered
from scratchpad_rag.tokens.encode import encode_prompt, require_fitting

# Passages share short phrases; what was copied last tells which of them goes on.
_LONGEST_MATCH = 12
_LOOKUP = 10
# While one thread generates, the model has that call's settings and counter.
_ONE_AT_A_TIME = Lock()


class TransformersBackend:
    """One call of `generate` a batch. Prompt lookup drafts only in batches of one."""

    def __init__(self, loaded: LoadedModel, config: GenerateConfig) -> None:
        self.loaded = loaded
        self.config = config
        self.max_new_tokens = max_new_tokens_for(config, None)

    def generate(self, prompts: Sequence[Rendered]) -> Iterator[Completion]:
        encoded = [encode_prompt(prompt, self.loaded.tokenizer) for prompt in prompts]
        lengths = [len(ids) for ids in encoded]
        require_fitting(lengths, self.loaded.context_length, self.max_new_tokens)
        size = self.config.batch_size or 1
        for start in range(0, len(encoded), size):
            yield from self._generate_batch(encoded[start : start + size])

    def stream(self, prompt: Rendered) -> Generator[Piece | Progress | Completion]:
        """Pieces of the completion, of which no source is known, what it took so far behind each
        pass, and at the end the whole completion.

        `generate` runs in a thread of its own; closing the stream ends it behind the pass that is
        under way, and waits for that.
        """
        ids = encode_prompt(prompt, self.loaded.tokenizer)
        require_fitting([len(ids)], self.loaded.context_length, self.max_new_tokens)
        told, written, passes = "", [], 0
        heard: SimpleQueue[list[int] | None] = SimpleQueue()
        stop = Event()
        with ThreadPoolExecutor(1, "generate") as thread:
            yield Progress(len(ids), 0, 0)
            work = thread.submit(self._generate_batch, [ids], heard.put, stop)
            work.add_done_callback(lambda _: heard.put(None))
            try:
                while (tokens := heard.get()) is not None:
                    written += tokens
                    passes += 1
                    text = self._text(written)
                    # What ends in half a character waits for the rest of it.
                    if len(text) > len(told) and not text.endswith("�"):
                        yield Piece(text[len(told) :], None, 0, 0)
                        told = text
                    yield Progress(len(ids), len(written), passes)
            finally:
                stop.set()
            [completion] = work.result()
        if len(completion.text) > len(told):
            yield Piece(completion.text[len(told) :], None, 0, 0)
        yield completion

    def _generate_batch(
        self,
        batch: list[list[int]],
        hear: Callable[[list[int]], None] = lambda _: None,
        stop: Event | None = None,
    ) -> list[Completion]:
        device = self.loaded.device
        width = max(map(len, batch))
        stops = self.loaded.stop_token_ids
        ids = torch.full((len(batch), width), stops[0])
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for row, prompt in enumerate(batch):  # padded on the left: generation goes on to the right
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        clock = _Listener(hear)
        begin = time.perf_counter()
        plain, count = _without_habits(self.loaded.model), _count_passes(self.loaded.model)
        with _ONE_AT_A_TIME, torch.inference_mode(), plain, count as passes:
            output = self.loaded.model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                generation_config=self._generation_config(len(batch)),
                streamer=clock if len(batch) == 1 else None,
                stopping_criteria=StoppingCriteriaList([_Stopped(stop)] if stop else []),
            )
        seconds = time.perf_counter() - begin
        return [
            self._complete(prompt, row[width:].tolist(), passes[0], seconds / len(batch), clock)
            for prompt, row in zip(batch, output, strict=True)
        ]

    def _generation_config(self, rows: int) -> GenerationConfig:
        asked = self.config.prompt_lookup_num_tokens
        lookup = _LOOKUP if asked is None else asked
        make: Any = GenerationConfig  # untyped in transformers
        return make(  # type: ignore[no-any-return]
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            eos_token_id=list(self.loaded.stop_token_ids),
            pad_token_id=self.loaded.stop_token_ids[0],
            prompt_lookup_num_tokens=lookup if lookup and rows == 1 else None,
            max_matching_ngram_size=_LONGEST_MATCH,
        )

    def _complete(
        self, prompt: list[int], row: list[int], passes: int, seconds: float, clock: _Listener
    ) -> Completion:
        end = self._end(row)
        tokens = row if end is None else row[:end]
        return Completion(
            text=self._text(tokens),
            token_ids=tuple(tokens),
            prompt_tokens=len(prompt),
            new_tokens=len(tokens) + (end is not None),
            forward_passes=passes,
            wall_seconds=seconds,
            finish_reason="length" if end is None else "stop",
            prefilled_tokens=len(prompt),
            first_token_seconds=clock.seconds,
        )

    def _end(self, tokens: list[int]) -> int | None:
        stops = self.loaded.stop_token_ids
        return next((index for index, token in enumerate(tokens) if token in stops), None)

    def _text(self, tokens: list[int]) -> str:
        """The text of tokens up to the first stop token."""
        text: str = self.loaded.tokenizer.decode(
            tokens[: self._end(tokens)],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        return text


class _Listener(BaseStreamer):
    """Hands on the tokens that `generate` hands over, which begins with the prompt, and notes when
    the first ones came."""

    def __init__(self, hear: Callable[[list[int]], None]) -> None:
        self.hear = hear
        self.begin = time.perf_counter()
        self.calls = 0
        self.seconds = 0.0

    def put(self, value: Any) -> None:
        self.calls += 1
        if self.calls == 2:
            self.seconds = time.perf_counter() - self.begin
        if self.calls > 1:
            self.hear(value.flatten().tolist())

    def end(self) -> None:
        pass


class _Stopped(StoppingCriteria):
    """Ends every row of a batch once the event is set."""

    def __init__(self, stop: Event) -> None:
        self.stop = stop

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.full((len(input_ids),), self.stop.is_set(), device=input_ids.device)


def _inner(model: Any) -> Any:
    """A PeftModel hands `generate` on to the model inside, which is then what is called."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


@contextmanager
def _without_habits(model: torch.nn.Module) -> Iterator[None]:
    """Greedy means greedy: what a model's own generation config holds beside, such as a penalty
    for repetitions, is set aside, since `generate` fills in from it what is not given."""
    inner = _inner(model)
    own = inner.generation_config
    make: Any = GenerationConfig  # untyped in transformers
    inner.generation_config = make()
    try:
        yield
    finally:
        inner.generation_config = own


@contextmanager
def _count_passes(model: torch.nn.Module) -> Iterator[list[int]]:
    passes = [0]

    def count(*_: Any) -> None:
        passes[0] += 1

    handle = _inner(model).register_forward_pre_hook(count)
    try:
        yield passes
    finally:
        handle.remove()
