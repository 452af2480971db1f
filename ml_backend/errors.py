"""The last errors, for the status page."""

from __future__ import annotations

import logging
from collections import deque

from ml_backend.events import now


class RecentErrors(logging.Handler):
    """Keeps the last error messages of this process; messages never hold texts of the data set."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._last: deque[dict[str, str]] = deque(maxlen=20)

    @classmethod
    def attached(cls) -> RecentErrors:
        """Return one that listens to the backend's logger."""
        handler = cls()
        logging.getLogger("ml_backend").addHandler(handler)
        return handler

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        self._last.append({"at": now(), "error": record.getMessage()[:300]})

    def list(self) -> list[dict[str, str]]:
        """Return the messages, oldest first."""
        return list(self._last)
