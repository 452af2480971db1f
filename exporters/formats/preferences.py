"""Preference pairs: what a person wrote against what the model had drafted, as `DPOTrainer` reads them.

One row for each of Aku's turns whose correction is far enough from its draft: `prompt` (messages up to the
turn), `chosen` (the correction) and `rejected` (the draft), in TRL's conversational format.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dialogue import Dialogue, files
from dialogue.rendering import to_messages
from dialogue.text import edit_distance
from exporters.splits import SPLITS
from exporters.versions import DatasetVersion, read_records


def write(version: DatasetVersion, folder: Path, distance: float) -> dict[str, int]:
    """Write the pairs by split as JSONL; returns pairs by split.

    Args:
        version: the data set version.
        folder: where to write.
        distance: smallest normalised edit distance from draft to correction, 0 to 1.
    """
    return {split: files.write_jsonl(folder / f"{split}.jsonl", _pairs(version, split, distance)) for split in SPLITS}


def _pairs(version: DatasetVersion, split: str, distance: float) -> Iterator[dict[str, Any]]:
    """Walk records and drafts side by side; both are in order of ids, so that neither is held in memory."""
    drafts = itertools.groupby(read_records(version.file("drafts")), key=lambda row: str(row["id"]))
    current, group = next(drafts, ("", iter(())))
    exhausted = current == ""
    for record in read_records(version.file(split)):
        while not exhausted and current < record["id"]:
            current, group = next(drafts, ("", iter(())))
            exhausted = current == ""
        if exhausted:
            return
        if current == record["id"]:
            dialogue = Dialogue.from_dict(record)
            for row in group:
                yield from _pair(dialogue, row, distance)


def _pair(dialogue: Dialogue, row: dict[str, Any], distance: float) -> Iterator[dict[str, Any]]:
    number = int(row["turn"])
    turn = dialogue.conversation[number]
    edit = edit_distance(row["draft"], turn.text)
    if turn.speaker != "Aku" or edit < distance or not row["draft"]:
        return
    yield {
        "prompt": to_messages(dialogue.context, dialogue.conversation[:number], dialogue.attribute),
        "chosen": [{"role": "assistant", "content": turn.text}],
        "rejected": [{"role": "assistant", "content": row["draft"]}],
        "id": dialogue.id,
        "turn": number,
        "edit_distance": round(edit, 4),
        "checkpoint": row["checkpoint"],
        "annotator": dialogue.source.annotator,
    }
