"""Export and import when annotations are broken, calls fail, caches are damaged or the process is killed."""

from __future__ import annotations

import http.client
import http.server
import json
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
from exporting import ROOT, aku, call, export, records, refreshed, rejected, task_ids

from benchmarks.export_dialogues import dialogues
from dialogue import load_taxonomy
from exporters import ExportSettings, export_project, import_dialogues, latest_version, verify_version
from exporters import studio as pages

pytestmark = pytest.mark.e2e


def test_a_cache_of_another_project_or_a_broken_one_is_emptied(studio: Any, tmp_path: Path) -> None:
    projects = [studio.new_project(f"cache {i}") for i in range(2)]
    for seed, project in enumerate(projects):
        import_dialogues(studio.client, project, dialogues(5, seed=seed))
    path = tmp_path / "cache.sqlite"
    assert refreshed(studio, projects[0], path) == (5, 0)
    assert refreshed(studio, projects[1], path) == (5, 0)
    path.write_bytes(b"not a database" * 500)
    assert refreshed(studio, projects[1], path) == (5, 0)


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
