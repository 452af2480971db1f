"""Dialogues → tokenised rows, with every way a row can go wrong counted or refused before training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dialogue.errors import RecordError
from dialogue.records import Dialogue
from dialogue.rendering import Rendering, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that carries no loss (torch's `cross_entropy` default)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One dialogue ready for training: ids and labels, each shape (n,), cut after the last trained token.

    `ids_without` and `labels_without` are the same without attributes; `characters` counts Aku's text.
    """

    dialogue: str
    characters: int
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    ids_without: tuple[int, ...]
    labels_without: tuple[int, ...]

    @property
    def trained(self) -> int:
        """Number of tokens with loss."""
        return sum(label != IGNORED for label in self.labels)


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """The rows, and what was left out of them: reason → ids of the dialogues."""

    rows: tuple[Row, ...]
    left_out: dict[str, tuple[str, ...]]


def make_rows(
    dialogues: Sequence[Dialogue],
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    *,
    max_length: int,
    too_long: str = "refuse",
    where: str = "data set",
) -> Rows:
    """Render every dialogue with and without attributes in prompt format `name`.

    Dialogues in which Aku never speaks carry nothing to learn; they are left out and counted.  One
    longer than `max_length` tokens is refused, or, with `too_long="drop_turns"`, loses whole turns
    at its end (never part of a reply) and is counted.  Raises `RecordError` for an untrained end
    token, an empty loss mask everywhere, or an over-long dialogue; `CheckpointError` if the
    tokenizer lacks tokens of the format.
    """
    rows: list[Row] = []
    left_out: dict[str, list[str]] = {}
    for dialogue in dialogues:
        kept = len(dialogue.conversation)
        rendering = _render(dialogue, tokenizer, name, kept, True)
        length = len(_labelled(rendering)[0])
        if length > max_length:
            if too_long == "refuse":
                raise RecordError(
                    "context",
                    f"{where}: record {dialogue.id} has {length} tokens, the limit is {max_length}; shorten it, "
                    'or set too_long = "drop_turns" in [train].',
                )
            left_out.setdefault("turns beyond the model's context", []).append(dialogue.id)
            while kept and len(_labelled(rendering)[0]) > max_length:
                kept -= 1
                rendering = _render(dialogue, tokenizer, name, kept, True)
        if not any(turn.speaker == "Aku" for turn in dialogue.conversation[:kept]):
            left_out.setdefault("no turn by Aku", []).append(dialogue.id)
            continue
        check_mask(dialogue, rendering, tokenizer, kept, where)
        without = _render(dialogue, tokenizer, name, kept, False)
        characters = sum(len(turn.text) for turn in dialogue.conversation[:kept] if turn.speaker == "Aku")
        rows.append(Row(dialogue.id, characters, *_labelled(rendering), *_labelled(without)))
    if not rows:
        raise RecordError("mask", f"{where}: Aku never speaks, so there is nothing to train on; add dialogues.")
    return Rows(tuple(rows), {reason: tuple(ids) for reason, ids in left_out.items()})


def check_mask(
    dialogue: Dialogue, rendering: Rendering, tokenizer: PreTrainedTokenizerBase, turns: int, where: str
) -> None:
    """Assert that exactly Aku's turns are trained, each with its end token; raises `RecordError`.

    Guards against templates and tokenizers that lose a turn: an empty reply after normalisation, an
    end token outside the generation block.
    """
    replies = [segment for segment in rendering.segments if segment.trained]
    expected = sum(turn.speaker == "Aku" for turn in dialogue.conversation[:turns])
    if len(replies) != expected:
        raise RecordError(
            "mask", f"{where}: record {dialogue.id}: {len(replies)} of {expected} Aku turns would be trained."
        )
    for number, segment in enumerate(replies, 1):
        if not segment.ids or segment.ids[-1] != tokenizer.eos_token_id:
            raise RecordError(
                "mask",
                f"{where}: record {dialogue.id}: the end of Aku's turn {number} would not be trained, so the model "
                "would never stop; put eos_token inside {% generation %} of the template.",
            )
        if len(segment.ids) < 2:
            raise RecordError(
                "mask", f"{where}: record {dialogue.id}: Aku's turn {number} has no token left after the tokenizer."
            )


def _render(
    dialogue: Dialogue, tokenizer: PreTrainedTokenizerBase, name: str, turns: int, with_attribute: bool
) -> Rendering:
    attribute = dialogue.attribute if with_attribute else None
    return render(dialogue.context, dialogue.conversation[:turns], attribute, tokenizer, name)


def _labelled(rendering: Rendering) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids and labels, cut after the last trained token: what follows it costs time and teaches nothing."""
    ids, mask = rendering.ids, rendering.mask
    end = max((i + 1 for i, trained in enumerate(mask) if trained), default=len(ids))
    labels = [token if trained else IGNORED for token, trained in zip(ids, mask, strict=True)]
    return tuple(ids[:end]), tuple(labels[:end])
