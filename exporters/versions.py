"""Data set versions: folders named after a hash of their content, and `latest.json` which names the newest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dialogue import FileError, files
from exporters.splits import SPLITS
from exporters.spool import Spool

_ID = re.compile(r"[0-9a-f]{12}")


@dataclasses.dataclass(frozen=True, slots=True)
class DatasetVersion:
    """One data set version: its id, folder, and counts (train, validation, test; rejected: broken annotations)."""

    id: str
    path: Path
    counts: Mapping[str, int]

    def file(self, split: str) -> Path:
        """Path of a split's canonical JSONL."""
        return self.path / f"{split}.jsonl"

    @property
    def manifest(self) -> dict[str, Any]:
        """`manifest.json`; raises `FileError` if it is broken."""
        return dict(files.read_json(self.path / "manifest.json"))


def get_version(datasets: Path, version: str) -> DatasetVersion:
    """Return a version by its id; raises `FileError` if there is none."""
    path = datasets / version
    if not _ID.fullmatch(version) or not (path / "manifest.json").is_file():
        raise FileError(f"{path}: no such data set version; run `aku export`.")
    counts = files.read_json(path / "manifest.json").get("counts")
    if not isinstance(counts, dict):
        raise FileError(f"{path / 'manifest.json'}: has no counts; remove the folder and run `aku export`.")
    return DatasetVersion(version, path, counts)


def latest_version(datasets: Path) -> DatasetVersion:
    """Return the newest version; raises `FileError` with the remedy if there is none yet."""
    path = datasets / "latest.json"
    if not path.exists():
        raise FileError(f"{path}: there is no data set version yet; run `aku export`.")
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise FileError(f"{path}: names no version; run `aku export`.")
    return get_version(datasets, str(value.get("id")))


def content_id(spool: Spool) -> str:
    """Hash all records by split, the drafts, and why annotations were rejected (not the links, which hold a port)."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(f"\0{split}\0".encode())
        _update(digest, spool.lines(split))
    digest.update(b"\0drafts\0")
    _update(digest, spool.draft_lines())
    digest.update(b"\0rejected\0")
    for line in spool.rejected_lines():
        value = json.loads(line)
        value.pop("link", None)
        _update(digest, [json.dumps(value, ensure_ascii=False)])
    return digest.hexdigest()[:12]


def _update(digest: hashlib._Hash, lines: Iterable[str]) -> None:
    for line in lines:
        digest.update(line.encode() + b"\n")


def write_version(
    datasets: Path, spool: Spool, manifest: Mapping[str, Any], checks: Mapping[str, Any], card: str
) -> DatasetVersion:
    """Write a version's folder, all or nothing, and then name it in `latest.json`.

    A folder of the same id has the same content and is kept.
    """
    version = str(manifest["id"])
    target = datasets / version
    if not target.exists():
        with files.atomic_folder(target) as folder:
            for split in SPLITS:
                write_lines(folder / f"{split}.jsonl", spool.lines(split))
            write_lines(folder / "rejected.jsonl", spool.rejected_lines())
            write_lines(folder / "drafts.jsonl", spool.draft_lines())
            files.write_json(folder / "checks.json", checks)
            files.write_json(folder / "manifest.json", manifest)
            (folder / "README.md").write_text(card, encoding="utf-8")
    latest = datasets / "latest.json"
    if not latest.exists() or files.read_json(latest) != {"id": version}:
        files.write_json(latest, {"id": version})
    return DatasetVersion(version, target, manifest["counts"])


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write lines into a new file of an unfinished folder; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        for line in lines:
            handle.write(line + "\n")
            count += 1
    return count
