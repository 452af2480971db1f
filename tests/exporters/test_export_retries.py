"""Label Studio stumbles: dropped connections, cut answers, 429, 5xx, refusals.  The SDK client is the real one."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dialogue import LabelStudioError
from exporters import studio


class Stumbling(http.server.ThreadingHTTPServer):
    """Answers with the listed faults, one a request, and then with an empty page of tasks."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.times: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(http.server.BaseHTTPRequestHandler):
    server: Stumbling
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        self.server.times.append(time.monotonic())
        fault = self.server.faults.pop(0) if self.server.faults else ""
        body = json.dumps({"tasks": [], "total": 0, "total_annotations": 0, "id": 1, "title": "t"}).encode()
        if fault == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        status, _, after = fault.partition(" ")
        self.send_response(int(status) if status.isdigit() else 200)
        if after:
            self.send_header("Retry-After", after)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + (100 if fault == "cut" else 0)))
        self.end_headers()
        self.wfile.write(b"<html>" + body[6:] if fault == "html" else body)
        if fault == "cut":
            self.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stumbling]:
    monkeypatch.setattr(studio, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(studio, "LONGEST_PAUSE", 0.05)
    found = Stumbling()
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def page(server: Stumbling) -> studio.Page:
    from label_studio_sdk import LabelStudio

    client = LabelStudio(base_url=server.url, api_key="0" * 40, timeout=5)
    return studio.get_page(client, 1, studio.query(), size=10)


@pytest.mark.parametrize(
    "faults",
    [["drop"], ["cut"], ["html"], ["429"], ["500"], ["502", "503", "504"], ["drop", "429", "cut", "500", "408"]],
)
def test_stumbling_is_forgiven(server: Stumbling, faults: list[str]) -> None:
    server.faults = list(faults)
    assert page(server).tasks == []
    assert len(server.requests) == len(faults) + 1
    assert len(set(server.requests)) == 1


@pytest.mark.parametrize("fault", ["drop", "429", "503", "html"])
def test_after_six_times_the_error_is_clear(server: Stumbling, fault: str) -> None:
    server.faults = [fault] * 50
    with pytest.raises(LabelStudioError, match=r"Label Studio .*6 times in a row.*it goes on where it stopped"):
        page(server)
    assert len(server.requests) == studio.ATTEMPTS == 6


@pytest.mark.parametrize(("status", "word"), [("401", "token"), ("403", "access"), ("404", "project"), ("400", "400")])
def test_a_refusal_is_final(server: Stumbling, status: str, word: str) -> None:
    server.faults = [status] * 50
    with pytest.raises(LabelStudioError, match=word):
        page(server)
    assert len(server.requests) == 1


def test_pauses_grow_and_retry_after_is_heard(server: Stumbling, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(studio, "LONGEST_PAUSE", 20.0)
    server.faults = ["500", "500", "500", "429 7", "429 3600"]
    page(server)
    assert pauses == [0.01, 0.02, 0.04, 7.0, 20.0]


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from label_studio_sdk import LabelStudio

    monkeypatch.setattr(studio, "FIRST_PAUSE", 0.001)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    client: Any = LabelStudio(base_url=f"http://127.0.0.1:{port}", api_key="0" * 40, timeout=5)
    with pytest.raises(LabelStudioError, match="does not answer"):
        studio.get_page(client, 1, studio.query(), size=10)
