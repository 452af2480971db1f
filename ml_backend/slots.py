"""The key-value cache of a batch whose rows live at their own pace.

Every row owns a slot and writes its keys and values at its own length: no left padding, no holes.
A row's cache is cut back by forgetting its last tokens, so a prompt that differs from what is
cached costs only the tokens after the first difference.  Rows that decode are kept in the first
slots, so that a decode step reads the buffers in place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from ml_backend.weights import Weights

_GRAIN = 128
"""Slot capacity grows in steps of so many tokens."""


class Place(Protocol):
    """A row as the cache sees it: its slot, and the ids of the tokens that are cached there."""

    slot: int
    cached: list[int]


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


class Memory(Protocol):
    """What the decoder needs of a model: scores for each row's next token."""

    def forward(self, rows: Sequence[Place], feeds: Sequence[Sequence[int]]) -> torch.Tensor:
        """Feed each row's new tokens; return the scores after its last one, float32, (rows, vocabulary)."""
        ...

    def swap(self, a: int, b: int, length: int) -> None:
        """Exchange the first `length` tokens of two slots."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of a slot to another one."""
        ...

    def clear(self) -> None:
        """Give all memory back."""
        ...


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
        capacity = -(-tokens // _GRAIN) * _GRAIN
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
        window.rows = slice(0, len(rows)) if slots == list(range(len(rows))) else window.index
        positions = torch.tensor(starts, device=weights.device)[:, None] + torch.arange(width, device=weights.device)
        window.columns, window.width = positions, max(starts) + width
        tokens = torch.tensor([[*feed, *[0] * (width - len(feed))] for feed in feeds], device=weights.device)
        last = torch.tensor([len(feed) - 1 for feed in feeds])
        keep = torch.tensor(sorted({len(feed) - 1 for feed in feeds}))
        logits: torch.Tensor = weights.model(
            input_ids=tokens,
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


class NoMemory:
    """Feeds every row from its first token at each step: slow, but right for any causal model."""

    def __init__(self, weights: Weights) -> None:
        """Remember nothing."""
        self.weights = weights

    def forward(self, rows: Sequence[Place], feeds: Sequence[Sequence[int]]) -> torch.Tensor:
        """Run the model on everything; pads stand on the right, where a causal model does not look."""
        texts = [[*row.cached, *feed] for row, feed in zip(rows, feeds, strict=True)]
        width = max(map(len, texts))
        device = self.weights.device
        tokens = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=device)
        attention = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts], device=device)
        logits: torch.Tensor = self.weights.model(input_ids=tokens, attention_mask=attention, use_cache=False).logits
        return logits[torch.arange(len(texts)), torch.tensor([len(text) - 1 for text in texts])].float()

    def swap(self, a: int, b: int, length: int) -> None:
        """Nothing to exchange."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Nothing to copy."""

    def clear(self) -> None:
        """Nothing to drop."""


@dataclasses.dataclass
class _Row:
    slot: int
    cached: list[int]


@torch.inference_mode()
def memory_for(weights: Weights) -> SlotMemory | NoMemory:
    """Return slots if the model gives the same scores with them as without, else no memory.

    Models differ in what they keep (recurrent states, position codes of their own): rather than to
    know them all, two short rows are fed in two pieces each and compared with a plain pass.
    """
    if not weights.layer_types <= {"full_attention", "sliding_attention"}:
        return NoMemory(weights)
    generator = torch.Generator().manual_seed(0)
    size = len(weights.tokenizer)
    length = 12 + 2 * min(weights.sliding_window or 0, 24)
    ids = torch.randint(size, (2, length), generator=generator).tolist()
    rows = [_Row(0, []), _Row(1, [])]
    slots, plain = SlotMemory(weights), NoMemory(weights)
    pieces = [[ids[0][:5], ids[1][:7]], [ids[0][5:], ids[1][7:-2]]]
    for feeds in pieces:
        try:
            one = slots.forward(rows, feeds)
        except (TypeError, ValueError, AttributeError, RuntimeError, KeyError, IndexError):
            return plain
        other = plain.forward(rows, feeds)
        for row, feed in zip(rows, feeds, strict=True):
            row.cached = [*row.cached, *feed]
        tolerance = 0.05 if weights.model.dtype == torch.bfloat16 else 1e-3
        if not bool(((one - other).abs().max() <= tolerance * other.std().clamp(min=1e-3)).item()):
            return plain
    slots.clear()
    return slots
