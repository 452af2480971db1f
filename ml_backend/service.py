"""What the backend answers, apart from HTTP: rows for tasks, live replies, events."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dialogue.genres import load_taxonomy
from dialogue.label_studio import SCAFFOLD_VERSION
from dialogue.settings import Workspace
from ml_backend import protocol
from ml_backend.client import EngineClient
from ml_backend.events import Journal, now, record_event
from ml_backend.requests import Draft
from ml_backend.serving import Serving
from ml_backend.settings import BackendSettings
from ml_backend.store import Store

BATCH_PATIENCE = 30.0
"""Seconds that drafting whole cards waits for a newly chosen checkpoint; live chat goes on with the old one."""
NEW_REPLY_TRIES = 4
"""How often a reply is drafted anew when the same text came out again."""

SAME_QUESTION = 1.0
"""Seconds after an answer within which the same call means the same answer.

When a card is opened with Auto-Annotation on, Label Studio makes some hundred calls at once, six at a time.
"""


class Service:
    """Ties the engine to the workspace; one per web worker, used from many threads."""

    def __init__(self, workspace: Workspace, settings: BackendSettings, client: EngineClient) -> None:
        """Read the genre taxonomy, open store and journals."""
        self.workspace, self.settings, self.client = workspace, settings, client
        self.taxonomy = load_taxonomy(workspace.taxonomy)
        self.serving = Serving(workspace, client, settings.swap_wait)
        self.store = Store(workspace.state / "backend.sqlite")
        self.drafts = Journal(workspace.state / "drafts.jsonl")
        self.webhooks = Journal(workspace.state / "webhooks.jsonl")

    def version(self) -> str:
        """Return the version that /setup says and rows made now carry."""
        return self.serving.version()

    def predict(self, tasks: Sequence[object], project: str, context: object = None) -> tuple[list[Any], str]:
        """Answer a /predict call, a live-chat one if `context` says so.

        Returns one entry per task, in order, and the version they carry.
        """
        until = time.monotonic() + self.settings.deadline
        screen = protocol.interactive_result(context)
        version = self.serving.version(BATCH_PATIENCE if screen is None else None)
        if screen is not None:
            return [self._chat(task, project, screen, version, until) for task in tasks], version
        read = [protocol.read_task(task, project) for task in tasks]
        wanted = {
            index: protocol.draft_request(task, user_turns=self.settings.draft_user_turns)
            for index, task in enumerate(read)
            if task is not None and self._may_draft(task, version)
        }
        wanted = {index: request for index, request in wanted.items() if protocol.is_draftable(request)}
        drafts = self.client.draft(version, list(wanted.values()), urgent=len(tasks) == 1, until=until)
        rows: list[Any] = []
        for index, task in enumerate(read):
            request = wanted.get(index)
            if task is None:
                rows.append([])
            elif request is None:
                rows.append(protocol.scaffold_row(task, version, self.taxonomy))
            else:
                draft = drafts.get(request.digest())
                rows.append([] if draft is None else protocol.draft_row(task, draft, version, self.taxonomy))
        return rows, version

    def record(self, body: Mapping[str, Any]) -> None:
        """Journal a webhook event."""
        record_event(self.store, self.webhooks, body)

    def _may_draft(self, task: protocol.Task, version: str) -> bool:
        return version != SCAFFOLD_VERSION and not protocol.is_blind(task, self.settings.blind_share)

    def _chat(
        self, value: object, project: str, screen: Sequence[object], version: str, until: float
    ) -> dict[str, Any] | list[Any]:
        task = protocol.read_task(value, project)
        if task is None or not isinstance(value, Mapping) or not self._may_draft(task, version):
            return protocol.silence()
        chat = protocol.read_chat(task, value, screen)
        if chat.turn is None:
            return protocol.silence()
        point = _point(task, chat, version)
        given = self.store.replies(point)  # before `repeated`: a reply that is kept in between is then found there
        if (text := self.store.repeated(point, SAME_QUESTION)) is not None:
            turns = [replace(turn, text=text) if i == chat.turn else turn for i, turn in enumerate(chat.turns)]
            return protocol.chat_row(chat, Draft(task.key, tuple(turns), (chat.turn,)), version)
        draft: Draft | None = None
        # Emptying Aku's box asks for another reply: each one given moves the seed on.
        for attempt in range(len(given), len(given) + NEW_REPLY_TRIES):
            request = protocol.chat_request(task, chat, attempt)
            draft = self.client.draft(version, [request], urgent=True, until=until).get(request.digest())
            if draft is None or not draft.drafted:
                break
            text = draft.turns[chat.turn].text
            if text not in given or attempt == len(given) + NEW_REPLY_TRIES - 1:
                # Label Studio does not store live answers, so this journal is the only record of them.
                if self.store.keep_reply(point, len(given), text):
                    fact = {"project": project, "task": task.id, "turn": chat.turn, "text": text}
                    self.drafts.append({**fact, "checkpoint": version, "attempt": attempt, "at": now()})
                break
        return protocol.chat_row(chat, draft, version)


def _point(task: protocol.Task, chat: protocol.Chat, version: str) -> str:
    """Name the point of a conversation: the task, the turn, what was said before it, and who goes on."""
    said = [turn.text for turn in chat.turns[: chat.turn]]
    return hashlib.sha256(repr((task.key, chat.turn, said, version)).encode("utf-8", "surrogatepass")).hexdigest()
