"""The server over time: gates, swaps, deadlines, crashes, restarts.  A real process, real requests."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from backends import SECRET, Backend
from cards import OPENER, children, eventually, journal, screen, task, texts

from dialogue import files
from dialogue.checkpoints import Checkpoint
from dialogue.label_studio import SCAFFOLD_VERSION
from ml_backend.service import SAME_QUESTION

Make = Callable[..., Backend]


def test_gate_opens_and_shuts_without_a_restart(
    changeable: Backend, checkpoint: Checkpoint, second: Checkpoint
) -> None:
    backend = changeable
    for chosen, gate in ((checkpoint, False), (checkpoint, True), (second, True), (second, False), (checkpoint, True)):
        backend.use(chosen, gate=gate)
        expected = chosen.id if gate else SCAFFOLD_VERSION
        (row,) = backend.predict([task(1, OPENER)])
        assert row["model_version"] == expected == backend.setup() == backend.get("/versions").json()["versions"][0]
        assert len(texts(row)) == (2 if gate else 1)
    backend.use(checkpoint, gate=False)
    assert backend.predict([task(1, OPENER)], context=screen(OPENER))[0] == []


def test_backend_without_a_checkpoint_serves_scaffolds(backends: Make) -> None:
    backend = backends()
    backend.start()
    assert backend.setup() == SCAFFOLD_VERSION == backend.predict([task(1, OPENER)])[0]["model_version"]
    assert backend.predict([task(1, OPENER)], context=screen(OPENER))[0] == []
    backend.stop()


def test_broken_checkpoint_is_refused_and_the_old_one_goes_on(
    changeable: Backend, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    backend = changeable
    folder = tmp_path / "broken"
    shutil.copytree(checkpoint.path, folder)
    (folder / "model.safetensors").write_bytes(b"x")
    broken = backend.registry.add(folder, dict(checkpoint.card))
    backend.registry.use(broken.id, {"open": True})
    assert backend.predict([task(1, OPENER)])[0]["model_version"] == checkpoint.id == backend.setup()
    status = backend.get("/status").json()
    assert broken.id in status["engine"]["refused"]
    assert any(broken.id in error["error"] for error in status["errors"])
    backend.stop()
    backend.start()  # the last good one, since the chosen one can not be loaded
    assert backend.predict([task(2, OPENER)])[0]["model_version"] == checkpoint.id == backend.setup()


def test_current_json_that_names_no_checkpoint_changes_nothing(changeable: Backend, checkpoint: Checkpoint) -> None:
    for content in ("{", "[]", '{"id": "../../../etc"}', '{"id": 7, "gate": {"open": true}}'):
        with files.atomic_open(changeable.workspace.checkpoints / "current.json") as handle:
            handle.write(content)
        assert changeable.setup() == checkpoint.id == changeable.predict([task(1, OPENER)])[0]["model_version"]


def test_calls_in_flight_end_on_the_old_checkpoint(backends: Make, checkpoint: Checkpoint, second: Checkpoint) -> None:
    backend = backends(max_new_tokens=200, batch_rows=4, top_k=1000, temperature=3.0, retries=0)
    backend.use(checkpoint)
    backend.add(second)
    backend.start()
    asked = [task(number, OPENER) for number in range(30)]
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(backend.predict, asked)
        eventually(lambda: backend.get("/status").json()["engine"]["running"] > 0)
        backend.use(second)
        eventually(lambda: backend.setup() == second.id)
        assert {row["model_version"] for row in call.result()} == {checkpoint.id}
    assert {row["model_version"] for row in backend.predict(asked)} == {second.id}
    backend.stop()


# -- time ----------------------------------------------------------------------------------------------


def test_late_drafts_are_empty_now_and_there_at_the_next_call(backends: Make, checkpoint: Checkpoint) -> None:
    backend = backends(deadline=0.01)
    backend.use(checkpoint)
    backend.start()
    asked = [task(number, OPENER) for number in range(20)]
    first = backend.predict(asked)
    assert len(first) == 20
    assert [] in first
    eventually(lambda: [] not in backend.predict(asked))
    rows = backend.predict(asked)
    assert all(len(texts(row)) == 2 for row in rows)
    assert backend.get("/status").json()["engine"]["drafts_total"] == 20
    backend.stop()


def test_people_who_open_one_task_make_one_draft(backends: Make, checkpoint: Checkpoint) -> None:
    backend = backends(workers=2)
    backend.use(checkpoint)
    backend.start()
    eventually(lambda: len(children(backend, "--home")) == 2)
    with ThreadPoolExecutor(6) as pool:
        rows = list(pool.map(lambda _: backend.predict([task(1, OPENER)])[0], range(12)))
    assert all(row == rows[0] for row in rows)
    assert backend.get("/status").json()["engine"]["drafts_total"] == 1
    backend.stop()


def test_control_plane_answers_while_drafts_are_made(backends: Make, checkpoint: Checkpoint) -> None:
    backend = backends(max_new_tokens=400, retries=0, temperature=3.0, top_k=1000, batch_rows=8)
    backend.use(checkpoint)
    backend.start()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(backend.predict, [task(number, OPENER) for number in range(60)])
        eventually(lambda: backend.get("/status").json()["engine"]["running"] > 0)
        assert backend.get("/health").ok
        assert backend.setup() == checkpoint.id
        assert backend.post("/webhook", {"action": "PROJECT_UPDATED"}).status_code == 201
        assert not call.done()
        (live,) = backend.predict([task(99, OPENER)], context=screen(OPENER))
        assert live["result"]
        assert not call.done(), "live chat does not queue behind the batch"
    backend.stop()


def test_engine_that_dies_comes_back(changeable: Backend, checkpoint: Checkpoint) -> None:
    backend = changeable
    (engine,) = children(backend, "ml_backend.engine")
    subprocess.run(["kill", "-9", str(engine)], check=True)
    assert backend.setup() == checkpoint.id
    assert backend.get("/health").ok
    (row,) = backend.predict([task(1, OPENER)])  # waits for the new engine
    assert len(texts(row)) == 2
    assert children(backend, "ml_backend.engine") != [engine]


def test_nothing_is_left_running_after_a_kill(changeable: Backend) -> None:
    backend = changeable
    left = children(backend, "ml_backend")
    assert len(left) == 2
    backend.stop(9)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))


def test_emptied_box_gets_another_reply(changeable: Backend, checkpoint: Checkpoint) -> None:
    backend = changeable
    replies = []
    for number in range(3):
        time.sleep(SAME_QUESTION + 0.2)  # a person reads the reply before they ask for another one
        if number == 2:  # what was given is remembered over a restart
            backend.stop()
            backend.start()
        (row,) = backend.predict([task(5, OPENER)], context=screen(OPENER, "", "人が書いた"))
        replies.append(row["result"][0]["value"]["text"][0])
        assert [item["from_name"] for item in row["result"]] == ["turn_1"]
    assert len(set(replies)) == 3
    assert [fact["text"] for fact in journal(backend, "drafts.jsonl")] == replies
    attempts = [fact["attempt"] for fact in journal(backend, "drafts.jsonl")]
    assert attempts == sorted(set(attempts))


def test_a_burst_of_the_same_question_gets_one_reply(changeable: Backend) -> None:
    """Label Studio asks a hundred times, six calls at a time, when a card is opened with Auto-Annotation on."""
    backend = changeable
    asked = {"tasks": [task(6, OPENER)], "context": screen(OPENER)}
    with ThreadPoolExecutor(6) as pool:
        rows = list(pool.map(lambda _: backend.predict(**asked)[0], range(60)))
    assert len({row["result"][0]["value"]["text"][0] for row in rows}) == 1
    assert {row["result"][0]["from_name"] for row in rows} == {"turn_1"}
    assert len(journal(backend, "drafts.jsonl")) == 1


def test_a_reply_is_not_repeated_under_another_checkpoints_name(
    changeable: Backend, checkpoint: Checkpoint, second: Checkpoint
) -> None:
    backend = changeable
    for chosen in (checkpoint, second):
        backend.use(chosen)
        (row,) = backend.predict([task(7, OPENER)], context=screen(OPENER))
        assert row["model_version"] == chosen.id
    assert [fact["checkpoint"] for fact in journal(backend, "drafts.jsonl")] == [checkpoint.id, second.id]


def test_events_are_journalled_once(backends: Make, checkpoint: Checkpoint) -> None:
    backend = backends(workers=2)
    backend.use(checkpoint, gate=False)
    backend.start()
    annotation = {"id": 7, "task": 3, "updated_at": "2026-01-01", "result": [{"value": {"text": ["秘密"]}}]}
    body = {"action": "ANNOTATION_CREATED", "annotation": annotation, "project": {"id": 1}}
    threads = [
        threading.Thread(target=backend.post, args=(f"/webhook/{SECRET}", body), kwargs={"auth": None})
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (fact,) = journal(backend, "webhooks.jsonl")
    assert (fact["action"], fact["id"], fact["task"], fact["project"]) == ("ANNOTATION_CREATED", 7, 3, 1)
    assert "秘密" not in json.dumps(fact, ensure_ascii=False)
    backend.stop()


def test_the_same_draft_again_and_after_a_restart(backends: Make, checkpoint: Checkpoint) -> None:
    backend = backends(temperature=1.0)
    backend.use(checkpoint)
    backend.start()
    asked = [task(number, OPENER, mood=number % 5) for number in range(8)]
    rows = backend.predict(asked)
    assert backend.predict(asked) == rows
    backend.stop()
    (backend.workspace.state / "backend.sqlite").unlink()  # not remembered: drafted anew
    backend.start()
    assert backend.predict(list(reversed(asked))) == list(reversed(rows))
    backend.stop()
