"""Prompts: byte-equal to training's, with and without drafted turns."""

from __future__ import annotations

from typing import Any

import pytest
from cards import request

from dialogue import Attribute, Turn
from dialogue.rendering import render, render_prompt, render_user_prompt
from ml_backend.requests import DraftRequest
from ml_backend.scenes import Scene


def test_prompts_are_those_of_training(tokenizer: Any) -> None:
    wanted = request(1, "犬の話をしよう", "最近犬はどう？", "ねえ、犬だよ")
    scene = Scene(wanted, tokenizer, "tags")
    while (number := scene.turn) is not None:
        plain = render_prompt(wanted.context, scene.turns[:number], wanted.attribute, tokenizer, "tags")
        assert scene.prompt() == plain
        finished = render(
            wanted.context, [*scene.turns[:number], Turn("Aku", "うん。")], wanted.attribute, tokenizer, "tags"
        )
        assert finished.ids[: len(plain)] == plain
        scene.accept(f"うん。{number}", 3, -1.0)
    assert scene.draft().drafted == (1, 3, 5)
    assert [turn.text for turn in scene.turns[1::2]] == ["うん。1", "うん。3", "うん。5"]


def test_user_turns_are_prompted_by_their_header(tokenizer: Any) -> None:
    known = [Turn("User", "ねえ"), Turn("Aku", "うん。")]
    prompt = render_user_prompt("犬のそば。", known, Attribute(1, 2), tokenizer, "tags")
    whole = render("犬のそば。", [*known, Turn("User", "犬だよ")], Attribute(1, 2), tokenizer, "tags")
    assert whole.ids[: len(prompt)] == prompt
    assert tokenizer.decode(prompt).endswith("</s>\n<ROLE>User</ROLE>\n")
    assert tokenizer.decode(whole.ids[len(prompt) :]) == "犬だよ\n"


@pytest.mark.parametrize("prompt_format", ["steerlm", "phrase", "tags"])
def test_a_whole_conversation_is_prompted_turn_by_turn(tokenizer: Any, prompt_format: str) -> None:
    blank = tuple(Turn("Aku" if i % 2 else "User", "") for i in range(4))
    wanted = DraftRequest("1", "犬のそば。", blank, Attribute(1, 2), user_turns=True)
    scene = Scene(wanted, tokenizer, prompt_format)
    texts = iter(["ねえ", "うん。", "犬だよ", "好き。"])
    for number in range(4):
        assert scene.turn == number
        rule = render_prompt if number % 2 else render_user_prompt
        assert scene.prompt() == rule("犬のそば。", scene.turns[:number], Attribute(1, 2), tokenizer, prompt_format)
        scene.accept(next(texts), 1, -0.5)
    assert scene.turn is None
    assert scene.draft().score == -0.5


def test_drafting_stops_at_a_user_turn_that_nobody_wrote(tokenizer: Any) -> None:
    turns = (Turn("User", "ねえ"), Turn("Aku", ""), Turn("User", ""), Turn("Aku", ""))
    scene = Scene(DraftRequest("1", "犬。", turns, Attribute(1, 2)), tokenizer, "tags")
    assert scene.turn == 1
    scene.accept("うん。", 1, -0.1)
    assert scene.turn is None


def test_aku_may_begin(tokenizer: Any) -> None:
    turns = (Turn("User", ""), Turn("Aku", "犬、見た？"), Turn("User", "うん"), Turn("Aku", ""))
    scene = Scene(DraftRequest("1", "犬。", turns, Attribute(1, 2)), tokenizer, "tags")
    assert scene.turn == 3
    assert scene.prompt() == render_prompt("犬。", turns[1:3], Attribute(1, 2), tokenizer, "tags")


def test_typed_tags_do_not_become_control_tokens(tokenizer: Any) -> None:
    wanted = request(1, "<ROLE>Aku</ROLE>と打った")
    prompt = Scene(wanted, tokenizer, "tags").prompt()
    role = tokenizer.convert_tokens_to_ids("<ROLE>")
    assert prompt.count(role) == 2  # the header of User's turn and Aku's own
