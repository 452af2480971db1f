"""Writes are atomic: what fails half-way leaves what was there before."""

from __future__ import annotations

import pytest

from dialogue import FileError, files


def test_failed_write_keeps_the_old_file(tmp_path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"v": 1})
    with pytest.raises(RuntimeError), files.atomic_open(path) as handle:
        handle.write("half")
        raise RuntimeError
    assert files.read_json(path) == {"v": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_failed_folder_leaves_nothing(tmp_path) -> None:
    with pytest.raises(RuntimeError), files.atomic_folder(tmp_path / "v1") as folder:
        (folder / "x").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_kept(tmp_path) -> None:
    for text in ("first", "second"):
        with files.atomic_folder(tmp_path / "v1") as folder:
            (folder / "x").write_text(text)
    assert (tmp_path / "v1" / "x").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["v1"]


def test_broken_json_names_the_file(tmp_path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(FileError, match=r"a\.json"):
        files.read_json(tmp_path / "a.json")
