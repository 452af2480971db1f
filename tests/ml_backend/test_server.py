"""The server as Label Studio sees it: a real process, real requests, every property of the protocol."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from backends import PASSWORD, SECRET, USER, Backend
from cards import OPENER, journal, screen, task, texts

from dialogue.checkpoints import Checkpoint
from dialogue.label_studio import SCAFFOLD_VERSION

Make = Callable[..., Backend]
PLACES = ("/", "/versions", "/status", "/metrics")


# -- who may ask


@pytest.mark.parametrize("auth", [None, ("aku", "wrong"), ("wrong", PASSWORD), ("", "")])
def test_every_route_but_the_webhook_asks_for_the_password(backend: Backend, auth: Any) -> None:
    for path in PLACES:
        assert backend.get(path, auth=auth).status_code == 401
    for path in ("/setup", "/predict", "/train", "/webhook", "/nowhere"):
        assert backend.post(path, {}, auth=auth).status_code == 401
    assert backend.get("/health", auth=auth).status_code == (200 if auth is None else 401)


def test_the_webhook_has_its_own_secret(backend: Backend) -> None:
    body = {"action": "PROJECT_UPDATED", "project": {"id": 1}}
    for headers, path, status in (
        ({"X-Webhook-Secret": SECRET}, "/webhook", 201),
        ({}, f"/webhook/{SECRET}", 201),
        ({"X-Webhook-Secret": "wrong"}, "/webhook", 401),
        ({}, "/webhook/wrong", 401),
        ({"X-Webhook-Secret": SECRET}, "/predict", 401),
    ):
        assert backend.post(path, body, auth=None, headers=headers).status_code == status
    assert backend.post("/webhook", {"action": "START_TRAINING"}).json() == {"job": None}


@pytest.mark.parametrize(("settings", "word"), [("", "BACKEND_USER"), ("[backend]\ntop_p = 7.0\n", "top_p")])
def test_what_is_missing_or_wrong_is_said_in_one_sentence(tmp_path: Path, settings: str, word: str) -> None:
    (tmp_path / "aku.toml").write_text(settings)
    command = [sys.executable, "-m", "ml_backend", "--home", str(tmp_path), "--port", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert word in result.stderr
    assert "Traceback" not in result.stderr


# -- what is no proper request


@pytest.mark.parametrize("path", ["/predict", "/setup", "/webhook"])
def test_bodies_that_are_no_object_are_refused(backend: Backend, path: str) -> None:
    for data in (b"", b"{", b"[]", b"7", b"null", b'"x"', b"\xff\xfe", b'{"tasks": NaN'):
        answer = requests.post(
            backend.url + path, data, auth=(USER, PASSWORD), headers={"Content-Type": "application/json"}, timeout=20
        )
        assert answer.status_code == 400


@pytest.mark.parametrize("tasks", [None, 7, "x", {"id": 1}, []])
def test_calls_without_tasks_are_answered_with_no_rows(backend: Backend, tasks: Any) -> None:
    answer = backend.post("/predict", {"tasks": tasks, "project": None, "params": "x"})
    assert (answer.status_code, answer.json()["results"]) == (200, [])


def test_bodies_that_are_too_large_are_refused(backends: Make) -> None:
    backend = backends(max_body_mb=1).start()
    assert backend.post("/predict", {"tasks": [], "x": "x" * 2**21}).status_code == 413
    assert backend.predict([task(1, OPENER)])[0]["model_version"] == SCAFFOLD_VERSION
    backend.stop()


def test_unknown_routes_and_methods_are_no_errors_of_ours(backend: Backend) -> None:
    assert backend.get("/nowhere").status_code == 404
    assert backend.get("/predict").status_code == 405
    assert backend.post("/train", {}).status_code == 410


# -- rows


def test_setup_rows_and_versions_say_the_same(backend: Backend, checkpoint: Checkpoint) -> None:
    rows = backend.predict([task(1, OPENER), task(2)])
    assert {row["model_version"] for row in rows} == {checkpoint.id}
    assert backend.setup() == checkpoint.id
    assert backend.get("/versions").json() == {"versions": [checkpoint.id]}
    assert backend.post("/predict", {"tasks": []}).json()["model_version"] == checkpoint.id


def test_one_entry_per_task_and_a_good_one_among_bad_ones(backend: Backend) -> None:
    rows = backend.predict([None, task(1, OPENER), {}, "x", task(2), {"id": 3, "data": {}}, task(1, OPENER)])
    assert [row == [] for row in rows] == [True, False, True, True, False, True, False]
    assert texts(rows[1])[0] == OPENER
    assert len(texts(rows[1])) == 2
    assert rows[1] == rows[6]
    assert texts(rows[4]) == []
    assert 0 < rows[1]["score"] < 1


def test_several_projects_at_once(backend: Backend) -> None:
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(backend.predict, [task(n, OPENER)], f"{n % 3 + 1}.99") for n in range(12)]
        rows = [call.result()[0] for call in calls]
    assert all(len(texts(row)) == 2 for row in rows)


def test_user_turns_are_drafted_only_when_asked_for(backends: Make, checkpoint: Checkpoint) -> None:
    backend = backends(draft_user_turns=True)
    backend.use(checkpoint)
    backend.start()
    (row,) = backend.predict([task(1)])
    assert len(texts(row)) == 6
    assert all(texts(row))
    backend.stop()


def test_blind_cards_get_the_scaffold_under_the_same_version(backends: Make, checkpoint: Checkpoint) -> None:
    backend = backends(blind_share=0.5)
    backend.use(checkpoint)
    backend.start()
    rows = backend.predict([task(number, OPENER) for number in range(40)])
    assert {row["model_version"] for row in rows} == {backend.setup()}
    drafted = [len(texts(row)) == 2 for row in rows]
    assert 5 < sum(drafted) < 35
    live = [backend.predict([task(n, OPENER)], context=screen(OPENER))[0] for n in range(40)]
    assert [bool(row) for row in live] == drafted
    backend.stop()


# -- live chat -------------------------------------------------------------------------------------------


def test_live_chat_is_the_first_call_after_a_start(backends: Make, checkpoint: Checkpoint) -> None:
    backend = backends(workers=2)
    backend.use(checkpoint)
    backend.start()
    boxes: list[str] = []
    for said in (OPENER, "最近犬はどう？", "ねえ、犬だよ"):
        boxes.append(said)
        (row,) = backend.predict([task(5, OPENER)], context=screen(*boxes))
        (item,) = row["result"]
        assert item["from_name"] == f"turn_{len(boxes)}"
        assert row["model_version"] == checkpoint.id
        boxes.append(item["value"]["text"][0])
        # The reply appearing is itself a commit: nothing more is answered to it.
        assert backend.predict([task(5, OPENER)], context=screen(*boxes))[0] == []
    assert [(f["task"], f["turn"], f["text"], f["checkpoint"]) for f in journal(backend, "drafts.jsonl")] == [
        (5, turn, boxes[turn], checkpoint.id) for turn in (1, 3, 5)
    ]
    backend.stop()


@pytest.mark.parametrize("context", [{}, {"result": None}, {"result": 3}, {"result": [None, 3, {}]}, [], "x", 3])
def test_odd_live_calls_are_answered(backend: Backend, context: Any) -> None:
    rows = backend.predict([task(1, OPENER), {"id": 2}], context=context)
    assert len(rows) == 2


# -- numbers


def test_status_page_and_metrics(backend: Backend, checkpoint: Checkpoint) -> None:
    backend.predict([task(1000, OPENER)])
    status = backend.get("/status").json()
    assert (status["version"], status["current"], status["gate_open"]) == (checkpoint.id, checkpoint.id, True)
    assert status["engine"]["drafts_total"] > 0
    page = backend.get("/")
    assert page.headers["Content-Type"].startswith("text/html")
    assert checkpoint.id in page.text
    metrics = backend.get("/metrics").text
    assert "aku_gate_open 1.0" in metrics
    assert 'aku_http_request_seconds_count{route="/predict",status="200"}' in metrics


def test_logs_hold_no_text_and_no_token(backend: Backend) -> None:
    token = "0123456789abcdef0123456789abcdef01234567"
    backend.post("/setup", {"project": "1.1", "schema": "<View/>", "access_token": token, "hostname": "x"})
    backend.predict([task(4242, "ひみつのことば")])
    backend.post("/predict", {"tasks": [{"id": 1, "data": {"turns": "ひみつのことば"}}], "params": {"context": token}})
    log = backend.log.read_text(encoding="utf-8")
    assert log
    for secret in (token, "ひみつのことば", PASSWORD, SECRET):
        assert secret not in log
