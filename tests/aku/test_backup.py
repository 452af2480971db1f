"""Backup while others write, restore into an empty workspace, and archives that are cut off, foreign or hostile."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import json
import sqlite3
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aku.backup import FORMAT, HEADER, MANIFEST, ROOT, make_backup
from aku.database import SQLITE, postgres_settings
from aku.restore import restore, safe_name, verify
from dialogue import FileError, SettingsError, Workspace, files

HOSTED = "DJANGO_DB POSTGRE_HOST POSTGRE_PORT POSTGRE_NAME POSTGRE_USER POSTGRE_PASSWORD".split()


@pytest.fixture(autouse=True)
def _no_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in HOSTED:
        monkeypatch.delenv(name, raising=False)


def put(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with something of everything."""
    found = Workspace(tmp_path / "home")
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


# -- restoring


def test_nothing_is_overwritten(workspace: Workspace, tmp_path: Path) -> None:
    made = make_backup(workspace, tmp_path / "b.gz")
    before = contents(workspace.home)
    with pytest.raises(FileError, match="not empty"):
        restore(made.path, workspace)
    assert contents(workspace.home) == before
    (tmp_path / "empty").mkdir()
    restore(made.path, Workspace(tmp_path / "empty"))
    assert (tmp_path / "empty" / "aku.toml").exists()


def test_what_init_makes_may_be_there_and_stays(workspace: Workspace, tmp_path: Path) -> None:
    made = make_backup(workspace, tmp_path / "b.gz")
    new = Workspace(tmp_path / "new")
    put(new.settings, "[studio]\nport = 2\n")
    new.write_secrets({"PSEUDONYM_SALT": "another"})
    with pytest.raises(FileError, match=r"secrets\.env: is not the one of the backup"):
        restore(made.path, new)
    assert {p.name for p in new.home.iterdir()} == {"aku.toml", "secrets.env"}
    new.write_secrets({"PSEUDONYM_SALT": "salt", "BACKEND_PASSWORD": "new"})
    restore(made.path, new)
    assert new.settings.read_text() == "[studio]\nport = 2\n"
    assert new.read_secrets() == {"PSEUDONYM_SALT": "salt", "BACKEND_PASSWORD": "new"}
    assert (new.home / SQLITE).is_file()


def refused(archive: Path, tmp_path: Path, match: str, error: type[Exception] = FileError) -> None:
    """The archive is refused by check and restore in one sentence, and nothing is left behind."""
    home = tmp_path / "target" / "home"
    for call in (lambda: verify(archive), lambda: restore(archive, Workspace(home))):
        with pytest.raises(error, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not home.exists()
    home.mkdir(parents=True)
    with pytest.raises(error, match=match):
        restore(archive, Workspace(home))
    assert list(home.iterdir()) == []
    home.rmdir()


def test_an_archive_that_was_cut_off_is_refused_wherever_it_was_cut(workspace: Workspace, tmp_path: Path) -> None:
    whole = make_backup(workspace, tmp_path / "b.gz").path.read_bytes()
    cut = tmp_path / "cut.gz"
    for length in sorted({*range(0, len(whole), len(whole) // 25), len(whole) - 1, len(whole) // 2}):
        cut.write_bytes(whole[:length])
        if length < len(whole) - 8 - 64:  # past the manifest only padding is missing
            refused(cut, tmp_path, "cut off or damaged|no archive")


def test_every_flipped_byte_is_noticed(workspace: Workspace, tmp_path: Path) -> None:
    whole = make_backup(workspace, tmp_path / "b.gz").path.read_bytes()
    broken = tmp_path / "broken.gz"
    for place in range(40, len(whole) - 40, len(whole) // 40):
        broken.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        home = Workspace(tmp_path / "t")
        try:
            restore(broken, home)
        except FileError:
            assert not home.home.exists()
        else:
            pytest.fail(f"byte {place} is not covered by any checksum")


def text_file(path: Path) -> None:
    path.write_text("not an archive\n" * 100)


def zip_file(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("aku-backup.json", "{}")


def empty_file(path: Path) -> None:
    path.touch()


def other_tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("workspace/aku.toml")
        archive.addfile(member, io.BytesIO())


def gzipped_text(path: Path) -> None:
    with gzip.open(path, "wb") as handle:
        handle.write(b"hello" * 1000)


@pytest.mark.parametrize("make", [text_file, zip_file, empty_file, other_tar, gzipped_text])
def test_foreign_files_are_refused(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "foreign")
    refused(tmp_path / "foreign", tmp_path, "no archive|cut off or damaged")
    refused(tmp_path / "absent", tmp_path, "no such file")


@dataclasses.dataclass
class Forged:
    """An archive in which anything can stand."""

    path: Path
    members: list[tuple[tarfile.TarInfo, bytes]]
    header: dict[str, Any]
    manifest: dict[str, Any]

    def write(self) -> Path:
        first = [(HEADER, json.dumps(self.header)), *[], (MANIFEST, json.dumps(self.manifest))]
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


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../escaped"),
        tarfile.TarInfo("/tmp/escaped-from-a-backup"),  # noqa: S108 - must not be written
        tarfile.TarInfo("workspace/../../escaped"),
        tarfile.TarInfo("workspace/a/../../../escaped"),
        tarfile.TarInfo("workspace//double"),
        tarfile.TarInfo("workspace/./dot"),
        tarfile.TarInfo("workspace/back\\slash"),
        tarfile.TarInfo("workspace/line\nbreak"),
        tarfile.TarInfo("elsewhere/file"),
        tarfile.TarInfo("workspace"),
        special("workspace/link", tarfile.SYMTYPE, "/etc/passwd"),
        special("workspace/link", tarfile.SYMTYPE, "aku.toml"),
        special("workspace/link", tarfile.LNKTYPE, "workspace/aku.toml"),
        special("workspace/device", tarfile.CHRTYPE),
        special("workspace/pipe", tarfile.FIFOTYPE),
        special("workspace/folder", tarfile.DIRTYPE),
    ],
    ids=lambda member: f"{member.name!r}-{member.type!r}",
)
def test_path_tricks_are_refused(member: tarfile.TarInfo, tmp_path: Path) -> None:
    refused(forged(tmp_path, member).write(), tmp_path, "do not trust it")
    assert not list(tmp_path.rglob("*escaped*"))


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = [tarfile.TarInfo("workspace/aku.toml"), tarfile.TarInfo("workspace/aku.toml")]
    refused(forged(tmp_path, *twice).write(), tmp_path, "do not trust it")


def test_files_and_manifest_must_agree(tmp_path: Path) -> None:
    extra = forged(tmp_path, tarfile.TarInfo("workspace/aku.toml"))
    refused(extra.write(), tmp_path, "not what the manifest says")
    missing = forged(tmp_path, files=[{"path": "workspace/aku.toml", "bytes": 4, "sha256": "0"}])
    refused(missing.write(), tmp_path, "not what the manifest says")
    for broken in ({"files": 7}, {"formats": None}, {"database": "sqlite"}):
        refused(forged(tmp_path, **broken).write(), tmp_path, "manifest is damaged")


def test_archives_of_a_later_release_are_refused(tmp_path: Path) -> None:
    later = forged(tmp_path)
    later.header["format"] = FORMAT + 1
    refused(later.write(), tmp_path, "later release")
    for name in ("record", "config", "workspace"):
        formats = {"record": 1, "config": 1, "workspace": 1, name: 2}
        refused(forged(tmp_path, formats=formats).write(), tmp_path, "later release")


@pytest.mark.parametrize("name", [ROOT + "aku.toml", ROOT + "datasets/a/画像 1.jsonl", "database.pgdump"])
def test_names_that_a_backup_holds_are_safe(name: str) -> None:
    assert safe_name(name)


# -- which database


def test_the_environment_says_that_postgresql_is_used_and_else_the_secrets(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert postgres_settings(workspace) is None
    named = {"DJANGO_DB": "default", "POSTGRE_NAME": "aku", "POSTGRE_USER": "u", "POSTGRE_PASSWORD": "p w"}
    workspace.write_secrets(named)
    found = postgres_settings(workspace)
    assert found
    assert (found.host, found.port, found.name, found.user, found.password) == ("localhost", 5432, "aku", "u", "p w")
    assert "p w" not in repr(found)
    assert "p w" not in " ".join(found.arguments)
    there = postgres_settings(workspace, {"POSTGRE_HOST": "db", "POSTGRE_PORT": "6000"})
    assert there
    assert (there.host, there.port) == ("db", 6000)
    assert postgres_settings(workspace, {"DJANGO_DB": "sqlite"}) is None
    with pytest.raises(SettingsError, match="POSTGRE_PORT"):
        postgres_settings(workspace, {"POSTGRE_PORT": "five"})
    with pytest.raises(SettingsError, match="POSTGRE_NAME"):
        postgres_settings(Workspace(tmp_path / "x"), {"DJANGO_DB": "default"})


def test_a_backup_of_the_other_database_is_refused(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_backup(workspace, tmp_path / "b.gz")
    other = forged(tmp_path, database={"kind": "postgresql"})
    with pytest.raises(FileError, match="holds a PostgreSQL database"):
        restore(other.write(), Workspace(tmp_path / "new"))
    for name, value in {"DJANGO_DB": "default", "POSTGRE_NAME": "a", "POSTGRE_USER": "b"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("POSTGRE_PASSWORD", "c")
    with pytest.raises(FileError, match="holds an SQLite database"):
        restore(made.path, Workspace(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
