"""The whole loop on real input: demo, a dialogue typed turn by turn with live drafts, export, second run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from screen import Screen
from test_screen import add_card, annotations, scaffold

from dialogue import Attribute, Registry, files, iter_dialogues, label_studio
from dialogue.label_studio import blank_turns

pytestmark = pytest.mark.e2e


def records(studio: Any) -> dict[str, Any]:
    """The dialogues of the newest data set version, by id."""
    folder = studio.workspace.datasets / json.loads((studio.workspace.datasets / "latest.json").read_text())["id"]
    splits = [folder / f"{split}.jsonl" for split in ("train", "validation", "test")]
    return {d.id: d for path in splits for d in iter_dialogues(path)}


def open_card(browser: Any, studio: Any, turns: Any) -> tuple[int, str, Screen]:
    """Open a new card that waits to be written, with Auto-Annotation on; returns task, checkpoint and screen."""
    task = add_card(studio, studio.project, turns=turns)
    current = Registry(studio.workspace.checkpoints).current()
    assert current is not None
    scaffold(studio, task, current.id)
    screen = Screen(browser, studio)
    screen.open(studio.project, task)
    screen.auto_annotation()
    return task, current.id, screen


def live_draft(screen: Screen, user_box: int, text: str) -> str:
    """Commit a User turn and wait for Aku's draft in the next box; returns the draft."""
    screen.box(user_box).click()
    screen.page.keyboard.type(text)
    screen.page.keyboard.press("Tab")
    return wait_for_text(screen, user_box + 1)


def wait_for_text(screen: Screen, number: int) -> str:
    for _ in range(240):
        screen.page.wait_for_timeout(250)
        if text := screen.box(number).input_value():
            return text
    pytest.fail(f"no draft appeared in box {number}")


def wait_for_count(numbers: Path, least: int) -> int:
    """Wait until `aku watch` has counted so many dialogues; returns how many."""
    for _ in range(240):
        if numbers.is_file() and (count := int(files.read_json(numbers)["n"])) >= least:
            return count
        time.sleep(0.25)
    pytest.fail(f"{numbers} never counted {least} dialogues")


def test_demo_ends_in_the_whole_loop(demo: Any, starter: list[Any]) -> None:
    exported = records(demo)
    assert {d.id: d.conversation for d in starter} == {i: d.conversation for i, d in exported.items()}
    registry = Registry(demo.workspace.checkpoints)
    current = registry.current()
    assert current is not None
    assert current.may_draft
    assert current.gate["forced"]
    assert registry.get(current.id).is_demo
    tasks = list(demo.client.tasks.list(project=demo.project, fields="all"))
    waiting = [task for task in tasks if not task.total_annotations]
    assert len(waiting) >= 10
    for task in waiting:
        drafts = [p for p in task.predictions if dict(p)["model_version"] == current.id]
        assert len(drafts) == 1
        written = label_studio.read_result(dict(drafts[0])["result"])
        assert any(text for number, text in written.texts.items() if number % 2), "Aku's turns are drafted"
    report = json.loads((demo.workspace.reports / "latest.json").read_text())
    assert (demo.workspace.home / report["path"]).is_file()


def test_a_dialogue_with_live_drafts_is_exported_as_typed(browser: Any, demo: Any) -> None:
    task, checkpoint, screen = open_card(browser, demo, blank_turns(6))
    first = live_draft(screen, 0, "ただいま。お腹すいた。")
    screen.page.wait_for_timeout(600)
    assert screen.focused() == "turn_2", "the caret goes on to the next User turn"
    live_draft(screen, 2, "今日の晩ごはんは？")
    screen.page.wait_for_timeout(1500)
    # Another draft for the second reply: read it, empty its box and leave it.
    before = screen.box(3).input_value()
    screen.box(3).click()
    screen.page.keyboard.press("Control+a")
    screen.page.keyboard.press("Delete")
    screen.page.keyboard.press("Tab")
    assert wait_for_text(screen, 3) != before
    # Correct it, then edit an earlier turn: the correction stays.
    screen.page.wait_for_timeout(600)
    screen.box(3).fill("肉じゃが！味見する？")
    with screen.saved_draft():
        screen.box(0).click()
        screen.page.keyboard.press("End")
        screen.page.keyboard.type("ほんとに。")
        screen.page.keyboard.press("Tab")
    screen.page.wait_for_timeout(1500)
    assert screen.box(3).input_value() == "肉じゃが！味見する？"
    assert screen.box(1).input_value() == first
    screen.page.reload()
    screen.wait()
    kept = [screen.box(i).input_value() for i in range(5)]
    assert kept == ["ただいま。お腹すいた。ほんとに。", first, "今日の晩ごはんは？", "肉じゃが！味見する？", ""]
    screen.caret_out()
    screen.page.keyboard.press("4")
    screen.page.keyboard.press("9")
    assert {"3 仲のいい友人", "3 わりと良い"} < set(screen.chosen())
    numbers = demo.workspace.reports / "quick.json"
    numbers.unlink(missing_ok=True)
    with demo.running("watch", "--interval", "3600"):  # so only Label Studio's webhook can tell it of the dialogue
        before = wait_for_count(numbers, 1)
        screen.submit()
        wait_for_count(numbers, before + 1)
    screen.close()
    demo.aku("export")
    record = records(demo)[f"ls-{demo.project}-{task}"]
    assert [turn.text for turn in record.conversation] == kept[:4]
    assert record.attribute == Attribute(3, 3)
    assert record.source.kind == "drafted"
    assert record.source.checkpoint == checkpoint
    assert record.source.edits[1] == 0
    assert (record.source.edits[3] or 0) > 0.3
    assert len(annotations(demo, task)) == 1


def test_a_card_that_is_opened_gets_one_live_reply(browser: Any, demo: Any) -> None:
    """With Auto-Annotation on, Label Studio asks some hundred times at once when a card with boxes to fill is drawn."""
    task, _, screen = open_card(browser, demo, blank_turns(10, ["今日は何してた？"]))
    calls: list[str] = []
    screen.page.on("response", lambda response: "interactive" in response.url and calls.append(response.url))
    screen.page.reload()
    screen.wait()
    reply = wait_for_text(screen, 1)
    while True:  # until no call is left
        before = len(calls)
        screen.page.wait_for_timeout(1500)
        if len(calls) == before:
            break
    assert len(calls) > 10
    assert screen.box(1).input_value() == reply
    assert [screen.box(number).input_value() for number in (0, 2)] == ["今日は何してた？", ""]
    journal = [fact for _, fact in files.read_jsonl(demo.workspace.state / "drafts.jsonl") if fact["task"] == task]
    assert [fact["text"] for fact in journal] == [reply]
    screen.close()


def test_a_second_demo_duplicates_nothing(demo: Any) -> None:
    before = [task.id for task in demo.client.tasks.list(project=demo.project, fields="task_only")]
    checkpoints = [c.id for c in Registry(demo.workspace.checkpoints)]
    assert demo.stop() in (0, 130)
    demo.aku("demo", "--exit")
    demo.start()
    after = list(demo.client.tasks.list(project=demo.project, fields="task_only"))
    kept, added = after[: len(before)], after[len(before) :]
    assert [task.id for task in kept] == before
    # Cards that other tests finished are planned anew; nothing else is.
    waiting = sum(1 for task in after if not task.is_labeled)
    assert not added or waiting == 12
    assert len({json.dumps(task.data, sort_keys=True) for task in after}) == len(after)
    assert [c.id for c in Registry(demo.workspace.checkpoints)] == checkpoints


def test_status_says_stage_people_and_gate(demo: Any) -> None:
    facts = json.loads(demo.aku("status", "--json").stdout)
    assert facts["finished"] >= 100
    assert facts["gate"]["open"]
    assert facts["people"]["starter"] == 100
    assert facts["stage"].startswith("drafting")


def test_mistakes_are_one_sentence(studio: Any, tmp_path: Any) -> None:
    wrong = studio.aku("train", "--base", str(tmp_path / "nothing"), "--data", "latest", check=False)
    assert wrong.returncode == 2
    assert len(wrong.stderr.strip().splitlines()) == 1
    elsewhere = studio.aku("--home", str(tmp_path / "empty"), "export", check=False)
    assert elsewhere.returncode == 2
    assert "aku up" in elsewhere.stderr
    workspace, _ = studio.new_workspace(tmp_path / "other", "other")
    workspace.write_secrets({**studio.secrets, "LABEL_STUDIO_USER_TOKEN": "0" * 40})
    refused = studio.aku("--home", str(workspace.home), "export", check=False)
    assert refused.returncode == 2
    assert "refuses the token" in refused.stderr
    taken = studio.aku("up", check=False)
    assert taken.returncode == 2
    assert "already runs" in taken.stderr
