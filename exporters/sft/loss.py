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

Batch = dict[str, Any]


class Collator:
    """Rows → one batch, padded on the right, or laid end to end into one row (`packing`).

    Input: items with `ids`, `labels` and `position` (place in the plan).  Output: `input_ids` and
    `labels` of shape (b, n); `scored` of shape (k,), the places in the flattened batch whose hidden
    state predicts a label, and `targets` of shape (k,), those labels; `positions`, a list of b
    numbers.  With packing also `position_ids` that start anew at each dialogue, from which
    transformers derives a mask that keeps dialogues apart.  No attention mask: padding stands
    behind everything a causal model looks at.  What is needed of the labels is worked out here, on
    the CPU, because asking a GPU for it would make it wait.
    """

    def __init__(self, pad: int, *, packing: bool = False) -> None:
        self.pad, self.packing = pad, packing

    def __call__(self, items: list[Batch]) -> Batch:
        """Build one batch."""
        if self.packing:
            ids = torch.tensor([[token for item in items for token in item["ids"]]])
            labels = torch.tensor([[label for item in items for label in item["labels"]]])
            places = torch.tensor([[place for item in items for place in range(len(item["ids"]))]])
            return _with_targets(ids, labels, items) | {"position_ids": places}
        width = max(len(item["ids"]) for item in items)
        padded = [(item["ids"], item["labels"], width - len(item["ids"])) for item in items]
        ids = torch.tensor([[*ids, *[self.pad] * gap] for ids, _, gap in padded])
        labels = torch.tensor([[*labels, *[IGNORED] * gap] for _, labels, gap in padded])
        return _with_targets(ids, labels, items)


def _with_targets(ids: torch.Tensor, labels: torch.Tensor, items: list[Batch]) -> Batch:
    """The label at position t is predicted from position t-1, as everywhere."""
    following = torch.full_like(labels, IGNORED)
    following[:, :-1] = labels[:, 1:]
    flat = following.flatten()
    scored = (flat != IGNORED).nonzero().flatten()
    positions = [int(item["position"]) for item in items]
    return {"input_ids": ids, "labels": labels, "scored": scored, "targets": flat[scored], "positions": positions}


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """Move a batch's tensors."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


@contextlib.contextmanager
def scored_only_at(head: torch.nn.Module, places: torch.Tensor) -> Iterator[None]:
    """Let the LM head see only the hidden states at `places` (k,) of the flattened batch; logits get (k, vocabulary).

    The head is the dearest layer of a small model, and most positions carry no label.
    """

    def select(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (arguments[0].flatten(0, 1).index_select(0, places),)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def reply_loss(model: Any, head: torch.nn.Module, inputs: Batch) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy (nats) over the labelled tokens of a batch, and their number.

    With no label at all the loss is zero but still connected to the parameters.
    """
    arguments = {key: inputs[key] for key in ("input_ids", "position_ids") if key in inputs}
    with scored_only_at(head, inputs["scored"]):
        logits = model(**arguments, use_cache=False).logits
    total: torch.Tensor = functional.cross_entropy(logits.float(), inputs["targets"], reduction="sum")
    return total, inputs["targets"].numel()
