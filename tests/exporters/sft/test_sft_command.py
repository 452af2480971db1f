"""`aku train`, `aku checkpoints` and `aku show-prompt` as a person meets them, without Label Studio."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dialogue import Dialogue, Registry, Workspace, files, write_dialogues
from tests.exporters.sft.conftest import save_nano

AKU = str(Path(sys.executable).with_name("aku"))
SETTINGS = """[train]
epochs = 1
evaluations = 2
[gate]
scenes = 2
replies = 1
[backend]
max_new_tokens = 8
"""


def aku(home: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run([AKU, "--home", str(home), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, some: list[Dialogue]) -> Path:
    """A workspace with a data set version made from a file."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "aku.toml").write_text(SETTINGS)
    write_dialogues(folder / "records.jsonl", some)
    aku(folder, "export", "--file", str(folder / "records.jsonl"))
    return folder


@pytest.fixture(scope="module")
def first(home: Path, nano: Path) -> str:
    """Id of the first checkpoint of the workspace."""
    text = aku(home, "train", "--base", str(nano), "--data", "latest")
    assert "held-out loss" in text
    return next(word for line in text.splitlines() if line.startswith("checkpoint ") for word in [line.split()[1]])


def test_the_first_checkpoint_comes_into_use_with_its_gate_shut(home: Path, first: str) -> None:
    current = Registry(Workspace(home).checkpoints).current()
    assert current is not None
    assert (current.id, current.gate) == (first, {"open": False, "reason": "not yet evaluated"})


def test_the_next_one_is_only_registered_and_can_be_chosen_and_removed(home: Path, first: str) -> None:
    text = aku(home, "train", "--data", "latest", "--seed", "1")  # the base of the one in use
    registry = Registry(Workspace(home).checkpoints)
    second = next(checkpoint.id for checkpoint in registry if checkpoint.id != first)
    assert f"aku checkpoints use {second}" in text
    assert registry.current().id == first
    listed = aku(home, "checkpoints", "list")
    assert first in listed
    assert second in listed
    assert "in use" in listed
    aku(home, "checkpoints", "use", second)
    assert registry.current().id == second
    assert "is in use" in aku(home, "checkpoints", "remove", second, code=2)
    aku(home, "checkpoints", "use", first)
    aku(home, "checkpoints", "remove", second)
    assert [checkpoint.id for checkpoint in registry] == [first]


def test_preference_pairs_are_needed_for_dpo(home: Path, first: str) -> None:
    assert "DPO needs corrected drafts" in aku(home, "train", "--dpo", "--data", "latest", code=2)


def test_bad_input_is_one_sentence(home: Path, nano: Path, tmp_path: Path) -> None:
    wrong = aku(home, "train", "--base", str(tmp_path), "--data", "latest", code=2)
    assert wrong.count("\n") == 1
    assert "holds no config.json" in wrong
    assert "no such data set version" in aku(home, "train", "--base", str(nano), "--data", "nothing", code=2)
    assert "is not a checkpoint id" in aku(home, "checkpoints", "use", "latest", code=2)
    assert "name the base model" in aku(tmp_path, "train", "--data", str(home / "datasets"), code=2)


def test_the_second_of_two_bases_is_checked_before_the_first_is_trained(home: Path, nano: Path, tmp_path: Path) -> None:
    arguments = ["train", "--base", str(nano), "--base", str(tmp_path), "--data", "latest", "--seed", "9"]
    assert "holds no config.json" in aku(home, *arguments, code=2)
    runs = [path for path in (home / "runs").iterdir() if (path / "checkpoint.json").exists()]
    assert all(Registry(home / "checkpoints").root.joinpath(files.read_json(p / "checkpoint.json")["id"]) for p in runs)


def test_show_prompt_prints_the_dialogue_as_the_model_sees_it(home: Path, first: str, some: list[Dialogue]) -> None:
    text = aku(home, "show-prompt", str(home / "records.jsonl"), "--id", some[2].id)
    turn = next(turn for turn in some[2].conversation if turn.speaker == "Aku")
    level = some[2].attribute
    assert f"<ATTR>closeness:{level.closeness},mood:{level.mood}</ATTR>{turn.text}</s>" in text
    assert "format tags" in text
    tokens = aku(home, "show-prompt", str(home / "records.jsonl"), "--format", "tokens")
    assert "<|aku|><|closeness_" in tokens
    assert "holds no record nobody" in aku(home, "show-prompt", str(home / "records.jsonl"), "--id", "nobody", code=2)


def test_two_bases_are_trained_and_shown_side_by_side(
    home: Path, nano: Path, first: str, tmp_path: Path, some: list[Dialogue]
) -> None:
    wide = save_nano(tmp_path / "wide", some, hidden_size=48)
    text = aku(home, "train", "--base", str(nano), "--base", str(wide), "--data", "latest")
    registry = Registry(Workspace(home).checkpoints)
    other = next(c.id for c in registry if c.card["base_name"] == "wide")
    facts = json.loads(next((home / "runs").glob("bases-*/side_by_side.json")).read_text())
    assert {base["checkpoint"] for base in facts["bases"]} == {first, other}
    assert facts["kept"] == min(facts["bases"], key=lambda base: base["after"])["checkpoint"]
    assert f"Kept: {facts['kept']}" in text
    assert all(-1 <= base["steering"]["steering"]["mood"]["spearman"]["value"] <= 1 for base in facts["bases"])
    assert registry.current().id == first  # comparing does not switch what is in use
    registry.remove(other)


def test_help_does_not_load_torch() -> None:
    code = "import sys, aku.cli; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_orders_are_compared_from_the_command_line(home: Path, nano: Path) -> None:
    text = aku(home, "train", "--base", str(nano), "--data", "latest", "--compare-orders", "--seeds", "2")
    for word in ("shuffle", "staged", "short_to_long", "cyclic", "the reference"):
        assert word in text
    saved = json.loads(next((home / "runs").glob("orders-*/orders.json")).read_text())
    assert len(saved["runs"]) == 8
