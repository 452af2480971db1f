"""The key-value cache of a batch whose rows live at their own pace.

Every row owns a slot and writes its keys and values at its own length: no left padding, no holes.
A row's cache is cut back by forgetting its last tokens, so a prompt that differs from what is
cached costs only the tokens after the first difference.  Rows that decode are kept in the first
slots, so that a decode step reads the buffers in place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from ml_backend.memory import GRAIN, Place, in_place, padded
from ml_backend.weights import Weights


@dataclasses.dataclass
class Window:
    """Which slots and columns the running forward pass writes and reads; shared by all layers."""

    rows: torch.Tensor | slice = dataclasses.field(default_factory=lambda: slice(0, 0))
    index: torch.Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    columns: torch.Tensor = dataclasses.field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    width: int = 0
    slots: int = 1
    capacity: int = GRAIN


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
        # Zeroed, since columns that nobody has written are masked, but 0 × NaN would still be NaN.
        self.keys = key_states.new_zeros(slots, key_states.shape[1], capacity, key_states.shape[3])
        self.values = value_states.new_zeros(slots, value_states.shape[1], capacity, value_states.shape[3])
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
        """Return the width of the mask; masks are made by `SlotMemory`."""
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


class SlotMemory:
    """Feeds only new tokens; keys and values of the earlier ones stay in slots."""

    def __init__(self, weights: Weights) -> None:
        """Prepare empty layers for the model."""
        self.weights = weights
        self.clear()

    def clear(self) -> None:
        """Drop all buffers."""
        self.window = Window()
        self.layers = [SlotLayer(self.window) for _ in range(self.weights.layers)]
        self.cache = Cache(layers=self.layers)

    def reserve(self, slots: int, tokens: int) -> None:
        """Make sure that `slots` rows of `tokens` tokens fit."""
        capacity = -(-tokens // GRAIN) * GRAIN
        window = self.window
        if slots > window.slots or capacity > window.capacity:
            window.slots, window.capacity = max(slots, window.slots), max(capacity, window.capacity)
            for layer in self.layers:
                layer.resize(window.slots, window.capacity)

    def forward(self, rows: Sequence[Place], feeds: Sequence[Sequence[int]]) -> torch.Tensor:
        """Run the model on `feeds`, padded on the right; a pad is overwritten by the row's next token."""
        weights, window = self.weights, self.window
        starts = [len(row.cached) for row in rows]
        width = max(map(len, feeds))
        slots = [row.slot for row in rows]
        self.reserve(max(slots) + 1, max(starts) + width)
        window.index = torch.tensor(slots, device=weights.device)
        window.rows = in_place(slots, window.index)
        positions = torch.tensor(starts, device=weights.device)[:, None] + torch.arange(width, device=weights.device)
        window.columns, window.width = positions, max(starts) + width
        last = torch.tensor([len(feed) - 1 for feed in feeds])
        keep = torch.tensor(sorted({len(feed) - 1 for feed in feeds}))
        logits: torch.Tensor = weights.model(
            input_ids=padded(feeds, weights.device),
            attention_mask=self._masks(positions),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep.to(weights.device),
        ).logits
        if len(keep) == 1:
            return logits[:, 0].float()
        return logits[torch.arange(len(rows)), torch.searchsorted(keep, last)].float()

    def _masks(self, positions: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """Boolean masks, (rows, 1, new tokens, width): a token sees its own row up to itself."""
        columns = torch.arange(self.window.width, device=positions.device)
        full = (columns <= positions[:, :, None])[:, None]
        if self.weights.sliding_window is None:
            return full
        sliding = full & (columns > positions[:, :, None] - self.weights.sliding_window)[:, None]
        return sliding if len(self.weights.layer_types) == 1 else {"full_attention": full, "sliding_attention": sliding}

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
        self.reserve(max(source, target) + 1, length)
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                if buffer is not None:
                    buffer[target, :, :length] = buffer[source, :, :length]
