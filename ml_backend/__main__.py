"""`python -m ml_backend --home WORKSPACE`: serve Label Studio until stopped."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

from dialogue.errors import AkuError, BackendError
from dialogue.settings import Workspace, load_section
from ml_backend.settings import BackendSettings

SECRETS = ("BACKEND_USER", "BACKEND_PASSWORD", "WEBHOOK_SECRET")


def main() -> None:
    """Read arguments, then serve."""
    parser = argparse.ArgumentParser(prog="ml_backend", description="Draft Aku's turns for Label Studio.")
    parser.add_argument("--home", type=Path, required=True, help="workspace folder")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9090)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        serve(Workspace(arguments.home.absolute()), arguments.host, arguments.port)
    except AkuError as error:
        sys.stderr.write(f"ml_backend: {error}\n")
        sys.exit(error.exit_code)


def serve(workspace: Workspace, host: str, port: int) -> None:
    """Run gunicorn in this process until it is stopped; raises `BackendError` for missing secrets."""
    # Threads that spin while they wait would starve Label Studio beside us.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    settings = load_section(workspace.settings, "backend", BackendSettings)
    secrets = workspace.read_secrets()
    if missing := [name for name in SECRETS if not secrets.get(name)]:
        raise BackendError(f"{workspace.secrets}: has no {missing[0]}; run `aku up` to make it.")
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

    class Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        def load_config(self) -> None:
            options = {
                "bind": f"{host}:{port}",
                "workers": settings.workers,
                "worker_class": "gthread",
                "threads": settings.web_threads,
                "timeout": 120,
                "graceful_timeout": 10,
            }
            for key, value in options.items():
                self.cfg.set(key, value)

        def load(self) -> Any:
            from ml_backend.engine import Engine
            from ml_backend.server import create_app
            from ml_backend.service import Service

            return create_app(Service(workspace, settings, Engine(workspace, settings)), secrets)

    Application().run()


if __name__ == "__main__":
    main()
