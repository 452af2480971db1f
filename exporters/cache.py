"""What was read from Label Studio, kept between exports: a SQLite file per project.

How an export finds out what changed, cheaply and without missing anything:

1. First run: every annotated task, in order of ids; each page is committed, so that a run that was
   killed goes on behind the last page.  The server's clock at the start is remembered.
2. Every run: tasks whose `updated_at` is later than the clock at the previous start (less ten seconds, for
   writes that were under way) are read again.  Label Studio moves a task's `updated_at` with every
   annotation made, changed or deleted.
3. Then the server's numbers of annotated tasks and of annotations are compared with ours.  Since every
   changed task was just read, equal numbers mean equal sets; otherwise something was deleted, or written
   past the clock, and ids and times of all tasks are compared one by one.
"""

from __future__ import annotations

import datetime
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters import studio

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

MARGIN = datetime.timedelta(seconds=10)
_ANNOTATED = ("total_annotations", "greater", "Number", 0)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS task (id INTEGER PRIMARY KEY, updated_at TEXT, annotations INTEGER, body BLOB);
CREATE TABLE IF NOT EXISTS fact (key TEXT PRIMARY KEY, value TEXT);
"""
_FORMAT = "1"

Progress = Callable[[int, int], None]


class TaskCache:
    """Annotated tasks of one project as Label Studio last showed them."""

    def __init__(self, path: Path, identity: str) -> None:
        """Open or make the file; one that belongs to another project, or is broken, is emptied."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._database = self._open()
        if self._fact("identity") != identity or self._fact("format") != _FORMAT:
            self._database.close()
            path.unlink()
            self._database = self._open()
            with self._database:
                self._set("identity", identity)
                self._set("format", _FORMAT)

    def _open(self) -> sqlite3.Connection:
        for _ in range(2):
            database = sqlite3.connect(self._path)
            try:
                database.executescript(_SCHEMA)
            except sqlite3.DatabaseError:  # not a database: it is only a cache, so begin anew
                database.close()
                self._path.unlink()
            else:
                return database
        raise AssertionError("a new SQLite file could not be opened")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __len__(self) -> int:
        """Number of tasks kept."""
        return int(self._database.execute("SELECT count(*) FROM task").fetchone()[0])

    @property
    def generation(self) -> int:
        """A number that grows whenever a kept task changes, comes or goes."""
        return int(self._fact("generation") or 0)

    @property
    def built(self) -> dict[str, str]:
        """What the last finished export was made from and what it made; see `set_built`."""
        return dict(json.loads(self._fact("built") or "{}"))

    def set_built(self, value: dict[str, str]) -> None:
        """Remember what a finished export was made from and what it made."""
        with self._database:
            self._set("built", json.dumps(value))

    def tasks(self) -> Iterator[dict[str, Any]]:
        """Yield the tasks in order of their ids, one in memory at a time."""
        for (body,) in self._database.execute("SELECT body FROM task ORDER BY id"):
            yield json.loads(zlib.decompress(body))

    def refresh(
        self, client: LabelStudio, project: int, *, size: int, progress: Progress | None = None
    ) -> tuple[int, int]:
        """Bring the cache up to date with the server; returns the numbers of tasks read and removed.

        Raises `LabelStudioError`.  What was read up to then is kept, and the next call goes on from there.
        """
        report = progress or (lambda done, total: None)
        read = removed = 0
        watch = _Watch(client, project, size)
        if self._fact("complete") != "yes":
            read += self._first_scan(watch, report)
        count, gone = self._changed_since(watch, report)
        read, removed = read + count, removed + gone
        if not self._agrees(watch):
            count, gone = self._compare(watch, report)
            read, removed = read + count, removed + gone
        with self._database:
            self._set("clock", watch.clock_text)
        return read, removed

    def _first_scan(self, watch: _Watch, report: Progress) -> int:
        if self._fact("clock") is None:
            with self._database:
                self._set("clock", watch.start())
        last = self._database.execute("SELECT max(id) FROM task").fetchone()[0] or 0
        before, read = len(self), 0
        for page in watch.pages(_ANNOTATED, ("id", "greater", "Number", last)):
            self._store(page.tasks)
            read += len(page.tasks)
            report(before + read, before + max(read, watch.total))
        with self._database:
            self._set("complete", "yes")
        return read

    def _changed_since(self, watch: _Watch, report: Progress) -> tuple[int, int]:
        watch.start()
        clock = self._fact("clock") or watch.clock_text
        ids: list[int] = []
        gone: list[int] = []
        for page in watch.pages(
            ("updated_at", "greater", "Datetime", clock), include="id,updated_at,total_annotations"
        ):
            for task in page.tasks:
                if task["total_annotations"] == 0:
                    gone.append(task["id"])
                elif self._seen(task["id"]) != (task["updated_at"], task["total_annotations"]):
                    ids.append(task["id"])
        read = self._fetch(watch, ids, report)
        return read, self._remove(gone)

    def _agrees(self, watch: _Watch) -> bool:
        page = watch.page(_ANNOTATED, size=1, include="id")
        ours = self._database.execute("SELECT count(*), coalesce(sum(annotations), 0) FROM task").fetchone()
        return (page.total, page.total_annotations) == tuple(ours)

    def _compare(self, watch: _Watch, report: Progress) -> tuple[int, int]:
        there: dict[int, tuple[str, int]] = {}
        for page in watch.pages(_ANNOTATED, include="id,updated_at,total_annotations"):
            there |= {task["id"]: (task["updated_at"], task["total_annotations"]) for task in page.tasks}
        ours = {
            row[0]: (row[1], row[2]) for row in self._database.execute("SELECT id, updated_at, annotations FROM task")
        }
        removed = self._remove(id_ for id_ in ours if id_ not in there)
        return self._fetch(watch, [id_ for id_ in there if ours.get(id_) != there[id_]], report), removed

    def _fetch(self, watch: _Watch, ids: list[int], report: Progress) -> int:
        kept = len(self)
        for start in range(0, len(ids), watch.size):
            wanted = ids[start : start + watch.size]
            found = watch.by_ids(wanted)
            self._store([task for task in found if task["total_annotations"]])
            self._remove(set(wanted) - {task["id"] for task in found if task["total_annotations"]})
            report(kept + start + len(wanted), kept + len(ids))
        return len(ids)

    def _seen(self, task: int) -> tuple[str, int] | None:
        row = self._database.execute("SELECT updated_at, annotations FROM task WHERE id = ?", (task,)).fetchone()
        return tuple(row) if row else None

    def _store(self, tasks: Iterable[dict[str, Any]]) -> None:
        rows = [(t["id"], t["updated_at"], t["total_annotations"], _packed(t)) for t in tasks]
        if not rows:
            return
        with self._database:
            self._set("generation", str(self.generation + 1))
            self._database.executemany("INSERT OR REPLACE INTO task VALUES (?, ?, ?, ?)", rows)

    def _remove(self, ids: Iterable[int]) -> int:
        with self._database:
            removed = self._database.executemany("DELETE FROM task WHERE id = ?", [(i,) for i in ids]).rowcount
            if removed > 0:
                self._set("generation", str(self.generation + 1))
        return max(0, removed)

    def _fact(self, key: str) -> str | None:
        row = self._database.execute("SELECT value FROM fact WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else None

    def _set(self, key: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (key, value))


class _Watch:
    """The requests of one refresh, and the server's clock when it began."""

    def __init__(self, client: LabelStudio, project: int, size: int) -> None:
        self.client, self.project, self.size = client, project, size
        self.clock_text = ""
        self.total = 0

    def start(self) -> str:
        """Ask the server what time it is, once; returns the moment before which nothing can still be under way."""
        if not self.clock_text:
            at = self.page(size=1, include="id").at or datetime.datetime.now(datetime.UTC)
            self.clock_text = (at - MARGIN).astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return self.clock_text

    def page(self, *conditions: tuple[str, str, str, Any], size: int, include: str) -> studio.Page:
        """Read the first page of a query."""
        return studio.get_page(self.client, self.project, studio.query(*conditions), size=size, include=include)

    def pages(self, *conditions: tuple[str, str, str, Any], include: str = studio.FIELDS) -> Iterator[studio.Page]:
        """Yield all pages of a query; `total` is its number of tasks."""
        size = self.size if include == studio.FIELDS else 1000
        for number, page in enumerate(
            studio.iter_tasks(self.client, self.project, *conditions, size=size, include=include)
        ):
            if number == 0:
                self.total = page.total
            yield page

    def by_ids(self, ids: list[int]) -> list[dict[str, Any]]:
        """Read some tasks by their ids."""
        chosen = json.dumps(
            {"selectedItems": {"all": False, "included": ids}, "ordering": ["tasks:id"]}, separators=(",", ":")
        )
        return studio.get_page(self.client, self.project, chosen, size=max(1, len(ids))).tasks


def _packed(task: dict[str, Any]) -> bytes:
    return zlib.compress(json.dumps(task, ensure_ascii=False).encode(), 1)
