"""The engine process: one model, one drafting thread, a desk of jobs, a local socket.

The web workers hold no weights and never wait for a generation; they ask this process over a Unix
socket, one JSON line there and one back.  The process ends by itself when its parent does.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dialogue import files
from dialogue.checkpoints import Checkpoint, Registry
from dialogue.errors import AkuError
from dialogue.settings import Workspace, load_section
from ml_backend.desk import Desk
from ml_backend.drafting import Drafter
from ml_backend.errors import RecentErrors
from ml_backend.remote import RemoteDrafter
from ml_backend.requests import DraftRequest
from ml_backend.settings import BackendSettings
from ml_backend.store import Store

logger = logging.getLogger("ml_backend")


class Engine:
    """Loads checkpoints, drafts, and knows which checkpoint serves."""

    def __init__(self, workspace: Workspace, settings: BackendSettings) -> None:
        """Open the store; load nothing yet."""
        self.registry = Registry(workspace.checkpoints)
        self.settings = settings
        self.store = Store(workspace.state / "backend.sqlite")
        self.store.prune()
        self.desk = Desk(self.store, settings.fingerprint())
        self.last_good = workspace.state / "serving.json"
        self.serving: str | None = None
        self.refused: dict[str, str] = {}
        self.started = time.time()
        self.swaps = 0
        self.errors = RecentErrors.attached()
        self._drafters: dict[str, Drafter | RemoteDrafter] = {}
        self._state = threading.Condition()
        self._loading: set[str] = set()
        self._running = threading.Lock()

    def start(self) -> None:
        """Load the checkpoint in use, or else the last one that served, and begin to draft."""
        try:
            current = self.registry.current()
        except AkuError as error:
            logger.error("%s", error)
            current = None
        if current is not None and current.may_draft:
            self.use(current.id, None)
            if self.serving is None and self.last_good.exists():
                self.use(str(files.read_json(self.last_good).get("id")), None)
        threading.Thread(target=self._draft_forever, name="drafting", daemon=True).start()

    # -- checkpoints ----------------------------------------------------------------------------

    def use(self, checkpoint_id: str, seconds: float | None) -> dict[str, Any]:
        """Make a checkpoint the serving one, waiting at most `seconds` for it (None: as long as it takes).

        Returns which checkpoint serves now, and why another one does not, if so.
        """
        end = None if seconds is None else time.monotonic() + seconds
        with self._state:
            if checkpoint_id not in self._drafters and checkpoint_id not in self._loading:
                self._loading.add(checkpoint_id)
                self.refused.pop(checkpoint_id, None)
                threading.Thread(target=self._load, args=(checkpoint_id,), name="loading", daemon=True).start()
            left = None if end is None else max(end - time.monotonic(), 0)
            self._state.wait_for(lambda: checkpoint_id not in self._loading, left)
            if checkpoint_id in self._drafters and self.serving != checkpoint_id:
                self.serving = checkpoint_id
                self.swaps += 1
                files.write_json(self.last_good, {"id": checkpoint_id})
                logger.info("checkpoint %s serves", checkpoint_id)
            loading = checkpoint_id in self._loading
            self._release()
            return {"serving": self.serving, "loading": loading, "refused": self.refused.get(checkpoint_id)}

    def _release(self) -> None:
        """Let go of models that neither serve nor have work."""
        if self.serving is not None:
            self.desk.drop_others(self.serving)
            busy = self.desk.versions() | {self.serving}
            for name in [name for name in self._drafters if name not in busy]:
                del self._drafters[name]

    def _load(self, checkpoint_id: str) -> None:
        drafter: Drafter | RemoteDrafter | None = None
        try:
            drafter = self._loaded(self.registry.get(checkpoint_id))
        except AkuError as error:
            logger.error("checkpoint refused: %s", error)
            with self._state:
                self.refused[checkpoint_id] = str(error)
        except Exception:
            logger.exception("checkpoint %s could not be loaded", checkpoint_id)
            with self._state:
                self.refused[checkpoint_id] = "could not be loaded; see the log."
        with self._state:
            if drafter is not None:
                self._drafters[checkpoint_id] = drafter
            self._loading.discard(checkpoint_id)
            self._state.notify_all()

    def _loaded(self, checkpoint: Checkpoint) -> Drafter | RemoteDrafter:
        if self.settings.engine == "openai":
            return RemoteDrafter(checkpoint, self.settings)
        if not checkpoint.is_adapter:
            return Drafter(checkpoint, self.settings)
        # An adapter goes onto the base in memory, which must not be drafting meanwhile.
        self.desk.pause(True)
        try:
            with self._running:
                share = self._drafters.get(self.serving or "")
                return Drafter(checkpoint, self.settings, share if isinstance(share, Drafter) else None)
        finally:
            self.desk.pause(False)

    # -- drafting -------------------------------------------------------------------------------

    def _draft_forever(self) -> None:
        while True:
            version = self.desk.next_version()
            if version is not None:
                self._draft(version)

    def _draft(self, version: str) -> None:
        with self._state:
            drafter = self._drafters.get(version)
        if drafter is None:
            self._fetch(version)
            return
        try:
            with self._running:
                drafter.run(self.desk.source(version), lambda request, draft: self.desk.finish(version, request, draft))
        except Exception:
            lost = self.desk.fail(version, running_only=True)
            logger.exception("drafting with %s failed; %d cards are given up", version, lost)
        with self._state:
            self._release()

    def _fetch(self, version: str) -> None:
        """Load a version that has work but no model (after a restart, say), without making it the serving one."""
        with self._state:
            if version not in self._loading:
                self._loading.add(version)
                threading.Thread(target=self._load, args=(version,), name="loading", daemon=True).start()
            self._state.wait_for(lambda: version not in self._loading)
            missing = version not in self._drafters
        if missing:
            self.desk.fail(version)

    # -- answering ------------------------------------------------------------------------------

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one message of a web worker: `draft`, `use` or `status`."""
        if message["op"] == "draft":
            until = time.monotonic() + float(message["seconds"])
            requests = [DraftRequest.from_dict(value) for value in message["requests"]]
            drafts = self.desk.ask(message["version"], requests, urgent=bool(message["urgent"]), until=until)
            return {"drafts": {digest: draft.to_dict() for digest, draft in drafts.items()}}
        if message["op"] == "use":
            return self.use(str(message["id"]), float(message["seconds"]))
        return self.status()

    def status(self) -> dict[str, Any]:
        """Return what /status shows of the engine."""
        with self._state:
            state = {
                "serving": self.serving,
                "loaded": sorted(self._drafters),
                "loading": sorted(self._loading),
                "refused": dict(self.refused),
                "swaps": self.swaps,
            }
        return {**state, **self.desk.numbers(), "since": self.started, "errors": self.errors.list()}


class _Handler(socketserver.StreamRequestHandler):
    """One question, one answer."""

    def handle(self) -> None:
        """Read a line, answer it."""
        line = self.rfile.readline()
        if line:
            server = self.server
            assert isinstance(server, Server)  # noqa: S101
            self.wfile.write(json.dumps(server.engine.answer(json.loads(line))).encode() + b"\n")


class Server(socketserver.ThreadingUnixStreamServer):
    """The engine behind its socket."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: Path, engine: Engine) -> None:
        """Listen at `path`, which must not exist yet."""
        self.engine = engine
        super().__init__(str(path), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A web worker that went away is no error; anything else is one, without its data."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            logger.error("the engine could not answer: %s", type(error).__name__)


def _end_with_parent(socket_path: Path) -> None:
    """End the process, and take the socket's folder away, when the other side of standard input is gone."""
    while os.read(0, 1024):
        pass
    shutil.rmtree(socket_path.parent, ignore_errors=True)
    os._exit(0)


def main(home: str, socket_path: str) -> None:
    """Run the engine of a workspace until the parent ends."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for sign in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the parent says when to end
        signal.signal(sign, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(Path(socket_path),), daemon=True).start()
    workspace = Workspace(Path(home))
    settings = load_section(workspace.settings, "backend", BackendSettings)
    engine = Engine(workspace, settings)
    engine.start()
    os.nice(settings.niceness)  # once loaded, so that a start is not slowed down
    with Server(Path(socket_path), engine) as server:
        server.serve_forever(poll_interval=3600)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except AkuError as problem:
        sys.stderr.write(f"ml_backend: {problem}\n")
        sys.exit(problem.exit_code)
