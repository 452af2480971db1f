"""Pushing to a stand-in of the hub's API on this machine: what arrives, and what does not."""

from __future__ import annotations

import base64
import dataclasses
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.export_dialogues import dialogues
from dialogue import Dialogue, FileError, SettingsError, Turn, load_taxonomy, write_dialogues
from exporters import DatasetVersion, ExportSettings, export_file
from exporters.hub import HubError, push_to_hub
from exporters.splits import SPLITS

TOKEN = "hf_standin"
ROOT = Path(__file__).parent.parent.parent


class Hub(http.server.ThreadingHTTPServer):
    """The calls that creating a data set repository and one commit make, answered as huggingface.co does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.messages: list[str] = []
        self.fail = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def reply(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refused(self) -> bool:
        if self.server.fail:
            self.reply({"error": "broken"}, self.server.fail)
        elif self.headers.get("authorization") != f"Bearer {TOKEN}":
            self.reply({"error": "Invalid credentials"}, 401)
        else:
            return False
        return True

    def do_GET(self) -> None:
        if self.refused():
            return
        siblings = [{"rfilename": name} for name in self.server.files]
        self.reply({"id": "me/aku", "sha": "1" * 40, "private": True, "tags": [], "siblings": siblings})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.refused():
            return
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self.reply({"url": f"{self.server.url}/datasets/me/aku"})
        elif self.path == "/api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            names = [row["path"] for row in json.loads(body)["files"]]
            self.reply({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                row = json.loads(line)
                if row["key"] == "header":
                    self.server.messages.append(row["value"]["summary"])
                elif row["key"] == "file":
                    assert row["value"]["encoding"] == "base64"
                    self.server.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            self.reply(
                {
                    "commitUrl": f"{self.server.url}/datasets/me/aku/commit/{'1' * 40}",
                    "commitOid": "1" * 40,
                    "success": True,
                }
            )
        else:
            self.reply({"error": self.path}, 404)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()


def make(folder: Path, records: list[Dialogue]) -> DatasetVersion:
    write_dialogues(folder / "in.jsonl", records)
    return export_file(folder / "in.jsonl", folder / "datasets", ExportSettings(), taxonomy=load_taxonomy())


def test_records_and_card_arrive_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    from datasets import load_dataset

    given = list(dialogues(30, awkward=True))
    version = make(tmp_path, given)
    address = push_to_hub(version, "me/aku", endpoint=hub.url)
    assert address == f"{hub.url}/datasets/me/aku/commit/{'1' * 40}"
    assert [(row["name"], row["organization"], row["type"], row["visibility"]) for row in hub.created] == [
        ("aku", "me", "dataset", "private")
    ]
    assert hub.messages == [f"Data set version {version.id}"]
    assert set(hub.files) == {"README.md", "train.jsonl", "validation.jsonl", "test.jsonl"}
    for name, content in hub.files.items():
        assert content == (version.path / name).read_bytes()
        (tmp_path / "clone").mkdir(exist_ok=True)
        (tmp_path / "clone" / name).write_bytes(content)
    loaded = load_dataset(str(tmp_path / "clone"), cache_dir=str(tmp_path / "cache"))
    assert {row["id"]: Dialogue.from_dict(row) for s in SPLITS for row in loaded[s]} == {d.id: d for d in given}


def test_public_only_when_asked(hub: Hub, tmp_path: Path) -> None:
    push_to_hub(make(tmp_path, list(dialogues(9))), "me/aku", private=False, endpoint=hub.url)
    assert hub.created[0]["visibility"] == "public"


def test_personal_data_stays_at_home(hub: Hub, tmp_path: Path) -> None:
    given = list(dialogues(9))
    turns = (Turn("User", "電話は03-1234-5678です"), *given[0].conversation[1:])
    first = [t.speaker for t in given[0].conversation]
    given[0] = dataclasses.replace(given[0], conversation=tuple(map(Turn, first, [t.text for t in turns])))
    version = make(tmp_path, given)
    with pytest.raises(FileError, match=r"checks\.json.*--with-personal-data"):
        push_to_hub(version, "me/aku", endpoint=hub.url)
    assert hub.created == []
    assert hub.files == {}
    push_to_hub(version, "me/aku", personal_data=True, endpoint=hub.url)
    assert hub.files


def test_a_changed_version_is_not_pushed(hub: Hub, tmp_path: Path) -> None:
    version = make(tmp_path, list(dialogues(9)))
    version.file("test").write_text("", encoding="utf-8")
    with pytest.raises(FileError, match="changed after the export"):
        push_to_hub(version, "me/aku", endpoint=hub.url)
    assert hub.files == {}


@pytest.mark.parametrize("name", ["aku", "a/b/c", "", "me/a b", "me/-aku"])
def test_names_the_hub_does_not_take(hub: Hub, tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=r"hub|owner/name"):
        push_to_hub(make(tmp_path, list(dialogues(9))), name, endpoint=hub.url)
    assert hub.files == {}


def test_a_wrong_token_is_said_and_not_shown(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(SettingsError, match="hf auth login") as caught:
        push_to_hub(make(tmp_path, list(dialogues(9))), "me/aku", endpoint=hub.url)
    assert "hf_wrong" not in str(caught.value)


def test_a_hub_that_is_broken_or_down(hub: Hub, tmp_path: Path) -> None:
    version = make(tmp_path, list(dialogues(9)))
    hub.fail = 418
    with pytest.raises(HubError, match="418"):
        push_to_hub(version, "me/aku", endpoint=hub.url)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(HubError, match="does not answer"):
        push_to_hub(version, "me/aku", endpoint=closed)


def test_the_command_pushes_what_it_exports(hub: Hub, tmp_path: Path) -> None:
    write_dialogues(tmp_path / "in.jsonl", list(dialogues(9)))
    command = [sys.executable, "-c", "from aku.cli import main; main()", "--home", str(tmp_path / "home")]
    command += ["export", "--file", str(tmp_path / "in.jsonl"), "--push-to-hub", "me/aku"]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "COLUMNS": "200"}
    environment.pop("HF_HUB_OFFLINE", None)  # tests that trained in this process have set it
    found = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stderr
    assert "pushed:" in found.stdout
    assert TOKEN not in found.stdout + found.stderr
    assert set(hub.files) == {"README.md", "train.jsonl", "validation.jsonl", "test.jsonl"}
