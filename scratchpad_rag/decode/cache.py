"""The keys and values of several rows, each of its own length, that are rolled back at no cost.

A row's length says how many of its slots count. What lies behind is written over by the next
pass, so that refusing drafted tokens, or keeping only a shared prefix, is to lower a number.
Sliding-window layers keep every slot too; the window is the attention mask's affair.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

# Buffers grow by so many slots, so that prompts of about one length need no new ones.
_BLOCK = 512


class _RowsLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's slots. `keys` and `values`: (rows, heads, slots, head size)."""

    is_sliding = False

    def __init__(self, rows: RowCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Not the cache itself: layers that hold it would keep its memory until they are collected.
        self.cache: RowCache = weakref.proxy(rows)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys = self._grown(None, key_states)
        self.values = self._grown(None, value_states)
        self.is_initialized = True

    def _grown(self, old: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
        rows, slots = self.cache.rows, self.cache.capacity
        new = like.new_zeros(rows, like.shape[1], slots, like.shape[3])
        if old is not None:
            new[:, :, : old.shape[2]] = old
        return new

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the pass's states into its slots; what its rows hold then is returned."""
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        if self.keys.shape[2] < self.cache.capacity:
            self.keys = self._grown(self.keys, key_states)
            self.values = self._grown(self.values, value_states)
        return self._write(self.keys, key_states), self._write(self.values, value_states)

    def _write(self, buffer: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        cache = self.cache
        if cache.row is not None:
            rows = buffer[cache.row : cache.row + 1]
            rows[:, :, cache.start : cache.stop] = states
            return rows[:, :, : cache.stop]
        # (rows, width, heads, head size): each row from its own length on
        numbers, slots = cache.places_on(buffer.device)
        buffer[numbers, :, slots] = states.transpose(1, 2)
        first, last = cache.taken
        return buffer[first:last, :, : cache.stop]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.start + query_length, 0

    def get_seq_length(self) -> int:
        return self.cache.start

    def get_max_length(self) -> int:
        return -1


class RowCache(Cache):
    """Keys and values of `rows` rows. A pass is announced with `open_row` or `open_rows`."""

    def __init__(self, rows: int) -> None:
        super().__init__(layers=[])
        self._held: list[_RowsLayer] = []
        self.rows = rows
        self.capacity = 0
        self.row: int | None = None
        self.taken = (0, rows)
        self._places: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}
        self.start = self.stop = 0

    @property
    def bytes_held(self) -> int:
        """Bytes of all slots of all layers."""
        buffers = [b for layer in self._held for b in (layer.keys, layer.values) if b is not None]
        return sum(buffer.numel() * buffer.element_size() for buffer in buffers)

    def reserve(self, slots: int) -> None:
        """Make room for so many slots a row from the next pass on."""
        if slots > self.capacity:
            self.capacity = -(-slots // _BLOCK) * _BLOCK

    def open_row(self, row: int, start: int, width: int) -> None:
        """The next pass writes `width` tokens of one row behind its first `start`."""
        self.row, self.start, self.stop = row, start, start + width
        self.reserve(self.stop)

    def open_rows(self, first: int, starts: list[int], width: int) -> torch.Tensor:
        """The next pass writes `width` tokens of the rows from `first` on, each behind its own
        `starts`; where those tokens will stand is returned. (rows, width)"""
        self.row, self.start = None, max(starts)
        self.stop = self.start + width
        self.reserve(self.stop)
        self.taken = (first, first + len(starts))
        slots = torch.tensor(starts)[:, None] + torch.arange(width)
        self._places = {torch.device("cpu"): (torch.arange(*self.taken)[:, None], slots)}
        return slots

    def places_on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Row numbers and slots that the pass writes, moved to a device once a pass."""
        if device not in self._places:
            numbers, slots = self._places[torch.device("cpu")]
            self._places[device] = numbers.to(device), slots.to(device)
        return self._places[device]

    @torch.inference_mode()
    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Give one row the first slots of another."""
        for layer in self._held:
            for buffer in (layer.keys, layer.values):
                assert buffer is not None
                buffer[target, :, :length] = buffer[source, :, :length]

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        while len(self._held) <= layer_idx:
            self._held.append(_RowsLayer(self))
            self.layers.append(self._held[-1])
        return self._held[layer_idx].update(key_states, value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.start

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.start + query_length, 0
