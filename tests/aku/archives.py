"""Workspaces to back up, and archives in which anything can stand."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

from aku.backup import FORMAT, HEADER, MANIFEST
from aku.database import SQLITE
from dialogue import Workspace


def put(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def full_workspace(home: Path) -> Workspace:
    """A workspace with something of everything."""
    found = Workspace(home)
    put(found.settings, "[studio]\nport = 1\n")
    found.write_secrets({"LABEL_STUDIO_PASSWORD": "geheim", "PSEUDONYM_SALT": "salt"})
    (found.home / SQLITE).parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(found.home / SQLITE)) as connection, connection:
        connection.execute("CREATE TABLE task (id INTEGER PRIMARY KEY)")
        connection.execute("CREATE TABLE task_completion (id INTEGER PRIMARY KEY, task_id INTEGER, text TEXT)")
    put(found.home / "label-studio" / "media" / "upload" / "1" / "画像 1.txt", "画像")
    put(found.datasets / "0123456789ab" / "train.jsonl", '{"a": 1}\n')
    put(found.datasets / "latest.json", '{"id": "0123456789ab"}')
    put(found.datasets / "splits.json", "{}")
    put(found.checkpoints / "aaaaaaaaaaaa" / "model.safetensors", "weights" * 1000)
    put(found.checkpoints / "current.json", "{}")
    put(found.reports / "r" / "index.html", "<html>")
    put(found.home / "reviews" / "r" / "items.jsonl", "{}\n")
    put(found.state / "studio.json", '{"url": "http://127.0.0.1:1", "project": 1}')
    put(found.state / "drafts.jsonl", '{"n": 1}\n{"n": 2}\n')
    with contextlib.closing(sqlite3.connect(found.state / "backend.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE replies (text)")
        connection.execute("INSERT INTO replies VALUES ('返事')")
        connection.commit()
    return found


def contents(home: Path) -> dict[str, bytes]:
    """Every file of a folder but the note of the backup itself."""
    found = {p.relative_to(home).as_posix(): p.read_bytes() for p in home.rglob("*") if p.is_file()}
    found.pop("state/backup.json", None)
    return {name: data for name, data in found.items() if not name.endswith(("-wal", "-shm"))}


def rows(path: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@dataclasses.dataclass
class Forged:
    """An archive in which anything can stand."""

    path: Path
    members: list[tuple[tarfile.TarInfo, bytes]]
    header: dict[str, Any]
    manifest: dict[str, Any]

    def write(self) -> Path:
        first = [(HEADER, json.dumps(self.header)), (MANIFEST, json.dumps(self.manifest))]
        with tarfile.open(self.path, "w:gz") as archive:
            notes = [(tarfile.TarInfo(name), text.encode()) for name, text in first]
            for member, data in (notes[0], *self.members, notes[1]):
                if member.isreg():
                    member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return self.path


def forged(tmp_path: Path, *members: tarfile.TarInfo, **manifest: Any) -> Forged:
    head = {"format": FORMAT, "product": "9.9"}
    formats = {"record": 1, "config": 1, "workspace": 1}
    body = {**head, "formats": formats, "database": {"kind": None}, "files": [], "outside": [], "secrets": True}
    return Forged(tmp_path / "forged.gz", [(m, b"evil") for m in members], head, {**body, **manifest})
