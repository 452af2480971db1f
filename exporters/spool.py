"""Records on their way into a data set version, in a temporary SQLite file instead of in memory.

One row a record: its canonical line, and the few facts that splitting and checking need.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dialogue import Dialogue
from exporters.annotations import Rejected
from exporters.provenance import Draft

_SCHEMA = """
CREATE TABLE record (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE, line TEXT, split TEXT, context TEXT, opener TEXT,
    closeness INTEGER, mood INTEGER, genre TEXT);
CREATE TABLE draft (id TEXT, turn INTEGER, line TEXT, PRIMARY KEY (id, turn));
CREATE TABLE rejected (task INTEGER, annotation INTEGER, kind TEXT, reason TEXT, line TEXT);
"""
PREFIX = ".spool-"


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What splitting needs of a record."""

    number: int
    id: str
    context: str
    opener: str | None
    closeness: int
    mood: int
    genre: tuple[str, ...]


class Spool:
    """A temporary store of records, drafts and rejections."""

    def __init__(self, database: sqlite3.Connection) -> None:
        """Make the tables."""
        self._database = database
        # One transaction for all: nobody else reads the file, and it is thrown away in the end.
        database.executescript("PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF;" + _SCHEMA + "BEGIN;")

    def add(self, dialogue: Dialogue, drafts: Iterable[Draft] = ()) -> bool:
        """Keep a record; returns False, and keeps nothing, if its id is taken."""
        if self._database.execute("SELECT 1 FROM record WHERE id = ?", (dialogue.id,)).fetchone():
            return False
        row = (
            dialogue.id,
            to_line(dialogue.to_dict()),
            dialogue.context,
            dialogue.source.opener,
            dialogue.attribute.closeness,
            dialogue.attribute.mood,
            json.dumps(dialogue.genre, ensure_ascii=False),
        )
        self._database.execute(
            "INSERT INTO record (id, line, context, opener, closeness, mood, genre) VALUES (?, ?, ?, ?, ?, ?, ?)", row
        )
        for draft in drafts:
            value = {"id": dialogue.id, "turn": draft.turn, "draft": draft.text, "checkpoint": draft.checkpoint}
            self._database.execute("INSERT INTO draft VALUES (?, ?, ?)", (dialogue.id, draft.turn, to_line(value)))
        return True

    def reject(self, rejected: Rejected) -> None:
        """Keep a rejection."""
        row = (rejected.task, rejected.annotation, rejected.kind, rejected.rule, to_line(rejected.to_dict()))
        self._database.execute("INSERT INTO rejected VALUES (?, ?, ?, ?, ?)", row)

    def __len__(self) -> int:
        """Number of records."""
        return int(self._database.execute("SELECT count(*) FROM record").fetchone()[0])

    def facts(self) -> Iterator[Facts]:
        """Yield the facts of all records in order of their ids."""
        rows = self._database.execute(
            "SELECT number, id, context, opener, closeness, mood, genre FROM record ORDER BY id"
        )
        for number, id_, context, opener, closeness, mood, genre in rows:
            yield Facts(number, id_, context, opener, closeness, mood, tuple(json.loads(genre)))

    def conversations(self) -> Iterator[tuple[int, str]]:
        """Yield number and text of each record, in order of numbers: its turns, one a line."""
        for number, line in self._database.execute("SELECT number, line FROM record ORDER BY number"):
            yield number, conversation_text(line)

    def conversation(self, number: int) -> str:
        """Text of one record."""
        (line,) = self._database.execute("SELECT line FROM record WHERE number = ?", (number,)).fetchone()
        return conversation_text(line)

    def assign(self, splits: Iterable[tuple[str, int]]) -> None:
        """Set the split of records, given as `(split, number)`."""
        self._database.executemany("UPDATE record SET split = ? WHERE number = ?", splits)

    def lines(self, name: str) -> Iterator[str]:
        """Yield the lines of a split in order of ids, of `drafts`, or of `rejected` by task and annotation."""
        if name == "drafts":
            rows = self._database.execute("SELECT line FROM draft ORDER BY id, turn")
        elif name == "rejected":
            rows = self._database.execute("SELECT line FROM rejected ORDER BY task, annotation, reason, line")
        else:
            rows = self._database.execute("SELECT line FROM record WHERE split = ? ORDER BY id", (name,))
        for (line,) in rows:
            yield line

    def all_lines(self) -> Iterator[tuple[str, str]]:
        """Yield split and canonical line of every record in order of ids."""
        yield from self._database.execute("SELECT split, line FROM record ORDER BY id")

    def split_counts(self) -> dict[str, int]:
        """Number of records by split."""
        return dict(self._database.execute("SELECT split, count(*) FROM record GROUP BY split"))

    def rejected_counts(self) -> dict[str, dict[str, int]]:
        """Numbers of rejections by kind and reason."""
        counts: dict[str, dict[str, int]] = {}
        rows = self._database.execute("SELECT kind, reason, count(*) FROM rejected GROUP BY kind, reason ORDER BY 1, 2")
        for kind, reason, count in rows:
            counts.setdefault(kind, {})[reason] = count
        return counts


@contextlib.contextmanager
def spool(folder: Path) -> Iterator[Spool]:
    """Yield an empty spool in a temporary file under `folder`, which is removed afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=PREFIX) as temporary:
        database = sqlite3.connect(Path(temporary) / "records.sqlite", isolation_level=None)
        try:
            yield Spool(database)
        finally:
            database.close()


def to_line(value: dict[str, Any]) -> str:
    """Return a JSON object as one line, the way `dialogue.files.write_jsonl` writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def conversation_text(line: str) -> str:
    """Return the turns of a canonical line, one below the other."""
    return "\n".join(turn["text"] for turn in json.loads(line)["conversation"])
