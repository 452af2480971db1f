"""Chat messages as TRL's trainers read them: system (the scene), attribute, then user and assistant by turns.

The `attribute` message holds the pair, `closeness:4,mood:0`; the chat templates in `dialogue/templates` put it
before each of Aku's turns.
"""

from __future__ import annotations

from pathlib import Path

from dialogue import Dialogue, files
from dialogue.rendering import to_messages
from exporters.splits import SPLITS
from exporters.versions import DatasetVersion, read_records


def write(version: DatasetVersion, folder: Path) -> dict[str, int]:
    """Write rows `{"id": …, "messages": […]}` by split as JSONL; returns rows by split."""
    counts = {}
    for split in SPLITS:
        dialogues = (Dialogue.from_dict(record) for record in read_records(version.file(split)))
        rows = ({"id": d.id, "messages": to_messages(d.context, d.conversation, d.attribute)} for d in dialogues)
        counts[split] = files.write_jsonl(folder / f"{split}.jsonl", rows)
    return counts
