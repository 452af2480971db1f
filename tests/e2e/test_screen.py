"""The annotator's screen in a real browser: writing by keyboard, keys, spare boxes, drafts that survive."""

from __future__ import annotations

from typing import Any

import pytest
from screen import Screen

from dialogue import Attribute, label_studio
from dialogue.label_studio import Card, blank_turns

pytestmark = pytest.mark.e2e
TEXTS = [
    "今日は冷えるね。",
    "うん、手がかじかむ。",
    "あったかいもの飲む？😀",
    "ココアがいいな。",
    "じゃあ買ってくる。",
    "待ってるね「早く」って。",
    "ｶﾌｪオレもあったよ。",
    "それも半分こしよ？",
    "欲張り。",
    "えへへ。",
]


def add_card(studio: Any, project: int, **changes: Any) -> int:
    """Make one card with ten blank boxes; returns the task's id."""
    values = {
        "text": "親密さ4（パートナー）・機嫌4（とても良い）・食べ物・飲み物・10ターン",
        "context": "冬の公園のベンチ。",
        "attribute": Attribute(4, 4),
        "genre": ("食べ物・飲み物",),
        "turns": blank_turns(10),
        **changes,
    }
    studio.client.projects.import_tasks(id=project, request=[{"data": label_studio.to_task(Card(**values))}])
    return max(int(task.id) for task in studio.client.tasks.list(project=project, fields="task_only"))


def scaffold(studio: Any, task: int, version: str = label_studio.SCAFFOLD_VERSION) -> None:
    """Store the row that the backend answers with while it drafts nothing."""
    card = label_studio.from_task(studio.client.tasks.get(id=str(task)).data)
    row = label_studio.scaffold(card, version)
    studio.client.predictions.create(task=task, result=row["result"], model_version=row["model_version"])


def annotations(studio: Any, task: int) -> list[dict[str, Any]]:
    return [dict(a) for a in studio.client.tasks.get(id=str(task)).annotations]


def as_dialogue(studio: Any, task: int) -> Any:
    found = studio.client.tasks.get(id=str(task))
    return label_studio.from_annotation({"id": task, "data": found.data}, annotations(studio, task)[-1])


@pytest.fixture(scope="module")
def project(studio: Any) -> int:
    return int(studio.new_project("screen"))


@pytest.fixture
def screen(browser: Any, studio: Any):
    opened = Screen(browser, studio)
    yield opened
    opened.close()


def test_ten_turns_by_keyboard_cost_one_key_a_turn(screen: Screen, studio: Any, project: int) -> None:
    task = add_card(studio, project)
    scaffold(studio, task)
    screen.open(project, task)
    assert screen.focused() == "context"
    assert screen.visible_boxes() == 10
    assert all(screen.box(i).bounding_box()["y"] < 1300 for i in range(10)), "ten turns fit one 1400x1300 screen"
    keyboard = screen.page.keyboard
    keyboard.press("Tab")
    for number, text in enumerate(TEXTS):
        assert screen.focused() == f"turn_{number}"
        keyboard.type(text)
        keyboard.press("Tab")  # the one key
    keyboard.press("4")  # closeness 3
    keyboard.press("8")  # mood 2
    assert {"3 仲のいい友人", "2 良くも悪くもない"} < set(screen.chosen())
    screen.submit()
    dialogue = as_dialogue(studio, task)
    assert [turn.text for turn in dialogue.conversation] == TEXTS
    assert dialogue.attribute == Attribute(3, 2)
    assert dialogue.context == "冬の公園のベンチ。"
    assert dialogue.genre == ("食べ物・飲み物",)


def test_more_and_fewer_turns_than_planned(screen: Screen, studio: Any, project: int) -> None:
    task = add_card(studio, project, turns=blank_turns(4, ["ねえ。"]))
    scaffold(studio, task)
    screen.open(project, task)
    assert screen.visible_boxes() == 4
    screen.page.locator("summary").click()
    screen.page.wait_for_timeout(600)
    assert screen.visible_boxes() == 30
    for number in range(1, 7):
        screen.box(number).fill(f"{number}番目。")
    screen.box(7).focus()
    screen.caret_out()
    screen.submit()
    assert len(as_dialogue(studio, task).conversation) == 7
    task = add_card(studio, project)
    scaffold(studio, task)
    screen.open(project, task)
    screen.box(0).fill("短い？")
    screen.box(1).fill("短い。")
    screen.caret_out()
    screen.submit()
    assert len(as_dialogue(studio, task).conversation) == 2


def test_what_was_typed_survives_reload_and_restart(screen: Screen, studio: Any, browser: Any, project: int) -> None:
    task = add_card(studio, project)
    scaffold(studio, task)
    screen.open(project, task)
    with screen.saved_draft():
        for number in range(3):
            screen.box(number).click()
            screen.page.keyboard.type(TEXTS[number])
        screen.page.keyboard.press("Tab")
    screen.page.reload()
    screen.wait()
    assert [screen.box(i).input_value() for i in range(4)] == [*TEXTS[:3], ""]
    screen.close()
    studio.restart()
    again = Screen(browser, studio)
    again.open(project, task)
    assert [again.box(i).input_value() for i in range(4)] == [*TEXTS[:3], ""]
    again.close()


def test_update_changes_exactly_the_edited_turn(screen: Screen, studio: Any, project: int) -> None:
    task = add_card(studio, project, turns=blank_turns(4))
    scaffold(studio, task)
    screen.open(project, task)
    for number in range(4):
        screen.box(number).fill(TEXTS[number])
    screen.caret_out()
    screen.submit()
    before = annotations(studio, task)[0]
    screen.open(project, task)
    screen.box(2).fill("書き直した。\n二行目。")
    screen.caret_out()
    screen.submit()
    after = annotations(studio, task)
    assert len(after) == 1
    names = [item["from_name"] for item in after[0]["result"]]
    assert len(names) == len(set(names))
    changed = {
        new["from_name"]
        for old, new in zip(before["result"], after[0]["result"], strict=True)
        if old["value"] != new["value"]
    }
    assert changed == {"turn_2"}
    assert as_dialogue(studio, task).conversation[2].text == "書き直した。\n二行目。"


def test_aku_begins_when_the_first_box_stays_blank(screen: Screen, studio: Any, project: int) -> None:
    task = add_card(studio, project)
    scaffold(studio, task)
    screen.open(project, task)
    screen.box(1).fill("おはよ！")
    screen.box(2).fill("おはよう。")
    screen.caret_out()
    screen.submit()
    dialogue = as_dialogue(studio, task)
    assert [turn.speaker for turn in dialogue.conversation] == ["Aku", "User"]


def test_a_reviewer_decides_with_reasons(screen: Screen, studio: Any, project: int) -> None:
    task = add_card(studio, project, turns=blank_turns(4))
    scaffold(studio, task)
    screen.open(project, task)
    screen.box(0).fill("ねえ。")
    screen.box(1).fill("なに。")
    screen.choose("不採用")
    screen.choose("不自然")
    screen.choose("属性と違う")
    screen.caret_out()
    screen.submit()
    written = label_studio.read_result(annotations(studio, task)[0]["result"])
    assert written.decision == "不採用"
    assert set(written.reasons) == {"不自然", "属性と違う"}
