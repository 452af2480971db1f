"""The checkpoint registry: content-hashed folders, and `current.json` which names the one in use."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dialogue import files
from dialogue.errors import CheckpointError

CARD = "aku.json"
_ID = re.compile(r"[0-9a-f]{12}")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".pickle", ".joblib")
_NOT_CONTENT = {CARD, "README.md"}
_LOGS = "training"
"""Folder of a run's plan, log and pictures: kept beside the weights, no part of the id."""


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint: its id, its folder, and what `aku.json` says of it (base, data set, format, metrics)."""

    id: str
    path: Path
    card: dict[str, Any]

    @property
    def format(self) -> str:
        """Prompt format the checkpoint was trained with."""
        return str(self.card.get("format", "steerlm"))

    @property
    def is_adapter(self) -> bool:
        """Whether the folder holds a PEFT adapter rather than a whole model."""
        return (self.path / "adapter_config.json").exists()

    @property
    def is_demo(self) -> bool:
        """Whether it descends from the demo base made on the spot."""
        return bool(self.card.get("demo", False))


@dataclasses.dataclass(frozen=True, slots=True)
class Current:
    """What `current.json` says: the checkpoint in use and its gate record."""

    id: str
    gate: dict[str, Any]

    @property
    def may_draft(self) -> bool:
        """Whether the gate is open for this checkpoint."""
        return bool(self.gate.get("open", False))


@dataclasses.dataclass(frozen=True, slots=True)
class Registry:
    """The folder `checkpoints/`.  Ids are checked, so that no path leads out of it."""

    root: Path

    def __iter__(self) -> Iterator[Checkpoint]:
        """Yield the readable checkpoints, oldest first."""
        if self.root.exists():
            found = [self.get(p.name) for p in self.root.iterdir() if _ID.fullmatch(p.name) and (p / CARD).exists()]
            yield from sorted(found, key=lambda c: (str(c.card.get("created_at", "")), c.id))

    def get(self, checkpoint_id: str) -> Checkpoint:
        """Return one checkpoint; raises `CheckpointError` for a malformed id, an absent or an unsafe folder."""
        if not _ID.fullmatch(checkpoint_id):
            raise CheckpointError(f"{checkpoint_id!r} is not a checkpoint id (12 hexadecimal digits).")
        path = self.root / checkpoint_id
        if not (path / CARD).is_file():
            raise CheckpointError(f"{path}: no such checkpoint; `aku checkpoints list` shows what is there.")
        check_safe(path)
        return Checkpoint(checkpoint_id, path, dict(files.read_json(path / CARD)))

    def add(self, folder: Path, card: dict[str, Any]) -> Checkpoint:
        """Copy a finished model folder into the registry under its content hash and return it.

        The same content added twice is kept once.  Raises `CheckpointError` for pickled weights.
        """
        check_safe(folder)
        checkpoint_id = content_id(folder)
        target = self.root / checkpoint_id
        if not target.exists():
            with files.atomic_folder(target) as temporary:
                shutil.copytree(folder, temporary, dirs_exist_ok=True)
                files.write_json(temporary / CARD, {"id": checkpoint_id, **card})
        return self.get(checkpoint_id)

    def current(self) -> Current | None:
        """Read `current.json`; None if there is none yet.  Raises `FileError` if it is broken."""
        path = self.root / "current.json"
        if not path.exists():
            return None
        value = files.read_json(path)
        if not isinstance(value, dict) or not _ID.fullmatch(str(value.get("id", ""))):
            raise CheckpointError(f"{path}: names no checkpoint; run `aku checkpoints use ID`.")
        return Current(value["id"], dict(value.get("gate") or {}))

    def use(self, checkpoint_id: str, gate: dict[str, Any]) -> None:
        """Replace `current.json` atomically."""
        self.get(checkpoint_id)
        files.write_json(self.root / "current.json", {"id": checkpoint_id, "gate": gate})

    def remove(self, checkpoint_id: str) -> None:
        """Delete a checkpoint; raises `CheckpointError` if it is the current one."""
        checkpoint = self.get(checkpoint_id)
        current = self.current()
        if current is not None and current.id == checkpoint_id:
            raise CheckpointError(f"{checkpoint_id} is in use; `aku checkpoints use` another one first.")
        shutil.rmtree(checkpoint.path)


def check_safe(folder: Path) -> None:
    """Refuse pickled weights, links that leave the folder and code that would run on loading.

    Raises `CheckpointError`.
    """
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        if not path.resolve().is_relative_to(root):
            raise CheckpointError(f"{path}: a link out of the checkpoint folder; copy the file itself.")
        if path.suffix.lower() in _PICKLES:
            raise CheckpointError(f"{path}: pickled weights can run code; save the model as safetensors.")
    for path in sorted(folder.glob("*config.json")):  # of model, tokenizer, processor, adapter, generation
        if "auto_map" in files.read_json(path):
            raise CheckpointError(f'{path}: "auto_map" asks for remote code, which is never run; remove it.')


def content_id(folder: Path) -> str:
    """Hash names and bytes of a folder's files (cards and logs left out) to 12 hexadecimal digits of SHA-256."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in _NOT_CONTENT):
        if path.relative_to(folder).parts[0] == _LOGS:
            continue
        digest.update(str(path.relative_to(folder)).encode() + b"\0")
        with path.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:12]
