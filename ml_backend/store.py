"""What outlives a restart: drafts made ahead, replies given in live chat, events seen.

One SQLite file under `state/`; every process and thread may use it.  It is a cache and a log of
ours: when the file is damaged it is set aside and begun anew.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dialogue.errors import FileError
from ml_backend.requests import Draft

KEEP_DAYS = 30
_SCHEMA = """
CREATE TABLE IF NOT EXISTS drafts (key TEXT PRIMARY KEY, draft TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS replies (key TEXT, attempt INTEGER, text TEXT NOT NULL, at REAL NOT NULL,
                                    PRIMARY KEY (key, attempt));
CREATE TABLE IF NOT EXISTS events (key TEXT PRIMARY KEY, at REAL NOT NULL);
"""


class Store:
    """The file, with one connection that its threads share."""

    def __init__(self, path: Path) -> None:
        """Open or make the file; raises `FileError` if that is impossible."""
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError:
            for suffix in ("", "-wal", "-shm"):
                damaged = path.with_name(path.name + suffix)
                if damaged.exists():
                    damaged.replace(path.with_name(f"{path.name}{suffix}.damaged"))
            try:
                self._connection = self._open()
            except sqlite3.Error as error:
                raise FileError(f"{path}: cannot be opened ({error}); check the folder's permissions.") from error

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=10, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(_SCHEMA)
        connection.execute("PRAGMA quick_check")
        return connection

    @contextlib.contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            yield self._connection

    def prune(self) -> None:
        """Forget what is older than `KEEP_DAYS`."""
        before = time.time() - KEEP_DAYS * 86400
        with self._use() as connection:
            for table in ("drafts", "replies", "events"):
                connection.execute(f"DELETE FROM {table} WHERE at < ?", (before,))  # noqa: S608 - names are ours

    def drafts(self, keys: Sequence[str]) -> dict[str, Draft]:
        """Return the drafts that are there, by key."""
        found: dict[str, Draft] = {}
        with self._use() as connection:
            for key in keys:
                row = connection.execute("SELECT draft FROM drafts WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = Draft.from_dict(json.loads(row[0]))
        return found

    def keep_draft(self, key: str, draft: Draft) -> None:
        """Keep a finished draft."""
        value = json.dumps(draft.to_dict(), ensure_ascii=False)
        with self._use() as connection:
            connection.execute("INSERT OR REPLACE INTO drafts VALUES (?, ?, ?)", (key, value, time.time()))

    def replies(self, key: str) -> list[str]:
        """Return the texts already given at this point of a live chat, oldest first."""
        with self._use() as connection:
            rows = connection.execute("SELECT text FROM replies WHERE key = ? ORDER BY attempt", (key,)).fetchall()
        return [text for (text,) in rows]

    def repeated(self, key: str, within: float) -> str | None:
        """Return the newest text given at this point if that was asked for less than `within` seconds ago.

        The time begins anew, so a whole burst of calls is one question.
        """
        now = time.time()
        with self._use() as connection:
            query = "SELECT attempt, text FROM replies WHERE key = ? AND ABS(? - at) < ? ORDER BY attempt DESC LIMIT 1"
            row = connection.execute(query, (key, now, within)).fetchone()
            if row is None:
                return None
            connection.execute("UPDATE replies SET at = ? WHERE key = ? AND attempt = ?", (now, key, row[0]))
        return str(row[1])

    def keep_reply(self, key: str, attempt: int, text: str) -> bool:
        """Note a text as given; False if that attempt was noted before."""
        with self._use() as connection:
            row = (key, attempt, text, time.time())
            return connection.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?)", row).rowcount > 0

    def new_event(self, key: str) -> bool:
        """Note an event; False if it was noted before."""
        with self._use() as connection:
            return connection.execute("INSERT OR IGNORE INTO events VALUES (?, ?)", (key, time.time())).rowcount > 0

    def close(self) -> None:
        """Close the connection."""
        with self._use() as connection:
            connection.close()
