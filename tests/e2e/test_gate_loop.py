"""The gate in a real studio: shut with reasons, reviewed, opened by force, drafts corrected, shut by bad drafts."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from screen import Screen
from test_screen import add_card

from aku import demo, provision, servers
from aku.connection import connect
from analysis import gate
from dialogue import BackendError, Registry, Workspace, files, iter_dialogues, label_studio
from dialogue.blind import is_blind
from dialogue.label_studio import blank_turns
from dialogue.review_project import RATINGS

pytestmark = pytest.mark.e2e
CARDS = 16
BLIND = 0.25
SETTINGS = f"""
[gate]
scenes = 4
replies = 1
window = 40
least_turns = 20
least_arm = 2
review_replies = 24
review_human = 6
[train]
epochs = 2
[backend]
blind_share = {BLIND}
"""


@dataclasses.dataclass
class Place:
    """A workspace with its own project and backend in the run's Label Studio."""

    studio: Any
    workspace: Workspace
    project: int

    def aku(self, *arguments: str) -> str:
        return str(self.studio.aku("--home", str(self.workspace.home), *arguments).stdout)

    @property
    def record(self) -> dict[str, Any]:
        current = Registry(self.workspace.checkpoints).current()
        assert current is not None
        return current.gate

    def records(self) -> dict[int | None, Any]:
        folder = self.workspace.datasets / files.read_json(self.workspace.datasets / "latest.json")["id"]
        splits = [folder / f"{split}.jsonl" for split in ("train", "validation", "test")]
        return {d.source.task: d for path in splits for d in iter_dialogues(path)}

    def predictions(self, task: int) -> list[dict[str, Any]]:
        return [dict(p) for p in self.studio.client.tasks.get(id=str(task)).predictions]

    def post(self, path: str, body: Any) -> Any:
        with provision.api(self.workspace, self.studio.url) as http:
            response = http.post(path, json=body)
            assert response.status_code < 400, response.text
            return response.json()


@pytest.fixture(scope="module")
def place(studio: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """By hand: the starter dialogues; then the first checkpoint, and a backend that serves it."""
    home = tmp_path_factory.mktemp("gate")
    (home / "aku.toml").write_text(SETTINGS, encoding="utf-8")
    workspace, project = studio.new_workspace(home, "gate")
    found = Place(studio, workspace, project)
    demo.import_starter(connect(workspace))
    found.aku("train", "--base", str(demo.make_base(studio.workspace)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    backend = servers.start_backend(workspace, port)
    try:
        backend.wait(BackendError, 120)
        provision.provision_backend(workspace, studio.url, project, f"http://127.0.0.1:{port}")
        yield found
    finally:
        backend.stop()


def rate_by_keyboard(screen: Screen, place: Place, project: int) -> None:
    """Rate the first reply of a review project the way a person does: one key, then submit."""
    screen.page.goto(f"{place.studio.url}/projects/{project}/data?labeling=1")
    box = screen.page.locator(".aku-review textarea").first
    box.wait_for(state="visible")
    assert box.input_value(), "the reply stands in its box"
    assert screen.page.locator(".aku-review .aku-said, .aku-review .aku-scene").count() > 0
    screen.page.locator(".aku-review").get_by_text(RATINGS[1], exact=False).first.click()
    screen.submit()


def rate_the_rest(place: Place, project: int, folder: Path) -> None:
    """Everybody else finds the replies as good as a person's, and corrects one."""
    rows = {row["item"]: row for _, row in files.read_jsonl(folder / "items.jsonl")}
    open_tasks = [t for t in place.studio.client.tasks.list(project=project, fields="all") if not t.total_annotations]
    for number, task in enumerate(open_tasks):
        reply = rows[task.data["item"]]["reply"]
        text = "まったく別の返事をここに書きました。" if number == 0 else reply
        box = {"from_name": "reply", "to_name": "scene", "type": "textarea", "value": {"text": [text]}}
        choice = {"from_name": "rating", "to_name": "scene", "type": "choices", "value": {"choices": [RATINGS[0]]}}
        place.post(f"/api/tasks/{task.id}/annotations/", {"result": [box, choice], "lead_time": 4.0})


def correct(place: Place, task: int, draft: dict[str, Any], text: str | None) -> None:
    """Submit a draft, every Aku turn replaced by `text` unless that is None."""
    result = [dict(item) for item in draft["result"]]
    for item in result:
        number = item["from_name"].removeprefix("turn_")
        if text and number.isdigit() and int(number) % 2 and item["value"]["text"][0]:
            item["value"] = {"text": [f"{text}{number}"]}
    body = {"result": result, "lead_time": 60.0, "parent_prediction": draft["id"]}
    place.post(f"/api/tasks/{task}/annotations/", body)


def test_the_gate_from_first_sft_to_bad_drafts(place: Place, browser: Any) -> None:
    checkpoint = Registry(place.workspace.checkpoints).current()
    assert checkpoint is not None
    assert not checkpoint.may_draft
    said = ["もう起きてたんだ。", "朝ごはんどうする？", "じゃあ行ってくるね。"]
    turns = [t for pair in zip(said, ["", "", ""], strict=True) for t in pair]
    cards = [add_card(place.studio, place.project, turns=blank_turns(6, turns)) for _ in range(CARDS)]
    blind = [task for task in cards if is_blind(place.project, task, BLIND)]
    drafted = [task for task in cards if task not in blind]
    assert blind and len(drafted) * 3 >= 24

    # The checkpoint is measured and the gate stays shut, with reasons.
    place.aku("evaluate")
    shut = place.aku("gate")
    assert "shut" in shut
    assert "aku review start" in shut
    assert not place.record["open"]
    assert {c["key"]: c["outcome"] for c in place.record["checks"]}["kept"] == "MISSING"
    assert gate.verify(place.record, place.workspace.home) == []
    screen = Screen(browser, place.studio)
    screen.open(place.project, cards[0])
    assert [screen.box(i).input_value() for i in (0, 1, 2)] == [said[0], "", said[1]], "no draft, and the card works"
    assert screen.visible_boxes() == 6

    # People rate replies without knowing whose they are; the ratings are evidence.
    place.aku("review", "start")
    (folder,) = (place.workspace.home / "reviews").iterdir()
    facts = files.read_json(folder / "round.json")
    rate_by_keyboard(screen, place, facts["project"])
    rate_the_rest(place, facts["project"], folder)
    assert "30 of 30 replies rated" in place.aku("review", "status")
    assert "agreement" in place.aku("review", "close")
    place.aku("gate")
    kept = {c["key"]: c for c in place.record["checks"]}["kept"]
    assert (kept["outcome"], kept["n"]) == ("PASS", 24)
    assert kept["value"] >= 22 / 24
    assert not place.record["open"], "good ratings alone do not open the gate of a model that does not steer"
    assert gate.verify(place.record, place.workspace.home) == []

    # By force: visible everywhere, and drafts come into the waiting cards, but not into blind ones.
    place.aku("gate", "--force", "open", "--reason", "試しに下書きを見る")
    assert place.record["forced"]["reason"] == "試しに下書きを見る"
    assert "force" in json.dumps(json.loads(place.aku("status", "--json"))["gate"])
    place.aku("draft")  # cards that were listed while the gate was shut hold an empty prediction
    screen.open(place.project, drafted[0])
    drafts = [screen.box(i).input_value() for i in range(6)]
    assert drafts[::2] == said
    assert all(drafts[1::2]), "Aku's turns are drafted"
    screen.open(place.project, blind[0])
    assert not any(screen.box(i).input_value() for i in (1, 3, 5)), "a blind card has no draft"
    screen.close()
    for task in drafted:
        (draft,) = [p for p in place.predictions(task) if p["model_version"] == checkpoint.id]
        correct(place, task, draft, "ぜんぜん違うので、最初から書き直しておいたよ。")
    for task in blind:
        assert not [
            p
            for p in place.predictions(task)
            if any(label_studio.read_result(p["result"]).texts.get(n) for n in (1, 3, 5))
        ]

    # Corrections become edit distances and preference pairs; the bad window shuts the gate again.
    place.aku("export", "--format", "preferences")
    records = place.records()
    assert all(records[task].source.checkpoint == checkpoint.id for task in drafted)
    assert all(edit > 0.5 for task in drafted for edit in records[task].source.edits if edit is not None)
    pairs = list((place.workspace.datasets / "formats").rglob("preferences/*.jsonl"))
    assert sum(1 for path in pairs for _ in files.read_jsonl(path)) >= len(drafted)
    ended = place.aku("gate")
    assert "a forced opening (試しに下書きを見る) was ended by the last" in ended
    assert not place.record["open"]
    assert gate.verify(place.record, place.workspace.home) == []

    # The next card is a plain one again, and can be written and submitted.
    task = add_card(place.studio, place.project, turns=blank_turns(2))
    screen = Screen(browser, place.studio)
    screen.open(place.project, task)
    assert screen.box(1).input_value() == ""
    screen.auto_annotation()
    screen.box(0).click()
    with screen.page.expect_response(lambda r: "interactive-annotating" in r.url) as asked:
        screen.page.keyboard.type("今日は雨だって。")
        screen.page.keyboard.press("Tab")
    assert asked.value.ok
    screen.page.wait_for_timeout(1500)
    assert screen.box(0).input_value() == "今日は雨だって。"
    assert screen.box(1).input_value() == "", "nobody drafts while the gate is shut"
    assert not screen.page.locator(".ant-modal, .lsf-errors, [class*=toast_error]").count()
    screen.box(1).fill("傘、持っていくね。")
    screen.caret_out()
    screen.submit()
    screen.close()
    assert len(place.studio.client.tasks.get(id=str(task)).annotations) == 1
