"""Marks for reviewers: which turns of a finished card are the model's, untouched or changed.

Label Studio shows no origin beside a text box, so after every submit the marks are written into the
card's `plan`, as classes that the style sheet turns into small badges.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aku.connection import Connection
from dialogue import label_studio
from dialogue.errors import RecordError
from exporters.provenance import Journal, read_journal
from exporters.studio import project_name, retrying

EVENTS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED")


def origins(task: Mapping[str, Any], journal: Journal) -> dict[int, bool]:
    """Say by box number which turns came from the model, and whether a person changed them.

    The drafts are those of the annotation's own prediction, or else of the newest one; live drafts,
    which Label Studio does not store, come from the backend's journal.
    """
    finished = [a for a in task.get("annotations") or () if not a.get("was_cancelled")]
    if not finished:
        return {}
    annotation = max(finished, key=lambda a: str(a.get("updated_at") or ""))
    predictions = [p for p in task.get("predictions") or () if p["model_version"] != label_studio.SCAFFOLD_VERSION]
    parent = [p for p in predictions if p["id"] == annotation.get("parent_prediction")]
    chosen = parent or sorted(predictions, key=lambda p: int(p["id"]))[-1:]
    drafts = label_studio.read_result(chosen[0]["result"]).texts if chosen else {}
    marks: dict[int, bool] = {}
    for number, text in label_studio.read_result(annotation.get("result") or ()).texts.items():
        live = journal.get((int(task["id"]), number))
        draft = live[0] if live else drafts.get(number, "")
        if draft.strip() and text.strip():
            marks[number] = draft.strip() != text.strip()
    return marks


def mark_tasks(connection: Connection, tasks: Iterable[int], journal: Journal) -> int:
    """Write the marks of these tasks into their cards where they are not there yet; returns how many changed."""
    changed = 0
    for number in sorted(set(tasks)):
        found = retrying(functools.partial(connection.client.tasks.get, id=str(number)))
        task = {
            "id": number,
            "data": found.data,
            "annotations": [dict(a) for a in found.annotations or ()],
            "predictions": [dict(p) for p in found.predictions or ()],
        }
        try:
            card = label_studio.from_task(task["data"])
        except RecordError:
            continue
        boxes = len(card.turns)
        begins = int(not card.turns[0].text and "Akuから始める" in card.text)
        plan = label_studio.plan_html(boxes - begins, boxes, origins(task, journal))
        if plan != task["data"].get("plan"):
            data = {**task["data"], "plan": plan}
            retrying(functools.partial(connection.client.tasks.update, id=str(number), data=data))
            changed += 1
    return changed


class JournalFollower:
    """Reads what the backend's webhook journal has gained since the last look."""

    def __init__(self, path: Path) -> None:
        """Begin at the journal's present end."""
        self.path = path
        self.position = path.stat().st_size if path.exists() else 0

    def annotated(self) -> list[tuple[int, int]]:
        """Return (project, task) of annotations written since the last call."""
        if not self.path.exists() or self.path.stat().st_size <= self.position:
            return []
        with self.path.open("rb") as handle:
            handle.seek(self.position)
            lines = handle.read().split(b"\n")
        self.position += sum(len(line) + 1 for line in lines[:-1])  # an unfinished last line waits for the next look
        found = []
        for line in lines[:-1]:
            event = json.loads(line) if line.strip() else {}
            if event.get("action") in EVENTS and event.get("task"):
                found.append((int(event["project"]), int(event["task"])))
        return found


def live_drafts(connection: Connection, state: Path) -> Journal:
    """Read the backend's journal of live drafts for this project."""
    return read_journal(state / "drafts.jsonl", project_name(connection.client, connection.project))
