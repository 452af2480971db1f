"""Shared fixtures: the starter corpus, and one real Label Studio for the whole run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aku import provision
from dialogue import Dialogue, Workspace, files, label_studio, load_taxonomy, read_dialogues

ROOT = Path(__file__).parent.parent
STARTER = ROOT / "examples" / "starter.jsonl"
AKU = str(Path(sys.executable).with_name("aku"))
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


class RunningStudio:
    """What `aku up` starts, as a child process: a real Label Studio and the real ML backend, on free ports."""

    def __init__(self, home: Path) -> None:
        self.workspace = Workspace(home)
        self.port, self.backend_port = free_port(), free_port()
        self.url, self.backend_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.backend_port}"
        settings = f"[studio]\nport = {self.port}\nbackend_port = {self.backend_port}\n"
        settings += "[backend]\ndraft_user_turns = true\n"  # as the demo has it
        home.mkdir(parents=True, exist_ok=True)
        self.workspace.settings.write_text(settings, encoding="utf-8")
        self.start()
        self.secrets = self.workspace.read_secrets()
        self.email, self.password = self.secrets["LABEL_STUDIO_USERNAME"], self.secrets["LABEL_STUDIO_PASSWORD"]
        self.token = self.secrets["LABEL_STUDIO_USER_TOKEN"]
        from label_studio_sdk import LabelStudio

        self.client = LabelStudio(base_url=self.url, api_key=self.token, timeout=120)

    def aku(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one `aku` command on this workspace to its end."""
        result = subprocess.run(
            [AKU, *arguments], env=self._environment(), capture_output=True, text=True, timeout=900, check=False
        )
        assert not check or result.returncode == 0, f"aku {arguments}: {result.stdout}{result.stderr}"
        return result

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[None]:
        """Run an `aku` command that does not end by itself for as long as the block takes."""
        process = subprocess.Popen([AKU, *arguments], env=self._environment(), stdout=subprocess.DEVNULL)
        try:
            yield
            assert process.poll() is None, f"aku {arguments} ended by itself with {process.returncode}"
        finally:
            process.terminate()
            process.wait(60)

    def start(self) -> None:
        """Start `aku up` and wait until it says how to stop it."""
        self.process = subprocess.Popen([AKU, "up"], env=self._environment(), stdout=subprocess.PIPE, text=True)
        lines = []
        assert self.process.stdout
        for line in self.process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                return
        pytest.fail("aku up ended: " + "".join(lines))

    def stop(self) -> int:
        """Press Ctrl-C and wait; returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def restart(self) -> None:
        """Stop and start on the same ports and database."""
        self.stop()
        self.start()

    @property
    def project(self) -> int:
        """The id of the workspace's own project."""
        return int(files.read_json(self.workspace.state / "studio.json")["project"])

    def new_project(self, title: str = "test") -> int:
        """Make another project with the real labelling configuration; returns its id."""
        config = label_studio.labeling_config(load_taxonomy())
        return int(self.client.projects.create(title=title, label_config=config).id)

    def new_workspace(self, home: Path, title: str) -> tuple[Workspace, int]:
        """Make a workspace with its own project in this Label Studio; returns it with the project's id."""
        workspace = Workspace(home)
        workspace.write_secrets(self.secrets)
        project = provision.provision_project(workspace, self.url, title)
        return workspace, project

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "AKU_HOME": str(self.workspace.home), "COLUMNS": "200"}


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """One running studio per run, on free ports, gone at the end."""
    running = RunningStudio(tmp_path_factory.mktemp("studio"))
    yield running
    if running.process.poll() is None:
        running.stop()


@pytest.fixture(scope="session")
def demo(studio: RunningStudio) -> RunningStudio:
    """The same studio after the demo's steps: starter dialogues, export, demo checkpoint, drafted cards, report."""
    from aku.demo import run_demo
    from aku.studio import Studio

    run_demo(studio.workspace, Studio(studio.url, studio.project, studio.backend_url, ()))
    return studio


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Chromium; tests that need it are skipped without one, except under CI, where that is a failure."""
    if CHROMIUM is None:
        message = "Chromium is not installed (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return CHROMIUM
