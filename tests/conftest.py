"""Shared fixtures: the starter corpus, and one real Label Studio for the whole run."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from aku import provision, servers
from dialogue import Dialogue, LabelStudioError, Workspace, files, label_studio, load_taxonomy, read_dialogues

ROOT = Path(__file__).parent.parent
STARTER = ROOT / "examples" / "starter.jsonl"
CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--images", default=None, help="Folder that the browser tests write their screenshots to.")


@pytest.fixture(scope="session")
def starter() -> list[Dialogue]:
    """The 100 hand-written dialogues."""
    return read_dialogues(STARTER)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LabelStudioServer:
    """A real Label Studio with an empty database; every test makes its own project in it."""

    def __init__(self, home: Path) -> None:
        self.workspace = Workspace(home)
        self.secrets = servers.ensure_secrets(self.workspace, "tests@studio.local")
        self.email, self.password = "tests@studio.local", self.secrets["LABEL_STUDIO_PASSWORD"]
        self.token = self.secrets["LABEL_STUDIO_USER_TOKEN"]
        self.start()

    def start(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = servers.start_label_studio(self.workspace, "127.0.0.1", self.port, self.secrets)
        self.server.wait(LabelStudioError, 300)
        from label_studio_sdk import LabelStudio

        self.client = LabelStudio(base_url=self.url, api_key=self.token, timeout=120)

    def restart(self) -> None:
        """Stop and start on the same port and database."""
        self.server.stop()
        self.start(self.port)

    def new_project(self, title: str = "test") -> int:
        """Make a project with the real labelling configuration; returns its id."""
        config = label_studio.labeling_config(load_taxonomy())
        return int(self.client.projects.create(title=title, label_config=config).id)

    def new_workspace(self, home: Path, title: str) -> tuple[Workspace, int]:
        """Make a workspace with its own project in this Label Studio; returns it with the project's id."""
        workspace = Workspace(home)
        workspace.write_secrets(self.secrets)
        files.write_json(workspace.state / "studio.json", {"url": self.url, "project": 0})
        project = provision.provision_project(workspace, self.url, title)
        return workspace, project


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    """One Label Studio per run, on a free port, gone at the end."""
    server = LabelStudioServer(tmp_path_factory.mktemp("studio"))
    yield server
    server.server.stop()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Chromium; tests that need it are skipped without one, except under CI, where that is a failure."""
    if CHROMIUM is None:
        message = "Chromium is not installed (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return CHROMIUM
