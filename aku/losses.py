"""Held-out loss of a checkpoint beside its base's, dialogue by dialogue."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aku.replies import Progress
from dialogue.checkpoints import Checkpoint
from dialogue.errors import CheckpointError
from dialogue.records import Dialogue


def held_out_losses(
    checkpoint: Checkpoint, dialogues: Sequence[Dialogue], device: str, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Return one row a dialogue: id, mean loss on Aku's turns under checkpoint and base (nats a token), tokens.

    Both see the same token ids in the checkpoint's prompt format, in float32.  Raises `CheckpointError`
    when the base is not on this machine any more.
    """
    from exporters.sft.evaluate import dialogue_losses
    from exporters.sft.rows import make_rows
    from ml_backend.weights import load

    base = Path(str(checkpoint.card.get("base", "")))
    if not (base / "config.json").is_file():
        raise CheckpointError(
            f"{checkpoint.id}: its base {base} is not on this machine; without it losses can not be compared."
        )
    tell = progress or (lambda _done, _total, _note: None)
    tell(0, 2, "held-out loss, checkpoint")
    weights = load(checkpoint, device, "float32")
    rows = make_rows(
        dialogues,
        weights.tokenizer,
        checkpoint.format,
        max_length=weights.context_length,
        too_long="drop_turns",
        where="held-out dialogues",
    ).rows
    own = dialogue_losses(_language_model(weights.model), rows)
    del weights
    gc.collect()
    tell(1, 2, "held-out loss, base")
    before = dialogue_losses(_base_model(base, checkpoint), rows)
    tell(2, 2, "held-out loss")
    return [
        {"dialogue": row.dialogue, "checkpoint": round(a, 6), "base": round(b, 6), "tokens": row.trained}
        for row, a, b in zip(rows, own, before, strict=True)
    ]


def _base_model(base: Path, checkpoint: Checkpoint) -> Any:
    """The base as training found it, with the tokens that the prompt format adds."""
    from exporters.sft.base import load_base
    from exporters.sft.settings import TrainSettings

    model = load_base(base, TrainSettings(format=checkpoint.format)).model  # type: ignore[arg-type]  # one of the names
    return model.eval()


def _language_model(model: Any) -> Any:
    """Fold an adapter into its base, since the loss looks at the model's own head."""
    return model.merge_and_unload() if model.__class__.__name__.startswith("Peft") else model
