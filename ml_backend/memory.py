"""What the decoder needs of a model between two passes, and the model that keeps nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from ml_backend.weights import Weights

GRAIN = 128
"""The length of cached texts grows in steps of so many tokens."""


class Place(Protocol):
    """A row as the cache sees it: its slot, and the ids of the tokens that are cached there."""

    slot: int
    cached: list[int]


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


def padded(texts: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Return token ids of unlike many tokens as one tensor, (rows, longest), padded on the right."""
    width = max(map(len, texts))
    return torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=device)


def in_place(slots: Sequence[int], index: torch.Tensor) -> slice | torch.Tensor:
    """Return what picks these slots of a buffer: a slice, which copies nothing, if they are its first ones."""
    return slice(0, len(slots)) if list(slots) == list(range(len(slots))) else index


class NoMemory:
    """Feeds every row from its first token at each step: slow, but right for any causal model."""

    def __init__(self, weights: Weights) -> None:
        """Remember nothing."""
        self.weights = weights

    def forward(self, rows: Sequence[Place], feeds: Sequence[Sequence[int]]) -> torch.Tensor:
        """Run the model on everything; pads stand on the right, where a causal model does not look."""
        texts = [[*row.cached, *feed] for row, feed in zip(rows, feeds, strict=True)]
        tokens = padded(texts, self.weights.device)
        attention = padded([[1] * len(text) for text in texts], self.weights.device)
        logits: torch.Tensor = self.weights.model(input_ids=tokens, attention_mask=attention, use_cache=False).logits
        return logits[torch.arange(len(texts)), torch.tensor([len(text) - 1 for text in texts])].float()

    def swap(self, a: int, b: int, length: int) -> None:
        """Nothing to exchange."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Nothing to copy."""

    def clear(self) -> None:
        """Nothing to drop."""
