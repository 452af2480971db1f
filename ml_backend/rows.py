"""Rows of a running batch and the order of their slots."""

from __future__ import annotations

import dataclasses

import torch

from ml_backend.memory import Memory
from ml_backend.scenes import Scene


def mean(log_probability: float, tokens: int) -> float:
    """Return the mean log-probability of a text's tokens."""
    return log_probability / max(tokens, 1)


@dataclasses.dataclass
class Candidate:
    """A finished attempt at one turn; `problem` says what is wrong with it, if anything."""

    text: str
    tokens: int
    log_probability: float
    problem: str | None
    row: Row

    @property
    def rank(self) -> tuple[bool, float]:
        """Sound texts before faulty ones, then mean token log-probability."""
        return self.problem is None, mean(self.log_probability, self.tokens)


@dataclasses.dataclass(eq=False)
class Group:
    """A scene and the rows that write candidates for its next turn."""

    scene: Scene
    urgent: bool
    rows: list[Row] = dataclasses.field(default_factory=list)
    finished: list[Candidate] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class Row:
    """One slot: what is cached, what is to be fed, what has been written of the present turn.

    `target` is the prompt to feed (empty while the row writes); `first` the scores of the turn's
    first token, kept as long as a new trial may need them.
    """

    group: Group
    slot: int
    cached: list[int] = dataclasses.field(default_factory=list)
    target: list[int] = dataclasses.field(default_factory=list)
    reply: list[int] = dataclasses.field(default_factory=list)
    log_probability: float = 0.0
    uniform: list[float] = dataclasses.field(default_factory=list)
    candidate: int = 0
    trial: int = 0
    user: bool = False
    first: torch.Tensor | None = None

    def keep_shared(self) -> list[int]:
        """Cut the cache back to what the target shares with it; return the tokens to feed, at least one."""
        shared = 0
        for a, b in zip(self.cached, self.target, strict=False):
            if a != b:
                break
            shared += 1
        shared = min(shared, len(self.target) - 1)
        del self.cached[shared:]
        return self.target[shared:]


class Batch:
    """Rows by slot: urgent rows that write, then other rows that write, then all that wait."""

    def __init__(self, memory: Memory) -> None:
        """Start without rows."""
        self.memory = memory
        self.rows: list[Row] = []
        self.hot = 0
        self.writing = 0

    def add(self, row: Row) -> None:
        """Give a new row the next free slot."""
        row.slot = len(self.rows)
        self.rows.append(row)

    def wake(self, row: Row) -> None:
        """Put a row among those that write."""
        if row.slot >= self.writing:
            self._place(row, self.writing)
            self.writing += 1
        if row.group.urgent and row.slot >= self.hot:
            self._place(row, self.hot)
            self.hot += 1

    def rest(self, row: Row) -> None:
        """Take a row out of those that write."""
        if row.slot < self.hot:
            self._place(row, self.hot - 1)
            self.hot -= 1
        if row.slot < self.writing:
            self._place(row, self.writing - 1)
            self.writing -= 1

    def leave(self, row: Row) -> None:
        """Free a row's slot."""
        self.rest(row)
        self._place(row, len(self.rows) - 1)
        self.rows.pop()

    def writers(self) -> list[Row]:
        """Rows of the next step: the urgent ones alone as long as there are any."""
        return self.rows[: self.hot or self.writing]

    def clear(self) -> None:
        """Forget all rows and what they had cached."""
        self.rows, self.hot, self.writing = [], 0, 0
        self.memory.clear()

    def _place(self, row: Row, slot: int) -> None:
        other = self.rows[slot]
        if other is row:
            return
        self.memory.swap(row.slot, slot, max(len(row.cached), len(other.cached)))
        self.rows[row.slot], self.rows[slot] = other, row
        row.slot, other.slot = slot, row.slot
