"""Losses of a model on rows: per dialogue, for difficulty and for comparing runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporters.sft.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def dialogue_losses(model: PreTrainedModel, rows: Sequence[Row]) -> list[float]:
    """Mean cross-entropy (nats) per trained token of each row under `model`, attributes shown."""
    import torch

    from exporters.sft.loss import Collator, reply_loss, to_device

    collate, head = Collator(0), model.get_output_embeddings()
    was_training = model.training
    model.eval()
    losses = []
    with torch.no_grad():
        for row in rows:
            batch = collate([{"ids": row.ids, "labels": row.labels, "position": 0}])
            total, count = reply_loss(model, head, to_device(batch, model.device))
            losses.append(total.item() / count)
    model.train(was_training)
    return losses
