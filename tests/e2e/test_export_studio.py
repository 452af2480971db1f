"""Export and import against a real Label Studio: what goes round, what changed, where it came from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from exporting import aku, annotate, call, export, records, refreshed, rejected, task_ids

from benchmarks.export_dialogues import dialogues
from dialogue import Attribute, Dialogue, Turn, label_studio, write_dialogues
from exporters import import_dialogues, latest_version, read_import
from exporters.formats import write_format

pytestmark = pytest.mark.e2e


def test_five_hundred_dialogues_go_round_unchanged(studio: Any, tmp_path: Path) -> None:
    """Written, exported, imported into an empty project, exported again: the same 500 records, the same version."""
    given = {d.id: d for d in dialogues(500, seed=2, awkward=True)}
    first, second = studio.new_project("round one"), studio.new_project("round two")
    assert import_dialogues(studio.client, first, given.values()).imported == 500
    one = export(studio, first, tmp_path / "one")
    assert records(one) == given
    assert rejected(one) == []

    found, drafts = read_import(one.path)
    assert import_dialogues(studio.client, second, found, drafts=drafts).imported == 500
    assert import_dialogues(studio.client, second, found).skipped == 500
    two = export(studio, second, tmp_path / "two")
    assert records(two) == given
    assert two.id == one.id
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl", "README.md", "manifest.json"):
        assert (two.path / name).read_bytes() == (one.path / name).read_bytes()


def test_written_drafted_and_reviewed_in_label_studio(studio: Any, tmp_path: Path) -> None:
    """Cards that people finish: provenance comes from Label Studio itself, and survives another round."""
    card = label_studio.Card("カード", "夜の駅で", Attribute(2, 3), ("趣味",), label_studio.blank_turns(4, ["やあ"]))
    project = studio.new_project("written")
    studio.client.projects.import_tasks(id=project, request=[{"data": label_studio.to_task(card)} for _ in range(4)])
    by_hand, drafted, reviewed, waiting = task_ids(studio, project)
    turns = (Turn("User", "やあ"), Turn("Aku", "うん、元気だよ"), Turn("User", "よかった"), Turn("Aku", "そっちは？"))
    written = Dialogue("x", "夜の駅で", turns, Attribute(2, 3), ("趣味",))
    annotate(studio, by_hand, written)

    draft = (turns[0], Turn("Aku", "何だよ、急に"), Turn("User", ""), Turn("Aku", "そっちは？"))
    prediction = label_studio.to_prediction(card, draft, version="0123456789ab") | {"task": drafted}
    prediction_id = call(studio, "POST", "api/predictions/", prediction)["id"]
    annotate(studio, drafted, written, parent_prediction=prediction_id)

    annotate(studio, reviewed, written)
    changed = dataclasses.replace(
        written, context="朝の駅で", source=dataclasses.replace(written.source, decision="合格")
    )
    approved = annotate(studio, reviewed, changed)
    newest = annotate(studio, reviewed, dataclasses.replace(written, context="昼の駅で"))

    version = export(studio, project, tmp_path / "one")
    found = records(version)
    assert set(found) == {f"ls-{project}-{task}" for task in (by_hand, drafted, reviewed)}
    hand = found[f"ls-{project}-{by_hand}"]
    assert (hand.context, hand.conversation, hand.attribute, hand.genre) == (
        "夜の駅で",
        turns,
        Attribute(2, 3),
        ("趣味",),
    )
    assert (hand.source.kind, hand.source.project, hand.source.task, hand.source.lead_time) == (
        "manual", project, by_hand, 33.25,
    )  # fmt: skip
    assert str(hand.source.annotator).startswith("annotator-")
    assert str(hand.source.created_at)[:2] == "20"
    source = found[f"ls-{project}-{drafted}"].source
    assert (source.kind, source.checkpoint, source.edits) == ("drafted", "0123456789ab", (None, 1.0, None, 0.0))
    assert found[f"ls-{project}-{reviewed}"].context == "朝の駅で"
    assert found[f"ls-{project}-{reviewed}"].source.annotation == approved
    aside = [(row["reason"], row["task"], row["annotation"]) for row in rejected(version)]
    assert len(aside) == 2
    assert ("superseded", reviewed, newest) in aside
    assert version.counts["rejected"] == 0
    assert waiting not in [d.source.task for d in found.values()]

    again = studio.new_project("written again")
    imported, drafts = read_import(version.path)
    import_dialogues(studio.client, again, imported, drafts=drafts)
    other = export(studio, again, tmp_path / "two")
    assert records(other) == found
    pairs = [write_format(v, "preferences", tmp_path / v.path.parent.name / "p") for v in (version, other)]
    assert sum(pairs[0].values()) == sum(pairs[1].values()) == 1


def test_only_what_changed_is_read_again(studio: Any, tmp_path: Path) -> None:
    given = list(dialogues(130, seed=4))
    project = studio.new_project("incremental")
    import_dialogues(studio.client, project, given)
    ids = task_ids(studio, project)
    path = tmp_path / "cache.sqlite"
    assert refreshed(studio, project, path) == (130, 0)
    assert refreshed(studio, project, path) == (0, 0)

    def annotation_of(task: int) -> dict[str, Any]:
        return call(studio, "GET", f"api/tasks/{task}/annotations/")[0]

    changed = dataclasses.replace(given[3], context="まったく別の場面")
    call(studio, "PATCH", f"api/annotations/{annotation_of(ids[3])['id']}/", label_studio.to_annotation(changed))
    assert refreshed(studio, project, path) == (1, 0)
    call(studio, "DELETE", f"api/annotations/{annotation_of(ids[5])['id']}/")
    assert refreshed(studio, project, path)[1] == 1
    call(studio, "DELETE", f"api/tasks/{ids[7]}/")
    assert refreshed(studio, project, path) == (0, 1)
    selected = {"all": False, "included": ids[10:14]}
    call(studio, "POST", f"api/dm/actions?id=delete_tasks_annotations&project={project}", {"selectedItems": selected})
    assert refreshed(studio, project, path)[1] == 4
    call(
        studio,
        "POST",
        f"api/dm/actions?id=delete_tasks&project={project}",
        {"selectedItems": {"all": False, "included": ids[20:23]}},
    )
    annotate(studio, ids[5], given[5])
    import_dialogues(studio.client, project, dialogues(3, seed=5))
    assert refreshed(studio, project, path) == (4, 3)
    assert refreshed(studio, project, path) == (0, 0)

    # What the kept pages give is what a reading from the start gives.
    kept, fresh = tmp_path / "kept", tmp_path / "fresh"
    (kept / ".cache").mkdir(parents=True)
    path.rename(kept / ".cache" / f"project-{project}.sqlite")
    one, two = export(studio, project, kept), export(studio, project, fresh)
    assert one.id == two.id
    assert len(records(one)) == 130 - 1 - 4 - 3 + 3


def test_import_and_export_commands(studio: Any, tmp_path: Path) -> None:
    """`aku import` takes a file or a version; `aku export` writes formats beside the version."""
    workspace, _ = studio.new_workspace(tmp_path / "home", "commands")
    given = {d.id: d for d in dialogues(30, seed=13)}
    write_dialogues(tmp_path / "in.jsonl", list(given.values()))
    code, output = aku(workspace.home, "import", str(tmp_path / "in.jsonl"))
    assert (code, "30 imported, 0 were there already" in output) == (0, True), output
    code, output = aku(
        workspace.home, "export", "--format", "csv", "--format", "messages", "--out", str(tmp_path / "out")
    )
    assert code == 0, output
    version = latest_version(workspace.datasets)
    assert version.id in output
    assert records(version) == given
    assert len(list((tmp_path / "out").glob("*/train.*"))) == 2
    code, output = aku(workspace.home, "import", str(version.path))
    assert (code, "0 imported, 30 were there already" in output) == (0, True), output
    for arguments, word in [
        (("export", "--format", "xml"), "there is no format"),
        (("export", "--version", "0" * 12), "no such data set version"),
        (("import", str(tmp_path / "absent.jsonl")), "no such file"),
    ]:
        code, output = aku(workspace.home, *arguments)
        assert (code, word in output, "Traceback" in output) == (2, True, False), output


def test_cards_made_of_records_are_open_work(studio: Any, tmp_path: Path) -> None:
    given = list(dialogues(3, seed=11))
    project = studio.new_project("cards")
    assert import_dialogues(studio.client, project, given, as_cards=True).imported == 3
    assert import_dialogues(studio.client, project, given, as_cards=True).skipped == 3
    assert records(export(studio, project, tmp_path)) == {}
    annotate(studio, task_ids(studio, project)[1], given[1])
    (found,) = records(export(studio, project, tmp_path)).values()
    assert (found.id, found.conversation) == (given[1].id, given[1].conversation)
    assert found.source.annotator is not None
