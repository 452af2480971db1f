"""The key-value cache of a batch whose rows live at their own pace.

Every row owns a slot and writes its keys and values at its own length: no left padding, no holes.
A row's cache is cut back by forgetting its last tokens, so a prompt that differs from what is
cached costs only the tokens after the first difference.  Decoding rows are kept in the first slots
(`Slots.swap`), so that a decode step reads the buffers in place.
"""

from __future__ import annotations

import dataclasses

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

_GRAIN = 64
"""Slot capacity grows in steps of so many tokens."""


@dataclasses.dataclass
class Window:
    """Which slots and columns the running forward pass writes and reads; shared by all layers."""

    rows: torch.Tensor | slice = dataclasses.field(default_factory=lambda: slice(0, 0))
    index: torch.Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    columns: torch.Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    width: int = 0
    slots: int = 1
    capacity: int = _GRAIN


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is not followed by mypy
    """One layer's buffers, `keys` and `values` of shape (slots, heads, capacity, head size)."""

    is_sliding = False

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate for the shapes seen in the first forward pass."""
        self.dtype, self.device = key_states.dtype, key_states.device
        slots, capacity = self.window.slots, self.window.capacity
        self.keys = key_states.new_empty(slots, key_states.shape[1], capacity, key_states.shape[3])
        self.values = value_states.new_empty(slots, value_states.shape[1], capacity, value_states.shape[3])
        # Columns nobody has written yet are masked, but 0 × NaN in uninitialised memory would still be NaN.
        self.keys.zero_()
        self.values.zero_()
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new states, (rows, heads, new tokens, size), and return all states up to the window's width."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None  # noqa: S101
        window = self.window
        where = (window.index[:, None], slice(None), window.columns)
        self.keys[where] = key_states.transpose(1, 2)
        self.values[where] = value_states.transpose(1, 2)
        if isinstance(window.rows, slice):
            return self.keys[window.rows, :, : window.width], self.values[window.rows, :, : window.width]
        return self.keys[:, :, : window.width][window.rows], self.values[:, :, : window.width][window.rows]

    def resize(self, slots: int, capacity: int) -> None:
        """Make room for more slots or longer rows, keeping what is there."""
        if self.is_initialized:
            self.keys, self.values = _grown(self.keys, slots, capacity), _grown(self.values, slots, capacity)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the width of the mask; masks are made by `Slots.mask`."""
        return self.window.width, 0

    def get_seq_length(self) -> int:
        """Return the widest row's length."""
        return self.window.width

    def get_max_length(self) -> int:
        """No maximum: buffers grow."""
        return -1


def _grown(buffer: torch.Tensor | None, slots: int, capacity: int) -> torch.Tensor:
    assert buffer is not None  # noqa: S101
    grown = buffer.new_zeros(slots, buffer.shape[1], capacity, buffer.shape[3])
    grown[: buffer.shape[0], :, : buffer.shape[2]] = buffer
    return grown


class Slots:
    """The cache of all layers, and the masks and positions that go with it."""

    def __init__(self, layers: int, device: torch.device, sliding_window: int | None = None) -> None:
        """Prepare `layers` empty layers; `sliding_window` limits what the sliding layers may look back to."""
        self.window = Window()
        self.layers = [SlotLayer(self.window) for _ in range(layers)]
        self.cache = Cache(layers=self.layers)
        self.device = device
        self.sliding_window = sliding_window

    def reserve(self, slots: int, tokens: int) -> None:
        """Make sure that `slots` rows of `tokens` tokens fit."""
        capacity = -(-tokens // _GRAIN) * _GRAIN
        window = self.window
        if slots > window.slots or capacity > window.capacity:
            window.slots, window.capacity = max(slots, window.slots), max(capacity, window.capacity)
            for layer in self.layers:
                layer.resize(window.slots, window.capacity)

    def aim(self, rows: list[int] | slice, starts: list[int], width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Aim the next forward pass, `width` new tokens a row, at `rows` whose lengths are `starts`.

        Returns position ids, shape (rows, width), and the boolean attention mask, shape
        (rows, 1, width, longest row): a token sees its own row's tokens up to itself.
        """
        window = self.window
        if isinstance(rows, slice):
            window.rows = rows
            window.index = torch.arange(rows.start, rows.stop, device=self.device)
        else:
            window.rows = window.index = torch.tensor(rows, device=self.device)
        begin = torch.tensor(starts, device=self.device)
        positions = begin[:, None] + torch.arange(width, device=self.device)
        window.columns = positions
        window.width = max(starts) + width
        return positions, self.mask(positions)

    def mask(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the full-attention mask for `positions`."""
        columns = torch.arange(self.window.width, device=self.device)
        return (columns <= positions[:, :, None])[:, None]

    def sliding_mask(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the mask of sliding-window layers for `positions`."""
        columns = torch.arange(self.window.width, device=self.device)
        near = columns > positions[:, :, None] - (self.sliding_window or 0)
        return self.mask(positions) & near[:, None]

    def swap(self, a: int, b: int, length: int) -> None:
        """Exchange the first `length` tokens of two slots."""
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                if buffer is not None:
                    held = buffer[a, :, :length].clone()
                    buffer[a, :, :length] = buffer[b, :, :length]
                    buffer[b, :, :length] = held

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of a slot to another one."""
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                if buffer is not None:
                    buffer[target, :, :length] = buffer[source, :, :length]
