"""Carrying the gate's decision out: records, orders, candidates, what counts as new."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aku import cycle, gatekeeping
from aku.cli import app
from analysis import gate
from dialogue import Attribute, Checkpoint, Dialogue, Registry, SettingsError, Source, Turn, Workspace, files
from dialogue.records import write_dialogues
from dialogue.review_project import RATINGS

SETTINGS = "[gate]\nleast_turns = 10\nwindow = 20\n"


def checkpoint(workspace: Workspace, name: str, at: str) -> Checkpoint:
    """A registered folder; the gate never loads its weights."""
    folder = workspace.home / "made" / name
    files.write_json(folder / "config.json", {"name": name})
    card = {"base": str(folder), "dataset": "111111111111", "format": "steerlm", "created_at": at}
    return Registry(workspace.checkpoints).add(folder, card)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "aku.toml").write_text(SETTINGS)
    found = Workspace(tmp_path)
    talk = (Turn("User", "やあ"), Turn("Aku", "うん、元気だよ"))
    records = [
        Dialogue(f"d{i}", "駅で。", talk, Attribute(2, 2), (), Source(created_at="2026-01-01")) for i in range(4)
    ]
    write_version(found, "111111111111", records)
    return found


def write_version(workspace: Workspace, name: str, records: list[Dialogue]) -> None:
    write_dialogues(workspace.datasets / name / "train.jsonl", records)
    files.write_json(workspace.datasets / name / "manifest.json", {"counts": {"train": len(records)}})
    files.write_json(workspace.datasets / "latest.json", {"id": name})


def rate(workspace: Workspace, origin: str, ratings: list[str], at: str = "2026-05-01") -> None:
    rows = (
        {"item": f"r{n}", "origin": origin, "rating": r, "distance": None, "annotator": "p", "at": at}
        for n, r in enumerate(ratings)
    )
    files.write_jsonl(workspace.home / "reviews" / f"{at}-{origin}" / "ratings.jsonl", rows)


def decided(workspace: Workspace, found: Checkpoint, **more: object) -> dict:
    record = gatekeeping.decide(workspace, found, **more)  # type: ignore[arg-type]
    gatekeeping.apply(workspace, found, record)
    return record


def test_first_checkpoint_comes_into_use_shut_with_a_record_that_verifies(workspace: Workspace) -> None:
    found = checkpoint(workspace, "a", "2026-01-01")
    record = decided(workspace, found)
    current = Registry(workspace.checkpoints).current()
    assert current is not None
    assert (current.id, current.may_draft) == (found.id, False)
    assert current.gate == record
    assert gate.verify(current.gate, workspace.home) == []
    (kept,) = (workspace.home / "gate").iterdir()
    assert files.read_json(kept) == record
    assert [f["name"] for f in record["files"]] == ["datasets/111111111111/train.jsonl"]


def test_ratings_of_closed_rounds_are_evidence_for_their_checkpoint_alone(workspace: Workspace) -> None:
    one, other = checkpoint(workspace, "a", "2026-01-01"), checkpoint(workspace, "b", "2026-01-02")
    rate(workspace, one.id, [RATINGS[0]] * 12)
    outcomes = {c["key"]: c["outcome"] for c in decided(workspace, one)["checks"]}
    assert outcomes["kept"] == outcomes["median_edit"] == outcomes["rewritten"] == "PASS"
    assert {c["key"]: c["n"] for c in gatekeeping.decide(workspace, other)["checks"]}["kept"] == 0


def test_force_opens_stays_visible_and_is_lifted(workspace: Workspace) -> None:
    found = checkpoint(workspace, "a", "2026-01-01")
    order = gatekeeping.make_order("open", "demonstration")
    assert decided(workspace, found, order=order)["open"]
    again = decided(workspace, found)
    assert again["open"]
    assert again["forced"]["reason"] == "demonstration"
    assert not again["earned"]
    lifted = decided(workspace, found, lift=True)
    assert not lifted["open"]
    assert lifted["forced"] is None


def test_a_forced_opening_that_bad_drafts_ended_does_not_come_back(workspace: Workspace) -> None:
    found = checkpoint(workspace, "a", "2026-01-01")
    decided(workspace, found, order=gatekeeping.make_order("open", "try"))
    rate(workspace, found.id, [RATINGS[2]] * 12, at="2099-01-01")
    assert not decided(workspace, found)["open"]
    (workspace.home / "reviews" / f"2099-01-01-{found.id}" / "ratings.jsonl").unlink()
    after = decided(workspace, found)
    assert not after["open"]
    assert after["forced"] is None


def test_the_demos_opening_counts_as_an_order(workspace: Workspace) -> None:
    found = checkpoint(workspace, "a", "2026-01-01")
    Registry(workspace.checkpoints).use(found.id, {"open": True, "forced": True, "reason": "demo", "by": "aku demo"})
    record = decided(workspace, found)
    assert record["open"]
    assert record["forced"]["by"] == "aku demo"


def test_a_candidate_that_is_not_good_enough_takes_nobodys_place(workspace: Workspace) -> None:
    old, new = checkpoint(workspace, "a", "2026-01-01"), checkpoint(workspace, "b", "2026-01-02")
    decided(workspace, old, order=gatekeeping.make_order("open", "it drafts"))
    outcome = gatekeeping.apply(workspace, new, gatekeeping.decide(workspace, new))
    assert not outcome.in_use
    current = Registry(workspace.checkpoints).current()
    assert current is not None
    assert (current.id, current.may_draft) == (old.id, True)


def test_the_gate_step_decides_again_only_when_the_evidence_changes(workspace: Workspace) -> None:
    found = checkpoint(workspace, "a", "2026-01-01")
    assert cycle.evidence_changed(workspace, found)
    decided(workspace, found)
    assert not cycle.evidence_changed(workspace, found)
    rate(workspace, found.id, [RATINGS[0]])
    assert cycle.evidence_changed(workspace, found)
    decided(workspace, found)
    workspace.settings.write_text(SETTINGS + "kept = 0.5\n")
    assert cycle.evidence_changed(workspace, found)


def test_when_training_is_due(workspace: Workspace) -> None:
    assert cycle.training_due(499, None, 500, 250) == "499 of 500 dialogues for the first training"
    assert cycle.training_due(500, None, 500, 250) is None
    assert cycle.training_due(749, 500, 500, 250) == "249 new dialogues; training is due at 250"
    assert cycle.training_due(750, 500, 500, 250) is None
    assert cycle.trained_on(workspace, checkpoint(workspace, "a", "2026-01-01")) == 4


def test_held_out_dialogues_are_hand_written_and_were_not_trained_on(workspace: Workspace) -> None:
    from aku.evaluation import choose_scenes, read_material
    from analysis.gate_settings import GateSettings

    found = checkpoint(workspace, "a", "2026-01-01")
    talk = (Turn("User", "やあ"), Turn("Aku", "うん"))
    kinds = (("d0", "manual"), ("new", "manual"), ("machine", "drafted"))
    later = [Dialogue(i, f"{i}で。", talk, Attribute(2, 2), (), Source(kind=k)) for i, k in kinds]
    write_dialogues(workspace.datasets / "222222222222" / "test.jsonl", later)
    write_dialogues(workspace.datasets / "222222222222" / "train.jsonl", [dataclasses.replace(later[1], id="other")])
    files.write_json(workspace.datasets / "222222222222" / "manifest.json", {"counts": {"train": 1, "test": 3}})
    files.write_json(workspace.datasets / "latest.json", {"id": "222222222222"})
    material = read_material(workspace, found)
    assert [d.id for d in material.held_out] == ["new"]
    scenes = choose_scenes(workspace, material, GateSettings(scenes=5))
    assert len(scenes) == 5
    assert scenes[0].id == "new"
    assert all(scene.turns[0].text for scene in scenes)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gate", "--force", "open"], "needs a reason"),
        (["gate"], "there is no checkpoint yet"),
        (["gate", "--verify"], "no checkpoint is in use"),
        (["review", "close"], "no review round is open"),
        (["evaluate", "--checkpoint", "x/../y"], "is not a checkpoint id"),
    ],
)
def test_mistakes_are_one_sentence(workspace: Workspace, arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(app, ["--home", str(workspace.home), *arguments])
    assert sentence in str(result.exception)
    assert "\n" not in str(result.exception)


def test_a_round_must_be_closed_before_the_next(workspace: Workspace) -> None:
    from aku import review

    found = checkpoint(workspace, "a", "2026-01-01")
    files.write_json(workspace.home / "reviews" / f"1-{found.id}" / "round.json", {"open": True})
    with pytest.raises(SettingsError, match="still open"):
        review.start(workspace, found)
