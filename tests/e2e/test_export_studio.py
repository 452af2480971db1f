"""Export and import against a real Label Studio."""

from __future__ import annotations

import dataclasses
import http.client
import http.server
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.export_dialogues import dialogues
from dialogue import Attribute, Dialogue, Turn, files, label_studio, load_taxonomy, read_dialogues, write_dialogues
from exporters import (
    DatasetVersion,
    ExportSettings,
    export_project,
    import_dialogues,
    latest_version,
    read_import,
    verify_version,
)
from exporters import studio as pages
from exporters.cache import TaskCache
from exporters.formats import write_format
from exporters.splits import SPLITS

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parent.parent.parent
SETTINGS = ExportSettings(page_size=50)


def export(studio: Any, project: int, datasets: Path, settings: ExportSettings = SETTINGS) -> DatasetVersion:
    return export_project(
        studio.client, project, datasets, settings, taxonomy=load_taxonomy(), url=studio.url, pseudonym_salt="pepper"
    )


def records(version: DatasetVersion) -> dict[str, Dialogue]:
    paths = [version.file(split) for split in SPLITS]
    return {d.id: d for path in paths if path.stat().st_size for d in read_dialogues(path)}


def rejected(version: DatasetVersion) -> list[dict[str, Any]]:
    return [row for _, row in files.read_jsonl(version.path / "rejected.jsonl")]


def call(studio: Any, method: str, path: str, value: Any = None) -> Any:
    response = studio.client._client_wrapper.httpx_client.request(path, method=method, json=value)
    assert response.status_code < 300, response.text
    return response.json() if response.content else None


def annotate(studio: Any, task: int, dialogue: Dialogue, **more: Any) -> int:
    row = label_studio.to_annotation(dialogue) | {"lead_time": 33.25} | more
    return int(call(studio, "POST", f"api/tasks/{task}/annotations/", row)["id"])


def task_ids(studio: Any, project: int) -> list[int]:
    found = pages.iter_tasks(studio.client, project, size=1000, include="id,data")
    return [task["id"] for page in found for task in page.tasks]


def test_five_hundred_dialogues_go_round_unchanged(studio: Any, tmp_path: Path) -> None:
    """Written, exported, imported into an empty project, exported again: the same 500 records, the same version."""
    given = {d.id: d for d in dialogues(500, seed=2, awkward=True)}
    first, second = studio.new_project("round one"), studio.new_project("round two")
    assert import_dialogues(studio.client, first, given.values()).imported == 500
    one = export(studio, first, tmp_path / "one")
    assert records(one) == given
    assert rejected(one) == []

    found, drafts = read_import(one.path)
    assert import_dialogues(studio.client, second, found, drafts=drafts).imported == 500
    assert import_dialogues(studio.client, second, found).skipped == 500
    two = export(studio, second, tmp_path / "two")
    assert records(two) == given
    assert two.id == one.id
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl", "README.md", "manifest.json"):
        assert (two.path / name).read_bytes() == (one.path / name).read_bytes()


def test_written_drafted_and_reviewed_in_label_studio(studio: Any, tmp_path: Path) -> None:
    """Cards that people finish: provenance comes from Label Studio itself, and survives another round."""
    card = label_studio.Card("カード", "夜の駅で", Attribute(2, 3), ("趣味",), label_studio.blank_turns(4, ["やあ"]))
    project = studio.new_project("written")
    studio.client.projects.import_tasks(id=project, request=[{"data": label_studio.to_task(card)} for _ in range(4)])
    by_hand, drafted, reviewed, waiting = task_ids(studio, project)
    turns = (Turn("User", "やあ"), Turn("Aku", "うん、元気だよ"), Turn("User", "よかった"), Turn("Aku", "そっちは？"))
    written = Dialogue("x", "夜の駅で", turns, Attribute(2, 3), ("趣味",))
    annotate(studio, by_hand, written)

    draft = (turns[0], Turn("Aku", "何だよ、急に"), Turn("User", ""), Turn("Aku", "そっちは？"))
    prediction = label_studio.to_prediction(card, draft, version="0123456789ab") | {"task": drafted}
    prediction_id = call(studio, "POST", "api/predictions/", prediction)["id"]
    annotate(studio, drafted, written, parent_prediction=prediction_id)

    annotate(studio, reviewed, written)
    changed = dataclasses.replace(
        written, context="朝の駅で", source=dataclasses.replace(written.source, decision="合格")
    )
    approved = annotate(studio, reviewed, changed)
    newest = annotate(studio, reviewed, dataclasses.replace(written, context="昼の駅で"))

    version = export(studio, project, tmp_path / "one")
    found = records(version)
    assert set(found) == {f"ls-{project}-{task}" for task in (by_hand, drafted, reviewed)}
    hand = found[f"ls-{project}-{by_hand}"]
    assert (hand.context, hand.conversation, hand.attribute, hand.genre) == (
        "夜の駅で",
        turns,
        Attribute(2, 3),
        ("趣味",),
    )
    assert (hand.source.kind, hand.source.project, hand.source.task, hand.source.lead_time) == (
        "manual", project, by_hand, 33.25,
    )  # fmt: skip
    assert str(hand.source.annotator).startswith("annotator-")
    assert str(hand.source.created_at)[:2] == "20"
    source = found[f"ls-{project}-{drafted}"].source
    assert (source.kind, source.checkpoint, source.edits) == ("drafted", "0123456789ab", (None, 1.0, None, 0.0))
    assert found[f"ls-{project}-{reviewed}"].context == "朝の駅で"
    assert found[f"ls-{project}-{reviewed}"].source.annotation == approved
    aside = [(row["reason"], row["task"], row["annotation"]) for row in rejected(version)]
    assert len(aside) == 2
    assert ("superseded", reviewed, newest) in aside
    assert version.counts["rejected"] == 0
    assert waiting not in [d.source.task for d in found.values()]

    again = studio.new_project("written again")
    imported, drafts = read_import(version.path)
    import_dialogues(studio.client, again, imported, drafts=drafts)
    other = export(studio, again, tmp_path / "two")
    assert records(other) == found
    pairs = [write_format(v, "preferences", tmp_path / v.path.parent.name / "p") for v in (version, other)]
    assert sum(pairs[0].values()) == sum(pairs[1].values()) == 1


def refreshed(studio: Any, project: int, path: Path) -> tuple[int, int]:
    cache = TaskCache(path, pages.project_name(studio.client, project))
    try:
        return cache.refresh(studio.client, project, size=50)
    finally:
        cache.close()


def test_only_what_changed_is_read_again(studio: Any, tmp_path: Path) -> None:
    given = list(dialogues(130, seed=4))
    project = studio.new_project("incremental")
    import_dialogues(studio.client, project, given)
    ids = task_ids(studio, project)
    path = tmp_path / "cache.sqlite"
    assert refreshed(studio, project, path) == (130, 0)
    assert refreshed(studio, project, path) == (0, 0)

    def annotation_of(task: int) -> dict[str, Any]:
        return call(studio, "GET", f"api/tasks/{task}/annotations/")[0]

    changed = dataclasses.replace(given[3], context="まったく別の場面")
    call(studio, "PATCH", f"api/annotations/{annotation_of(ids[3])['id']}/", label_studio.to_annotation(changed))
    assert refreshed(studio, project, path) == (1, 0)
    call(studio, "DELETE", f"api/annotations/{annotation_of(ids[5])['id']}/")
    assert refreshed(studio, project, path)[1] == 1
    call(studio, "DELETE", f"api/tasks/{ids[7]}/")
    assert refreshed(studio, project, path) == (0, 1)
    selected = {"all": False, "included": ids[10:14]}
    call(studio, "POST", f"api/dm/actions?id=delete_tasks_annotations&project={project}", {"selectedItems": selected})
    assert refreshed(studio, project, path)[1] == 4
    call(
        studio,
        "POST",
        f"api/dm/actions?id=delete_tasks&project={project}",
        {"selectedItems": {"all": False, "included": ids[20:23]}},
    )
    annotate(studio, ids[5], given[5])
    import_dialogues(studio.client, project, dialogues(3, seed=5))
    assert refreshed(studio, project, path) == (4, 3)
    assert refreshed(studio, project, path) == (0, 0)

    # What the kept pages give is what a reading from the start gives.
    kept, fresh = tmp_path / "kept", tmp_path / "fresh"
    (kept / ".cache").mkdir(parents=True)
    path.rename(kept / ".cache" / f"project-{project}.sqlite")
    one, two = export(studio, project, kept), export(studio, project, fresh)
    assert one.id == two.id
    assert len(records(one)) == 130 - 1 - 4 - 3 + 3


def test_a_cache_of_another_project_or_a_broken_one_is_emptied(studio: Any, tmp_path: Path) -> None:
    projects = [studio.new_project(f"cache {i}") for i in range(2)]
    for seed, project in enumerate(projects):
        import_dialogues(studio.client, project, dialogues(5, seed=seed))
    path = tmp_path / "cache.sqlite"
    assert refreshed(studio, projects[0], path) == (5, 0)
    assert refreshed(studio, projects[1], path) == (5, 0)
    path.write_bytes(b"not a database" * 500)
    assert refreshed(studio, projects[1], path) == (5, 0)


def aku(home: Path, *arguments: str) -> tuple[int, str]:
    """Run the command in a process of its own; returns its exit code and what it prints."""
    command = [sys.executable, "-c", "from aku.cli import main; main()", "--home", str(home), *arguments]
    environment = {**os.environ, "COLUMNS": "200"}
    found = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, env=environment)
    return found.returncode, found.stdout + found.stderr


def test_broken_annotations_are_listed_with_a_link_that_opens(studio: Any, tmp_path: Path) -> None:
    workspace, project = studio.new_workspace(tmp_path / "home", "broken")
    given = list(dialogues(12, seed=6))
    import_dialogues(studio.client, project, given)
    ids = task_ids(studio, project)

    def change(task: int, name: str, value: dict[str, Any]) -> None:
        row = call(studio, "GET", f"api/tasks/{task}/annotations/")[0]
        for item in row["result"]:
            if item["from_name"] == name:
                item["value"] = value
        call(studio, "PATCH", f"api/annotations/{row['id']}/", {"result": row["result"]})

    change(ids[0], "context", {"text": [""]})
    change(ids[1], "turn_2", {"text": ["あ" * 2001]})
    change(ids[2], "turn_3", {"text": [""]})
    old = [{"id": "a", "from_name": "user_text", "to_name": "chat", "type": "textarea", "value": {"text": ["やあ"]}}]
    for task, result in ((ids[3], old), (ids[4], [])):
        row = call(studio, "GET", f"api/tasks/{task}/annotations/")[0]
        call(studio, "PATCH", f"api/annotations/{row['id']}/", {"result": result})

    code, output = aku(workspace.home, "export")
    assert code == 0, output
    assert "5 broken annotations" in output
    assert aku(workspace.home, "export", "--strict")[0] == 1
    version = latest_version(workspace.datasets)
    assert dict(version.counts)["rejected"] == 5
    assert len(records(version)) == 7
    rows = rejected(version)
    assert [row["reason"] for row in rows] == ["context", "length", "gap", "config", "turns"]
    assert [row["task"] for row in rows] == ids[:5]
    with httpx.Client(base_url=studio.url, follow_redirects=True, timeout=60) as person:
        person.get("/user/login/")
        form = {"email": studio.email, "password": studio.password, "csrfmiddlewaretoken": person.cookies["csrftoken"]}
        person.post("/user/login/", data=form)
        for row in rows:
            response = person.get(row["link"])
            assert (response.status_code, str(response.url)) == (200, row["link"])  # not sent away to log in


class Stumbling(http.server.BaseHTTPRequestHandler):
    """Stands before Label Studio and passes most calls on; the rest are dropped, answered with an error, or cut off
    after Label Studio has done what was asked."""

    target = ""
    random = random.Random(0)
    faults = 0
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        fault = self.random.choice(["", "", "", "drop", "429", "503", "cut", "lost"])
        type(self).faults += fault != ""
        if fault == "drop":
            self.hang_up()
            return
        if fault.isdigit():
            self.send_response(int(fault))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        connection = http.client.HTTPConnection(self.target, timeout=120)
        connection.request(self.command, self.path, body, dict(self.headers))
        response = connection.getresponse()
        content = response.read()
        connection.close()
        if fault == "lost":  # it is done, but nobody hears of it
            self.hang_up()
            return
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
        if fault == "cut":
            self.hang_up()

    do_GET = do_POST = answer

    def hang_up(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


@pytest.fixture
def stumbling(studio: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client whose every other call goes wrong."""
    from label_studio_sdk import LabelStudio

    monkeypatch.setattr(pages, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(pages, "ATTEMPTS", 40)
    Stumbling.target, Stumbling.faults, Stumbling.random = studio.url.removeprefix("http://"), 0, random.Random(8)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stumbling)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield LabelStudio(base_url=f"http://127.0.0.1:{server.server_address[1]}", api_key=studio.token, timeout=120)
    server.shutdown()
    server.server_close()


def test_nothing_is_lost_or_doubled_when_every_other_call_fails(studio: Any, stumbling: Any, tmp_path: Path) -> None:
    given = {d.id: d for d in dialogues(260, seed=9)}
    project = studio.new_project("stumbling")
    assert import_dialogues(stumbling, project, given.values()).imported == 260
    assert len(task_ids(studio, project)) == 260
    version = export_project(
        stumbling, project, tmp_path, ExportSettings(page_size=20),
        taxonomy=load_taxonomy(), url=studio.url, pseudonym_salt="pepper",
    )  # fmt: skip
    assert records(version) == given
    assert Stumbling.faults > 10


KILLED = """
import sys
from pathlib import Path
from label_studio_sdk import LabelStudio
from dialogue import load_taxonomy
from exporters import ExportSettings, export_project
url, token, project, datasets = sys.argv[1:]
client = LabelStudio(base_url=url, api_key=token, timeout=120)
print("ready", flush=True)
export_project(client, int(project), Path(datasets), ExportSettings(page_size=20), taxonomy=load_taxonomy(), url=url,
    pseudonym_salt="pepper", progress=lambda done, total: print("read", done, flush=True))
"""


def test_a_killed_export_goes_on_where_it_stopped(studio: Any, tmp_path: Path) -> None:
    given = {d.id: d for d in dialogues(200, seed=10)}
    project = studio.new_project("killed")
    import_dialogues(studio.client, project, given.values())
    random_ = random.Random(12)
    reached = 0
    for _ in range(4):
        command = [sys.executable, "-c", KILLED, studio.url, studio.token, str(project), str(tmp_path / "datasets")]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(random_.randint(1, 2)):
            line = process.stdout.readline().split()
            if line:
                assert int(line[1]) > reached  # pages read before are not read again
                reached = int(line[1])
        time.sleep(random_.uniform(0, 0.1))
        process.kill()
        process.communicate()
        assert not (tmp_path / "datasets" / "latest.json").exists() or records(latest_version(tmp_path / "datasets"))
    version = export(studio, project, tmp_path / "datasets")
    verify_version(version)
    assert records(version) == given
    never = export(studio, project, tmp_path / "never")
    assert json.loads((tmp_path / "never" / "splits.json").read_text()) == json.loads(
        (tmp_path / "datasets" / "splits.json").read_text()
    )
    assert never.id == version.id


def test_import_and_export_commands(studio: Any, tmp_path: Path) -> None:
    """`aku import` takes a file or a version; `aku export` writes formats beside the version."""
    workspace, _ = studio.new_workspace(tmp_path / "home", "commands")
    given = {d.id: d for d in dialogues(30, seed=13)}
    write_dialogues(tmp_path / "in.jsonl", list(given.values()))
    code, output = aku(workspace.home, "import", str(tmp_path / "in.jsonl"))
    assert (code, "30 imported, 0 were there already" in output) == (0, True), output
    code, output = aku(
        workspace.home, "export", "--format", "csv", "--format", "messages", "--out", str(tmp_path / "out")
    )
    assert code == 0, output
    version = latest_version(workspace.datasets)
    assert version.id in output
    assert records(version) == given
    assert len(list((tmp_path / "out").glob("*/train.*"))) == 2
    code, output = aku(workspace.home, "import", str(version.path))
    assert (code, "0 imported, 30 were there already" in output) == (0, True), output
    for arguments, word in [
        (("export", "--format", "xml"), "there is no format"),
        (("export", "--version", "0" * 12), "no such data set version"),
        (("import", str(tmp_path / "absent.jsonl")), "no such file"),
    ]:
        code, output = aku(workspace.home, *arguments)
        assert (code, word in output, "Traceback" in output) == (2, True, False), output


def test_cards_made_of_records_are_open_work(studio: Any, tmp_path: Path) -> None:
    given = list(dialogues(3, seed=11))
    project = studio.new_project("cards")
    assert import_dialogues(studio.client, project, given, as_cards=True).imported == 3
    assert import_dialogues(studio.client, project, given, as_cards=True).skipped == 3
    assert records(export(studio, project, tmp_path)) == {}
    annotate(studio, task_ids(studio, project)[1], given[1])
    (found,) = records(export(studio, project, tmp_path)).values()
    assert (found.id, found.conversation) == (given[1].id, given[1].conversation)
    assert found.source.annotator is not None
