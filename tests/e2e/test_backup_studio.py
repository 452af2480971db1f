"""A backup of the running studio, made while somebody writes, restored elsewhere and exported there."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from aku import provision, servers
from aku.commands.export import make_version
from aku.database import SQLITE
from aku.restore import restore
from dialogue import Attribute, Dialogue, LabelStudioError, Turn, Workspace, files, iter_dialogues, label_studio
from dialogue.label_studio import Card, blank_turns
from exporters import ExportSettings
from exporters.annotations import Accepted, Reader

pytestmark = pytest.mark.e2e
CARDS = 400


class Annotator(threading.Thread):
    """Writes one card after the other over the API: an auto-saved draft, then the annotation."""

    def __init__(self, studio: Any, workspace: Workspace, tasks: list[int]) -> None:
        super().__init__(daemon=True)
        self.studio, self.workspace, self.tasks = studio, workspace, tasks
        self.drafted: list[int] = []
        self.submitted: list[int] = []
        self.stopping = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with provision.api(self.workspace, self.studio.url) as http:
                for task in self.tasks:
                    if self.stopping.is_set():
                        return
                    row = {"result": label_studio.to_annotation(written(task))["result"], "lead_time": 1.5}
                    self.send(http, f"/api/tasks/{task}/drafts", row)
                    self.drafted.append(task)
                    if task % 3:  # every third card stays a draft
                        self.send(http, f"/api/tasks/{task}/annotations/", row)
                        self.submitted.append(task)
        except Exception as error:
            self.error = error

    def send(self, http: httpx.Client, path: str, row: dict[str, Any]) -> None:
        """Post; a connection that a busy server dropped is tried again, as a person presses the button again."""
        for attempt in range(5):
            try:
                http.post(path, json=row).raise_for_status()
                return
            except httpx.TransportError:
                if attempt == 4:
                    raise
                time.sleep(0.5)

    def wait_for(self, count: int) -> None:
        while len(self.submitted) < count:
            assert self.is_alive(), self.error
            self.join(0.02)


def written(task: int) -> Dialogue:
    """What the annotator writes into a card; long enough for a database page or two."""
    turns = tuple(Turn(("User", "Aku")[i % 2], f"カード{task}の{i}番目。" + "雪の話。" * (task % 50)) for i in range(6))
    return Dialogue(f"d{task}", f"場面{task}。", turns, Attribute(task % 5, task // 5 % 5), ("天気・季節",))


@pytest.fixture
def place(studio: Any, tmp_path: Path) -> Iterator[tuple[Workspace, int, list[int]]]:
    """A workspace with its own project full of blank cards."""
    workspace, project = studio.new_workspace(tmp_path / "place", "backup")
    card = Card("書いてください", "", Attribute(2, 2), (), blank_turns(6))
    rows = [{"data": label_studio.to_task(card)}] * CARDS
    studio.client.projects.import_tasks(id=project, request=rows)
    tasks = sorted(int(t.id) for t in studio.client.tasks.list(project=project, fields="task_only", page_size=CARDS))
    yield workspace, project, tasks
    studio.client.projects.delete(id=project)


def exported(workspace: Workspace) -> dict[str, Dialogue]:
    """The records of the newest version."""
    folder = workspace.datasets / files.read_json(workspace.datasets / "latest.json")["id"]
    splits = [folder / f"{split}.jsonl" for split in ("train", "validation", "test")]
    return {d.id: d for path in splits for d in iter_dialogues(path)}


def records_of(path: Path, project: int, salt: str) -> dict[str, Dialogue]:
    """The records that a database file holds, read without any Label Studio."""
    reader = Reader(ExportSettings(), "", project, salt)
    query = (
        "SELECT task.id, data, a.id, result, completed_by_id, lead_time, a.created_at, a.updated_at, was_cancelled "
        "FROM task JOIN task_completion a ON a.task_id = task.id WHERE task.project_id = ?"
    )
    found = {}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for task, data, number, result, by, lead, created, updated, cancelled in connection.execute(query, (project,)):
            annotation = {"id": number, "result": json.loads(result), "completed_by": by, "lead_time": lead}
            annotation |= {"created_at": created, "updated_at": updated, "was_cancelled": cancelled}
            row = {"id": task, "project": project, "data": json.loads(data), "annotations": [annotation]}
            (accepted,) = reader.read(row)
            assert isinstance(accepted, Accepted), accepted
            found[accepted.dialogue.id] = accepted.dialogue
    return found


def said(dialogue: Dialogue) -> tuple[object, ...]:
    source = dialogue.source
    attribute, genre = dialogue.attribute, dialogue.genre
    return dialogue.context, dialogue.conversation, attribute, genre, source.annotation, source.annotator, source.task


def test_what_was_written_up_to_the_backup_is_exported_from_the_restored_studio(
    studio: Any, place: tuple[Workspace, int, list[int]], tmp_path: Path
) -> None:
    workspace, project, tasks = place
    annotator = Annotator(studio, workspace, tasks)
    annotator.start()
    annotator.wait_for(10)
    drafted, before = set(annotator.drafted), set(annotator.submitted)
    studio.aku("backup", str(tmp_path / "b.tar.gz"))
    after = len(annotator.submitted)
    annotator.wait_for(after + 3)  # writing was not stopped
    annotator.stopping.set()
    annotator.join()
    assert annotator.error is None

    home = tmp_path / "restored"
    studio.aku("restore", str(tmp_path / "b.tar.gz"), "--home", str(home))
    salt = Workspace(home).read_secrets()["PSEUDONYM_SALT"]
    held = records_of(home / SQLITE, project, salt)
    restored = type(studio)(home)  # `aku up` on the restored workspace, at ports of its own
    try:
        there, number = restored.new_workspace(tmp_path / "there", "backup")
        assert number == project
        restored.aku("--home", str(there.home), "export")
        found = exported(there)
        drafts = [d for task in sorted(drafted - before) for d in _drafts(restored, task)]
        backends = [str(b.url) for b in restored.client.ml.list(project=restored.project)]
        own = [str(b.url) for b in studio.client.ml.list(project=studio.project)]
    finally:
        restored.stop()
    texts = {d.source.task: d for d in found.values()}
    assert before <= texts.keys(), "an annotation acknowledged before the backup is missing"
    assert texts.keys() <= set(annotator.submitted[: after + 1]), "something from after the backup is there"
    assert {i: said(d) for i, d in found.items()} == {i: said(d) for i, d in held.items()}
    for task, dialogue in texts.items():
        assert dialogue.conversation == written(task or 0).conversation
    assert len(drafts) >= len(drafted - before), "an auto-saved draft is missing"
    # The restored studio talks to its own backend, no longer to the one of the studio it came from.
    moved = {studio.backend_url: restored.backend_url}
    assert studio.backend_url in own
    assert sorted(backends) == sorted(moved.get(url, url) for url in own)


def _drafts(studio: Any, task: int) -> list[Any]:
    with provision.api(studio.workspace, studio.url) as http:
        return list(http.get(f"/api/tasks/{task}/drafts").raise_for_status().json())


def test_a_renamed_project_is_found_again_at_another_address(studio: Any, tmp_path: Path) -> None:
    workspace, project = studio.new_workspace(tmp_path / "home", "before")
    studio.client.projects.update(id=project, title="after")
    state = workspace.state / "studio.json"
    files.write_json(state, {**files.read_json(state), "url": "http://127.0.0.1:1"})
    assert provision.provision_project(workspace, studio.url, "before") == project
    studio.client.projects.delete(id=project)


def test_a_team_on_postgresql_is_restored_into_another_database(
    team: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = Workspace(tmp_path / "writers")
    writers.write_secrets(team.workspace.read_secrets())
    project = provision.provision_project(writers, team.url, "backup")
    card = Card("書いてください", "", Attribute(2, 2), (), blank_turns(6))
    with provision.api(writers, team.url) as http:
        path = f"/api/projects/{project}/import?return_task_ids=true"
        answer = http.post(path, json=[{"data": label_studio.to_task(card)}] * CARDS)
        tasks = sorted(answer.raise_for_status().json()["task_ids"])
    annotator = Annotator(team, writers, tasks)
    annotator.start()
    annotator.wait_for(10)
    before = set(annotator.submitted)
    archive = tmp_path / "b.tar.gz"
    team.run("aku", "backup", str(archive))  # the service `aku` of docker-compose.yml, with its environment
    after = len(annotator.submitted)
    annotator.wait_for(after + 3)
    annotator.stopping.set()
    annotator.join()
    assert annotator.error is None

    environment = {k: v for k, v in team.environment("label-studio").items() if k != "DJANGO_SETTINGS_MODULE"}
    team._sql("CREATE DATABASE copy")
    for key, value in {**environment, "POSTGRE_NAME": "copy"}.items():
        if key.startswith(("POSTGRE_", "DJANGO_DB")):
            monkeypatch.setenv(key, value)
    restore(archive, Workspace(tmp_path / "restored"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    environment |= {"POSTGRE_NAME": "copy", "LABEL_STUDIO_HOST": url}
    environment |= {"LABEL_STUDIO_BASE_DATA_DIR": str(tmp_path / "data")}
    program = str(Path(sys.executable).with_name("label-studio"))
    command = [program, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port), "--host", url]
    server = servers.Server("Label Studio", command, environment, tmp_path / "log", f"{url}/health")
    try:
        server.wait(LabelStudioError, 300)
        there = Workspace(tmp_path / "there")
        there.write_secrets(Workspace(tmp_path / "restored").read_secrets())
        assert provision.provision_project(there, url, "backup") == project
        make_version(there)
    finally:
        server.stop()
    found = {d.source.task: d for d in exported(there).values()}
    assert before <= found.keys(), "an annotation acknowledged before the backup is missing"
    assert found.keys() <= set(annotator.submitted[: after + 1]), "something from after the backup is there"
    for task, dialogue in found.items():
        assert dialogue.conversation == written(task or 0).conversation
