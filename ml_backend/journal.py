"""Append-only files under `state/`: live drafts and webhook events."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def now() -> str:
    """Return the time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Journal:
    """A JSONL file that several threads and processes may append to; each line is written whole."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet; the file is made with the first line."""
        self.path = path
        self._lock = threading.Lock()

    def append(self, value: dict[str, Any]) -> None:
        """Add one line, in one write, so that lines of different writers never mix."""
        line = (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "replace")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
