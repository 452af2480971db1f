"""Canonical records into Label Studio, as finished annotations or as cards to work on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from dialogue import Dialogue, LabelStudioError, label_studio
from exporters import studio

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
    progress: Callable[[int, int], None] | None = None,
) -> ImportResult:
    """Write records into a project; a record whose id is there already is skipped.

    As finished annotations they keep id and source; as cards they keep the id, the texts stand in the
    boxes, and whoever finishes the card is its annotator.  A batch whose answer was lost is looked up
    before it is sent again, so that nothing is written twice.  Raises `LabelStudioError`.
    """
    wanted = list(dialogues)
    there = record_ids(client, project)
    new = [d for d in {d.id: d for d in wanted}.values() if d.id not in there]
    done = 0
    for start in range(0, len(new), BATCH):
        done += _send(client, project, new[start : start + BATCH], as_cards=as_cards)
        if progress is not None:
            progress(start + len(new[start : start + BATCH]), len(new))
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


def to_import(dialogue: Dialogue, *, as_card: bool = False) -> dict[str, Any]:
    """Return the task, with its annotation unless it is to be a card, as Label Studio imports it."""
    card = label_studio.card_from_dialogue(dialogue)
    if not as_card:
        return {"data": label_studio.to_task(card), "annotations": [label_studio.to_annotation(dialogue)]}
    text = f"この会話を確かめて、直してください（{len(dialogue.conversation)}ターン）"
    card = dataclasses.replace(card, text=text, record={"id": dialogue.id})
    return {"data": label_studio.to_task(card), "predictions": [label_studio.scaffold(card)]}


def _send(client: LabelStudio, project: int, batch: list[Dialogue], *, as_cards: bool) -> int:
    rest = batch

    def call() -> None:
        nonlocal rest
        if rest is not batch:
            there = record_ids(client, project)
            rest = [d for d in batch if d.id not in there]
        rows = [to_import(dialogue, as_card=as_cards) for dialogue in rest]
        rest = list(rest)  # from now on the answer may be lost: look before sending again
        if rows:
            client.projects.import_tasks(id=project, request=rows, request_options={"max_retries": 0})

    try:
        studio.retrying(call)
    except LabelStudioError as error:
        raise LabelStudioError(f"importing stopped: {error}") from error
    return len(batch)
