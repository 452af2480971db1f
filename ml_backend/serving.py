"""Which version /setup and every row say now: the scaffold, or the checkpoint that serves."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from dialogue import files
from dialogue.checkpoints import Current, Registry
from dialogue.errors import AkuError
from dialogue.label_studio import SCAFFOLD_VERSION
from dialogue.settings import Workspace
from ml_backend.client import EngineClient

logger = logging.getLogger("ml_backend")
Signature = tuple[int, int, int] | None


class Serving:
    """Follows `current.json`; asks the engine only when that file has changed or a load is under way."""

    def __init__(self, workspace: Workspace, client: EngineClient, swap_wait: float) -> None:
        """Begin with the checkpoint that the engine last said it serves."""
        self.registry = Registry(workspace.checkpoints)
        self.client, self.swap_wait = client, swap_wait
        self.path = workspace.checkpoints / "current.json"
        self._last_good = workspace.state / "serving.json"
        self._lock = threading.Lock()
        self._seen: Signature = None
        self._current: Current | None = None
        self._settled = True
        self._changed = 0.0
        self._serving: str | None = None
        self._read()

    def version(self, patience: float | None = None) -> str:
        """Return the version that a row made now carries.

        A newly chosen checkpoint is waited for until `patience` seconds (default: the setting) after
        it was chosen; until it is loaded, or for good if it can not be, the one before goes on serving.
        """
        with self._lock:
            self._read()
            current, settled, serving = self._current, self._settled, self._serving
            left = self._changed + (self.swap_wait if patience is None else patience) - time.monotonic()
        if current is None or not current.may_draft:
            return SCAFFOLD_VERSION
        if not settled:
            serving = self._settle(current.id, max(left, 0.0))  # unlocked: others need not wait with us
        return serving or SCAFFOLD_VERSION

    def gate(self) -> Current | None:
        """Return what `current.json` says, None if there is none or it is broken."""
        with self._lock:
            self._read()
            return self._current

    def _read(self) -> None:
        signature = _signature(self.path)
        if signature == self._seen:
            return
        try:
            self._current = self.registry.current()
        except AkuError as error:
            logger.error("%s", error)  # what was chosen before goes on
        self._settled = self._current is None or self._current.id == self._serving
        self._changed = time.monotonic()
        self._seen = signature

    def _settle(self, checkpoint_id: str, seconds: float) -> str | None:
        answer = self.client.use(checkpoint_id, seconds)
        with self._lock:
            if answer is None:
                if self._serving is None and self._last_good.exists():
                    self._serving = str(files.read_json(self._last_good).get("id") or "") or None
            elif self._current is not None and self._current.id == checkpoint_id:
                self._serving = answer["serving"]
                if not answer["loading"] and not self._settled:
                    self._settled = True
                    if answer["refused"]:
                        logger.error("checkpoint %s is refused: %s", checkpoint_id, answer["refused"])
            return self._serving


def _signature(path: Path) -> Signature:
    """What changes when the file is replaced: its inode, size and time."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
