"""`python -m ml_backend --home WORKSPACE`: serve Label Studio until stopped."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dialogue.errors import AkuError, BackendError
from dialogue.settings import Workspace, load_section
from ml_backend.client import EngineClient, EngineProcess
from ml_backend.settings import BackendSettings

SECRETS = ("BACKEND_USER", "BACKEND_PASSWORD", "WEBHOOK_SECRET")


def main() -> None:
    """Read arguments, then serve."""
    parser = argparse.ArgumentParser(prog="ml_backend", description="Draft Aku's turns for Label Studio.")
    parser.add_argument("--home", type=Path, required=True, help="workspace folder")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=9090, help="port to listen on (default: 9090)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        serve(Workspace(arguments.home.absolute()), arguments.host, arguments.port)
    except AkuError as error:
        sys.stderr.write(f"ml_backend: {error}\n")
        sys.exit(error.exit_code)


def serve(workspace: Workspace, host: str, port: int) -> None:
    """Start the engine, then the web workers, and run until stopped.

    The port opens when the weights are loaded.  Raises `BackendError` for missing secrets or an
    engine that does not come up, `SettingsError` for a broken `aku.toml`.
    """
    settings = load_section(workspace.settings, "backend", BackendSettings)
    secrets = workspace.read_secrets()
    if missing := [name for name in SECRETS if not secrets.get(name)]:
        raise BackendError(f"{workspace.secrets}: has no {missing[0]}; run `aku up` to make it.")
    engine = EngineProcess(workspace.home)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(engine.folder)  # read by prometheus_client when it is imported
    with contextlib.ExitStack() as stack:
        stack.callback(engine.stop)
        engine.start()
        import ml_backend.server  # noqa: F401 - meanwhile: the workers share what is imported before they fork

        engine.wait()
        _run(workspace, settings, secrets, engine, f"{host}:{port}")


def _run(
    workspace: Workspace, settings: BackendSettings, secrets: Mapping[str, str], engine: EngineProcess, bind: str
) -> None:
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

    def when_ready(server: Any) -> None:
        engine.watch()

    def post_fork(server: Any, worker: Any) -> None:
        engine.forget()

    def child_exit(server: Any, worker: Any) -> None:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]

    class Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        def load_config(self) -> None:
            options = {
                "bind": bind,
                "workers": settings.workers,
                "worker_class": "gthread",
                "threads": settings.web_threads,
                "timeout": 120,
                "graceful_timeout": 5,
                "control_socket_disable": True,
                "limit_request_line": 4094,
                "when_ready": when_ready,
                "post_fork": post_fork,
                "child_exit": child_exit,
            }
            for key, value in options.items():
                self.cfg.set(key, value)

        def load(self) -> Any:
            from ml_backend.server import create_app
            from ml_backend.service import Service

            return create_app(Service(workspace, settings, EngineClient(engine.socket)), secrets)

    Application().run()


if __name__ == "__main__":
    main()
