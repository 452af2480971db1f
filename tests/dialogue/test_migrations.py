"""Versions of records, tasks, screens and workspaces: older ones are upgraded, later ones refused, none misread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dialogue import Dialogue, FileError, RecordError, SettingsError, Workspace, files, label_studio, load_taxonomy
from dialogue.label_studio import Card, blank_turns
from dialogue.migrations import (
    CONFIG_FORMAT,
    RECORD_FORMAT,
    WORKSPACE_FORMAT,
    config_format,
    upgrade_workspace,
    workspace_format,
)
from dialogue.records import Attribute
from exporters import ExportSettings, export_file, get_version
from exporters.annotations import Accepted, Reader, Rejected

RECORD: dict[str, Any] = {
    "id": "a",
    "context": "冬の公園。",
    "conversation": [{"speaker": "User", "text": "寒いね。"}, {"speaker": "Aku", "text": "うん。"}],
    "attribute": {"closeness": 4, "mood": 1},
}


def test_records_without_a_version_are_of_the_first() -> None:
    assert Dialogue.from_dict(RECORD) == Dialogue.from_dict({**RECORD, "format": 1})


def test_the_memos_pair_is_an_attribute() -> None:
    assert Dialogue.from_dict({**RECORD, "attribute": [4, 1]}) == Dialogue.from_dict(RECORD)
    for pair in ([4], [4, 1, 0], [4, 9], ["4", "1"], "41", [True, False]):
        with pytest.raises(RecordError, match="record a"):
            Dialogue.from_dict({**RECORD, "attribute": pair})


@pytest.mark.parametrize("found", [RECORD_FORMAT + 1, 99])
def test_records_of_a_later_release_are_refused(found: int) -> None:
    with pytest.raises(RecordError, match="record a: was written by a later release") as caught:
        Dialogue.from_dict({**RECORD, "format": found})
    assert caught.value.rule == "format"


@pytest.mark.parametrize("found", [0, -1, "1", 1.5, None, True, []])
def test_what_is_no_version_number_is_refused(found: object) -> None:
    with pytest.raises(RecordError, match="no version number"):
        Dialogue.from_dict({**RECORD, "format": found})


def test_a_data_set_version_says_its_format_and_a_later_one_is_refused(tmp_path: Path) -> None:
    starter = Path(__file__).parent.parent.parent / "examples" / "starter.jsonl"
    version = export_file(starter, tmp_path, ExportSettings(), taxonomy=load_taxonomy())
    assert version.manifest["format"] == RECORD_FORMAT
    older = dict(version.manifest)
    older.pop("format")
    files.write_json(version.path / "manifest.json", older)
    assert get_version(tmp_path, version.id).counts == version.counts
    files.write_json(version.path / "manifest.json", {**older, "format": RECORD_FORMAT + 1})
    with pytest.raises(FileError, match="later release"):
        get_version(tmp_path, version.id)


# -- the screen


def test_the_screen_carries_its_version() -> None:
    config = label_studio.labeling_config(load_taxonomy())
    assert config_format(config) == CONFIG_FORMAT
    unmarked = config.replace(f" aku-format-{CONFIG_FORMAT}", "")
    assert config_format(unmarked) == 1, "ours, from before the mark"
    assert config_format(config.replace(f"aku-format-{CONFIG_FORMAT}", "aku-format-7")) == 7
    assert config_format('<View><Text name="text" value="$text"/></View>') is None


def task(**data: Any) -> dict[str, Any]:
    card = Card("書く", "場面。", Attribute(2, 2), (), blank_turns(4))
    return {"id": 5, "project": 1, "data": {**label_studio.to_task(card), **data}, "annotations": []}


def box(name: str, text: str) -> dict[str, Any]:
    return {"from_name": name, "to_name": "card", "type": "textarea", "value": {"text": [text]}}


def choice(name: str, value: str) -> dict[str, Any]:
    return {"from_name": name, "to_name": "card", "type": "choices", "value": {"choices": [value]}}


def read(result: list[dict[str, Any]], **data: Any) -> Accepted | Rejected:
    found = {**task(**data), "annotations": [{"id": 9, "result": result}]}
    (row,) = Reader(ExportSettings(), "http://x", 1, "salt").read(found)
    return row


WRITTEN = [box("context", "場面。"), box("turn_0", "やあ。"), box("turn_1", "うん。")]
LEVELS = [choice("closeness", "4"), choice("mood", "0")]


def test_an_annotation_without_decision_boxes_is_read() -> None:
    row = read([*WRITTEN, *LEVELS])
    assert isinstance(row, Accepted)
    assert row.dialogue.attribute == Attribute(4, 0)


@pytest.mark.parametrize(
    "result",
    [
        [*WRITTEN, choice("closeness", "パートナー"), choice("mood", "0")],  # choices by name
        [*WRITTEN, choice("closeness", "4"), choice("mood", "")],
        [*WRITTEN, choice("closeness", "9"), choice("mood", "0")],  # a longer scale
        [box("context", "場面。"), box("message_0", "やあ。"), box("message_1", "うん。"), *LEVELS],  # other boxes
        [box("scene", "場面。"), box("turn_0", "やあ。"), box("turn_1", "うん。"), choice("tone", "0")],
    ],
    ids=["names", "blank", "scale", "boxes", "unknown"],
)
def test_annotations_of_another_screen_are_refused_and_not_guessed(result: list[dict[str, Any]]) -> None:
    row = read(result)
    assert isinstance(row, Rejected)
    assert row.rule in ("config", "closeness", "turns")
    assert "task 5, annotation 9" in row.message


def test_tasks_of_a_later_release_are_refused() -> None:
    row = read([*WRITTEN, *LEVELS], format=CONFIG_FORMAT + 1)
    assert isinstance(row, Rejected)
    assert row.rule == "format"


# -- the workspace


def test_a_new_workspace_notes_its_version(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace_format(workspace) is None
    assert upgrade_workspace(workspace) is None
    assert workspace_format(workspace) == WORKSPACE_FORMAT
    assert upgrade_workspace(workspace) == WORKSPACE_FORMAT


def test_an_older_workspace_is_upgraded_step_by_step_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write_secrets({"A": "b"})  # written before versions were noted
    assert workspace_format(workspace) == 1
    done: list[int] = []

    def first(workspace: Workspace) -> None:
        done.append(1)

    def second(workspace: Workspace) -> None:
        done.append(2)
        if len(done) < 3:
            raise OSError("the plug was pulled")

    def third(workspace: Workspace) -> None:
        done.append(3)

    steps = (first, second, third)
    with pytest.raises(OSError, match="plug"):
        upgrade_workspace(workspace, steps, current=4)
    assert files.read_json(workspace.state / "format.json") == {"format": 2}
    upgrade_workspace(workspace, steps, current=4)
    assert done == [1, 2, 2, 3]
    assert files.read_json(workspace.state / "format.json") == {"format": 4}
    with pytest.raises(SettingsError, match="later release"):
        upgrade_workspace(workspace)
    (workspace.state / "format.json").write_text("[]")
    with pytest.raises(FileError, match="names no format"):
        workspace_format(workspace)
