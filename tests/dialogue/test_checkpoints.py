"""The registry: content-hashed ids, safe folders only, one checkpoint in use, nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dialogue import CheckpointError, FileError, Registry
from dialogue.checkpoints import check_safe, content_id

CARD = {"format": "tags", "base": "/somewhere", "demo": False, "created_at": "2026-01-02T03:04:05+00:00"}


def model(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    (folder / "training").mkdir()
    (folder / "training" / "log.jsonl").write_text("{}\n")
    return folder


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "checkpoints")


def test_equal_content_has_one_id_and_is_kept_once(registry: Registry, tmp_path: Path) -> None:
    first = registry.add(model(tmp_path / "a"), CARD)
    second = registry.add(model(tmp_path / "b"), {**CARD, "created_at": "2027"})
    other = registry.add(model(tmp_path / "c", b"other"), CARD)
    assert first.id == second.id != other.id
    assert {checkpoint.id for checkpoint in registry} == {first.id, other.id}
    assert second.card["created_at"] == CARD["created_at"]
    assert first.card["id"] == first.id == first.path.name


def test_cards_and_logs_are_no_part_of_the_id(tmp_path: Path) -> None:
    folder = model(tmp_path / "a")
    before = content_id(folder)
    (folder / "README.md").write_text("card")
    (folder / "aku.json").write_text("{}")
    (folder / "training" / "log.jsonl").write_text("other")
    assert content_id(folder) == before
    (folder / "tokenizer.json").write_text("{}")
    assert content_id(folder) != before


def test_listing_is_oldest_first_and_skips_what_is_no_checkpoint(registry: Registry, tmp_path: Path) -> None:
    assert list(registry) == []
    late = registry.add(model(tmp_path / "a"), {**CARD, "created_at": "2026-05"})
    early = registry.add(model(tmp_path / "b", b"x"), {**CARD, "created_at": "2026-01"})
    (registry.root / ".temporary").mkdir()
    (registry.root / "0123456789ab").mkdir()  # no card: cut off
    assert [checkpoint.id for checkpoint in registry] == [early.id, late.id]


@pytest.mark.parametrize("name", ["../secrets", "ABCDEF012345", "0123456789a", "", "0123456789ab/.."])
def test_an_id_can_not_lead_out_of_the_folder(registry: Registry, name: str) -> None:
    with pytest.raises(CheckpointError, match="is not a checkpoint id"):
        registry.get(name)


def test_an_absent_checkpoint_is_named(registry: Registry) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        registry.get("0123456789ab")


def test_one_checkpoint_is_in_use_with_its_gate(registry: Registry, tmp_path: Path) -> None:
    assert registry.current() is None
    checkpoint = registry.add(model(tmp_path / "a"), CARD)
    registry.use(checkpoint.id, {"open": False, "reason": "not yet evaluated"})
    current = registry.current()
    assert current is not None
    assert (current.id, current.may_draft) == (checkpoint.id, False)
    registry.use(checkpoint.id, {"open": True})
    assert registry.current().may_draft


def test_only_what_is_there_can_come_into_use(registry: Registry) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        registry.use("0123456789ab", {})
    assert registry.current() is None


def test_the_checkpoint_in_use_can_not_be_removed(registry: Registry, tmp_path: Path) -> None:
    used = registry.add(model(tmp_path / "a"), CARD)
    spare = registry.add(model(tmp_path / "b", b"x"), CARD)
    registry.use(used.id, {})
    with pytest.raises(CheckpointError, match="is in use"):
        registry.remove(used.id)
    registry.remove(spare.id)
    assert [checkpoint.id for checkpoint in registry] == [used.id]


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "optimizer.pt", "deep/er/state.pkl", "x.ckpt", "SHOUTED.BIN", "x.joblib"]
)
def test_pickles_are_refused(registry: Registry, tmp_path: Path, name: str) -> None:
    folder = model(tmp_path / "a")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="pickled weights can run code"):
        registry.add(folder, CARD)
    assert not registry.root.exists()


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = model(tmp_path / "a")
    (tmp_path / "secret").write_text("x")
    (folder / "tokenizer.json").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="a link out of the checkpoint folder"):
        check_safe(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "adapter_config.json", "processor_config.json"]
)
def test_remote_code_is_refused(tmp_path: Path, name: str) -> None:
    folder = model(tmp_path / "a")
    (folder / name).write_text(json.dumps({"auto_map": {}}))
    with pytest.raises(CheckpointError, match="remote code"):
        check_safe(folder)


def test_a_folder_that_became_unsafe_is_not_given_out(registry: Registry, tmp_path: Path) -> None:
    checkpoint = registry.add(model(tmp_path / "a"), CARD)
    (checkpoint.path / "extra.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="pickled weights"):
        registry.get(checkpoint.id)


@pytest.mark.parametrize("text", ["{", "[]", '{"id": "../x"}', "{}"])
def test_a_broken_current_file_is_named(registry: Registry, text: str) -> None:
    registry.root.mkdir(parents=True)
    (registry.root / "current.json").write_text(text)
    with pytest.raises((CheckpointError, FileError), match=r"current\.json"):
        registry.current()


def test_adapters_and_demos_are_told_apart(registry: Registry, tmp_path: Path) -> None:
    folder = model(tmp_path / "a")
    (folder / "adapter_config.json").write_text("{}")
    adapter = registry.add(folder, {**CARD, "demo": True})
    assert (adapter.is_adapter, adapter.is_demo, adapter.format) == (True, True, "tags")
    plain = registry.add(model(tmp_path / "b", b"x"), {})
    assert (plain.is_adapter, plain.is_demo, plain.format) == (False, False, "steerlm")
