"""What the backend answers, apart from HTTP: versions, rows for tasks, live replies."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from dialogue.genres import load_taxonomy
from dialogue.label_studio import SCAFFOLD_VERSION
from dialogue.settings import Workspace
from ml_backend import protocol
from ml_backend.engine import Engine
from ml_backend.journal import Journal, now
from ml_backend.settings import BackendSettings

logger = logging.getLogger("ml_backend")
NEW_REPLY_TRIES = 4
"""How often a reply is drafted anew when the same text came out again."""


class Service:
    """Ties the engine to the workspace; one per process, used from many threads."""

    def __init__(self, workspace: Workspace, settings: BackendSettings, engine: Engine) -> None:
        """Read the genre taxonomy and open the journals."""
        self.workspace, self.settings, self.engine = workspace, settings, engine
        self.taxonomy = load_taxonomy(workspace.taxonomy)
        self.drafts = Journal(workspace.state / "drafts.jsonl")
        self.webhooks = Journal(workspace.state / "webhooks.jsonl")
        self._replies: defaultdict[str, list[str]] = defaultdict(list)
        self._lock = threading.Lock()

    def version(self) -> str:
        """Return the version that rows made now would carry."""
        return self.engine.version()

    def predict(self, tasks: Sequence[object], project: str, params: object = None) -> list[Any]:
        """Answer a /predict call: one entry per task, in order."""
        started = time.monotonic()
        screen = protocol.interactive_result(params)
        if screen is not None:
            return [self._chat(task, project, screen, started) for task in tasks]
        version = self.engine.version()
        read = [protocol.read_task(task, project) for task in tasks]
        wanted = {
            task.key: protocol.draft_request(task, user_turns=self.settings.draft_user_turns)
            for task in read
            if task is not None and self._may_draft(task, version)
        }
        drafts = self.engine.draft(list(wanted.values()), version, started + self.settings.deadline)
        rows: list[Any] = []
        for task in read:
            if task is None:
                rows.append([])
            elif task.key not in wanted:
                rows.append(protocol.scaffold_row(task, version, self.taxonomy))
            elif task.key in drafts:
                rows.append(protocol.draft_row(task, drafts[task.key], version, self.taxonomy))
            else:
                rows.append([])
        return rows

    def _may_draft(self, task: protocol.Task, version: str) -> bool:
        return version != SCAFFOLD_VERSION and not protocol.is_blind(task, self.settings.blind_share)

    def _chat(self, value: object, project: str, screen: Sequence[object], started: float) -> dict[str, Any]:
        version = self.engine.version()
        task = protocol.read_task(value, project)
        empty = {"result": [], "score": 0.0, "model_version": version}
        if task is None or not isinstance(value, Mapping) or not self._may_draft(task, version):
            return empty
        chat = protocol.read_chat(task, value, screen)
        if chat.turn is None:
            return empty
        given = self._given(task, chat)
        draft, attempt = None, len(given)
        for attempt in range(len(given), len(given) + NEW_REPLY_TRIES):
            request = protocol.chat_request(task, chat, attempt)
            draft = self.engine.draft([request], version, started + self.settings.deadline, urgent=True).get(task.key)
            if draft is None or not draft.drafted or draft.turns[chat.turn].text not in given:
                break
        row = protocol.chat_row(task, chat, draft, version)
        if draft is not None and row["result"]:
            text = draft.turns[chat.turn].text
            given.append(text)
            fact = {"task": task.id, "turn": chat.turn, "text": text, "checkpoint": version}
            self.drafts.append({"project": project, **fact, "attempt": attempt, "at": now()})
        return row

    def _given(self, task: protocol.Task, chat: protocol.Chat) -> list[str]:
        """Replies already given at this very point: emptying Aku's box asks for another one."""
        said = [turn.text for turn in chat.turns[: chat.turn]]
        key = hashlib.sha256(repr((task.key, chat.turn, said)).encode("utf-8", "replace")).hexdigest()
        with self._lock:
            return self._replies[key]
