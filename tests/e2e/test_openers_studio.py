"""Helpers' opening turns, from the form's export to cards in a real Label Studio and a written record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from screen import Screen
from test_screen import scaffold

from dialogue import iter_dialogues

pytestmark = pytest.mark.e2e
HEAD = "タイムスタンプ,「音楽」について会話を始めてください。,「天気・季節」について会話を始めてください。"
ROWS = (
    '2026/11/01 10:00:00,最近なに聴いてる？,"雨だね。\n傘ある？"',
    "2026/11/02 09:00:00,,続きは friend@example.com まで",
)


def test_answers_become_cards_once_and_keep_their_origin(browser: Any, studio: Any, tmp_path: Path) -> None:
    workspace, project = studio.new_workspace(tmp_path / "home", "openers")
    answers = tmp_path / "answers.csv"
    answers.write_text("\ufeff" + "\r\n".join((HEAD, *ROWS)), encoding="utf-8")

    def aku(*arguments: str) -> str:
        return str(studio.aku("--home", str(workspace.home), *arguments).stdout)

    first = aku("openers", "import", str(answers))
    assert "2 new cards" in first
    assert "set aside: row 3 (天気・季節) holds personal data (e-mail)" in first
    assert "example.com" not in first
    assert "0 new cards, 2 answers that were cards already" in aku("openers", "import", str(answers))
    # A question that the form got later, and one more answer.
    later = (f"{HEAD},「ゲーム」について会話を始めてください。", *ROWS, "2026/11/03 09:00:00,,,昨日のゲームさ")
    answers.write_text("\r\n".join(later), encoding="utf-8")
    assert "1 new cards, 2 answers that were cards already" in aku("openers", "import", str(answers))

    tasks = list(studio.client.tasks.list(project=project, fields="all"))
    begun = {task.data["turns"][0]["text"]: task for task in tasks}
    assert set(begun) == {"最近なに聴いてる？", "雨だね。\n傘ある？", "昨日のゲームさ"}
    task = begun["雨だね。\n傘ある？"]
    assert task.data["genre"] == ["天気・季節"]
    assert all(not turn["text"] for turn in task.data["turns"][1:])

    scaffold(studio, task.id)
    screen = Screen(browser, studio)
    screen.open(project, task.id)
    assert screen.box(0).input_value() == "雨だね。\n傘ある？"
    screen.box(1).fill("あるよ。入っていく？")
    screen.context_box.fill("雨の帰り道、駅の出口。")
    screen.caret_out()
    screen.submit()
    screen.close()
    aku("export")
    folder = workspace.datasets / json.loads((workspace.datasets / "latest.json").read_text())["id"]
    (record,) = [d for split in ("train", "validation", "test") for d in iter_dialogues(folder / f"{split}.jsonl")]
    assert record.conversation[0].text == "雨だね。\n傘ある？"
    assert record.source.opener == task.data["opener"]
