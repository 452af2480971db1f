"""Dialogue ⇄ Label Studio: what goes in comes out, and Label Studio's own validator agrees."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from dialogue import Attribute, Dialogue, RecordError, Turn, label_studio, load_taxonomy
from dialogue.label_studio import MAX_TURNS, Card, blank_turns

CARD = Card("カード", "夜の公園", Attribute(4, 0), ("仕事",), blank_turns(6, ["ただいま。"]))


@pytest.fixture(scope="module")
def config() -> str:
    return label_studio.labeling_config(load_taxonomy())


def as_task(dialogue: Dialogue, number: int = 1) -> dict[str, object]:
    return {"id": number, "project": 3, "data": label_studio.to_task(label_studio.card_from_dialogue(dialogue))}


def test_every_starter_dialogue_survives(starter) -> None:
    for dialogue in starter:
        annotation = {"id": 5, **label_studio.to_annotation(dialogue)}
        again = label_studio.from_annotation(as_task(dialogue), annotation, dialogue.source)
        assert again == dialogue


def test_configuration_has_all_boxes_and_topics(config: str) -> None:
    root = ET.fromstring(config)
    names = [area.get("name") for area in root.iter("TextArea")]
    assert names == ["context", *[f"turn_{i}" for i in range(MAX_TURNS)]]
    genre = next(c for c in root.iter("Choices") if c.get("name") == "genre")
    assert tuple(choice.get("value") for choice in genre) == load_taxonomy().names
    assert "Repeater" not in config
    keys = [choice.get("hotkey") for choice in root.iter("Choice") if choice.get("hotkey")]
    assert len(keys) == len(set(keys)) == 10


def test_decisions_on_the_screen_are_those_in_the_code(config: str) -> None:
    root = ET.fromstring(config)
    shown = {c.get("name"): tuple(x.get("value") for x in c) for c in root.iter("Choices")}
    assert shown["decision"] == label_studio.DECISIONS
    assert shown["reasons"] == label_studio.REASONS


def test_predictions_pass_label_studios_own_validator(config: str) -> None:
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface(config)
    row = label_studio.scaffold(CARD, taxonomy=load_taxonomy())
    assert interface.validate_prediction(row, return_errors=True) == []
    row["result"].append({"from_name": "turn_99", "to_name": "card", "type": "textarea", "value": {"text": [""]}})
    assert interface.validate_prediction(row, return_errors=True)


def test_scaffold_makes_every_box_editable_and_keeps_known_text() -> None:
    written = label_studio.read_result(label_studio.scaffold(CARD)["result"])
    assert len(written.texts) == MAX_TURNS
    assert written.texts[0] == "ただいま。"
    assert set(list(written.texts.values())[1:]) == {""}
    assert (written.closeness, written.mood, written.genre) == (4, 0, ("仕事",))


def test_unknown_genres_stay_out_of_predictions() -> None:
    card = Card("", "場面", Attribute(1, 1), ("存在しない", "音楽"), blank_turns(4))
    row = label_studio.scaffold(card, taxonomy=load_taxonomy())
    assert label_studio.read_result(row["result"]).genre == ("音楽",)


def test_blank_first_box_means_that_aku_begins() -> None:
    result = label_studio.to_result(
        [Turn("User", ""), Turn("Aku", "おはよう。"), Turn("User", "おはよう。"), Turn("Aku", "")],
        context="朝",
        attribute=Attribute(2, 3),
        genre=(),
        fill=True,
    )
    task = {"id": 1, "data": label_studio.to_task(CARD)}
    dialogue = label_studio.from_annotation(task, {"id": 2, "result": result})
    assert [(t.speaker, t.text) for t in dialogue.conversation] == [("Aku", "おはよう。"), ("User", "おはよう。")]
    assert dialogue.attribute == Attribute(2, 3)


def test_choices_not_made_come_from_the_card() -> None:
    result = [label_studio._textarea(f"turn_{i}", text) for i, text in enumerate(["ただいま。", "おかえり。"])]
    dialogue = label_studio.from_annotation({"id": 1, "data": label_studio.to_task(CARD)}, {"id": 2, "result": result})
    assert dialogue.attribute == CARD.attribute
    assert dialogue.genre == CARD.genre
    assert dialogue.context == CARD.context


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, 'no "turns"'),
        ({"turns": []}, 'no "turns"'),
        ({"turns": [{"speaker": "User"}, {"speaker": "User"}], "closeness": 1, "mood": 1}, "alternate"),
        ({"turns": [{"speaker": "User"}], "closeness": "1", "mood": 1}, "0 to 4"),
    ],
)
def test_malformed_tasks(data: dict[str, object], words: str) -> None:
    with pytest.raises(RecordError, match=words):
        label_studio.from_task(data, "task 7")


def test_the_gap_message_names_task_and_annotation() -> None:
    result = [label_studio._textarea(f"turn_{i}", text) for i, text in enumerate(["a", "", "b"])]
    with pytest.raises(RecordError, match=r"task 1, annotation 2.*turn 2 is empty"):
        label_studio.from_annotation({"id": 1, "data": label_studio.to_task(CARD)}, {"id": 2, "result": result})


def test_card_text_can_not_break_out_of_the_plan_html() -> None:
    card = Card("<script>alert(1)</script>", "x", Attribute(0, 0), (), blank_turns(4))
    assert "script" not in label_studio.to_task(card)["plan"]
