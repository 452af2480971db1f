"""Many clients while checkpoints are swapped and the server is killed.

`AKU_SOAK=1000 pytest tests/ml_backend/test_soak.py` makes so many requests; 20 swaps and 5 kills go with 1,000.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import requests
from backends import Backend
from cards import OPENER, screen, task, texts

from dialogue.checkpoints import Checkpoint

REQUESTS = int(os.environ.get("AKU_SOAK", "80"))
SWAPS, KILLS, CLIENTS = max(REQUESTS // 50, 3), max(REQUESTS // 200, 1), 8


class Timeline:
    """Which version was chosen when, and when the server was down; times are monotonic seconds."""

    def __init__(self) -> None:
        self.versions: list[tuple[float, str]] = []
        self.down: list[list[float]] = []

    def allowed(self, start: float, end: float) -> set[str]:
        """Versions that a row made between `start` and `end` may carry.

        The one chosen last before, and any chosen meanwhile; the one before that too while it may still be loading.
        """
        before = [version for at, version in self.versions if at <= start][-2:]
        return {*before, *(version for at, version in self.versions if start < at <= end)}

    def was_down(self, start: float, end: float) -> bool:
        return any(begin <= end and start <= until for begin, until in self.down)


def test_soak(backends: Callable[..., Backend], checkpoint: Checkpoint, second: Checkpoint) -> None:
    backend = backends(workers=2, temperature=0.9)
    backend.add(second)
    backend.use(checkpoint)
    timeline = Timeline()
    timeline.versions.append((time.monotonic(), checkpoint.id))
    backend.start()
    requested, over = itertools.count(), threading.Event()
    lock, problems = threading.Lock(), []
    answered: list[str] = []

    def client(number: int) -> None:
        rng = random.Random(number)
        while True:
            with lock:
                turn = next(requested)
            if turn >= REQUESTS and over.is_set():
                return
            start = time.monotonic()
            try:
                problem = one_call(rng)
            except requests.RequestException as error:
                problem = f"no answer: {type(error).__name__}"
            end = time.monotonic()
            if problem and not timeline.was_down(start, end):
                problems.append(f"{problem} (request {turn})")
            time.sleep(0.01 if not problem else 0.2)

    def one_call(rng: random.Random) -> str | None:
        kind = rng.choice(("setup", "health", "webhook", "live", "card", "cards", "cards"))
        start = time.monotonic()
        if kind == "health":
            answer = backend.get("/health")
        elif kind == "setup":
            answer = backend.post("/setup", {"project": "1.1"})
        elif kind == "webhook":
            answer = backend.post("/webhook", {"action": "ANNOTATION_CREATED", "annotation": {"id": rng.random()}})
        else:
            count = rng.randint(5, 20) if kind == "cards" else 1
            tasks: list[Any] = [task(rng.randint(1, 300), OPENER, mood=rng.randint(0, 4)) for _ in range(count)]
            context = screen(OPENER) if kind == "live" else None
            body = {"tasks": tasks, "project": f"{rng.randint(1, 3)}.1", "params": {"context": context}}
            answer = backend.post("/predict", body)
        if answer.status_code >= 400:
            return f"status {answer.status_code} for {kind}"
        allowed = timeline.allowed(start, time.monotonic())
        versions = {answer.json()["model_version"]} if kind == "setup" else set()
        if kind in ("live", "card", "cards"):
            rows = answer.json()["results"]
            if len(rows) != len(tasks):
                return f"{len(rows)} rows for {len(tasks)} tasks"
            versions = {row["model_version"] for row in rows if row}
            if len(versions) > 1:
                return f"one answer with versions {versions}"
            if kind == "card" and rows[0] and len(texts(rows[0])) != 2:
                return "a row without its draft"
            answered.extend(versions)
        return f"{kind} says {versions}, allowed are {allowed}" if versions - allowed else None

    threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    events = ["swap"] * SWAPS + ["kill"] * KILLS
    random.Random(0).shuffle(events)
    chosen = checkpoint
    for event in events:
        time.sleep(1.5)
        if event == "kill":
            timeline.down.append([time.monotonic(), float("inf")])
            backend.stop(signal.SIGKILL)
            backend.start()
            timeline.down[-1][1] = time.monotonic()
        else:
            chosen = second if chosen is checkpoint else checkpoint
            timeline.versions.append((time.monotonic(), chosen.id))
            backend.use(chosen)
    time.sleep(1.5)
    over.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(set(answered)) == 2
    assert backend.predict([task(1, OPENER)])[0]["model_version"] == chosen.id == backend.setup()
    backend.stop()
