"""Journals: whole lines, nothing twice, no texts."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from ml_backend.events import Journal, event_facts, missed_events, record_event
from ml_backend.store import Store

ANNOTATION = {"id": 7, "task": 3, "updated_at": "2026-01-01T00:00:00Z", "result": [{"value": {"text": ["秘密"]}}]}
EVENT = {
    "action": "ANNOTATION_CREATED",
    "annotation": ANNOTATION,
    "task": {"id": 3, "data": {"context": "秘密"}},
    "project": {"id": 1, "title": "秘密"},
}


def lines(journal: Journal) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "s.sqlite")


def test_an_event_is_noted_once_and_without_texts(tmp_path: Path, store: Store) -> None:
    journal = Journal(tmp_path / "webhooks.jsonl")
    assert [record_event(store, journal, EVENT) for _ in range(3)] == [1, 0, 0]
    later = {**EVENT, "action": "ANNOTATION_UPDATED", "annotation": {**ANNOTATION, "updated_at": "2026-01-02"}}
    assert record_event(store, journal, later) == 1
    found = lines(journal)
    assert [fact["action"] for fact in found] == ["ANNOTATION_CREATED", "ANNOTATION_UPDATED"]
    assert {k: found[0][k] for k in ("object", "id", "task", "project")} == {
        "object": "annotation",
        "id": 7,
        "task": 3,
        "project": 1,
    }
    assert "秘密" not in journal.path.read_text(encoding="utf-8")


def test_plural_events_give_one_fact_each() -> None:
    body = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 1}, {"id": 2}], "project": {"id": 4}}
    assert [fact["id"] for fact in event_facts(body)] == [1, 2]
    body = {"action": "TASKS_CREATED", "tasks": [{"id": 5, "updated_at": "t"}], "project": {"id": 4}}
    assert [(fact["object"], fact["id"]) for fact in event_facts(body)] == [("task", 5)]


@pytest.mark.parametrize("body", [{}, {"action": None}, {"action": ["x"], "annotation": 3, "tasks": "t"}])
def test_odd_events_are_facts_too(body: dict[str, Any]) -> None:
    (fact,) = event_facts(body)
    assert fact["object"] == "project"


def test_missed_events_are_found_and_not_doubled(tmp_path: Path, store: Store) -> None:
    journal = Journal(tmp_path / "webhooks.jsonl")
    record_event(store, journal, EVENT)
    tasks = [
        {"id": 3, "annotations": [{**ANNOTATION, "created_at": ANNOTATION["updated_at"]}]},
        {"id": 4, "annotations": [{"id": 8, "created_at": "a", "updated_at": "b"}]},
    ]
    added = sum(record_event(store, journal, event, "api") for event in missed_events(tasks, 1))
    assert added == 1
    assert (lines(journal)[-1]["action"], lines(journal)[-1]["source"]) == ("ANNOTATION_UPDATED", "api")


def test_lines_of_many_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"

    def write(number: int) -> None:
        journal = Journal(path)
        for i in range(50):
            journal.append({"n": number, "i": i, "text": "あ" * 500})

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert sorted((f["n"], f["i"]) for f in found) == [(n, i) for n in range(8) for i in range(50)]
