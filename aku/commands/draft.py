"""`aku draft` and `aku backend`: drafts for waiting cards, and the server that makes them on demand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aku.connection import Connection, connect
from aku.console import console, progress_bar
from dialogue.checkpoints import Checkpoint, Registry
from dialogue.errors import CheckpointError, LabelStudioError
from dialogue.genres import Taxonomy, load_taxonomy
from dialogue.settings import Workspace, load_section

if TYPE_CHECKING:
    from ml_backend.drafting import Drafter
    from ml_backend.protocol import Task
    from ml_backend.remote import RemoteDrafter
    from ml_backend.requests import Draft, DraftRequest
    from ml_backend.settings import BackendSettings

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
    _checkpoint(workspace, checkpoint)  # a shut gate is said before Label Studio is asked for anything
    push_drafts(workspace, connect(workspace), limit=limit, checkpoint=checkpoint, user_turns=user_turns)


def backend(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 9090,
) -> None:
    """Serve drafts to Label Studio in the foreground, until Ctrl-C."""
    from ml_backend.__main__ import serve

    serve(context.obj, host, port)


def push_drafts(
    workspace: Workspace,
    connection: Connection,
    *,
    limit: int | None = None,
    checkpoint: str | None = None,
    user_turns: bool | None = None,
) -> int:
    """Draft every waiting card that has no draft of this checkpoint and push the drafts; returns how many.

    A card waits while nobody has annotated it.  Drafts are pushed in small lots as they are done, so
    an interrupted run goes on where it stopped.  Raises `CheckpointError` if the gate is shut and no
    checkpoint is named, `LabelStudioError` if Label Studio refuses the predictions.
    """
    from ml_backend import protocol
    from ml_backend.settings import BackendSettings

    settings = load_section(workspace.settings, "backend", BackendSettings)
    chosen = _checkpoint(workspace, checkpoint)
    whole = settings.draft_user_turns if user_turns is None else user_turns
    waiting: dict[str, Task] = {}
    requests: list[DraftRequest] = []
    for task in _waiting(connection, chosen.id):
        request = protocol.draft_request(task, user_turns=whole)
        if protocol.is_draftable(request) and not protocol.is_blind(task, settings.blind_share):
            waiting[task.key] = task
            requests.append(request)
    requests = requests[:limit]
    if not requests:
        console.print("No card waits for a draft.")
        return 0
    with console.status(f"Loading checkpoint {chosen.id} …"):
        drafter = _drafter(chosen, settings)
    pusher = _Pusher(connection, waiting, chosen.id, load_taxonomy(workspace.taxonomy))
    started = time.monotonic()
    with progress_bar() as progress:
        bar = progress.add_task("Drafting", total=len(requests))

        def on_draft(request: DraftRequest, done: Draft) -> None:
            pusher.add(done)
            rate = pusher.drafted / (time.monotonic() - started)
            progress.update(bar, advance=1, description=f"Drafting, {rate:.1f} cards/s")

        try:
            drafter.draft(requests, on_draft)
        finally:
            pusher.flush()
    seconds = time.monotonic() - started
    console.print(
        f"{pusher.pushed} cards drafted by {chosen.id} in {seconds:.1f} s "
        f"({pusher.pushed / seconds:.2f} cards/s, {pusher.tokens / seconds:.0f} tokens/s)."
    )
    return pusher.pushed


class _Pusher:
    """Collects finished drafts and sends them in small lots."""

    def __init__(self, connection: Connection, tasks: dict[str, Task], version: str, taxonomy: Taxonomy) -> None:
        self.connection, self.tasks, self.version, self.taxonomy = connection, tasks, version, taxonomy
        self.rows: list[dict[str, Any]] = []
        self.drafted = self.pushed = self.tokens = 0

    def add(self, done: Draft) -> None:
        from ml_backend.protocol import draft_row

        self.drafted += 1
        self.tokens += done.tokens
        if done.drafted:
            task = self.tasks[done.id]
            self.rows.append({"task": task.id, **draft_row(task, done, self.version, self.taxonomy)})
        if len(self.rows) >= PUSH:
            self.flush()

    def flush(self) -> None:
        from label_studio_sdk.core.api_error import ApiError

        if not self.rows:
            return
        try:
            self.connection.client.projects.import_predictions(id=self.connection.project, request=self.rows)
        except ApiError as error:
            raise LabelStudioError(
                f"Label Studio refuses the drafts of project {self.connection.project} (status {error.status_code}); "
                "run `aku up` to bring its labelling configuration up to date, then draft again."
            ) from error
        self.pushed += len(self.rows)
        self.rows = []


def _drafter(checkpoint: Checkpoint, settings: BackendSettings) -> Drafter | RemoteDrafter:
    if settings.engine == "openai":
        from ml_backend.remote import RemoteDrafter

        return RemoteDrafter(checkpoint, settings)
    from ml_backend.drafting import Drafter

    return Drafter(checkpoint, settings)


def _checkpoint(workspace: Workspace, wanted: str | None) -> Checkpoint:
    registry = Registry(workspace.checkpoints)
    if wanted is not None:
        return registry.get(wanted)
    current = registry.current()
    if current is None:
        raise CheckpointError(f"{registry.root}: no checkpoint is in use; run `aku train` first.")
    if not current.may_draft:
        raise CheckpointError(
            f"the gate is shut for checkpoint {current.id}; run `aku gate`, or name the checkpoint to draft anyway."
        )
    return registry.get(current.id)


def _waiting(connection: Connection, version: str) -> list[Task]:
    """Cards without annotation and without a prediction of this version, in Label Studio's order."""
    from ml_backend.protocol import read_task

    tasks: list[Task] = []
    with console.status("Reading the waiting cards …"):
        for item in connection.client.tasks.list(project=connection.project, fields="all"):
            if item.total_annotations or item.is_labeled:
                continue
            if any(_version(row) == version for row in item.predictions or ()):
                continue
            task = read_task({"id": item.id, "data": item.data}, str(connection.project))
            if task is not None:
                tasks.append(task)
    return tasks


def _version(prediction: Any) -> str | None:
    """The version of a prediction, which the client gives as an object or as it came."""
    found = prediction.get("model_version") if isinstance(prediction, dict) else prediction.model_version
    return str(found) if found else None
