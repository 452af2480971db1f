"""Loading checkpoints: what is wrong with one is said in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dialogue import CheckpointError, files
from dialogue.checkpoints import Checkpoint
from ml_backend.drafting import Drafter


def broken(kind: str, checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """A copy of the checkpoint with something wrong."""
    target = folder / "0123456789ab"
    shutil.copytree(checkpoint.path, target)
    weights = target / "model.safetensors"
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif kind == "no weights":
        weights.unlink()
    elif kind == "pickle":
        (target / "extra.bin").write_bytes(b"x")
    elif kind == "remote code":
        config = files.read_json(target / "config.json")
        files.write_json(target / "config.json", {**config, "auto_map": {"AutoModel": "x.Y"}})
    elif kind == "not a number":
        save_file({k: torch.full_like(v, float("nan")) for k, v in load_file(weights).items()}, weights)
    elif kind == "other vocabulary":
        config = files.read_json(target / "config.json")
        files.write_json(target / "config.json", {**config, "vocab_size": 7})
    return Checkpoint("0123456789ab", target, checkpoint.card)


@pytest.mark.parametrize(
    "kind", ["truncated", "no weights", "pickle", "remote code", "not a number", "other vocabulary"]
)
def test_broken_checkpoints_are_refused_in_one_sentence(kind: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        Drafter(broken(kind, checkpoint, tmp_path))
    assert "\n" not in str(caught.value)
