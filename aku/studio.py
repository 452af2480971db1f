"""A running local studio: Label Studio with its project, and the ML backend connected to it."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Iterator

from aku import provision, servers
from aku.connection import Connection, connect
from aku.console import console
from aku.marks import JournalFollower, live_drafts, mark_tasks
from aku.settings import StudioSettings, studio_settings, write_default_settings
from dialogue.errors import BackendError, LabelStudioError
from dialogue.settings import Workspace

FIRST_START = 300.0
"""Seconds that Label Studio may take to come up; the first start makes its database."""


@dataclasses.dataclass(frozen=True, slots=True)
class Studio:
    """What a running studio consists of."""

    url: str
    project: int
    backend_url: str
    servers: tuple[servers.Server, ...]


@contextlib.contextmanager
def running_studio(
    workspace: Workspace, meanwhile: Callable[[], None] | None = None, *, demo: bool = False
) -> Iterator[Studio]:
    """Start both servers, bring the project up to date, and stop everything on the way out.

    `meanwhile` runs while Label Studio starts, so that other slow work overlaps with it; `demo` chooses
    the demo's settings for a new workspace.  Raises
    `LabelStudioError` or `BackendError` in one sentence when something does not come up.
    """
    write_default_settings(workspace, demo=demo)
    settings = studio_settings(workspace)
    fresh = not workspace.secrets.exists()
    values = servers.ensure_secrets(workspace, settings.email)
    url, backend_url = f"http://{settings.host}:{settings.port}", f"http://127.0.0.1:{settings.backend_port}"
    with servers.exclusive(workspace), contextlib.ExitStack() as stack, _terminable():
        first = not (workspace.home / "label-studio").exists()
        label_studio = servers.start_label_studio(workspace, settings.host, settings.port, values)
        stack.callback(label_studio.stop)
        backend = servers.start_backend(workspace, settings.backend_port)
        stack.callback(backend.stop)
        if meanwhile:
            meanwhile()
        note = " (the first start makes its database: about a minute)" if first else ""
        with console.status(f"Starting Label Studio{note} …"):
            label_studio.wait(LabelStudioError, FIRST_START)
            backend.wait(BackendError, 120)
        with console.status("Bringing the project up to date …"):
            project = provision.provision_project(workspace, url, settings.title)
            provision.provision_backend(workspace, url, project, backend_url)
        if fresh:
            _print_credentials(settings, values["LABEL_STUDIO_PASSWORD"], workspace)
        yield Studio(url, project, backend_url, (label_studio, backend))


def wait_for_interrupt(workspace: Workspace, studio: Studio) -> None:
    """Block until Ctrl-C, marking the model's turns in every card that is submitted meanwhile.

    Raises `LabelStudioError` if one of the servers ends by itself.
    """

    def look() -> None:
        for server in studio.servers:
            if server.process.poll() is not None:
                raise LabelStudioError(f"{server.name} ended by itself; see {server.log}, then start again.")

    keep_marking(workspace, connect(workspace), look)


def keep_marking(workspace: Workspace, connection: Connection, tick: Callable[[], None]) -> None:
    """Mark the model's turns in every card that is submitted, calling `tick` each second, without end."""
    follower = JournalFollower(workspace.state / "webhooks.jsonl")
    while True:
        tasks = [task for project, task in follower.annotated() if project == connection.project]
        if tasks:
            try:
                mark_tasks(connection, tasks, live_drafts(connection, workspace.state))
            except LabelStudioError as error:  # badges are no reason to end a studio in which people write
                console.print(f"marking failed: {error}", markup=False, style="yellow")
        tick()
        time.sleep(1)


def _print_credentials(settings: StudioSettings, password: str, workspace: Workspace) -> None:
    console.print()
    console.print("  Sign in with  ", settings.email, "  ", password, sep="", style="bold", markup=False)
    console.print(
        f"  (made for this workspace, shown once; it stays in {workspace.secrets})", style="dim", markup=False
    )
    console.print()


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the studio the way Ctrl-C does, so that no server is left behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
