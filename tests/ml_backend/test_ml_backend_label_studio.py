"""The backend behind a real Label Studio: stored rows, no duplicates, live chat, pushed drafts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from backends import Backend
from cards import OPENER, card, eventually, journal, screen, texts

from aku import provision
from dialogue import files
from dialogue.checkpoints import Checkpoint
from dialogue.label_studio import SCAFFOLD_VERSION, to_task

pytestmark = pytest.mark.e2e


class Office:
    """A project of its own in the run's Label Studio, with a backend of its own."""

    def __init__(self, studio: Any, backend: Backend) -> None:
        self.studio, self.backend = studio, backend
        workspace = backend.workspace
        workspace.write_secrets({**studio.secrets, **workspace.read_secrets()})
        self.project = provision.provision_project(workspace, studio.url, "drafts")
        provision.provision_backend(workspace, studio.url, self.project, backend.url)
        self.ml = int(files.read_json(workspace.state / "studio.json")["backend"])

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Call Label Studio's API."""
        headers = {"Authorization": f"Token {self.studio.token}"}
        answer = requests.request(method, self.studio.url + path, headers=headers, timeout=120, **options)
        assert answer.ok, answer.text
        return answer.json()

    def add(self, *openers: tuple[str, ...]) -> list[int]:
        """Import one card for each list of texts; returns task ids."""
        data = [{"data": to_task(card(*boxes))} for boxes in openers]
        path = f"/api/projects/{self.project}/import?return_task_ids=true"
        return [int(i) for i in self.call("POST", path, json=data)["task_ids"]]

    def open(self) -> dict[str, Any]:
        """Open the next task, as an annotator does."""
        return dict(self.call("GET", f"/api/projects/{self.project}/next"))

    def retrieve(self, *tasks: int) -> None:
        """Press *Retrieve predictions*."""
        body = {"selectedItems": {"all": False, "included": list(tasks)}, "project": self.project}
        self.call("POST", f"/api/dm/actions?id=retrieve_tasks_predictions&project={self.project}", json=body)

    def predictions(self, task: int) -> list[dict[str, Any]]:
        """Stored predictions of a task."""
        return list(self.call("GET", f"/api/predictions?task={task}"))

    def versions(self, *tasks: int) -> dict[int, Counter[str]]:
        """How many predictions of each version a task holds."""
        return {task: Counter(row["model_version"] for row in self.predictions(task)) for task in tasks}

    def aku(self, *arguments: str) -> list[str]:
        """A command line on this workspace."""
        return [str(Path(sys.executable).with_name("aku")), "--home", str(self.backend.workspace.home), *arguments]


@pytest.fixture(scope="module")
def office(studio: Any, backends: Callable[..., Backend], checkpoint: Checkpoint) -> Office:
    backend = backends()
    backend.use(checkpoint)
    return Office(studio, backend.start())


def test_opened_cards_are_stored_once_and_swaps_add_one_row(
    office: Office, checkpoint: Checkpoint, second: Checkpoint
) -> None:
    backend = office.backend
    backend.use(checkpoint, gate=False)
    tasks = office.add((OPENER,), (), (OPENER, "うん。", "最近犬はどう？"))
    for _ in range(3):
        office.open()
        office.retrieve(*tasks)
    assert office.versions(*tasks) == {task: {SCAFFOLD_VERSION: 1} for task in tasks}
    for chosen in (checkpoint, second, checkpoint):
        backend.use(chosen)
        eventually(lambda chosen=chosen: backend.setup() == chosen.id)  # type: ignore[misc]
        for _ in range(3):
            office.open()
            office.retrieve(*tasks)
    expected = {SCAFFOLD_VERSION: 1, checkpoint.id: 1, second.id: 1}
    assert office.versions(*tasks) == dict.fromkeys(tasks, expected)
    drafted = [row for row in office.predictions(tasks[0]) if row["model_version"] == checkpoint.id]
    assert len(texts(drafted[0])) == 2
    assert 0 < drafted[0]["score"] <= 1
    full = [row for row in office.predictions(tasks[2]) if row["model_version"] == checkpoint.id]
    assert texts(full[0])[:3] == [OPENER, "うん。", "最近犬はどう？"]
    assert len(texts(full[0])) == 4


def test_many_cards_are_retrieved_in_one_call(office: Office, checkpoint: Checkpoint) -> None:
    office.backend.use(checkpoint)
    tasks = office.add(*[(OPENER,)] * 60)
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(office.backend.predict, [{"id": 1, "data": to_task(card(OPENER))}], "99.1")
        office.retrieve(*tasks)
        assert len(texts(other.result()[0])) == 2
    assert office.versions(*tasks) == {task: {checkpoint.id: 1} for task in tasks}


def test_live_chat_through_label_studio(office: Office, checkpoint: Checkpoint) -> None:
    office.backend.use(checkpoint)
    (task,) = office.add(())
    boxes: list[str] = []
    for said in (OPENER, "最近犬はどう？"):
        boxes.append(said)
        body = {"task": task, "context": screen(*boxes)}
        answer = office.call("POST", f"/api/ml/{office.ml}/interactive-annotating", json=body)
        (item,) = answer["data"]["result"]
        assert item["from_name"] == f"turn_{len(boxes)}"
        boxes.append(item["value"]["text"][0])
    given = [fact for fact in journal(office.backend, "drafts.jsonl") if fact["task"] == task]
    assert [fact["text"] for fact in given] == boxes[1::2]
    assert {fact["project"].split(".")[0] for fact in given} == {str(office.project)}


def test_events_reach_the_journal(office: Office) -> None:
    (task,) = office.add((OPENER, "うん。"))
    result = [{"from_name": "turn_0", "to_name": "card", "type": "textarea", "value": {"text": ["ねえ"]}}]
    made = office.call("POST", f"/api/tasks/{task}/annotations", json={"result": result})
    office.call("PATCH", f"/api/annotations/{made['id']}", json={"result": result})

    def actions() -> list[str]:
        facts = journal(office.backend, "webhooks.jsonl")
        return [fact["action"] for fact in facts if fact["id"] == made["id"] and fact["object"] == "annotation"]

    eventually(lambda: actions() == ["ANNOTATION_CREATED", "ANNOTATION_UPDATED"])


def test_pushed_drafts_survive_an_interruption_and_come_once(
    office: Office, checkpoint: Checkpoint, second: Checkpoint
) -> None:
    office.backend.use(second)
    tasks = office.add(*[(OPENER,)] * 45)
    process = subprocess.Popen(office.aku("draft"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not any(office.versions(task)[task] for task in (tasks[0], tasks[20], tasks[44])) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    for expected in ("drafted by", "No card waits for a draft."):
        done = subprocess.run(office.aku("draft"), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if "No card" not in expected and "No card" in done.stdout:
            continue  # the interruption came too late to leave anything
        assert expected in done.stdout
    assert office.versions(*tasks) == {task: {second.id: 1} for task in tasks}
    office.retrieve(*tasks)
    assert office.versions(*tasks) == {task: {second.id: 1} for task in tasks}


def test_draft_says_that_the_gate_is_shut(office: Office, checkpoint: Checkpoint) -> None:
    office.backend.use(checkpoint, gate=False)
    done = subprocess.run(office.aku("draft"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "gate is shut" in done.stderr
    assert "Traceback" not in done.stderr
