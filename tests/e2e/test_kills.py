"""SIGKILL in the middle of writing: Label Studio, PostgreSQL, the backend.  What was acknowledged is there, once.

`AKU_KILLS=20` kills each of them twenty times instead of once.  Killed training runs and exports have tests of
their own beside the exporters.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from aku import provision
from benchmarks import load
from benchmarks.load import Annotator, Written, add_cards, annotators
from dialogue import label_studio

pytestmark = pytest.mark.e2e
ROUNDS = int(os.environ.get("AKU_KILLS", "1"))
PEOPLE, TURNS = 3, 4
FAULTS = (httpx.HTTPError, KeyError, ValueError)
"""What a person's page sees while a server is down; the page says so and they try again."""


class Persistent:
    """Somebody who writes until told to stop and, when a server was away, goes on where they were."""

    def __init__(self, person: Annotator, tasks: list[int], stop: threading.Event) -> None:
        self.person, self.tasks, self.stop = person, tasks, stop
        self.done: list[Written] = []
        self.open: Written | None = None
        self.faults = self.replies = 0

    def work(self) -> None:
        choice = random.Random(self.person.id)
        for task in self.tasks:
            written = self.open = Written(task)
            texts: list[str] = []
            while len(texts) < TURNS:
                if self.stop.is_set():
                    return
                texts.append(f"{choice.choice(load.SENTENCES)}{len(texts)}")
                self.save(written, texts)
                if len(texts) % 2:
                    self.live_draft(written, texts)
            self.submit(written)
            if written.annotation is None:
                return
            self.done.append(written)
            self.open = None

    def save(self, written: Written, texts: list[str]) -> None:
        """The page saves again with the next change; here, until it is saved."""
        while not self.stop.is_set():
            try:
                self.person.save(written, texts)
            except FAULTS:
                self.pause()
                if written.draft is None:
                    self.reload(written)
            else:
                return

    def live_draft(self, written: Written, texts: list[str]) -> None:
        """Nobody waits for a draft that does not come: they write on."""
        reply = ""
        with contextlib.suppress(*FAULTS):
            reply = self.person.live_draft(written, texts)
        self.replies += bool(reply)
        self.faults += not reply  # Label Studio hides from its page that the backend is away

    def submit(self, written: Written) -> None:
        """Without an answer a person opens the card again and looks whether it is submitted."""
        while not self.stop.is_set():
            try:
                self.person.submit(written)
            except FAULTS:
                self.pause()
                self.reload(written)
            if written.annotation is not None:
                return

    def reload(self, written: Written) -> None:
        """Open the card anew: a draft or an annotation of theirs that was not acknowledged turns up there."""
        while not self.stop.is_set():
            try:
                task = self.person.http.get(f"/api/tasks/{written.task}").raise_for_status().json()
            except FAULTS:
                self.pause()
                continue
            mine = [a["id"] for a in task["annotations"] if a["completed_by"]["id"] == self.person.id]
            written.annotation = mine[0] if mine else None
            drafts = [d["id"] for d in task["drafts"] if d["user"] == self.person.email]
            written.draft = drafts[0] if drafts else None
            return

    def pause(self) -> None:
        self.faults += 1
        time.sleep(0.2)


def check_open(team: Any, writer: Persistent) -> None:
    """The draft being written holds what was last acknowledged, or a later text whose answer was lost."""
    written = writer.open
    if written is None or not written.texts or written.annotation is not None:
        return
    with provision.api(team.workspace, team.url) as http:
        rows = http.get(f"/api/tasks/{written.task}/drafts").raise_for_status().json()
        annotations = http.get(f"/api/tasks/{written.task}/annotations/").raise_for_status().json()
    if [a for a in annotations if a["completed_by"] == writer.person.id]:
        return  # submitted, and only the answer was lost
    (draft,) = [row for row in rows if row["id"] == written.draft]
    found = label_studio.read_result(draft["result"]).texts
    texts = tuple(found[i] for i in sorted(found) if found[i])
    assert texts in (written.texts, *written.unsure)


@pytest.mark.timeout(840 + 60 * ROUNDS)
def test_what_was_acknowledged_survives_kills(team: Any) -> None:
    choice = random.Random(0)
    victims = ["backend", "database", "label-studio"] * ROUNDS
    count = 12 * len(victims)
    people = annotators(team, PEOPLE, TURNS)
    tasks = add_cards(team, PEOPLE * count, TURNS)
    stop = threading.Event()
    writers = [Persistent(p, tasks[i * count : (i + 1) * count], stop) for i, p in enumerate(people)]
    with ThreadPoolExecutor(PEOPLE) as pool:
        running = [pool.submit(writer.work) for writer in writers]
        try:
            for victim in victims:
                before, faults = count_of(writers, "done"), count_of(writers, "faults")
                wait_for(lambda n=before: count_of(writers, "done") > n, running)
                time.sleep(choice.uniform(0, 0.5))
                team.stop(victim, signal.SIGKILL)
                wait_for(lambda n=faults: count_of(writers, "faults") > n, running)
                team.start(victim)
                replies = count_of(writers, "replies")
                wait_for(lambda n=replies: count_of(writers, "replies") > n, running)
            before = count_of(writers, "done")
            wait_for(lambda: count_of(writers, "done") > before, running)
        finally:
            stop.set()
        for future in running:
            future.result()
    for writer in writers:
        for written in writer.done:
            assert load.check(team, writer.person.id, written) == []
        check_open(team, writer)
        writer.person.http.close()
    with provision.api(team.workspace, team.url) as http:
        for task in tasks:
            rows = http.get(f"/api/tasks/{task}/annotations/").raise_for_status().json()
            assert len(rows) <= 1


def count_of(writers: list[Persistent], what: str) -> int:
    return sum({"done": len(w.done), "faults": w.faults, "replies": w.replies}[what] for w in writers)


def wait_for(holds: Any, running: list[Any]) -> None:
    """Wait until people got on; everybody being done before that would be no test."""
    end = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < end, "nobody gets on"
        if all(future.done() for future in running):
            for future in running:
                future.result()
            assert holds(), "everybody is done already"
        time.sleep(0.02)
