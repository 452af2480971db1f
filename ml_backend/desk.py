"""Where draft requests wait: each one once, however many people ask for it.

A job that nobody waits for any more goes on, and its draft is there at the next call.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal

from ml_backend.requests import Draft, DraftRequest
from ml_backend.store import Store

RATE_WINDOW = 60.0
"""Seconds over which the rate of drafts is taken."""


Priority = tuple[bool, int, int]
"""Not urgent, number of the call, place in the call: the least comes first."""


@dataclasses.dataclass(eq=False)
class Job:
    """One request under one version, from the asking until its draft is there."""

    key: str
    request: DraftRequest
    version: str
    urgent: bool
    order: tuple[int, int]
    """Number of the call that asked first, and place in it."""
    waiters: int = 0
    state: Literal["queued", "running", "done", "failed"] = "queued"
    draft: Draft | None = None

    @property
    def priority(self) -> Priority:
        """Where in the queue the job stands."""
        return (not self.urgent, *self.order)


class Desk:
    """Jobs by key, shared by the threads that ask and the one that drafts."""

    def __init__(self, store: Store, fingerprint: str) -> None:
        """Keep drafts in `store` under keys that hold `fingerprint`, which stands for the settings."""
        self.store, self.fingerprint = store, fingerprint
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._heaps: dict[str, list[tuple[Priority, int, Job]]] = {}
        self._calls = itertools.count()
        self._paused = False
        self._finished: deque[tuple[float, int]] = deque()
        self.total_drafts = self.total_tokens = self.total_shared = self.total_cached = self.total_failed = 0

    def key(self, version: str, request: DraftRequest) -> str:
        """Return the key of a request under a version."""
        return hashlib.sha256(f"{version} {self.fingerprint} {request.digest()}".encode()).hexdigest()

    # -- asking ---------------------------------------------------------------------------------

    def ask(self, version: str, requests: Sequence[DraftRequest], *, urgent: bool, until: float) -> dict[str, Draft]:
        """Return the drafts that are there by `until` (monotonic seconds), by the request's digest."""
        jobs = self._submit(version, requests, urgent)
        try:
            with self._changed:
                while time.monotonic() < until and any(job.state in ("queued", "running") for job in jobs):
                    self._changed.wait(until - time.monotonic())
        finally:
            with self._changed:
                for job in jobs:
                    job.waiters -= 1
        return {job.request.digest(): job.draft for job in jobs if job.draft is not None}

    def _submit(self, version: str, requests: Sequence[DraftRequest], urgent: bool) -> list[Job]:
        keys = [self.key(version, request) for request in requests]
        kept = self.store.drafts(keys)
        call = next(self._calls)
        jobs: list[Job] = []
        with self._changed:
            for key, request in zip(keys, requests, strict=True):
                job = self._jobs.get(key)
                if job is not None:
                    self.total_shared += 1
                    if urgent and not job.urgent:
                        job.urgent = True
                        self._push(job)
                elif key in kept:
                    self.total_cached += 1
                    job = Job(key, request, version, urgent, (call, 0), state="done", draft=kept[key])
                else:
                    # Longest first within a call, so that rows that run together are of like length.
                    job = self._jobs[key] = Job(key, request, version, urgent, (call, -request.size))
                    self._push(job)
                job.waiters += 1
                jobs.append(job)
            self._changed.notify_all()
        return jobs

    # -- drafting -------------------------------------------------------------------------------

    def next_version(self, timeout: float | None = None) -> str | None:
        """Wait for work and return the version it is for; None when there is none in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._first() is not None, timeout)
            job = self._first()
            return job.version if job is not None else None

    def source(self, version: str) -> DeskSource:
        """Return what the decoder takes requests of `version` from."""
        return DeskSource(self, version)

    def finish(self, version: str, request: DraftRequest, draft: Draft) -> None:
        """Take a finished draft and wake who waits for it."""
        key = self.key(version, request)
        self.store.keep_draft(key, draft)
        now = time.monotonic()
        with self._changed:
            job = self._jobs.pop(key, None)
            if job is not None:
                job.state, job.draft = "done", draft
            self.total_drafts += 1
            self.total_tokens += draft.tokens
            self._finished.append((now, draft.tokens))
            self._changed.notify_all()

    def fail(self, version: str, *, running_only: bool = False) -> int:
        """Give up the jobs of a version; returns how many.  Who asks again makes new ones."""
        with self._changed:
            given_up = [job for job in self._jobs.values() if job.version == version]
            if running_only:
                given_up = [job for job in given_up if job.state == "running"]
            for job in given_up:
                job.state = "failed"
                del self._jobs[job.key]
            self.total_failed += len(given_up)
            self._changed.notify_all()
        return len(given_up)

    def drop_others(self, version: str) -> None:
        """Forget queued jobs of other versions that nobody waits for."""
        with self._changed:
            for job in list(self._jobs.values()):
                if job.version != version and not job.waiters and job.state == "queued":
                    job.state = "failed"
                    del self._jobs[job.key]

    def versions(self) -> set[str]:
        """Versions that have jobs."""
        with self._changed:
            return {job.version for job in self._jobs.values()}

    def pause(self, on: bool) -> None:
        """Hand out no more work while on."""
        with self._changed:
            self._paused = on
            self._changed.notify_all()

    def take(self, version: str) -> DraftRequest | None:
        """Hand out the next request of `version`, unless a more urgent one of another version waits."""
        with self._changed:
            job = self._next(version)
            if job is None:
                return None
            job.state = "running"
            return job.request

    def urgent(self, version: str) -> bool:
        """Tell whether the next request of `version` is one that a person waits for."""
        with self._changed:
            job = self._next(version)
            return job is not None and job.urgent

    def _next(self, version: str) -> Job | None:
        first = self._first()
        if first is None or first.version == version:
            return first
        # Work of another version waits: urgent work ends this run, other work waits for its turn.
        return None if first.urgent else self._head(version)

    def _first(self) -> Job | None:
        """The most pressing job of all versions."""
        heads = [job for version in list(self._heaps) if (job := self._head(version)) is not None]
        return min(heads, key=lambda job: job.priority) if heads and not self._paused else None

    def _head(self, version: str) -> Job | None:
        """The most pressing queued job of a version; entries that are out of date are dropped on the way."""
        heap = self._heaps.get(version, [])
        while heap and (heap[0][2].state != "queued" or heap[0][0] != heap[0][2].priority):
            heapq.heappop(heap)
        if not heap:
            self._heaps.pop(version, None)
            return None
        return heap[0][2]

    def _push(self, job: Job) -> None:
        heapq.heappush(self._heaps.setdefault(job.version, []), (job.priority, id(job), job))

    # -- numbers --------------------------------------------------------------------------------

    def numbers(self) -> dict[str, float]:
        """Return queue lengths, totals and the rates of the last minute."""
        now = time.monotonic()
        with self._changed:
            while self._finished and self._finished[0][0] < now - RATE_WINDOW:
                self._finished.popleft()
            states = [job.state for job in self._jobs.values()]
            return {
                "queued": states.count("queued"),
                "running": states.count("running"),
                "drafts_total": self.total_drafts,
                "tokens_total": self.total_tokens,
                "shared_total": self.total_shared,
                "cached_total": self.total_cached,
                "failed_total": self.total_failed,
                "drafts_per_second": round(len(self._finished) / RATE_WINDOW, 3),
                "tokens_per_second": round(sum(tokens for _, tokens in self._finished) / RATE_WINDOW, 1),
            }


@dataclasses.dataclass(frozen=True, slots=True)
class DeskSource:
    """The desk as the decoder sees it."""

    desk: Desk
    version: str

    def take(self, count: int) -> Sequence[DraftRequest]:
        """Return at most `count` requests."""
        taken: Iterable[DraftRequest | None] = (self.desk.take(self.version) for _ in range(count))
        return [request for request in itertools.takewhile(lambda r: r is not None, taken) if request is not None]

    def urgent(self) -> bool:
        """Tell whether the next request is urgent."""
        return self.desk.urgent(self.version)
