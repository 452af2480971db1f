"""Restoring into an empty workspace, and archives that are cut off, foreign or hostile."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import contents, forged, put

from aku.backup import FORMAT, ROOT, make_backup
from aku.database import SQLITE, postgres_settings
from aku.restore import restore, safe_name, verify
from dialogue import FileError, SettingsError, Workspace

pytestmark = pytest.mark.usefixtures("no_postgres")


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
