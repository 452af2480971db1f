"""`aku draft` and `aku backend`: drafts for waiting cards, and the server that makes them on demand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aku.connection import Connection, connect
from aku.console import console, progress_bar
from dialogue.checkpoints import Checkpoint, Registry
from dialogue.errors import CheckpointError
from dialogue.genres import Taxonomy, load_taxonomy
from dialogue.settings import Workspace, load_section

if TYPE_CHECKING:
    from ml_backend.protocol import Task
    from ml_backend.requests import Draft, DraftRequest

PUSH = 20
"""Predictions sent to Label Studio at a time; what was sent survives an interruption."""


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(draft)
    app.command()(backend)


def draft(
    context: typer.Context,
    limit: Annotated[int | None, typer.Option(help="Draft at most so many cards.", min=1)] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Checkpoint id (default: the one in use).")] = None,
    user_turns: Annotated[
        bool | None, typer.Option("--user-turns/--aku-only", help="Draft User's turns too (default: aku.toml).")
    ] = None,
) -> None:
    """Draft all waiting cards and hand the drafts to Label Studio; run again to go on after a stop."""
    workspace: Workspace = context.obj
    push_drafts(workspace, connect(workspace), limit=limit, checkpoint=checkpoint, user_turns=user_turns)


def push_drafts(
    workspace: Workspace,
    connection: Connection,
    *,
    limit: int | None = None,
    checkpoint: str | None = None,
    user_turns: bool | None = None,
) -> int:
    """Draft the waiting cards that hold no draft of this checkpoint yet; returns how many drafts were sent."""
    from ml_backend import protocol
    from ml_backend.settings import BackendSettings

    settings = load_section(workspace.settings, "backend", BackendSettings)
    chosen = _checkpoint(workspace, checkpoint)
    tasks = [t for t in _waiting(connection, chosen.id) if not protocol.is_blind(t, settings.blind_share)][:limit]
    if not tasks:
        console.print("No card waits for a draft.")
        return 0
    from ml_backend.drafting import Drafter

    with console.status(f"Loading checkpoint {chosen.id} …"):
        drafter = Drafter(chosen, settings)
    with_user = settings.draft_user_turns if user_turns is None else user_turns
    requests = [protocol.draft_request(task, user_turns=with_user) for task in tasks]
    pusher = _Pusher(connection, {task.key: task for task in tasks}, chosen.id, load_taxonomy(workspace.taxonomy))
    started = time.monotonic()
    with progress_bar() as progress:
        bar = progress.add_task("Drafting", total=len(tasks))

        def on_draft(request: DraftRequest, done: Draft) -> None:
            pusher.add(done)
            progress.advance(bar)

        try:
            drafter.draft(requests, on_draft)
        finally:
            pusher.flush()
    seconds = time.monotonic() - started
    console.print(
        f"{pusher.pushed} cards drafted by {chosen.id} in {seconds:.1f} s: "
        f"{pusher.pushed / seconds:.2f} cards/s, {pusher.tokens / seconds:.0f} tokens/s."
    )

    return pusher.pushed


def backend(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 9090,
) -> None:
    """Serve drafts to Label Studio in the foreground, until Ctrl-C."""
    from ml_backend.__main__ import serve

    serve(context.obj, host, port)


class _Pusher:
    """Collects finished drafts and sends them in small lots."""

    def __init__(self, connection: Connection, tasks: dict[str, Task], version: str, taxonomy: Taxonomy) -> None:
        self.connection, self.tasks, self.version, self.taxonomy = connection, tasks, version, taxonomy
        self.rows: list[dict[str, Any]] = []
        self.pushed = self.tokens = 0

    def add(self, done: Draft) -> None:
        from ml_backend.protocol import draft_row

        task = self.tasks[done.id]
        self.rows.append({"task": task.id, **draft_row(task, done, self.version, self.taxonomy)})
        self.tokens += done.tokens
        if len(self.rows) >= PUSH:
            self.flush()

    def flush(self) -> None:
        if self.rows:
            self.connection.client.projects.import_predictions(id=self.connection.project, request=self.rows)
            self.pushed += len(self.rows)
            self.rows = []


def _checkpoint(workspace: Workspace, wanted: str | None) -> Checkpoint:
    registry = Registry(workspace.checkpoints)
    current = registry.current()
    if wanted is None:
        if current is None:
            raise CheckpointError(f"{registry.root}: no checkpoint is in use; run `aku train` first.")
        if not current.may_draft:
            raise CheckpointError(
                f"the gate is shut for checkpoint {current.id}; run `aku gate`, or name the checkpoint to draft anyway."
            )
        wanted = current.id
    return registry.get(wanted)


def _waiting(connection: Connection, version: str) -> list[Task]:
    """Cards without annotation and without a prediction of this version, in Label Studio's order."""
    from ml_backend.protocol import read_task

    tasks: list[Task] = []
    with console.status("Reading the waiting cards …"):
        for item in connection.client.tasks.list(project=connection.project, fields="all"):
            value = item.model_dump() if hasattr(item, "model_dump") else dict(item)
            if value.get("total_annotations") or value.get("is_labeled"):
                continue
            if any((row or {}).get("model_version") == version for row in value.get("predictions") or ()):
                continue
            task = read_task({"id": value["id"], "data": value["data"]}, str(connection.project))
            if task is not None:
                tasks.append(task)
    return tasks
