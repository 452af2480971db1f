"""Append-only journals under `state/`, and Label Studio's events in one of them.

Webhooks are answered at once and only noted; they carry no delivery id and are lost when we are
down, so `missed_events` finds what the journal lacks by asking Label Studio's API.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_backend.store import Store


def now() -> str:
    """Return the time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Journal:
    """A JSONL file that several threads and processes may append to; each line is written whole."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet; the file is made with the first line."""
        self.path = path
        self._lock = threading.Lock()

    def append(self, value: Mapping[str, Any]) -> None:
        """Add one line, in one write, so that lines of different writers never mix."""
        line = (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "replace")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)


def record_event(store: Store, journal: Journal, body: Mapping[str, Any], source: str = "webhook") -> int:
    """Journal what an event says happened, without its texts; returns how many lines are new.

    Idempotent by action, object, its id and `updated_at`: an event that comes twice is noted once.
    """
    added = 0
    for fact in event_facts(body):
        key = json.dumps([fact["action"], fact["object"], fact["id"], fact["updated_at"]])
        if fact["id"] is None or store.new_event(key):
            journal.append({**fact, "source": source, "at": now()})
            added += 1
    return added


def event_facts(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield one fact for each annotation, task or project that an event is about."""
    action = str(body.get("action") or "unknown")[:64]
    project = body.get("project")
    project_id = project.get("id") if isinstance(project, Mapping) else None
    found = False
    for name in ("annotation", "task"):
        for item in (*_items(body.get(name)), *_items(body.get(f"{name}s"))):
            task = item.get("task")
            yield {
                "action": action,
                "object": name,
                "id": _plain(item.get("id")),
                "task": _plain(task.get("id") if isinstance(task, Mapping) else task),
                "project": _plain(project_id),
                "updated_at": _plain(item.get("updated_at")),
            }
            found = True
        if found:
            return  # an annotation's event names its task as well
    updated = project.get("updated_at") if isinstance(project, Mapping) else None
    yield {
        "action": action,
        "object": "project",
        "id": None,
        "task": None,
        "project": _plain(project_id),
        "updated_at": _plain(updated),
    }


def missed_events(tasks: Iterable[Mapping[str, Any]], project: int) -> Iterator[dict[str, Any]]:
    """Yield an event body for each annotation of Label Studio's tasks as they stand now."""
    for task in tasks:
        for annotation in _items(task.get("annotations")):
            same = annotation.get("updated_at") == annotation.get("created_at")
            action = "ANNOTATION_CREATED" if same else "ANNOTATION_UPDATED"
            yield {
                "action": action,
                "project": {"id": project},
                "annotation": {**annotation, "task": task.get("id")},
            }


def _items(value: object) -> list[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        return [value]
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _plain(value: object) -> str | int | None:
    if isinstance(value, str):
        return value[:64]
    return value if isinstance(value, int) and not isinstance(value, bool) else None
