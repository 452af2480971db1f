"""The decoding loop: many conversations side by side, each at its own pace.

A conversation takes a slot of the key-value cache and keeps it until its last turn, so each token is
processed once.  When a turn ends, its slot waits until enough others wait too, then the next user
texts are fed in one pass (`_prefill`); meanwhile the others go on (`_step`).  Conversations join as
slots come free, urgent ones at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from ml_backend.requests import Draft, DraftRequest
from ml_backend.sampling import choose, draws
from ml_backend.scenes import Scene
from ml_backend.settings import BackendSettings
from ml_backend.slots import Slots
from ml_backend.text_rules import problem, salvaged
from ml_backend.weights import Weights

PREFILL_TOKENS = 4096
"""Tokens fed in one prefill pass at most, padding included."""
GATHER = 0.25
"""Prefill starts when this share of the active rows waits for it."""


class Source(Protocol):
    """Where requests come from while the loop runs."""

    def take(self, count: int) -> Sequence[DraftRequest]:
        """Return at most `count` requests that wait now, the most urgent first; empty if none do."""
        ...

    def urgent(self) -> bool:
        """Tell whether a request waits that a person looks at."""
        ...


@dataclasses.dataclass
class Candidate:
    """A finished attempt at one turn."""

    text: str
    tokens: int
    log_probability: float
    problem: str | None
    row: Row

    @property
    def rank(self) -> tuple[bool, float]:
        """Sound texts before faulty ones, then mean token log-probability."""
        return self.problem is None, self.log_probability / max(self.tokens, 1)


@dataclasses.dataclass
class Group:
    """A scene and the rows that write candidates for its next turn."""

    scene: Scene
    urgent: bool
    rows: list[Row] = dataclasses.field(default_factory=list)
    finished: list[Candidate] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class Row:
    """One slot: what is cached, what is to be fed, what has been written of the present turn."""

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
    """Scores of the turn's first token, kept while a new trial may need them."""


class Decoder:
    """Runs requests through one model until its source is empty."""

    def __init__(self, weights: Weights, settings: BackendSettings, emit: Callable[[Draft], None]) -> None:
        """Every finished request is handed to `emit`, in the order in which they finish."""
        self.weights, self.settings, self.emit = weights, settings, emit
        self.slots = Slots(weights.layers, weights.device, weights.sliding_window)
        self.rows: list[Row] = []
        self.decoding = 0
        self.limit = settings.batch_rows
        self.budget = settings.token_budget

    @torch.inference_mode()
    def run(self, source: Source) -> None:
        """Draft until the source is empty and every conversation that was taken is done."""
        self.weights.activate()
        while True:
            self._admit(source)
            waiting = [row for row in self.rows[self.decoding :] if row.target]
            if not waiting and not self.decoding:
                return
            hurry = any(row.group.urgent for row in waiting)
            if (waiting and (hurry or len(waiting) >= max(1.0, GATHER * len(self.rows)))) or not self.decoding:
                self._prefill(waiting)
            else:
                self._step()

    # -- joining and leaving ------------------------------------------------------------------

    def _admit(self, source: Source) -> None:
        urgent = source.urgent()
        k = self.settings.candidates
        while self._room(k) or (urgent and source.urgent()):
            urgent = source.urgent()
            taken = source.take(1)
            if not taken:
                return
            scene = Scene(taken[0], self.weights.tokenizer, self.weights.format)
            self._start(Group(scene, urgent), None)

    def _room(self, rows: int) -> bool:
        width = max((len(row.target) or len(row.cached) for row in self.rows), default=0)
        return not self.rows or (
            len(self.rows) + rows <= self.limit and (len(self.rows) + rows) * (width + 64) <= self.budget
        )

    def _start(self, group: Group, row: Row | None) -> None:
        """Begin the scene's next turn in `row` (a new one if None), or let the scene go."""
        scene = group.scene
        target = scene.prompt() if scene.turn is not None else []
        if len(target) + self.settings.max_new_tokens > self.weights.context_length:
            scene.problem, target = "the model's context is full", []
        if not target:
            if row is not None:
                self._leave(row)
            self.emit(scene.draft())
            return
        if row is None:
            row = Row(group, len(self.rows))
            self.rows.append(row)
        row.target, row.user = target, scene.writes_user()
        row.candidate = row.trial = 0
        group.rows, group.finished = [row], []

    def _place(self, row: Row, slot: int) -> None:
        """Exchange the slots of `row` and the row in `slot`."""
        other = self.rows[slot]
        if other is row:
            return
        length = max(len(r.cached) + 1 for r in (row, other))
        self.slots.swap(row.slot, slot, length)
        self.rows[row.slot], self.rows[slot] = other, row
        row.slot, other.slot = slot, row.slot

    def _rest(self, row: Row) -> None:
        """Take a row out of the decoding ones."""
        if row.slot < self.decoding:
            self._place(row, self.decoding - 1)
            self.decoding -= 1

    def _wake(self, row: Row) -> None:
        """Put a row among the decoding ones."""
        if row.slot >= self.decoding:
            self._place(row, self.decoding)
            self.decoding += 1

    def _leave(self, row: Row) -> None:
        self._rest(row)
        self._place(row, len(self.rows) - 1)
        self.rows.pop()

    # -- forward passes -----------------------------------------------------------------------

    def _prefill(self, waiting: list[Row]) -> None:
        """Feed what the waiting rows' prompts have beyond their cache, and choose each first token."""
        feeds = {id(row): row.target[self._keep(row) :] for row in waiting}
        waiting = sorted(waiting, key=lambda row: (not row.group.urgent, len(feeds[id(row)])))
        while waiting:
            width, count = 0, 0
            for row in waiting:
                width = max(width, len(feeds[id(row)]))
                if count and width * (count + 1) > PREFILL_TOKENS:
                    break
                count += 1
            block, waiting = waiting[:count], waiting[count:]
            width = max(len(feeds[id(row)]) for row in block)
            padded = [feeds[id(row)] + [0] * (width - len(feeds[id(row)])) for row in block]
            last = torch.tensor([len(feeds[id(row)]) - 1 for row in block])
            logits = self._forward(
                [row.slot for row in block], [len(row.cached) for row in block], torch.tensor(padded), last
            )
            for row in block:
                row.cached, row.target = row.target, []
            self._begin(block, logits)

    def _keep(self, row: Row) -> int:
        """Cut the row's cache back to what its target shares with it; at least one token is fed."""
        shared = 0
        for a, b in zip(row.cached, row.target, strict=False):
            if a != b:
                break
            shared += 1
        shared = min(shared, len(row.target) - 1)
        del row.cached[shared:]
        return shared

    def _begin(self, block: list[Row], logits: torch.Tensor) -> None:
        """Give every row of a prefilled block its candidates and their first tokens."""
        started: list[Row] = []
        scores: list[torch.Tensor] = []
        for row, first in zip(block, logits, strict=True):
            group = row.group
            self.slots.reserve(len(self.rows) + self.settings.candidates, len(row.cached) + 1)
            for number in range(self.settings.candidates):
                writer = row
                if number:
                    writer = Row(group, len(self.rows), list(row.cached), user=row.user, candidate=number)
                    self.rows.append(writer)
                    self.slots.copy(row.slot, writer.slot, len(row.cached))
                    group.rows.append(writer)
                writer.first = first
                started.append(writer)
                scores.append(first)
        for row in started:
            self._draw(row)
            self._wake(row)
        self._choose(started, torch.stack(scores))

    def _draw(self, row: Row) -> None:
        """Start a trial of the row's turn."""
        row.reply, row.log_probability = [], 0.0
        request, turn = row.group.scene.request, row.group.scene.turn
        key = (request.id, turn, self.weights.id, request.attempt, row.candidate, row.trial)
        row.uniform = draws(self.settings.max_new_tokens, *key)

    def _step(self) -> None:
        """Write one token in every decoding row."""
        rows = self.rows[: self.decoding]
        tokens = torch.tensor([[row.reply[-1]] for row in rows])
        logits = self._forward(slice(0, self.decoding), [len(row.cached) for row in rows], tokens, None)
        for row in rows:
            row.cached.append(row.reply[-1])
        self._choose(rows, logits)

    def _forward(
        self, rows: list[int] | slice, starts: list[int], tokens: torch.Tensor, last: torch.Tensor | None
    ) -> torch.Tensor:
        """Run the model on `tokens`, (rows, width); return float32 scores, (rows, vocabulary), of each row's `last`."""
        weights, slots = self.weights, self.slots
        width = tokens.shape[1]
        slots.reserve(len(self.rows), max(starts) + width)
        positions, mask = slots.aim(rows, starts, width)
        masks: torch.Tensor | dict[str, torch.Tensor] = mask
        if weights.sliding_window is not None:
            sliding = slots.sliding_mask(positions)
            both = {"full_attention": mask, "sliding_attention": sliding}
            masks = both if len(weights.layer_types) > 1 else sliding
        keep = torch.tensor(sorted(set(last.tolist()))) if last is not None else torch.tensor([width - 1])
        logits: torch.Tensor = weights.model(
            input_ids=tokens.to(weights.device),
            attention_mask=masks,
            position_ids=positions,
            past_key_values=slots.cache,
            use_cache=True,
            logits_to_keep=keep.to(weights.device),
        ).logits
        if last is None:
            return logits[:, -1].float()
        return logits[torch.arange(len(last)), torch.searchsorted(keep, last)].float()

    # -- tokens and turns -----------------------------------------------------------------------

    def _choose(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        weights, settings = self.weights, self.settings
        forbidden = weights.forbidden
        users = [row.user for row in rows]
        logits = logits + (forbidden[[int(u) for u in users]] if any(users) else forbidden[0])
        eos = weights.tokenizer.eos_token_id
        fresh = [i for i, row in enumerate(rows) if not row.reply]
        for i in fresh:  # no turn is empty
            logits[i, sorted(weights.user_ends) if users[i] else eos] = float("-inf")
        uniform = torch.tensor([row.uniform[len(row.reply)] for row in rows], device=logits.device)
        retried = [row.trial > 0 for row in rows]
        temperature = settings.temperature
        token, score = choose(logits, uniform, temperature=temperature, top_k=settings.top_k, top_p=settings.top_p)
        if temperature == 0 and any(retried):  # greedy would only write the same again
            other, other_score = choose(logits, uniform, temperature=0.7, top_k=settings.top_k, top_p=settings.top_p)
            again = torch.tensor(retried, device=logits.device)
            token, score = torch.where(again, other, token), torch.where(again, other_score, score)
        ended: list[tuple[Row, bool]] = []
        for row, t, s in zip(rows, token.tolist(), score.tolist(), strict=True):
            row.reply.append(t)
            row.log_probability += s
            stop = t == eos or (row.user and t in weights.user_ends)
            if stop or len(row.reply) >= settings.max_new_tokens:
                ended.append((row, stop))
        for row, stop in ended:
            self._end(row, stop)

    def _end(self, row: Row, stop: bool) -> None:
        """Judge a finished candidate; try it again, or close the turn when it was the last one."""
        weights, group = self.weights, row.group
        ids = row.reply[:-1] if stop and row.reply[-1] in weights.stop_only(row.user) else row.reply
        text = weights.tokenizer.decode(ids, skip_special_tokens=False)
        if row.user:
            text = text.split("\n", 1)[0]
        fault = problem(text, ended=stop, control=weights.control)
        if fault is not None and row.trial < self.settings.retries and row.first is not None:
            row.trial += 1
            del row.cached[len(row.cached) - max(len(row.reply) - 1, 0) :]
            self._draw(row)
            self._choose([row], row.first[None])
            return
        row.first = None
        self._rest(row)
        text = text.strip() if fault is None else salvaged(text, weights.control)
        group.finished.append(Candidate(text, len(row.reply), row.log_probability, fault, row))
        if len(group.finished) == len(group.rows):
            self._close(group)

    def _close(self, group: Group) -> None:
        best = max(group.finished, key=lambda candidate: candidate.rank)
        for row in group.rows:
            if row is not best.row:
                self._leave(row)
        if best.text:
            group.scene.accept(best.text, best.tokens, best.log_probability)
        else:
            group.scene.problem = best.problem
        self._start(group, best.row)
