"""Reading and writing at the edges: atomic files, JSON, JSONL."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from dialogue.errors import FileError


@contextlib.contextmanager
def atomic_open(path: Path, mode: str = "w", *, private: bool = False) -> Iterator[IO[Any]]:
    """Open a temporary file that becomes `path` on success (fsync, then rename) and vanishes on failure.

    With `private` the file is readable by its owner only (0600) from the first byte on.
    Raises `FileError` if the folder can not be written or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror}); check the folder's permissions.") from error
    try:
        encoding = None if "b" in mode else "utf-8"
        newline = None if "b" in mode else "\n"
        with os.fdopen(descriptor, mode, encoding=encoding, newline=newline) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).chmod(0o600 if private else 0o644)
        Path(name).replace(path)
    except OSError as error:
        raise FileError(f"{path}: writing failed ({error.strerror}); free some space and run again.") from error
    finally:
        Path(name).unlink(missing_ok=True)
    sync_folder(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` on success; an existing `path` is kept and the new one dropped.

    Meant for content-addressed folders, where equal names mean equal content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield folder
        for file in folder.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        folder.chmod(0o755)
        if not path.exists():
            folder.replace(path)
            sync_folder(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any:
    """Read one JSON value; raises `FileError` naming the file when it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileError(f"{path}: no such file.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FileError(f"{path}: not readable as JSON ({error}); restore it or remove it.") from error


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Write one JSON value atomically, indented, UTF-8, with a final newline."""
    with atomic_open(path, private=private) as handle:
        handle.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line number, object)` for each non-blank line; raises `FileError` at the first broken one."""
    try:
        with path.open(encoding="utf-8-sig") as handle:
            for number, line in enumerate(handle, 1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except json.JSONDecodeError as error:
                    raise FileError(
                        f"{path}, line {number}: not valid JSON ({error.msg}); correct the line."
                    ) from error
                if not isinstance(value, dict):
                    raise FileError(f"{path}, line {number}: expected a JSON object, found {type(value).__name__}.")
                yield number, value
    except FileNotFoundError as error:
        raise FileError(f"{path}: no such file; check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: cannot be read as UTF-8 ({error}).") from error


def write_jsonl(path: Path, values: Iterable[dict[str, Any]]) -> int:
    """Write objects one a line, atomically; returns how many."""
    count = 0
    with atomic_open(path) as handle:
        for value in values:
            handle.write(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")) + "\n")
            count += 1
    return count
