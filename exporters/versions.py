"""Data set versions: folders named after a hash of their content, and `latest.json` which names the newest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dialogue import FileError, files
from dialogue.migrations import RECORD_FORMAT, check_format
from exporters.splits import SPLITS
from exporters.spool import Spool, to_line

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
    """Return a version by its id; raises `FileError` if there is none, or a later release wrote it."""
    path = datasets / version
    if not _ID.fullmatch(version) or not (path / "manifest.json").is_file():
        raise FileError(f"{path}: no such data set version; run `aku export`.")
    manifest = files.read_json(path / "manifest.json")
    counts = manifest.get("counts") if isinstance(manifest, dict) else None
    if not isinstance(counts, dict):
        raise FileError(f"{path / 'manifest.json'}: has no counts; remove the folder and run `aku export`.")
    check_format(manifest, RECORD_FORMAT, str(path), FileError)
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


def content_id(lines: Callable[[str], Iterable[str]]) -> str:
    """Hash a version's lines to 12 hexadecimal digits of SHA-256.

    What counts: the records by split, the drafts, and why annotations were rejected; not the rejections'
    links, which hold a host and port.

    Args:
        lines: returns the lines of `train`, `validation`, `test`, `drafts` or `rejected`.
    """
    digest = hashlib.sha256()
    for name in (*SPLITS, "drafts"):
        digest.update(f"\0{name}\0".encode())
        for line in lines(name):
            digest.update(line.encode() + b"\n")
    digest.update(b"\0rejected\0")
    for line in lines("rejected"):
        value = json.loads(line)
        value.pop("link", None)
        digest.update(to_line(value).encode() + b"\n")
    return digest.hexdigest()[:12]


def verify_version(version: DatasetVersion) -> None:
    """Check that a version's files hold what its id promises; raises `FileError` naming the folder if not."""
    try:
        found = content_id(lambda name: read_lines(version.file(name)))
    except (OSError, ValueError):  # a file is missing, is not UTF-8, or not JSON
        found = ""
    if found != version.id:
        raise FileError(
            f"{version.path}: its files were changed after the export; remove the folder and run `aku export`."
        )


def write_version(
    datasets: Path, spool: Spool, manifest: Mapping[str, Any], checks: Mapping[str, Any], card: str
) -> DatasetVersion:
    """Write a version's folder, all or nothing, and then name it in `latest.json`.

    A folder of the same id has the same records and keeps them; what describes them (card, checks, links) is
    brought up to date there file by file.  Raises `FileError` if somebody changed the records of that folder.
    """
    version = str(manifest["id"])
    target = datasets / version
    if not target.exists():
        with files.atomic_folder(target) as folder:
            for name in (*SPLITS, "drafts"):
                write_lines(folder / f"{name}.jsonl", spool.lines(name))
            _describe(folder, spool, manifest, checks, card)
    else:
        verify_version(DatasetVersion(version, target, manifest["counts"]))
        for leftover in target.glob(".*"):  # of an export that was killed while it replaced a file here
            leftover.unlink()
        _describe(target, spool, manifest, checks, card)
    return use_version(datasets, version)


def use_version(datasets: Path, version: str) -> DatasetVersion:
    """Name a version in `latest.json` and return it; raises `FileError` if there is none of this id."""
    found = get_version(datasets, version)
    latest = datasets / "latest.json"
    if not latest.exists() or latest.read_text(encoding="utf-8") != json.dumps({"id": version}, indent=2) + "\n":
        files.write_json(latest, {"id": version})
    return found


def _describe(folder: Path, spool: Spool, manifest: Mapping[str, Any], checks: Mapping[str, Any], card: str) -> None:
    texts = {
        "rejected.jsonl": "".join(line + "\n" for line in spool.lines("rejected")),
        "checks.json": json.dumps(checks, ensure_ascii=False, indent=2) + "\n",
        "manifest.json": json.dumps(manifest, ensure_ascii=False, indent=2) + "\n",
        "README.md": card,
    }
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            with files.atomic_open(path) as handle:
                handle.write(text)


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a version's file without their ends."""
    with path.open(encoding="utf-8", newline="\n") as handle:
        for line in handle:
            yield line.rstrip("\n")


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a version's file as JSON objects, one in memory at a time."""
    for _, row in files.read_jsonl(path):
        yield row


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write lines into a new file of an unfinished folder; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        for line in lines:
            handle.write(line + "\n")
            count += 1
    return count
