"""Batches and their loss: everything a training step needs beside the optimiser.  Needs torch alone.

Imported only inside functions: it loads torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

from exporters.sft.rows import IGNORED


class Collator:
    """Rows → batch tensors, padded on the right, or laid end to end into one row (`packing`).

    Input: items with `ids`, `labels` and `position` (place in the plan).  Output: `input_ids` and
    `labels` of shape (b, n), `position` of shape (b,), and with packing `position_ids` that start
    anew at each dialogue, from which transformers derives a mask that keeps dialogues apart.  No
    attention mask: padding stands behind everything a causal model looks at.
    """

    def __init__(self, pad: int, *, packing: bool = False) -> None:
        self.pad, self.packing = pad, packing

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Build one batch."""
        batch = {"position": torch.tensor([item["position"] for item in items])}
        if self.packing:
            ids = [token for item in items for token in item["ids"]]
            labels = [label for item in items for label in item["labels"]]
            places = [place for item in items for place in range(len(item["ids"]))]
            return batch | {
                "input_ids": torch.tensor([ids]),
                "labels": torch.tensor([labels]),
                "position_ids": torch.tensor([places]),
            }
        width = max(len(item["ids"]) for item in items)
        padded = [(item["ids"], item["labels"], width - len(item["ids"])) for item in items]
        return batch | {
            "input_ids": torch.tensor([[*ids, *[self.pad] * gap] for ids, _, gap in padded]),
            "labels": torch.tensor([[*labels, *[IGNORED] * gap] for _, labels, gap in padded]),
        }


@contextlib.contextmanager
def scored_only_at(head: torch.nn.Module, keep: torch.Tensor) -> Iterator[None]:
    """Let the LM head see only the hidden states where `keep` (b, n) is true; logits get shape (kept, vocabulary).

    The head is the dearest layer of a small model, and three quarters of the positions carry no label.
    """

    def select(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (arguments[0][keep],)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def reply_loss(model: Any, head: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy (nats) over the labelled tokens of a batch, and their number.

    The label at position t is predicted from position t-1, as everywhere.  With no label at all the
    loss is zero but still connected to the parameters.
    """
    labels = inputs["labels"]
    keep = torch.zeros_like(labels, dtype=torch.bool)
    keep[:, :-1] = labels[:, 1:] != IGNORED
    arguments = {key: inputs[key] for key in ("input_ids", "position_ids") if key in inputs}
    with scored_only_at(head, keep):
        logits = model(**arguments, use_cache=False).logits
    targets = labels[:, 1:][keep[:, :-1]]
    total: torch.Tensor = functional.cross_entropy(logits.float(), targets, reduction="sum")
    return total, targets.numel()
