"""What a backup holds, also while others write, and that it is made whole or not at all."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archives import contents, put, rows

from aku.backup import make_backup
from aku.database import SQLITE
from aku.restore import restore
from dialogue import FileError, Workspace, files

pytestmark = pytest.mark.usefixtures("no_postgres")


def test_everything_comes_back(workspace: Workspace, tmp_path: Path) -> None:
    made = make_backup(workspace, tmp_path / "b.tar.gz")
    home = tmp_path / "elsewhere"
    manifest = restore(made.path, Workspace(home))
    before, after = contents(workspace.home), contents(home)
    databases = {SQLITE, "state/backend.sqlite"}
    assert before.keys() == after.keys()
    assert {n: before[n] for n in before.keys() - databases} == {n: after[n] for n in after.keys() - databases}
    assert rows(home / "state" / "backend.sqlite", "SELECT text FROM replies") == [("返事",)]
    assert (home / "secrets.env").stat().st_mode & 0o777 == 0o600
    assert (home / SQLITE).stat().st_mode & 0o777 == 0o600
    assert manifest == made.manifest
    assert manifest["formats"] == {"record": 1, "config": 1, "workspace": 1}
    assert manifest["label_studio"]
    assert manifest["database"] == {"kind": "sqlite", "tasks": 0, "annotations": 0}


def test_an_archive_is_private_and_made_whole_or_not_at_all(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    made = make_backup(workspace, folder)
    assert made.path.parent == folder
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert files.read_json(workspace.state / "backup.json")["path"] == str(made.path)
    with pytest.raises(FileError, match="exists already"):
        make_backup(workspace, made.path)

    def pull_the_plug(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_backup(workspace, folder / "second.tar.gz", progress=pull_the_plug)
    assert [p.name for p in folder.iterdir()] == [made.path.name]


def test_secrets_can_be_left_out(workspace: Workspace, tmp_path: Path) -> None:
    put(workspace.home / "label-studio" / ".env", "SECRET_KEY=abc")
    with_them = restore(make_backup(workspace, tmp_path / "1.gz").path, Workspace(tmp_path / "1"))
    without = restore(make_backup(workspace, tmp_path / "2.gz", secrets=False).path, Workspace(tmp_path / "2"))
    assert (with_them["secrets"], without["secrets"]) == (True, False)
    assert (tmp_path / "1" / "label-studio" / ".env").exists()
    assert not {"secrets.env", "label-studio/.env"} & contents(tmp_path / "2").keys()
    assert all(b"geheim" not in data for data in contents(tmp_path / "2").values())


def test_caches_logs_and_unfinished_things_stay_behind(workspace: Workspace, tmp_path: Path) -> None:
    kept = contents(workspace.home).keys()
    for name in (
        "logs/label-studio.log",
        "datasets/.cache/project-1.sqlite",
        "datasets/.lock",
        "datasets/.0123456789ab.k2j3h4g5/train.jsonl",
        "datasets/.spool-x/rows.sqlite",
        "state/studio.lock",
        "state/live-3.sqlite",
        "state/backend.sqlite.damaged",
        ".aku.toml.abcd1234",
        "runs/r/checkpoint-20/optimizer.pt",
        "backups/aku-1.tar.gz",
    ):
        put(workspace.home / name)
    restore(make_backup(workspace, workspace.home / "mine.tar.gz").path, Workspace(tmp_path / "new"))
    assert contents(tmp_path / "new").keys() == kept


def test_data_behind_a_link_is_not_forgotten(workspace: Workspace, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    workspace.datasets.rename(disk)
    workspace.datasets.symlink_to(disk)
    restore(make_backup(workspace, tmp_path / "b.gz").path, Workspace(tmp_path / "new"))
    assert (tmp_path / "new" / "datasets" / "0123456789ab" / "train.jsonl").is_file()
    assert not (tmp_path / "new" / "datasets").is_symlink()


def test_a_journal_ends_at_its_last_whole_line(workspace: Workspace, tmp_path: Path) -> None:
    with (workspace.state / "drafts.jsonl").open("a") as handle:
        handle.write('{"n": 3, "half": "' + "x" * 200_000)
    restore(make_backup(workspace, tmp_path / "b.gz").path, Workspace(tmp_path / "new"))
    assert (tmp_path / "new" / "state" / "drafts.jsonl").read_text() == '{"n": 1}\n{"n": 2}\n'


def test_bases_outside_the_workspace_are_named(workspace: Workspace, tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", workspace.checkpoints / "bbbbbbbbbbbb"
    put(base / "config.json", "{}")
    put(adapter / "aku.json", "{}")
    put(adapter / "adapter_config.json", json.dumps({"base_model_name_or_path": str(base)}))
    assert make_backup(workspace, tmp_path / "b.gz").manifest["outside"] == [str(base)]


class Writer(threading.Thread):
    """Writes a task and its annotation in one transaction, again and again; knows what was acknowledged."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.acknowledged = path, 0
        self.stopping = threading.Event()

    def run(self) -> None:
        with contextlib.closing(sqlite3.connect(self.path, timeout=60)) as connection:
            while not self.stopping.is_set():
                number = self.acknowledged + 1
                with connection:
                    connection.execute("INSERT INTO task VALUES (?)", (number,))
                    connection.execute("INSERT INTO task_completion VALUES (?, ?, ?)", (number, number, "雑談" * 2000))
                self.acknowledged = number


@contextlib.contextmanager
def writing(workspace: Workspace) -> Iterator[Writer]:
    writer = Writer(workspace.home / SQLITE)
    writer.start()
    try:
        while writer.acknowledged < 50:
            writer.join(0.01)
        yield writer
    finally:
        writer.stopping.set()
        writer.join()


def test_backups_while_somebody_writes_hold_whole_transactions(workspace: Workspace, tmp_path: Path) -> None:
    with writing(workspace) as writer:
        for number in range(5):
            before = writer.acknowledged
            made = make_backup(workspace, tmp_path / f"{number}.gz")
            after = writer.acknowledged
            restore(made.path, Workspace(tmp_path / str(number)))
            copy = tmp_path / str(number) / SQLITE
            tasks, annotations = rows(copy, "SELECT id FROM task"), rows(copy, "SELECT id FROM task_completion")
            assert tasks == annotations == [(n,) for n in range(1, len(tasks) + 1)]
            assert before <= len(tasks) <= after + 1
            assert made.manifest["database"]["annotations"] == len(tasks)
    assert writer.acknowledged > before, "the writer was not stopped by the backups"


def test_a_file_that_shrinks_while_it_is_read_ends_the_backup(workspace: Workspace, tmp_path: Path) -> None:
    weights = workspace.checkpoints / "aaaaaaaaaaaa" / "model.safetensors"
    weights.write_bytes(b"w" * 2_000_000)

    def cut(done: int, total: int) -> None:
        if done > 500_000:
            weights.write_bytes(b"")

    with pytest.raises(FileError, match=r"model\.safetensors: became shorter"):
        make_backup(workspace, tmp_path / "b.gz", progress=cut)
    assert not (tmp_path / "b.gz").exists()


def test_a_damaged_database_is_not_backed_up(workspace: Workspace, tmp_path: Path) -> None:
    put(workspace.home / SQLITE, "this is no database, " * 400)
    with pytest.raises(FileError, match=r"label_studio\.sqlite3"):
        make_backup(workspace, tmp_path / "b.gz")
    assert list(tmp_path.glob("*.gz")) == []


@pytest.mark.parametrize("prepare", [lambda home: None, lambda home: home.mkdir()])
def test_there_must_be_something_to_back_up(prepare: Callable[[Path], None], tmp_path: Path) -> None:
    prepare(tmp_path / "home")
    with pytest.raises(FileError, match="no workspace"):
        make_backup(Workspace(tmp_path / "home"), tmp_path / "b.gz")
