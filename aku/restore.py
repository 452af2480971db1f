"""`aku restore`: an archive of `aku backup` into an empty workspace, all of it or nothing.

An archive comes from a disk, a mail, a colleague: it is checked before it is believed.  Only regular files with plain
relative names are taken, each is hashed while it is written, and nothing moves to its place before all of them are
what the manifest says.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from aku import database
from aku.backup import DUMP, FORMAT, HEADER, MANIFEST, ROOT, Progress
from dialogue import migrations
from dialogue.errors import FileError
from dialogue.settings import Workspace

MADE_BY_INIT = {"aku.toml", "secrets.env"}
BOUND_TO_DATA = {"LABEL_STUDIO_USERNAME", "LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_USER_TOKEN", "PSEUDONYM_SALT"}
"""Secrets that stand in the database too, or in what was exported from it."""
_CHUNK = 1 << 20
_LARGEST_NOTE = 256 << 20
"""Bytes that header and manifest may have: they are read into memory."""


def restore(archive: Path, workspace: Workspace, *, progress: Progress | None = None) -> dict[str, Any]:
    """Fill an empty workspace, and an empty PostgreSQL database if the archive holds one; returns the manifest.

    Args:
        archive: what `aku backup` wrote.
        workspace: must be absent or an empty folder, but for the `aku.toml` and `secrets.env` that `aku init` makes:
            a container has them mounted.  They stay as they are.
        progress: called with bytes of the archive read, and its size.

    Raises:
        FileError: the workspace or the database is not empty, the archive is cut off, damaged, not ours or tries to
            write outside the workspace, or the disk is full.  Nothing is left behind.
        SettingsError: a later release wrote the archive.
    """
    home = workspace.home
    kept = _kept(home)
    new = not home.exists()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with unpacked(archive, home, progress) as (folder, manifest):
            inside = folder / ROOT
            inside.mkdir(exist_ok=True)
            _same_secrets(Workspace(inside), workspace, archive)
            _load_database(folder, inside if Workspace(inside).secrets.exists() else home, manifest, archive)
            # All is checked; what is left are renames inside one folder.
            if (inside / "label-studio").is_dir():
                (inside / "label-studio").chmod(0o700)  # as Label Studio makes it
            for path in sorted(p for p in inside.iterdir() if p.name not in kept):
                path.rename(home / path.name)
    except OSError as error:
        raise FileError(f"{home}: writing failed ({error.strerror}); free some space and run again.") from error
    finally:
        if new and home.is_dir() and not any(home.iterdir()):
            home.rmdir()
    return manifest


def _kept(home: Path) -> set[str]:
    """Return which of `aku init`'s two files are there; raises `FileError` if anything else is."""
    if home.exists() and not home.is_dir():
        raise FileError(f"{home}: is no folder; name an empty workspace with --home.")
    there = {path.name for path in home.iterdir()} if home.exists() else set()
    if not there <= MADE_BY_INIT:
        raise FileError(f"{home}: is not empty; name an empty workspace with --home, nothing is ever overwritten.")
    return there


def _same_secrets(restored: Workspace, workspace: Workspace, archive: Path) -> None:
    """Refuse secrets that would not fit the restored database and pseudonyms."""
    here, there = workspace.read_secrets(), restored.read_secrets()
    if any(here[key] != there[key] for key in BOUND_TO_DATA & here.keys() & there.keys()):
        raise FileError(
            f"{workspace.secrets}: is not the one of the backup; put that one in its place: "
            f"tar -xzOf {archive} {ROOT}secrets.env > {workspace.secrets}"
        )


def verify(archive: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Check that an archive is whole by unpacking it into a folder that vanishes; raises as `restore` does."""
    with (
        tempfile.TemporaryDirectory(prefix="aku-restore-") as folder,
        unpacked(archive, Path(folder), progress) as (_, manifest),
    ):
        return manifest


@contextlib.contextmanager
def unpacked(archive: Path, parent: Path, progress: Progress | None = None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield a folder below `parent` with the archive's checked files, and the manifest; the folder then vanishes."""
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=".restore-"))
    try:
        yield folder, _unpack(archive, folder, progress)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def safe_name(name: str) -> bool:
    """Tell whether a member's name is a plain relative path below the workspace, or the database's dump."""
    path = PurePosixPath(name)
    plain = not path.is_absolute() and ".." not in path.parts and str(path) == name and "\\" not in name
    return plain and name.isprintable() and (name == DUMP or (name.startswith(ROOT) and name != ROOT))


def _unpack(archive: Path, folder: Path, progress: Progress | None) -> dict[str, Any]:
    damaged = f"{archive}: is cut off or damaged; take another backup."
    try:
        with archive.open("rb") as raw:
            total = archive.stat().st_size
            with gzip.GzipFile(fileobj=raw) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
                members = iter(tar)
                header = _header(tar, next(members, None), archive)
                found: dict[str, tuple[int, str]] = {}
                for member in members:
                    if member.name == MANIFEST:
                        manifest = _note(tar, member, damaged)
                        _check(found, manifest, header, archive)
                        return manifest
                    found[member.name] = _write(tar, member, folder, archive, found)
                    if progress is not None:
                        progress(raw.tell(), total)
    except FileNotFoundError as error:
        raise FileError(f"{archive}: no such file; check the path.") from error
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(damaged) from error
    raise FileError(damaged)  # there was no manifest


def _header(tar: tarfile.TarFile, member: tarfile.TarInfo | None, archive: Path) -> dict[str, Any]:
    foreign = f"{archive}: is no archive of `aku backup`; name one."
    if member is None or member.name != HEADER or not member.isreg():
        raise FileError(foreign)
    header = _note(tar, member, foreign)
    found = header.get("format")
    if not isinstance(found, int):
        raise FileError(foreign)
    if found > FORMAT:
        raise FileError(f"{archive}: was written by a later release ({header.get('product')}); upgrade first.")
    return header


def _note(tar: tarfile.TarFile, member: tarfile.TarInfo, problem: str) -> dict[str, Any]:
    handle = tar.extractfile(member) if member.isreg() and member.size <= _LARGEST_NOTE else None
    try:
        value = json.loads(handle.read()) if handle is not None else None
    except ValueError as error:
        raise FileError(problem) from error
    if not isinstance(value, dict):
        raise FileError(problem)
    return value


def _write(
    tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, archive: Path, before: dict[str, tuple[int, str]]
) -> tuple[int, str]:
    """Write one member below `folder`; returns its size and SHA-256."""
    try:
        tarfile.data_filter(member, str(folder))
    except tarfile.FilterError as error:
        raise FileError(
            f"{archive}: {member.name!r} would be written outside the workspace; do not trust it."
        ) from error
    if not member.isreg() or not safe_name(member.name) or member.name in before:
        raise FileError(f"{archive}: {member.name!r} is nothing that a backup holds; do not trust it.")
    target = folder / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    handle = tar.extractfile(member)
    if handle is None:  # not so for a regular file
        raise FileError(f"{archive}: {member.name!r} can not be read; take another backup.")
    digest = hashlib.sha256()
    with target.open("xb") as out:
        target.chmod(0o600 if not member.mode & 0o077 or target.name in ("secrets.env", DUMP) else 0o644)
        count = _copy(handle, out, digest)
    return count, digest.hexdigest()


def _copy(handle: IO[bytes], out: IO[bytes], digest: Any) -> int:
    count = 0
    while data := handle.read(_CHUNK):
        out.write(data)
        digest.update(data)
        count += len(data)
    return count


def _check(found: dict[str, tuple[int, str]], manifest: dict[str, Any], header: dict[str, Any], archive: Path) -> None:
    """Compare what was unpacked with the manifest; raises `FileError` naming the first file that differs."""
    rows = manifest.get("files")
    formats = manifest.get("formats")
    if not isinstance(rows, list) or not isinstance(formats, dict) or not isinstance(manifest.get("database"), dict):
        raise FileError(f"{archive}: its manifest is damaged; take another backup.")
    wanted = {str(row.get("path")): (row.get("bytes"), row.get("sha256")) for row in rows if isinstance(row, dict)}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise FileError(f"{archive}: {name} is not what the manifest says; take another backup.")
    known = {
        "record": migrations.RECORD_FORMAT,
        "config": migrations.CONFIG_FORMAT,
        "workspace": migrations.WORKSPACE_FORMAT,
    }
    for name, number in known.items():
        if not isinstance(formats.get(name), int) or formats[name] > number:
            raise FileError(f"{archive}: was written by a later release ({header.get('product')}); upgrade first.")


def _load_database(folder: Path, home: Path, manifest: dict[str, Any], archive: Path) -> None:
    """Load PostgreSQL's dump into the database that environment or secrets name, if the archive holds one."""
    settings = database.postgres_settings(Workspace(home))
    kind = manifest["database"].get("kind")
    if kind == "postgresql":
        if settings is None:
            raise FileError(
                f"{archive}: holds a PostgreSQL database; set DJANGO_DB and POSTGRE_HOST … to an empty one."
            )
        database.load_postgres(settings, folder / DUMP)
    elif settings is not None and kind == "sqlite":
        raise FileError(f"{archive}: holds an SQLite database, but DJANGO_DB asks for PostgreSQL; unset it.")
