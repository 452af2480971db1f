"""Backup and restore on a real PostgreSQL server, while somebody writes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from aku import checks_workspace
from aku.backup import make_backup
from aku.database import Postgres
from aku.restore import restore, verify
from dialogue import FileError, Workspace

PASSWORD = "a pass'word with \\ and ü"
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """A PostgreSQL of our own, with password, on a free port; returns the port."""
    if not PROGRAMS:
        message = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    programs = PROGRAMS[-1].parent
    # PostgreSQL refuses to run as root, and another user can not enter pytest's folders.
    run_as: dict[str, Any] = {"user": "postgres"} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="aku-postgres-test-"))
    secret = folder / "password"
    secret.write_text(PASSWORD, encoding="utf-8")
    if run_as:
        for path in (folder, secret):
            shutil.chown(path, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    arguments = ["-D", folder / "data", "-U", "aku", "--pwfile", secret, "-A", "scram-sha-256", "-E", "UTF8", "-N"]
    subprocess.run([programs / "initdb", *arguments], check=True, capture_output=True, cwd=folder, **run_as)
    command = [programs / "postgres", "-D", folder / "data", "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **run_as)
    try:
        wait = threading.Event()
        for _ in range(600):
            try:
                where(port, "postgres").connect().close()
                break
            except FileError:
                assert process.poll() is None
                wait.wait(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def where(port: int, name: str) -> Postgres:
    return Postgres("127.0.0.1", port, name, "aku", PASSWORD)


def sql(port: int, name: str, *queries: str) -> list[Any]:
    with psycopg.connect(
        host="127.0.0.1", port=port, dbname=name, user="aku", password=PASSWORD, autocommit=True
    ) as connection:
        rows: list[Any] = []
        for query in queries:
            cursor = connection.execute(query.encode())
            rows = cursor.fetchall() if cursor.description else []
        return rows


@pytest.fixture
def workspace(server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose Label Studio keeps its data in the database `studio`."""
    for name in ("studio", "other"):
        sql(server, "postgres", f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    sql(
        server,
        "studio",
        "CREATE TABLE task (id int PRIMARY KEY, data text)",
        "CREATE TABLE task_completion (id int PRIMARY KEY, task_id int REFERENCES task, result text)",
    )
    use(monkeypatch, server, "studio")
    found = Workspace(tmp_path / "home")
    found.write_secrets({"PSEUDONYM_SALT": "salt"})
    return found


def use(monkeypatch: pytest.MonkeyPatch, port: int, name: str) -> None:
    """Set Label Studio's variables."""
    values = {"HOST": "127.0.0.1", "PORT": str(port), "NAME": name, "USER": "aku", "PASSWORD": PASSWORD}
    monkeypatch.setenv("DJANGO_DB", "default")
    for key, value in values.items():
        monkeypatch.setenv(f"POSTGRE_{key}", value)


class Writer(threading.Thread):
    """Writes a task and its annotation in one transaction, again and again; knows what was acknowledged."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port, self.acknowledged = port, 0
        self.stopping = threading.Event()

    def run(self) -> None:
        with where(self.port, "studio").connect() as connection:
            while not self.stopping.is_set():
                number = self.acknowledged + 1
                connection.execute("INSERT INTO task VALUES (%s, %s)", (number, "場面" * 500))
                connection.execute("INSERT INTO task_completion VALUES (%s, %s, %s)", (number, number, "雑談" * 500))
                connection.commit()
                self.acknowledged = number


def test_what_was_written_up_to_the_backup_comes_back(
    server: int, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(server)
    writer.start()
    try:
        while writer.acknowledged < 200:
            writer.join(0.01)
        before = writer.acknowledged
        made = make_backup(workspace, tmp_path / "b.tar.gz")
        after = writer.acknowledged
        while writer.acknowledged < after + 10:
            writer.join(0.01)
            assert writer.is_alive()
    finally:
        writer.stopping.set()
        writer.join()
    assert made.manifest["database"]["kind"] == "postgresql"
    verify(made.path)
    use(monkeypatch, server, "other")
    restore(made.path, Workspace(tmp_path / "new"))
    (count,) = sql(server, "other", "SELECT count(*) FROM task")[0]
    pairs = sql(server, "other", "SELECT t.id FROM task t JOIN task_completion a ON a.task_id = t.id ORDER BY 1")
    assert pairs == [(number,) for number in range(1, count + 1)], "whole transactions only"
    assert before <= count <= after + 1
    assert made.manifest["database"]["tasks"] == made.manifest["database"]["annotations"] == count
    assert sql(server, "other", "SELECT data FROM task WHERE id = 1") == [("場面" * 500,)]
    assert Workspace(tmp_path / "new").read_secrets() == {"PSEUDONYM_SALT": "salt"}


def test_only_an_empty_database_is_filled(server: int, workspace: Workspace, tmp_path: Path) -> None:
    made = make_backup(workspace, tmp_path / "b.tar.gz")
    with pytest.raises(FileError, match=r"holds 2 tables; restore into an empty database"):
        restore(made.path, Workspace(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_what_is_wrong_with_the_server_is_one_sentence_without_the_password(
    server: int, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_backup(workspace, tmp_path / "b.tar.gz")
    for name, value in {"POSTGRE_PASSWORD": "a wrong one", "POSTGRE_PORT": "1", "POSTGRE_NAME": "absent"}.items():
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            for call in (
                lambda: make_backup(workspace, tmp_path / "c.tar.gz"),
                lambda: restore(made.path, Workspace(tmp_path / "new")),
            ):
                with pytest.raises(FileError, match=r"PostgreSQL at .* can not be used") as caught:
                    call()
                assert "\n" not in str(caught.value)
                assert PASSWORD not in str(caught.value)
                assert "a wrong one" not in str(caught.value)
    assert not (tmp_path / "c.tar.gz").exists()
    assert not (tmp_path / "new").exists()


def test_the_doctor_looks_at_the_server(server: int, workspace: Workspace) -> None:
    (found,) = checks_workspace.database_check(workspace)
    assert found.level == "OK"
    assert f"127.0.0.1:{server}/studio" in found.message
    assert PASSWORD not in found.message
