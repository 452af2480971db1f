"""Canonical records into Label Studio, as finished annotations or as cards to work on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialogue import Dialogue, FileError, files, iter_dialogues, label_studio, read_dialogues
from exporters import studio
from exporters.provenance import Draft
from exporters.splits import SPLITS

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

BATCH = 100


@dataclasses.dataclass(frozen=True, slots=True)
class ImportResult:
    """How many records became tasks, and how many were in the project already."""

    imported: int
    skipped: int


def import_dialogues(
    client: LabelStudio,
    project: int,
    dialogues: Iterable[Dialogue],
    *,
    as_cards: bool = False,
    drafts: Mapping[str, Sequence[Draft]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImportResult:
    """Write records into a project; a record whose id is there already is skipped.

    As finished annotations they keep id and source; as cards they keep the id, the texts stand in the
    boxes, and whoever finishes the card is its annotator.  A batch whose answer was lost is looked up
    before it is sent again, so that nothing is written twice.

    Args:
        client: a Label Studio SDK client.
        project: the project's id.
        dialogues: the records.
        as_cards: make cards instead of finished annotations.
        drafts: the models' drafts by record id, for the preference pairs of a later export (see `read_drafts`).
        progress: called with records sent and records to send.

    Raises:
        LabelStudioError: Label Studio can not be reached; what was sent is there, and the next run skips it.
    """
    wanted = list(dialogues)
    there = record_ids(client, project)
    new = [d for d in {d.id: d for d in wanted}.values() if d.id not in there]
    for start in range(0, len(new), BATCH):
        batch = new[start : start + BATCH]
        rows = [to_import(d, as_card=as_cards, drafts=(drafts or {}).get(d.id, ())) for d in batch]
        _send(client, project, rows)
        if progress is not None:
            progress(start + len(batch), len(new))
    return ImportResult(imported=len(new), skipped=len(wanted) - len(new))


def record_ids(client: LabelStudio, project: int) -> set[str]:
    """Return the record ids that tasks of the project carry."""
    found: set[str] = set()
    for page in studio.iter_tasks(client, project, size=1000, include="id,data"):
        for task in page.tasks:
            record = task["data"].get("record") if isinstance(task["data"], dict) else None
            if isinstance(record, dict) and record.get("id"):
                found.add(str(record["id"]))
    return found


def to_import(dialogue: Dialogue, *, as_card: bool = False, drafts: Sequence[Draft] = ()) -> dict[str, Any]:
    """Return the task, with its annotation unless it is to be a card, as Label Studio imports it."""
    card = label_studio.card_from_dialogue(dialogue)
    if as_card:
        text = f"この会話を確かめて、直してください（{len(dialogue.conversation)}ターン）"
        card = dataclasses.replace(card, text=text, record={"id": dialogue.id})
        return {"data": label_studio.to_task(card), "predictions": [label_studio.scaffold(card)]}
    if drafts:
        card = dataclasses.replace(
            card, record={**(card.record or {}), "drafts": list(map(dataclasses.asdict, drafts))}
        )
    return {"data": label_studio.to_task(card), "annotations": [label_studio.to_annotation(dialogue)]}


def read_import(path: Path) -> tuple[list[Dialogue], dict[str, list[Draft]]]:
    """Read what is to be imported: a canonical JSONL file, or the folder of a data set version.

    Returns the records, and the models' drafts by record id, which stand in `drafts.jsonl` beside them.
    Raises `FileError` and `RecordError`.
    """
    if not path.is_dir():
        return read_dialogues(path), read_drafts(path.parent / "drafts.jsonl")
    splits = [path / f"{split}.jsonl" for split in SPLITS]
    found = [dialogue for split in splits if split.exists() for dialogue in iter_dialogues(split)]
    if not found:
        raise FileError(f"{path}: holds no records; name a data set version's folder or a JSONL file.")
    return found, read_drafts(path / "drafts.jsonl")


def read_drafts(path: Path) -> dict[str, list[Draft]]:
    """Read a version's `drafts.jsonl`; an absent file is empty.  Raises `FileError` for a broken line."""
    found: dict[str, list[Draft]] = {}
    for number, row in files.read_jsonl(path) if path.exists() else ():
        try:
            draft = Draft(int(row["turn"]), str(row["draft"]), str(row["checkpoint"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{path}, line {number}: is not a draft; export the version anew.") from error
        found.setdefault(str(row.get("id")), []).append(draft)
    return found


def _send(client: LabelStudio, project: int, rows: list[dict[str, Any]]) -> None:
    """Send one batch; after a failure whose outcome is unknown, only what did not arrive is sent again."""
    rest = rows
    tried = False

    def call() -> None:
        nonlocal rest, tried
        if tried:
            there = record_ids(client, project)
            rest = [row for row in rows if row["data"]["record"]["id"] not in there]
        tried = True
        if rest:
            client.projects.import_tasks(id=project, request=rest, request_options={"max_retries": 0})

    studio.retrying(call)
