"""The engine: one thread that drafts, a queue before it, and the checkpoint in use."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dialogue.checkpoints import Registry
from dialogue.errors import AkuError
from dialogue.label_studio import SCAFFOLD_VERSION
from dialogue.settings import Workspace
from ml_backend.requests import Draft, DraftRequest
from ml_backend.settings import BackendSettings

if TYPE_CHECKING:
    from ml_backend.drafting import Drafter

logger = logging.getLogger("ml_backend")


class Engine:
    """Drafts with the checkpoint that `current.json` names while its gate is open."""

    def __init__(self, workspace: Workspace, settings: BackendSettings) -> None:
        """Load the current checkpoint, so that the first call need not wait."""
        self.registry = Registry(workspace.checkpoints)
        self.settings = settings
        self.drafter: Drafter | None = None
        self.refused: str | None = None
        self._load = threading.Lock()
        self._run = threading.Lock()
        self.version()

    def version(self) -> str:
        """Return the version that /setup and every row say now."""
        with self._load:
            try:
                current = self.registry.current()
            except AkuError:
                current = None
            if current is None or not current.may_draft:
                return SCAFFOLD_VERSION
            if (self.drafter is None or self.drafter.id != current.id) and self.refused != current.id:
                try:
                    from ml_backend.drafting import Drafter

                    self.drafter = Drafter(self.registry.get(current.id), self.settings, self.drafter)
                except AkuError as error:
                    self.refused = current.id
                    logger.error("%s", error)
            return self.drafter.id if self.drafter is not None else SCAFFOLD_VERSION

    def draft(
        self, requests: Sequence[DraftRequest], version: str, deadline: float, urgent: bool = False
    ) -> dict[str, Draft]:
        """Draft what can be drafted before `deadline` (monotonic seconds); returns drafts by request id."""
        done: dict[str, Draft] = {}
        drafter = self.drafter
        if drafter is None or drafter.id != version or not self._run.acquire(timeout=deadline - time.monotonic()):
            return done
        try:
            drafter.draft(requests, lambda draft: done.__setitem__(draft.id, draft))
        finally:
            self._run.release()
        return done
