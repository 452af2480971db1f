"""Label Studio's database as one file: a snapshot of SQLite or PostgreSQL while people work, and the way back."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialogue.errors import FileError, SettingsError
from dialogue.settings import Workspace

if TYPE_CHECKING:
    import psycopg

SQLITE = "label-studio/label_studio.sqlite3"
"""Where Label Studio keeps its database inside the workspace when it is told of no other."""

LOCK_PATIENCE = 60.0
"""Seconds to wait for a moment in which nobody writes."""

_COUNTED = {"tasks": "task", "annotations": "task_completion", "drafts": "tasks_annotationdraft"}
_POSTGRES = ("default", "postgresql")  # Label Studio's two names for it


@dataclasses.dataclass(frozen=True, slots=True)
class Postgres:
    """How to reach Label Studio's PostgreSQL database.  The password stays out of every printed form."""

    host: str
    port: int
    name: str
    user: str
    password: str = dataclasses.field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What `pg_dump` and `pg_restore` need beside their arguments: the password never stands among these."""
        return {**os.environ, "PGPASSWORD": self.password}

    @property
    def arguments(self) -> list[str]:
        """Command-line arguments that name the server and the user."""
        return ["--host", self.host, "--port", str(self.port), "--username", self.user, "--no-password"]

    def connect(self) -> psycopg.Connection[Any]:
        """Return a connection; raises `FileError` if the server can not be reached or refuses."""
        import psycopg

        try:
            return psycopg.connect(
                host=self.host,
                port=self.port,
                dbname=self.name,
                user=self.user,
                password=self.password,
                connect_timeout=10,
            )
        except psycopg.Error as error:
            raise FileError(f"PostgreSQL at {self.place} can not be used ({_last_line(str(error))}).") from error

    @property
    def place(self) -> str:
        """Host, port and name of the database, for messages."""
        return f"{self.host}:{self.port}/{self.name}"


def postgres_settings(workspace: Workspace, environment: Mapping[str, str] | None = None) -> Postgres | None:
    """Return where PostgreSQL is, or None if Label Studio keeps its data in SQLite.

    Label Studio's own names are read (`DJANGO_DB`, `POSTGRE_HOST` …) from the environment first, then from
    `secrets.env`.  Raises `SettingsError` when a name is missing or the port is no number.
    """
    values = {**workspace.read_secrets(), **(os.environ if environment is None else environment)}
    if values.get("DJANGO_DB", "sqlite") not in _POSTGRES:
        return None
    missing = [key for key in ("POSTGRE_NAME", "POSTGRE_USER", "POSTGRE_PASSWORD") if not values.get(key)]
    if missing:
        raise SettingsError(
            f"DJANGO_DB asks for PostgreSQL but {missing[0]} is not set; set it or add it to secrets.env."
        )
    port = values.get("POSTGRE_PORT", "5432")
    if not port.isdigit():
        raise SettingsError(f"POSTGRE_PORT is {port!r}; it must be a number.")
    host = values.get("POSTGRE_HOST", "localhost")
    return Postgres(host, int(port), values["POSTGRE_NAME"], values["POSTGRE_USER"], values["POSTGRE_PASSWORD"])


def snapshot_sqlite(source: Path, target: Path) -> dict[str, int]:
    """Copy a SQLite database as it stands at one moment, whoever writes to it; returns its counts.

    Uses SQLite's online backup in one step: writers wait for the length of a file copy, and no later write can
    make it begin again.  Raises `FileError` if the source is damaged.
    """
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=0)) as there,
            contextlib.closing(sqlite3.connect(target)) as here,
        ):
            target.chmod(0o600)
            _take_read_lock(there)
            there.backup(here)
            (verdict,) = here.execute("PRAGMA integrity_check").fetchone()
            if verdict != "ok":
                raise FileError(f"{source}: the database is damaged ({verdict}); restore an earlier backup.")
            # One file that needs no journal beside it: a database in WAL mode is folded into its main file.
            here.execute("PRAGMA journal_mode=DELETE")
            return _counts(lambda query: int(here.execute(query).fetchone()[0]))
    except sqlite3.Error as error:
        raise FileError(
            f"{source}: can not be copied ({error}); restore an earlier backup if it is damaged."
        ) from error


def _take_read_lock(connection: sqlite3.Connection) -> None:
    """Begin a read transaction, trying for a minute.

    SQLite's locks know no queue, and its own waiting looks ten times a second: beside a writer that never rests it
    took 20 s to find a gap between two commits.  Looking each millisecond finds one at once.
    """
    end = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            connection.rollback()
            if time.monotonic() > end:
                raise
            time.sleep(0.001)
        else:
            return


@contextlib.contextmanager
def postgres_snapshot(database: Postgres) -> Iterator[tuple[str, dict[str, int]]]:
    """Hold a snapshot of the database open; yields its name for `dump_postgres`, and its counts."""
    import psycopg

    with database.connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True

        def count(query: str) -> int:
            row = connection.execute(query.encode()).fetchone()
            return int(row[0]) if row else 0

        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        there = {str(r[0]) for r in connection.execute("SELECT tablename FROM pg_tables").fetchall()}
        yield str(row[0]) if row else "", _counts(count, there)


def dump_postgres(database: Postgres, snapshot: str, target: Path) -> None:
    """Write the snapshot in PostgreSQL's custom format; raises `FileError` with what `pg_dump` says."""
    command = [tool("pg_dump"), *database.arguments, "--format=custom", "--no-owner", "--no-privileges"]
    _run([*command, f"--snapshot={snapshot}", f"--file={target}", database.name], database)
    target.chmod(0o600)


def check_empty(database: Postgres) -> None:
    """Raise `FileError` if the database holds tables already."""
    with database.connect() as connection:
        row = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    if row and row[0]:
        raise FileError(f"PostgreSQL at {database.place} holds {row[0]} tables; restore into an empty database.")


def load_postgres(database: Postgres, dump: Path) -> None:
    """Fill an empty database from a dump in one transaction: all of it, or nothing."""
    check_empty(database)
    command = [tool("pg_restore"), *database.arguments, "--no-owner", "--no-privileges", "--single-transaction"]
    _run([*command, "--exit-on-error", f"--dbname={database.name}", str(dump)], database)


def tool(name: str) -> str:
    """Return the path of a PostgreSQL program, the newest that is installed; raises `FileError` if there is none."""
    packaged = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: int(p.parts[-3].split(".")[0]))
    if packaged:
        return str(packaged[-1])
    if found := shutil.which(name):
        return found
    raise FileError(f"{name} is not installed; install PostgreSQL's client programs (Debian: postgresql-client).")


def tool_version(name: str) -> int:
    """Return the major version of a PostgreSQL program."""
    result = subprocess.run([tool(name), "--version"], capture_output=True, text=True, check=True)
    return int(result.stdout.split()[2].split(".")[0])


def _run(command: list[str], database: Postgres) -> None:
    result = subprocess.run(command, env=database.environment, capture_output=True, text=True, check=False)
    if result.returncode:
        name = Path(command[0]).name
        raise FileError(f"{name} on {database.place} failed: {_last_line(result.stderr)}")


def _counts(count: Callable[[str], int], tables: set[str] | None = None) -> dict[str, int]:
    found = {}
    for name, table in _COUNTED.items():
        if tables is not None and table not in tables:
            continue
        with contextlib.suppress(sqlite3.Error):  # a database of another kind, or a table of another release
            found[name] = count(f"SELECT count(*) FROM {table}")  # noqa: S608 - names are ours
    return found


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
