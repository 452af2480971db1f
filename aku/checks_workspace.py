"""Checks of what lies in the workspace: settings, secrets, database, data sets, checkpoints, backups."""

from __future__ import annotations

import contextlib
import datetime
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from aku import database
from aku.doctor import Check, Finding, fail, ok, warn
from dialogue import files, migrations
from dialogue.checkpoints import Registry, content_id
from dialogue.errors import AkuError
from dialogue.settings import Workspace, load_section

NEEDED = (
    "LABEL_STUDIO_USERNAME LABEL_STUDIO_PASSWORD LABEL_STUDIO_USER_TOKEN SECRET_KEY BACKEND_USER BACKEND_PASSWORD "
    "WEBHOOK_SECRET PSEUDONYM_SALT"
).split()
OLD_BACKUP = datetime.timedelta(days=7)


def workspace_format(workspace: Workspace) -> Iterator[Finding]:
    """The workspace was written by this release or an earlier one."""
    found = migrations.workspace_format(workspace)
    if found is None:
        yield warn("workspace", f"{workspace.home} is empty.", "`aku up` begins one, `aku restore` fills it.")
    elif found < migrations.WORKSPACE_FORMAT:
        yield warn(
            "workspace",
            f"{workspace.home} has format {found}, this release writes {migrations.WORKSPACE_FORMAT}.",
            "make a backup, then run `aku up`: it brings the workspace up to date.",
        )
    else:
        yield ok("workspace", f"{workspace.home}, format {found}")


def settings(workspace: Workspace) -> Iterator[Finding]:
    """Every section of `aku.toml` can be read."""
    from aku.sections import SECTIONS

    for name, cls, _ in SECTIONS:
        load_section(workspace.settings, name, cls)
    yield ok("settings", "aku.toml is in order" if workspace.settings.exists() else "no aku.toml yet: defaults")


def secrets(workspace: Workspace) -> Iterator[Finding]:
    """Secrets are there, and readable by their owner only."""
    if not workspace.secrets.exists():
        used = (workspace.state / "studio.json").exists()
        if used:
            yield fail("secrets", f"{workspace.secrets} is gone.", "put it back from a backup: its tokens are in use.")
        else:
            yield ok("secrets", "none yet; `aku up` makes them")
        return
    missing = [name for name in NEEDED if not workspace.read_secrets().get(name)]
    if missing:
        yield warn("secrets", f"{workspace.secrets} has no {', '.join(missing)}.", "`aku up` makes what is missing.")
    private = [workspace.secrets, workspace.home / "label-studio", *sorted((workspace.home / "backups").glob("*.gz"))]
    open_ = [path for path in private if path.exists() and path.stat().st_mode & 0o077]
    for path in open_:
        mode = "700" if path.is_dir() else "600"
        message = f"{path} can be read by others (mode {path.stat().st_mode & 0o777:o})."
        yield fail("secrets", message, f"chmod {mode} {path}; if others use this machine, make new secrets.")
    if not open_ and not missing:
        yield ok("secrets", "complete, and readable by their owner only")


def database_check(workspace: Workspace) -> Iterator[Finding]:
    """Label Studio's database is whole, and can be backed up."""
    postgres = database.postgres_settings(workspace)
    if postgres is not None:
        with postgres.connect() as connection:
            server = connection.info.server_version // 10000
        client = database.tool_version("pg_dump")
        if client < server:
            yield warn(
                "database",
                f"PostgreSQL {server} at {postgres.place}, but pg_dump is version {client}: backups will fail.",
                f"install the client programs of PostgreSQL {server}.",
            )
        else:
            yield ok("database", f"PostgreSQL {server} at {postgres.place}")
        return
    path = workspace.home / database.SQLITE
    if not path.exists():
        yield ok("database", "none yet")
        return
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        try:
            (verdict,) = connection.execute("PRAGMA quick_check").fetchone()
        except sqlite3.DatabaseError as error:
            verdict = str(error)
    if verdict == "ok":
        yield ok("database", f"SQLite, {path.stat().st_size / 1e6:.0f} MB, whole")
    else:
        yield fail("database", f"{path} is damaged ({verdict}).", "stop the studio and restore a backup.")


def datasets(workspace: Workspace) -> Iterator[Finding]:
    """Every data set version holds what its id says, and the newest is there."""
    from exporters.versions import get_version, latest_version, verify_version

    folders = sorted(p.parent for p in workspace.datasets.glob("[0-9a-f]*/manifest.json"))
    sound = 0
    for folder in folders:
        try:
            verify_version(get_version(workspace.datasets, folder.name))
            sound += 1
        except AkuError as error:
            yield fail("data sets", str(error), "or restore that folder from a backup.")
    if (workspace.datasets / "latest.json").exists():
        latest_version(workspace.datasets)
    yield ok("data sets", f"{sound} versions, every record as it was exported" if folders else "none yet")


def checkpoints(workspace: Workspace) -> Iterator[Finding]:
    """Every checkpoint is safe to load and holds what its id says; the one in use is there."""
    registry = Registry(workspace.checkpoints)
    folders = sorted(p.parent for p in workspace.checkpoints.glob("[0-9a-f]*/aku.json"))
    sound = 0
    for folder in folders:
        try:
            checkpoint = registry.get(folder.name)
        except AkuError as error:
            yield fail("checkpoints", str(error), "or restore that folder from a backup.")
            continue
        if content_id(folder) != folder.name:
            yield fail(
                "checkpoints",
                f"{folder}: its files are not the ones it was named after.",
                "restore the folder from a backup, or remove it and train again.",
            )
            continue
        if checkpoint.is_adapter and not _base_is_there(folder, checkpoint.card):
            message = f"{folder}: the base model of this adapter is not on this machine."
            yield fail("checkpoints", message, "put the base model back where it was.")
            continue
        sound += 1
    current = registry.current()
    if current is not None and current.id not in {folder.name for folder in folders}:
        message = f"current.json names {current.id}, which is not there."
        yield fail("checkpoints", message, "`aku checkpoints use ID` chooses another one, or restore it from a backup.")
    elif sound:
        yield ok("checkpoints", f"{sound} in order, in use: {current.id if current else 'none'}")
    elif not folders:
        yield ok("checkpoints", "none yet")


def backups(workspace: Workspace) -> Iterator[Finding]:
    """There is a recent backup."""
    if not (workspace.home / "label-studio").exists() and database.postgres_settings(workspace) is None:
        yield ok("backup", "nothing to back up yet")
        return
    note = workspace.state / "backup.json"
    remedy = "run `aku backup /another/disk`, best every night; see docs/operations.md."
    if not note.exists():
        yield warn("backup", "none was ever made.", remedy)
        return
    facts = files.read_json(note)
    path, made = Path(str(facts["path"])), datetime.datetime.fromisoformat(str(facts["created_at"]))
    age = datetime.datetime.now(datetime.UTC) - made
    if age > OLD_BACKUP:
        yield warn("backup", f"the last one is {age.days} days old.", remedy)
    elif path.is_relative_to(workspace.home):
        yield warn("backup", f"{path} lies on the same disk as what it saves.", "copy it to another disk.")
    else:
        yield ok("backup", f"{path}, made {made:%Y-%m-%d %H:%M} UTC")


def _base_is_there(folder: Path, card: dict[str, object]) -> bool:
    named = files.read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    names = [name for name in (named, card.get("base")) if isinstance(name, str) and name]
    places = [p for name in names for p in (Path(name), folder / name, folder.parent / name)]
    return any((place / "config.json").is_file() for place in places)


CHECKS: tuple[tuple[str, Check], ...] = (
    ("workspace", workspace_format),
    ("settings", settings),
    ("secrets", secrets),
    ("database", database_check),
    ("data sets", datasets),
    ("checkpoints", checkpoints),
    ("backup", backups),
)
