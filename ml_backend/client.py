"""How web workers reach the engine process, and how the master starts and watches it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dialogue.errors import BackendError
from ml_backend.requests import Draft, DraftRequest

logger = logging.getLogger("ml_backend")
GRACE = 1.0
"""Seconds that an answer may come later than it promised."""


class EngineClient:
    """Asks the engine; raises nothing when it is away, since it comes back."""

    def __init__(self, path: Path) -> None:
        """Remember where the engine listens."""
        self.path = path

    def draft(self, version: str, requests: Sequence[DraftRequest], *, urgent: bool, until: float) -> dict[str, Draft]:
        """Return the drafts that are there by `until` (monotonic seconds), by the request's digest."""
        if not requests:
            return {}
        values = [request.to_dict() for request in requests]
        for _ in range(2):  # once more if the engine was restarted under our hands
            seconds = until - time.monotonic()
            if seconds <= 0:
                break
            message = {"op": "draft", "version": version, "requests": values, "urgent": urgent, "seconds": seconds}
            answer = self._ask(message, until)
            if answer is not None:
                return {digest: Draft.from_dict(value) for digest, value in answer["drafts"].items()}
        return {}

    def use(self, checkpoint_id: str, seconds: float) -> dict[str, Any] | None:
        """Make a checkpoint the serving one; returns what `Engine.use` says, None if the engine is away."""
        return self._ask({"op": "use", "id": checkpoint_id, "seconds": seconds}, time.monotonic() + seconds, wait=False)

    def status(self) -> dict[str, Any] | None:
        """Return the engine's state, None if it is away."""
        return self._ask({"op": "status"}, time.monotonic() + 2, wait=False)

    def _ask(self, message: Mapping[str, Any], until: float, *, wait: bool = True) -> dict[str, Any] | None:
        """Send a line and read one; with `wait`, an engine that is just starting is waited for."""
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(max(until - time.monotonic(), 0) + GRACE)
                try:
                    connection.connect(str(self.path))
                except OSError:
                    if not wait or time.monotonic() + 0.1 >= until:
                        return None
                    time.sleep(0.1)
                    continue
                try:
                    connection.sendall(json.dumps(message).encode() + b"\n")
                    with connection.makefile("rb") as reader:
                        line = reader.readline()
                    answer = json.loads(line) if line.endswith(b"\n") else None
                except (OSError, ValueError):
                    return None
                return answer if isinstance(answer, dict) else None


class EngineProcess:
    """The engine as a child process that is started again when it dies."""

    def __init__(self, home: Path) -> None:
        """Choose a socket in a private folder, which metrics share; paths of Unix sockets must be short."""
        self.home = home
        self.folder = Path(tempfile.mkdtemp(prefix="aku-engine-"))
        self.socket = self.folder / "socket"
        self.process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start; the weights are loaded when `wait` returns."""
        self._spawn()

    def wait(self, seconds: float = 600) -> None:
        """Wait until the engine has loaded its checkpoint; raises `BackendError` if it does not come up."""
        end = time.monotonic() + seconds
        while not self.socket.exists():
            if self.process is None or self.process.poll() is not None:
                raise BackendError("the drafting engine stopped while starting; its message stands above.")
            if time.monotonic() > end:
                self.stop()
                raise BackendError(f"the drafting engine did not load its checkpoint within {seconds:.0f} s.")
            time.sleep(0.05)

    def watch(self) -> None:
        """Start the engine again whenever it dies, until `stop`."""
        threading.Thread(target=self._watch, name="engine-watch", daemon=True).start()

    def _watch(self) -> None:
        pause = 0.5
        while not self._stopping.is_set():
            born = time.monotonic()
            if self.process is not None:
                self.process.wait()
            if self._stopping.is_set():
                return
            pause = 0.5 if time.monotonic() - born > 60 else min(pause * 2, 30)
            logger.error("the drafting engine ended; starting it again in %.0f s", pause)
            if self._stopping.wait(pause):
                return
            with contextlib.suppress(OSError):
                self._spawn()

    def _spawn(self) -> None:
        self.socket.unlink(missing_ok=True)
        command = [sys.executable, "-m", "ml_backend.engine", str(self.home), str(self.socket)]
        # The engine ends when its standard input does, that is, when this process is gone.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        )

    def forget(self) -> None:
        """Close a forked worker's end of the pipe, so that it does not keep the engine alive."""
        if self.process is not None and self.process.stdin is not None:
            os.close(self.process.stdin.fileno())

    def stop(self) -> None:
        """End the engine and remove its folder; a forked worker that unwinds through here changes nothing."""
        if os.getpid() != self._owner:
            return
        self._stopping.set()
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()  # the engine ends when its standard input does
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
