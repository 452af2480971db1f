"""What a drafted turn may look like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialogue.records import MAX_TURN_LENGTH, clean_text, has_control_characters
from ml_backend.text_rules import problem, salvaged

CONTROL = ("</s>", "<ROLE>", "</ROLE>")


@pytest.mark.parametrize("text", ["うん。", "え、ほんと？😀", "一行目\n二行目", "Userって何？", "「User」と言った"])
def test_ordinary_turns_pass(text: str) -> None:
    assert problem(text, ended=True, control=CONTROL) is None


@pytest.mark.parametrize(
    ("text", "ended", "expected"),
    [
        ("", True, "empty"),
        (" \n ", True, "empty"),
        ("うん\ufffd", True, "broken characters"),
        ("うん\x07", True, "control characters"),
        ("うん。<ROLE>User", True, "role leak"),
        ("うん。\nUser\nねえ", True, "role leak"),
        ("User: ねえ", True, "role leak"),
        ("うん。それで", False, "cut off"),
        ("あ" * (MAX_TURN_LENGTH + 1), True, "too long"),
    ],
)
def test_faults_are_named(text: str, ended: bool, expected: str) -> None:
    assert problem(text, ended=ended, control=CONTROL) == expected


def test_what_comes_before_the_fault_is_kept() -> None:
    assert salvaged("うん。そうだね。それで明日は") == "うん。そうだね。"
    assert salvaged("うん。\nUser\nねえ") == "うん。"
    assert salvaged("うん！<ROLE>User", CONTROL) == "うん！"
    assert salvaged("とちゅうで切れた文") == "とちゅうで切れた文"
    assert salvaged("\ufffd\ufffd") == ""


@given(st.text())
def test_salvaged_texts_are_clean(text: str) -> None:
    kept = salvaged(text, CONTROL)
    assert kept == clean_text(kept)
    assert not has_control_characters(kept)
    assert "\ufffd" not in kept
    assert len(kept) <= MAX_TURN_LENGTH
    assert kept == "" or problem(kept, ended=True, control=CONTROL) in (None, "role leak")
