"""The decoding loop: many conversations side by side, each at its own pace.

A conversation takes a slot of the key-value cache and keeps it until its last turn, so each token is
processed once.  When a turn ends, its slot waits until enough others wait too, then the next texts
are fed in one pass (`_prefill`); meanwhile the others go on (`_step`).  Conversations join as slots
come free.  Urgent ones, which a person is waiting for, join at once and are written alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from ml_backend.caching import memory_for
from ml_backend.requests import Draft, DraftRequest
from ml_backend.rows import Batch, Candidate, Group, Row
from ml_backend.sampling import choose, draws
from ml_backend.scenes import Scene
from ml_backend.settings import BackendSettings
from ml_backend.text_rules import problem, salvaged
from ml_backend.weights import Weights

logger = logging.getLogger("ml_backend")

PREFILL_TOKENS = {"cpu": 512, "cuda": 8192}
"""Tokens fed in one pass at most: enough to be limited by arithmetic, short enough not to keep people waiting."""
GATHER = 0.25
"""Prefill starts when this share of the rows waits for it."""
PARKED = 8
"""Live conversations whose cache is kept for their next turn."""
RETRY_TEMPERATURE, RETRY_STEP = 0.7, 0.1
"""A faulty turn is tried again, and another reply drafted, at least at this temperature; each reply adds a step."""


Emit = Callable[[DraftRequest, Draft], None]
"""What takes a finished draft."""


class Source(Protocol):
    """Where requests come from while the loop runs."""

    def take(self, count: int) -> Sequence[DraftRequest]:
        """Return at most `count` requests that wait now, the urgent first; empty if none do."""
        ...

    def urgent(self) -> bool:
        """Tell whether the next request is one that a person waits for."""
        ...


class Decoder:
    """Runs requests through one model; keeps the cache of live conversations from run to run."""

    def __init__(self, weights: Weights, settings: BackendSettings) -> None:
        """Find out how the model can be cached."""
        self.weights, self.settings = weights, settings
        self.memory = memory_for(weights)
        self.batch = Batch(self.memory)
        self.parked: list[Row] = []
        self.limit, self.budget = settings.batch_rows, settings.token_budget
        self.block = PREFILL_TOKENS.get(weights.device.type, 512)
        self._backlog: list[Group] = []
        self._emit: Emit = _nowhere

    @torch.inference_mode()
    def run(self, source: Source, emit: Emit) -> None:
        """Draft until `source` is empty and every conversation that was taken is done.

        Every draft is handed to `emit` as soon as it is finished.
        """
        self._emit = emit
        try:
            while True:
                self._admit(source)
                try:
                    if not self._advance():
                        return
                except (RuntimeError, MemoryError) as error:
                    if not _out_of_memory(error):
                        raise
                    self._shed()
        except BaseException:
            self._forget()
            raise

    def _advance(self) -> bool:
        """Do the one pass that is most useful now; False when there is nothing left to do."""
        batch = self.batch
        waiting = [row for row in batch.rows[batch.writing :] if row.target]
        pressing = [row for row in waiting if row.group.urgent]
        active = len(batch.rows) - len(self.parked)
        if pressing:
            self._prefill(pressing)
        elif waiting and not batch.hot and (not batch.writing or len(waiting) >= GATHER * active):
            self._prefill(waiting)
        elif batch.writing:
            self._step()
        else:
            return False
        return True

    # -- joining and leaving ------------------------------------------------------------------

    def _admit(self, source: Source) -> None:
        while True:
            urgent = source.urgent()
            if not urgent and not self._room():
                return
            if self._backlog and not urgent:
                self._start(self._backlog.pop(0), None)
                continue
            taken = source.take(1)
            if not taken:
                return
            self._start(Group(Scene(taken[0], self.weights.tokenizer, self.weights.format), urgent), None)

    def _room(self) -> bool:
        active = len(self.batch.rows) - len(self.parked)
        rows = active + self.settings.candidates
        width = max((len(row.target) or len(row.cached) for row in self.batch.rows), default=0)
        return not active or (rows <= self.limit and rows * (width + self.settings.max_new_tokens) <= self.budget)

    def _start(self, group: Group, row: Row | None) -> None:
        """Begin the scene's next turn in `row` (a free one if None), or let the scene go."""
        scene = group.scene
        target = scene.prompt() if scene.turn is not None else []
        if len(target) + self.settings.max_new_tokens > self.weights.context_length:
            scene.problem, target = "the model's context is full", []
        if not target:
            if row is not None:
                self._release(row)
            self._emit(scene.request, scene.draft())
            return
        if row is None:
            row = self._free_row(group, target)
        row.group, row.target, row.user = group, target, scene.writes_user()
        row.candidate = row.trial = 0
        group.rows, group.finished = [row], []

    def _free_row(self, group: Group, target: list[int]) -> Row:
        """Return the parked row that has cached most of `target`, or a new one."""
        best, most = None, 0
        for row in self.parked:
            shared = next((i for i, (a, b) in enumerate(zip(row.cached, target, strict=False)) if a != b), None)
            length = min(len(row.cached), len(target)) if shared is None else shared
            if length > most:
                best, most = row, length
        if best is not None and most * 2 > len(target):
            self.parked.remove(best)
            return best
        row = Row(group, 0)
        self.batch.add(row)
        return row

    def _release(self, row: Row) -> None:
        """Free a row, or park it if a person will probably go on with its conversation."""
        self.batch.rest(row)
        row.target, row.reply, row.first = [], [], None
        if not row.group.urgent:
            self.batch.leave(row)
            return
        self.parked.append(row)
        if len(self.parked) > PARKED:
            self.batch.leave(self.parked.pop(0))

    def _shed(self) -> None:
        """Start over with half the rows after memory ran out; turns that are finished stay."""
        groups = [*dict.fromkeys(row.group for row in self.batch.rows if row not in self.parked), *self._backlog]
        self._forget()
        if self.limit <= 1:
            lost = groups.pop(0)
            lost.scene.problem = "out of memory"
            self._emit(lost.scene.request, lost.scene.draft())
        self.limit, self.budget = max(self.limit // 2, 1), max(self.budget // 2, 256)
        logger.warning("out of memory: going on with at most %d rows and %d tokens", self.limit, self.budget)
        self._backlog = groups

    def _forget(self) -> None:
        self.parked, self._backlog = [], []
        self.batch.clear()
        if self.weights.device.type == "cuda":
            torch.cuda.empty_cache()

    # -- forward passes -----------------------------------------------------------------------

    def _prefill(self, waiting: list[Row]) -> None:
        """Feed what the rows' prompts have beyond their cache, and choose each turn's first token."""
        feeds = sorted(((row.keep_shared(), row) for row in waiting), key=lambda pair: len(pair[0]))
        while feeds:
            count = 1
            while count < len(feeds) and (count + 1) * len(feeds[count][0]) <= self.block:
                count += 1
            block, feeds = feeds[:count], feeds[count:]
            rows = [row for _, row in block]
            logits = self.memory.forward(rows, [feed for feed, _ in block])
            for row in rows:
                row.cached, row.target = row.target, []
            self._begin(rows, logits)

    def _begin(self, block: list[Row], logits: torch.Tensor) -> None:
        """Give every row of a prefilled block its candidates and their first tokens."""
        started: list[Row] = []
        for row, first in zip(block, logits, strict=True):
            for number in range(self.settings.candidates):
                writer = row
                if number:
                    writer = Row(row.group, 0, list(row.cached), user=row.user, candidate=number)
                    self.batch.add(writer)
                    self.memory.copy(row.slot, writer.slot, len(row.cached))
                    row.group.rows.append(writer)
                writer.first = first
                started.append(writer)
        for row in sorted(started, key=lambda row: row.slot):  # in this order neighbours stay where they are
            self._draw(row)
            self.batch.wake(row)
        self._choose(started, logits.repeat_interleave(self.settings.candidates, dim=0))

    def _draw(self, row: Row) -> None:
        """Start a trial of the row's turn with its own stream of random numbers."""
        row.reply, row.log_probability = [], 0.0
        request, turn = row.group.scene.request, row.group.scene.turn
        key = (request.id, turn, self.weights.id, request.attempt, row.candidate, row.trial)
        row.uniform = draws(self.settings.max_new_tokens, *key)

    def _step(self) -> None:
        """Write one token in every row that writes."""
        rows = self.batch.writers()
        logits = self.memory.forward(rows, [[row.reply[-1]] for row in rows])
        for row in rows:
            row.cached.append(row.reply[-1])
        self._choose(rows, logits)

    # -- tokens and turns -----------------------------------------------------------------------

    def _choose(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        weights, settings = self.weights, self.settings
        users = [row.user for row in rows]
        logits = logits + (weights.forbidden[[int(u) for u in users]] if any(users) else weights.forbidden[0])
        for i, row in enumerate(rows):
            if not row.reply:  # no turn is empty
                logits[i, weights.ends[row.user]] = float("-inf")
        uniform = torch.tensor([row.uniform[len(row.reply)] for row in rows], device=logits.device)
        temperature = torch.tensor(
            [warmer(settings.temperature, row.group.scene.request.attempt, row.trial) for row in rows],
            device=logits.device,
        )
        token, score = choose(logits, uniform, temperature, top_k=settings.top_k, top_p=settings.top_p)
        ended: list[tuple[Row, bool]] = []
        for row, t, s in zip(rows, token.tolist(), score.tolist(), strict=True):
            row.reply.append(t)
            row.log_probability += s
            stop = t in weights.end_set[row.user]
            if stop or len(row.reply) >= settings.max_new_tokens:
                ended.append((row, stop))
        for row, stop in reversed(ended):  # the last slot first: then no row has to move for another
            self._end(row, stop)

    def _end(self, row: Row, stop: bool) -> None:
        """Judge a finished candidate; try it again, or close the turn when it was the last one."""
        weights, group = self.weights, row.group
        ids = row.reply[:-1] if stop and row.reply[-1] in weights.silent_ends else row.reply
        text = weights.tokenizer.decode(ids, skip_special_tokens=False)
        if row.user:
            text = text.split("\n", 1)[0]
        fault = problem(text, ended=stop, control=weights.control)
        if fault is not None and row.trial < self.settings.retries and row.first is not None:
            row.trial += 1
            del row.cached[len(row.cached) - (len(row.reply) - 1) :]
            self._draw(row)
            self._choose([row], row.first[None])
            return
        row.first = None
        self.batch.rest(row)
        text = text.strip() if fault is None else salvaged(text, weights.control)
        group.finished.append(Candidate(text, len(row.reply), row.log_probability, fault, row))
        if len(group.finished) == len(group.rows):
            self._close(group)

    def _close(self, group: Group) -> None:
        """Take the best candidate as the turn and go on to the scene's next one."""
        best = max(group.finished, key=lambda candidate: candidate.rank)
        for row in group.rows:
            if row is not best.row:
                self.batch.leave(row)
        if best.text:
            group.scene.accept(best.text, best.tokens, best.log_probability)
        else:
            group.scene.problem = best.problem
        self._start(group, best.row)


def warmer(temperature: float, attempt: int, trial: int) -> float:
    """Return the temperature of a turn: the setting, and more where the same text again would be no use."""
    if not trial and not attempt:
        return temperature
    return max(temperature, RETRY_TEMPERATURE) + RETRY_STEP * min(attempt, 5)


def _nowhere(request: DraftRequest, draft: Draft) -> None:
    """Take a draft that nobody asked for."""


def _out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Tell memory running out (CUDA's own class, or the CPU allocator's words) from other failures."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)
