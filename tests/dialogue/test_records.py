"""Every rule of the canonical record has its own message, and JSONL keeps records as they are."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialogue import Dialogue, FileError, RecordError, read_dialogues, write_dialogues
from dialogue.records import MAX_TURN_LENGTH

GOOD = {
    "id": "d1",
    "context": "駅のホーム。",
    "conversation": [{"speaker": "User", "text": "寒いね。"}, {"speaker": "Aku", "text": "うん。"}],
    "attribute": {"closeness": 2, "mood": 2},
    "genre": ["天気・季節"],
    "source": {"kind": "manual", "edits": [None, 0.5]},
}


def broken(**changes: object) -> dict[str, object]:
    return {**copy.deepcopy(GOOD), **changes}


@pytest.mark.parametrize(
    ("value", "rule", "words"),
    [
        (broken(context="  "), "context", "context"),
        (broken(context=None), "context", "must be text"),
        (broken(conversation=GOOD["conversation"][:1]), "turns", "at least two"),
        (broken(conversation="hello"), "conversation", "list of turns"),
        (broken(conversation=["a", "b"]), "speaker", "turn 1"),
        (broken(conversation=[{"speaker": "User", "text": "a"}] * 2), "alternate", "both by User"),
        (broken(conversation=[{"speaker": "Bot", "text": "a"}] * 2), "speaker", "'Bot'"),
        (
            broken(
                conversation=[
                    {"speaker": "User", "text": "a"},
                    {"speaker": "Aku", "text": ""},
                    {"speaker": "User", "text": "b"},
                ]
            ),
            "gap",
            "turn 2 is empty",
        ),
        (broken(attribute={"closeness": 5, "mood": 0}), "closeness", "0 to 4"),
        (broken(attribute={"closeness": 1, "mood": True}), "mood", "whole number"),
        (broken(attribute={"closeness": 1, "mood": 1.5}), "mood", "1.5"),
        (broken(attribute=None), "attribute", "closeness and mood"),
        (broken(context="a\x07b"), "control", "control character"),
        (broken(context="あ" * (MAX_TURN_LENGTH + 1)), "length", "2001 characters"),
        (broken(genre=["a", "b", "c"]), "genre", "one or two"),
        (broken(genre="天気"), "genre", "list"),
        (broken(source="x"), "source", "object"),
    ],
)
def test_each_rule_names_record_and_remedy(value: dict[str, object], rule: str, words: str) -> None:
    with pytest.raises(RecordError) as caught:
        Dialogue.from_dict(value, "file.jsonl, line 7")
    assert caught.value.rule == rule
    assert words in str(caught.value)
    assert str(caught.value).startswith("file.jsonl, line 7: record d1")


def test_trailing_blank_turns_are_dropped_and_text_is_nfc() -> None:
    turns = [*GOOD["conversation"], {"speaker": "User", "text": " か\u3099 \r\nき"}, {"speaker": "Aku", "text": " "}]
    dialogue = Dialogue.from_dict(broken(conversation=turns))
    assert [turn.text for turn in dialogue.conversation] == ["寒いね。", "うん。", "が \nき"]


def test_aku_may_begin() -> None:
    turns = [{"speaker": "Aku", "text": "おはよう。"}, {"speaker": "User", "text": "おはよう。"}]
    assert Dialogue.from_dict(broken(conversation=turns)).conversation[0].speaker == "Aku"


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=50))
def test_any_printable_text_survives_json(text: str) -> None:
    turns = [{"speaker": "User", "text": "x" + text + "y"}, {"speaker": "Aku", "text": "z"}]
    once = Dialogue.from_dict(broken(conversation=turns))
    assert Dialogue.from_dict(json.loads(json.dumps(once.to_dict()))) == once


def test_jsonl_round_trip_keeps_bytes(tmp_path, starter) -> None:
    write_dialogues(tmp_path / "a.jsonl", starter)
    write_dialogues(tmp_path / "b.jsonl", read_dialogues(tmp_path / "a.jsonl"))
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert list(starter[0].to_dict()) == ["id", "context", "conversation", "attribute", "genre", "source"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no dialogue"),
        ("{", "line 1: not valid JSON"),
        ("[1]\n", "expected a JSON object"),
        (json.dumps(GOOD) + "\n" + json.dumps(GOOD), "occurs twice"),
        (json.dumps(broken(id="")), 'no "id"'),
    ],
)
def test_broken_files_are_named(tmp_path, content: str, words: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises((FileError, RecordError), match=words) as caught:
        read_dialogues(path)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path) -> None:
    with pytest.raises(FileError, match="no such file"):
        read_dialogues(tmp_path / "none.jsonl")
