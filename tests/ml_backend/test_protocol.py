"""Label Studio's requests and rows, without a model."""

from __future__ import annotations

import math
from typing import Any

import pytest
from cards import OPENER, card, screen, task, texts

from dialogue import Attribute, Turn, load_taxonomy
from dialogue.label_studio import MAX_TURNS, blank_turns, to_result
from ml_backend import protocol
from ml_backend.requests import Draft

TAXONOMY = load_taxonomy()


def read(value: dict[str, Any], project: str = "1") -> protocol.Task:
    found = protocol.read_task(value, project)
    assert found is not None
    return found


def chat(*boxes: str, stored: dict[str, Any] | None = None, **options: Any) -> protocol.Chat:
    value = task(1, OPENER)
    return protocol.read_chat(read(value), stored or value, screen(*boxes, **options)["result"])


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        {},
        {"id": 1},
        {"id": 1, "data": None},
        {"id": 1, "data": {"text": "x"}},
        {"id": 1, "data": {"turns": []}},
        {"id": 1, "data": {"turns": [{"speaker": "User"}], "closeness": 9, "mood": 0}},
        {"id": 1, "data": {"turns": [{"speaker": "User"}, {"speaker": "User"}], "closeness": 1, "mood": 0}},
    ],
)
def test_foreign_tasks_are_not_read(value: Any) -> None:
    assert protocol.read_task(value, "1") is None


def test_tasks_of_two_projects_differ() -> None:
    assert read(task(5), "1").key != read(task(5), "2").key


def test_scaffold_has_every_box_and_the_plan() -> None:
    row = protocol.scaffold_row(read(task(1, OPENER)), "scaffold", TAXONOMY)
    assert row["model_version"] == "scaffold"
    names = [item["from_name"] for item in row["result"]]
    assert [n for n in names if n.startswith("turn_")] == [f"turn_{i}" for i in range(MAX_TURNS)]
    assert {"context", "closeness", "mood", "genre"} <= set(names)
    assert texts(row) == [OPENER]


@pytest.mark.parametrize(
    ("boxes", "user_turns", "expected"),
    [
        ((OPENER,), False, True),
        ((), False, False),
        ((), True, True),
        (("a", "b"), False, False),
        (("a", "b"), True, True),
    ],
)
def test_what_the_model_may_write(boxes: tuple[str, ...], user_turns: bool, expected: bool) -> None:
    wanted = protocol.draft_request(read(task(1, *boxes)), user_turns=user_turns)
    assert protocol.is_draftable(wanted) is expected


def test_full_card_needs_no_draft() -> None:
    full = protocol.draft_request(read(task(1, "a", "b", planned=2)), user_turns=True)
    assert not protocol.is_draftable(full)


def test_blind_arm_is_stable_and_of_the_right_size() -> None:
    tasks = [read(task(number)) for number in range(2000)]
    share = [protocol.is_blind(one, 0.1) for one in tasks]
    assert share == [protocol.is_blind(one, 0.1) for one in tasks]
    assert 0.07 < sum(share) / len(share) < 0.13
    assert not any(protocol.is_blind(one, 0.0) for one in tasks)
    assert all(protocol.is_blind(one, 1.0) for one in tasks)
    assert all(protocol.is_blind(one, 0.3) for one in tasks if protocol.is_blind(one, 0.1))


@pytest.mark.parametrize(
    ("boxes", "turn"),
    [
        ((), None),
        ((OPENER,), 1),
        ((OPENER, "うん。"), None),
        ((OPENER, "うん。", "ねえ"), 3),
        ((OPENER, "", "人が書いた", "これも"), 1),
        ((OPENER, "うん。", "", "先に書いた"), None),
        (("", "Akuから", "ねえ"), 3),
        ((OPENER, "うん。", "ねえ", "うん。", "ねえ", "うん。", "まだ？"), 7),
        (("",), None),
    ],
)
def test_live_chat_wants_the_next_reply(boxes: tuple[str, ...], turn: int | None) -> None:
    value = task(1)
    found = protocol.read_chat(read(value), value, screen(*boxes)["result"])
    assert found.turn == turn


def test_live_chat_stops_at_the_last_box() -> None:
    boxes = ["あ"] * (MAX_TURNS - 1)
    assert chat(*boxes).turn == MAX_TURNS - 1
    assert chat(*boxes, "い").turn is None


def test_the_prompt_of_a_reply_ends_before_it() -> None:
    found = chat(OPENER, "", "人が書いた", "これも")
    wanted = protocol.chat_request(read(task(1)), found, 2)
    assert [turn.text for turn in wanted.turns] == [OPENER, ""]
    assert (wanted.limit, wanted.attempt) == (1, 2)


def test_only_the_reply_is_answered() -> None:
    found = chat(OPENER, "", "人が書いた", "これも")
    draft = Draft("1", (Turn("User", OPENER), Turn("Aku", "うん。")), (1,), -0.25, 3)
    row = protocol.chat_row(found, draft, "v")
    assert [item["from_name"] for item in row["result"]] == ["turn_1"]
    assert row["result"][0]["value"]["text"] == ["うん。"]
    assert (row["score"], row["model_version"]) == (round(math.exp(-0.25), 6), "v")
    assert protocol.chat_row(found, None, "v") == protocol.silence()


def choices(closeness: int, mood: int) -> list[dict[str, Any]]:
    result = to_result(blank_turns(2), context="", attribute=Attribute(closeness, mood), genre=())
    return [item for item in result if "choices" in item["value"]]


def test_attributes_come_from_the_draft_then_the_prediction_then_the_card() -> None:
    value = task(1, OPENER, mood=3)
    assert chat(OPENER, stored=value).attribute == Attribute(2, 3)
    value["predictions"] = [{"result": choices(1, 1), "created_at": "2026-01-01"}]
    assert chat(OPENER, stored=value).attribute == Attribute(1, 1)
    value["predictions"].append({"result": choices(0, 1), "created_at": "2026-01-02"})
    assert chat(OPENER, stored=value).attribute == Attribute(0, 1)
    value["drafts"] = [{"result": choices(4, 0)[:1], "updated_at": "2026-01-03"}]
    assert chat(OPENER, stored=value).attribute == Attribute(4, 1)


def test_the_screen_overrules_the_card() -> None:
    found = chat("ちがう話", context="海のそば。")
    assert found.context == "海のそば。"
    assert found.turns[0].text == "ちがう話"


def test_project_number_is_read_from_label_studios_name() -> None:
    from ml_backend.model import project_id

    assert project_id("4.1795352884") == "4.1795352884"
    assert project_id(4) == "4"
    assert project_id(None) == project_id({"id": 4}) == ""


def test_card_speakers_may_begin_with_aku() -> None:
    value = {"id": 1, "data": {"turns": [{"speaker": "Aku"}, {"speaker": "User"}], "closeness": 1, "mood": 0}}
    assert not protocol.is_draftable(protocol.draft_request(read(value), user_turns=True))
    assert card(planned=2).turns[0].speaker == "User"
