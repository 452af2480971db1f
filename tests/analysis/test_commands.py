"""`aku report`, `aku watch` and `aku plan`, on files and against a real Label Studio."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from aku.cli import app
from aku.connection import connect
from aku.tasks import add_cards, waiting_cards
from dialogue import AkuError, Dialogue, FileError, LabelStudioError, SettingsError, Workspace, files, write_dialogues
from dialogue.label_studio import from_task, to_annotation, to_task

ROOT = Path(__file__).parent.parent.parent
STARTER = str(ROOT / "examples" / "starter.jsonl")
FAST = "[report]\nsimulations = 200\npermutations = 99\n"


def aku(workspace: Workspace, *arguments: str) -> Result:
    result = CliRunner().invoke(app, ["--home", str(workspace.home), *arguments])
    if isinstance(result.exception, AkuError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path / "home")
    found.home.mkdir()
    found.settings.write_text(FAST, encoding="utf-8")
    return found


def version(workspace: Workspace, name: str, dialogues: list[Dialogue]) -> None:
    folder = workspace.datasets / name
    write_dialogues(folder / "train.jsonl", dialogues[: len(dialogues) // 2])
    write_dialogues(folder / "validation.jsonl", dialogues[len(dialogues) // 2 :])
    files.write_json(workspace.datasets / "latest.json", {"id": name})


def test_report_takes_the_latest_version_and_notes_where_it_is(workspace: Workspace, starter: list[Dialogue]) -> None:
    version(workspace, "aaaaaaaaaaaa", starter[:40])
    version(workspace, "bbbbbbbbbbbb", starter)
    output = aku(workspace, "report", "--compare", "aaaaaaaaaaaa").output
    latest = files.read_json(workspace.reports / "latest.json")
    index = Path(latest["path"])
    assert index.is_file()
    assert index.parent.name.startswith("bbbbbbbbbbbb-")
    assert str(index) in output
    assert "よい" in output
    page = index.read_text(encoding="utf-8")
    assert "100 / 3,000 件" in page
    assert "前の版からの変化" in page
    assert (workspace.reports / "map.json").is_file()


def test_report_again_gives_the_same_bytes(workspace: Workspace, starter: list[Dialogue]) -> None:
    version(workspace, "cccccccccccc", starter[:40])
    command = str(Path(sys.executable).with_name("aku"))

    def made(seed: str, threads: str) -> dict[str, bytes]:
        """In a process of its own, since the order of sets and of parallel sums differs between processes."""
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        subprocess.run([command, "--home", str(workspace.home), "report"], env=environment, check=True, timeout=600)
        folder = Path(files.read_json(workspace.reports / "latest.json")["path"]).parent
        (workspace.reports / "map.json").unlink()
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first, second = made("1", "1"), made("2", "2")
    assert {"index.html", "report.json", "report.md", "map.png", "pairs.png"} <= set(first)
    assert first == second
    assert len(list(workspace.reports.glob("cccccccccccc-*"))) == 1


def test_report_on_an_empty_file(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("", encoding="utf-8")
    output = aku(workspace, "report", "--data", str(tmp_path / "none.jsonl")).output
    assert "まだ言えない" in output


def test_status_shows_the_worst_verdict_of_report_and_watch(workspace: Workspace, make: Any) -> None:
    from analysis import quick

    assert "none yet: `aku report`" in aku(workspace, "status").output
    files.write_json(workspace.reports / "latest.json", {"path": "/p/index.html", "verdict": "WATCH"})
    one_cell = quick([make(i) for i in range(60)]).to_json()
    files.write_json(workspace.reports / "quick.json", {**one_cell, "at": "2026-01-01T00:00:00+00:00"})
    output = "".join(aku(workspace, "status").output.split())  # however the terminal breaks lines
    assert "WATCH/p/index.html" in output
    assert "FIX(ジャンル、親密さと機嫌の25の組、ターン数),60dialogues" in output


def test_mistakes_are_one_sentence(workspace: Workspace) -> None:
    with pytest.raises(FileError, match="run `aku export`"):
        aku(workspace, "report")
    with pytest.raises(FileError, match="neither a JSONL file nor a data set version"):
        aku(workspace, "report", "--data", "../../etc")
    with pytest.raises(SettingsError, match="exclude each other"):
        aku(workspace, "report", "--live", "--data", STARTER)
    with pytest.raises(SettingsError, match="only one protocol"):
        aku(workspace, "plan", "--protocol", "other")
    with pytest.raises(LabelStudioError, match="run `aku up`"):
        aku(workspace, "plan", "--push")
    with pytest.raises(LabelStudioError, match="run `aku up`"):
        aku(workspace, "watch", "--once")


def test_plan_works_without_label_studio_and_explains(workspace: Workspace) -> None:
    output = aku(workspace, "plan", "-n", "3", "--data", STARTER, "--explain").output
    cards = [line for line in output.splitlines() if line.startswith("親密さ")]
    assert len(cards) == 3
    assert output.count("（目標") == 9
    assert "before" in output
    assert "after" in output
    for margin in ("組", "ジャンル", "ターン数", "はじめる人"):
        assert f"\n{margin}" in output
    assert len(aku(workspace, "plan", "--protocol", "starter").output.splitlines()) == 10


def test_scenes_of_the_workspace_are_added(workspace: Workspace) -> None:
    from aku.commands.plan import read_contexts
    from analysis import PlanSettings

    packaged = len(read_contexts(workspace, PlanSettings()))
    assert packaged >= 300
    row = {"topic": "音楽", "context": "自分で足した場面。", "opener": None}
    (workspace.home / "contexts.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert len(read_contexts(workspace, PlanSettings())) == packaged + 1
    with pytest.raises(FileError, match="no such file"):
        read_contexts(workspace, PlanSettings(contexts="missing.jsonl"))


@pytest.fixture
def live(studio: Any, tmp_path: Path) -> tuple[Any, Workspace]:
    """A workspace with a fresh project in the real Label Studio."""
    workspace, _ = studio.new_workspace(tmp_path / "live", tmp_path.name)
    workspace.settings.write_text(FAST, encoding="utf-8")
    return studio, workspace


def annotate(workspace: Workspace, dialogues: list[Dialogue]) -> None:
    """Finish the oldest waiting cards with the texts of these dialogues."""
    connection = connect(workspace)
    for card, dialogue in zip(waiting_cards(connection), dialogues, strict=False):
        connection.client.annotations.create(id=card.task, **to_annotation(dialogue))


@pytest.mark.e2e
def test_the_ten_starting_cards_are_made_once(live: tuple[Any, Workspace]) -> None:
    _, workspace = live
    assert "10 cards created" in aku(workspace, "plan", "--protocol", "starter", "--push").output
    assert "0 cards created" in aku(workspace, "plan", "--protocol", "starter", "--push").output
    cards = [waiting.card for waiting in waiting_cards(connect(workspace))]
    assert len(cards) == 10
    assert {len(card.turns) for card in cards} == {10}
    assert len({card.context for card in cards}) == 10
    assert len({card.attribute for card in cards}) == 5


@pytest.mark.e2e
def test_cards_in_work_count_and_an_interrupted_batch_is_finished(live: tuple[Any, Workspace]) -> None:
    _, workspace = live
    aku(workspace, "plan", "--protocol", "starter", "--push")
    aku(workspace, "plan", "-n", "15", "--push")
    cards = [waiting.card for waiting in waiting_cards(connect(workspace))]
    assert len({card.attribute for card in cards}) == 20  # five pairs twice, then fifteen others once
    journal = workspace.state / "plan.json"
    rows = [{"key": f"half-{i}", "data": to_task(cards[i])} for i in range(4)]
    files.write_json(journal, {"project": connect(workspace).project, "cards": rows, "done": False})
    add_cards(connect(workspace), [from_task(rows[0]["data"])], ["half-0"])
    output = aku(workspace, "plan", "-n", "15", "--push").output
    assert "interrupted batch" in output
    assert "3 cards created" in output
    assert len(waiting_cards(connect(workspace))) == 29
    assert "2 cards created" in aku(workspace, "plan", "-n", "2", "--push").output


@pytest.mark.e2e
def test_finished_dialogues_count_at_once_and_can_be_reported_live(
    live: tuple[Any, Workspace], starter: list[Dialogue]
) -> None:
    from aku.commands.plan import known_dialogues, open_cards

    _, workspace = live
    aku(workspace, "plan", "--protocol", "starter", "--push")
    annotate(workspace, starter[:4])
    connection = connect(workspace)
    assert len(known_dialogues(workspace, connection)) == 4
    assert len(open_cards(connection)) == 6
    aku(workspace, "report", "--live")
    index = Path(files.read_json(workspace.reports / "latest.json")["path"])
    assert index.parent.name.startswith("live-")
    assert "4 / 3,000 件" in index.read_text(encoding="utf-8")


@pytest.mark.e2e
def test_watch_shows_a_new_dialogue_when_the_webhook_journal_grows(
    live: tuple[Any, Workspace], starter: list[Dialogue], capsys: pytest.CaptureFixture[str]
) -> None:
    from aku import watching

    _, workspace = live
    aku(workspace, "plan", "--protocol", "starter", "--push")
    stop = threading.Event()
    numbers = workspace.reports / "quick.json"
    thread = threading.Thread(
        target=watching.watch, args=(workspace, connect(workspace), 3600, lambda: not stop.is_set())
    )
    thread.start()
    try:
        wait_for(lambda: numbers.exists() and files.read_json(numbers)["n"] == 0)
        annotate(workspace, starter[:1])
        journal = workspace.state / "webhooks.jsonl"
        journal.parent.mkdir(parents=True, exist_ok=True)
        with journal.open("a", encoding="utf-8") as handle:
            handle.write('{"action": "ANNOTATION_CREATED"}\n')
        wait_for(lambda: files.read_json(numbers)["n"] == 1)
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert set(files.read_json(numbers)) == {"n", "verdict", "views", "at"}


def wait_for(condition: Any) -> None:
    import time

    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("nothing happened within a minute")
