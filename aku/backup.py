"""`aku backup`: the whole workspace as one archive, made while people work.

The archive is a gzip-compressed tar: `aku-backup.json` (what it is), the files under `workspace/`, PostgreSQL's dump
if there is one, and last `manifest.json` with the size and SHA-256 of each file.  The manifest stands last because it
is written from what was read; so an archive that ends early has none, and is seen to be incomplete.

What keeps the parts consistent with one another:

1. Label Studio's database is copied first, as it stands at one moment (`aku.database`).
2. At once after it the sizes of the append-only journals are noted, and no more than that is read of them: a draft is
   journalled before it is shown, so every draft behind an annotation is there.
3. Then the files that name others (`latest.json`, `current.json`): what they name was complete before.
4. Then everything else, folders of versions and checkpoints, which never change once they have their name.
5. Last the ledger of splits, which must know every version.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from aku import database
from dialogue import files, migrations
from dialogue.checkpoints import Registry
from dialogue.errors import AkuError, FileError
from dialogue.settings import Workspace

FORMAT = 1
HEADER, MANIFEST, ROOT, DUMP = "aku-backup.json", "manifest.json", "workspace/", "database.pgdump"
SECRETS = ("secrets.env", "label-studio/.env")

Progress = Callable[[int, int], None]

_CHUNK = 1 << 20
_PACKED = (".safetensors", ".png", ".gz", ".parquet", ".woff2", ".jpg", ".zip")
_SKIPPED_TOP = {"backups", "logs"}
_SKIPPED_NAMES = {".cache", "__pycache__"}
_SKIPPED_SUFFIXES = (".lock", "-wal", "-shm", "-journal", ".damaged", ".sock")
_SKIPPED_START = (".spool-", ".restore-")
_UNFINISHED = re.compile(r"\..+\.[a-z0-9_]{8}")  # what dialogue.files makes before the rename
_LIVE_CACHE = re.compile(r"live-\d+\.sqlite")
_TRAINER_STATE = re.compile(r"checkpoint-\d+")


@dataclasses.dataclass(frozen=True, slots=True)
class Backup:
    """A finished archive and what its manifest says."""

    path: Path
    manifest: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A file to be archived: where it is read, its name in the archive, and how many bytes of it count (None: all)."""

    path: Path
    name: str
    size: int | None = None


def default_path(workspace: Workspace) -> Path:
    """Return where a backup goes when no file is named."""
    return workspace.home / "backups" / f"aku-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}.tar.gz"


def make_backup(
    workspace: Workspace, target: Path, *, secrets: bool = True, progress: Progress | None = None
) -> Backup:
    """Write an archive of the workspace, mode 0600, all or nothing, and note in the workspace that it was made.

    Args:
        workspace: what to back up; people may go on working in it.
        target: the archive; a folder gets a file named after the time.
        secrets: whether `secrets.env` goes along.
        progress: called with bytes read and bytes in all.

    Raises:
        FileError: there is nothing to back up, the target exists, a database is damaged, or the disk is full.
        SettingsError: a later release wrote the workspace, or PostgreSQL is half configured.
    """
    if not workspace.home.is_dir() or not any(workspace.home.iterdir()):
        raise FileError(f"{workspace.home}: there is no workspace to back up; name one with --home.")
    target = target / default_path(workspace).name if target.is_dir() else target
    if target.exists():
        raise FileError(f"{target}: exists already; name another file.")
    migrations.workspace_format(workspace)  # a workspace of a later release is not ours to read
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    head = {"format": FORMAT, "product": version("aku-dialogue-studio"), "created_at": now}
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(files.atomic_open(target, "wb", private=True))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".restore-", dir=target.parent)))
        sources, facts = snapshot(workspace, scratch, target, secrets=secrets)
        total = sum(s.path.stat().st_size if s.size is None else s.size for s in sources)
        archive = Archive(raw, lambda done: progress(min(done, total), total) if progress else None)
        archive.add_json(HEADER, head)
        rows = [archive.add(source) for source in sources]
        manifest = {
            **head,
            "label_studio": version("label-studio"),
            "formats": {
                "record": migrations.RECORD_FORMAT,
                "config": migrations.CONFIG_FORMAT,
                "workspace": migrations.WORKSPACE_FORMAT,
            },
            "secrets": secrets,
            "database": facts,
            "outside": outside(workspace),
            "files": rows,
        }
        archive.add_json(MANIFEST, manifest)
        archive.close()
    files.write_json(workspace.state / "backup.json", {"path": str(target.absolute()), "created_at": now})
    return Backup(target, manifest)


def snapshot(
    workspace: Workspace, scratch: Path, target: Path, *, secrets: bool
) -> tuple[list[Source], dict[str, Any]]:
    """Copy the databases into `scratch` and list what is archived, in the order that this file's docstring gives."""
    postgres = database.postgres_settings(workspace)
    found: list[Source] = []
    facts: dict[str, Any] = {"kind": None}
    if postgres is not None:
        with database.postgres_snapshot(postgres) as (name, counts):
            journals = _journals(workspace)
            database.dump_postgres(postgres, name, scratch / DUMP)
        facts = {"kind": "postgresql", **counts}
        found.append(Source(scratch / DUMP, DUMP))
    else:
        main = workspace.home / database.SQLITE
        if main.exists():
            facts = {"kind": "sqlite", **database.snapshot_sqlite(main, scratch / "0.sqlite")}
            found.append(Source(scratch / "0.sqlite", ROOT + database.SQLITE))
        journals = _journals(workspace)
    done = {source.name for source in (*found, *journals)}
    rest: list[Source] = []
    for path in sorted(_files(workspace.home)):
        name = ROOT + path.relative_to(workspace.home).as_posix()
        if name in done or _is_skipped(path.relative_to(workspace.home)) or path.resolve() == target.resolve():
            continue
        if not secrets and name.removeprefix(ROOT) in SECRETS:
            continue
        if path.suffix in (".sqlite", ".sqlite3") and _is_sqlite(path):
            copy = scratch / f"{len(rest) + 1}.sqlite"
            database.snapshot_sqlite(path, copy)
            path = copy  # noqa: PLW2901 - the name in the archive stays
        rest.append(Source(path, name))
    return [*found, *journals, *sorted(rest, key=_order)], facts


class Archive:
    """A gzip-compressed tar that is written from front to back.

    What does not get smaller (weights, pictures) is stored rather than compressed, at ten times the speed; a gzip
    file may consist of several members, each with a level of its own.
    """

    def __init__(self, raw: IO[bytes], tick: Callable[[int], None]) -> None:
        """Begin writing to `raw`; `tick` is called with the bytes read so far."""
        self._raw, self._tick, self._done = raw, tick, 0
        self._level = 1
        self._gzip = gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, filename="", mtime=0)
        self._position = 0
        self._tar = tarfile.open(fileobj=cast("Any", self), mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - `close` closes it

    def write(self, data: bytes) -> int:
        """Take bytes from the tar writer."""
        self._position += len(data)
        return self._gzip.write(data)

    def tell(self) -> int:
        """Return how many bytes the tar writer gave."""
        return self._position

    def add(self, source: Source) -> dict[str, Any]:
        """Add a file as it stands now; returns its manifest line.  Raises `FileError` if it shrinks meanwhile."""
        try:
            with source.path.open("rb") as handle:
                facts = os.fstat(handle.fileno())
                size = facts.st_size if source.size is None else source.size
                self._set_level(0 if source.path.suffix in _PACKED else 1)
                reader = _Reader(handle, size, self._read)
                member = _member(source.name, size, facts.st_mtime, private=not facts.st_mode & 0o077)
                self._tar.addfile(member, cast("IO[bytes]", reader))
        except (tarfile.TarError, FileNotFoundError) as error:
            raise FileError(f"{source.path}: changed or vanished while it was read; make the backup again.") from error
        except OSError as error:
            if error.filename is None and error.errno is None:  # tarfile's "unexpected end of data"
                raise FileError(f"{source.path}: became shorter while it was read; make the backup again.") from error
            raise
        return {"path": source.name, "bytes": size, "sha256": reader.digest.hexdigest(), "mode": member.mode}

    def add_json(self, name: str, value: dict[str, Any]) -> None:
        """Add a small file that is written here."""
        data = (json.dumps(value, indent=1) + "\n").encode()
        self._set_level(1)
        self._tar.addfile(_member(name, len(data), 0, private=True), io.BytesIO(data))

    def close(self) -> None:
        """Finish tar and gzip."""
        self._tar.close()
        self._gzip.close()

    def _read(self, count: int) -> None:
        self._done += count
        self._tick(self._done)

    def _set_level(self, level: int) -> None:
        if level != self._level:
            self._gzip.close()
            self._gzip = gzip.GzipFile(fileobj=self._raw, mode="wb", compresslevel=level, filename="", mtime=0)
            self._level = level


class _Reader:
    """Reads no more than `size` bytes of a file, and hashes them."""

    def __init__(self, handle: IO[bytes], size: int, tick: Callable[[int], None]) -> None:
        self._handle, self._left, self._tick = handle, size, tick
        self.digest = hashlib.sha256()

    def read(self, count: int, /) -> bytes:
        data = self._handle.read(min(count, self._left))
        self._left -= len(data)
        self.digest.update(data)
        self._tick(len(data))
        return data


def outside(workspace: Workspace) -> list[str]:
    """Return the base models that adapters of the workspace need and that lie elsewhere, so in no backup."""
    needed = set()
    for path in sorted(workspace.checkpoints.glob("*/adapter_config.json")):
        with contextlib.suppress(AkuError):
            checkpoint = Registry(workspace.checkpoints).get(path.parent.name)
            for base in (files.read_json(path).get("base_model_name_or_path"), checkpoint.card.get("base")):
                if isinstance(base, str) and Path(base).is_absolute() and Path(base).is_dir():
                    inside = Path(base).resolve().is_relative_to(workspace.home.resolve())
                    needed |= set() if inside else {base}
    return sorted(needed)


def version(package: str) -> str | None:
    """Return the installed version of a package, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _journals(workspace: Workspace) -> list[Source]:
    """The append-only journals, up to the last whole line there is now."""
    return [Source(p, f"{ROOT}state/{p.name}", _whole_lines(p)) for p in sorted(workspace.state.glob("*.jsonl"))]


def _whole_lines(path: Path) -> int:
    with path.open("rb") as handle:
        size = handle.seek(0, io.SEEK_END)
        while size:
            start = max(0, size - 65536)
            handle.seek(start)
            if (place := handle.read(size - start).rfind(b"\n")) >= 0:
                return start + place + 1
            size = start
    return 0


def _files(folder: Path, seen: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Yield regular files below `folder`, those behind links too: data may lie on another disk."""
    real = folder.resolve()
    if real in seen:
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files(path, seen | {real})
        elif path.is_file():
            yield path


def _is_skipped(path: Path) -> bool:
    """Tell whether a path of the workspace is a log, a lock, a cache, unfinished, or a trainer's state."""
    if path.parts[0] in _SKIPPED_TOP or path.name.endswith(_SKIPPED_SUFFIXES) or _LIVE_CACHE.fullmatch(path.name):
        return True
    if path.parts[0] == "runs" and any(_TRAINER_STATE.fullmatch(part) for part in path.parts):
        return True
    return any(
        part in _SKIPPED_NAMES or part.startswith(_SKIPPED_START) or _UNFINISHED.fullmatch(part) for part in path.parts
    )


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as handle:
        return handle.read(16) == b"SQLite format 3\0"


def _order(source: Source) -> tuple[int, str]:
    """Files that name others first, the ledger of splits last."""
    name = source.name.removeprefix(ROOT)
    pointer = name.endswith(("/latest.json", "/current.json"))
    return (0 if pointer else 2 if name == "datasets/splits.json" else 1, name)


def _member(name: str, size: int, time: float, *, private: bool) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, int(time), 0o600 if private else 0o644
    return member
