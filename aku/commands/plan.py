"""`aku plan`: the next cards, and their way into Label Studio."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aku.console import console, progress_bar
from dialogue import files
from dialogue.errors import LabelStudioError, RecordError, SettingsError
from dialogue.genres import load_taxonomy
from dialogue.label_studio import Card, from_task, to_task
from dialogue.settings import Workspace, load_section

if TYPE_CHECKING:
    from aku.connection import Connection
    from analysis import PlannedCard, PlanSettings, Scene

PACKAGED_CONTEXTS = Path(__file__).parent.parent.parent / "examples" / "contexts.jsonl"
_BATCH = 100


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("plan")(plan_command)


def plan_command(
    context: typer.Context,
    n: Annotated[int, typer.Option("-n", min=1, help="Number of cards.")] = 50,
    push: Annotated[bool, typer.Option(help="Create the cards as tasks in Label Studio.")] = False,
    explain: Annotated[
        bool, typer.Option(help="Show which gap each card fills, and the shares before and after.")
    ] = False,
    protocol: Annotated[
        str, typer.Option(help='"starter": the ten dialogues to begin with, instead of the next n cards.')
    ] = "",
    data: Annotated[
        str | None, typer.Option(help="Data set version or canonical JSONL file (default: the latest version).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed for choices between equally good cards.")] = None,
) -> None:
    """Plan what to write next, so that the data set comes to its targets."""
    import analysis
    from aku.commands.report import Dataset, load_dataset

    workspace: Workspace = context.obj
    if protocol not in ("", "starter"):
        raise SettingsError(f"--protocol {protocol}: there is only one protocol, `starter`.")
    settings = load_section(workspace.settings, "plan", analysis.PlanSettings)
    taxonomy = load_taxonomy(workspace.taxonomy)
    scenes = read_contexts(workspace, settings)
    studio = _studio(workspace, needed=push)
    tasks = read_tasks(studio) if studio else []
    if protocol == "starter":
        cards = analysis.starter_plan(scenes, taxonomy, seed=settings.seed if seed is None else seed)
        waiting: list[Card] = []
    else:
        nothing = data is None and not (workspace.datasets / "latest.json").exists()
        dataset = Dataset("", []) if nothing else load_dataset(workspace, data)
        waiting = open_cards(tasks, {d.source.task for d in dataset.dialogues})
        cards = analysis.plan(
            dataset.dialogues,
            n,
            waiting=waiting,
            contexts=scenes,
            settings=settings,
            taxonomy=taxonomy,
            seed=seed,
        )
    for card in cards:
        console.print(card.card.text, markup=False, soft_wrap=True)
        if explain:
            console.print(f"  {card.reason}", style="dim", markup=False, soft_wrap=True)
    if push and studio:
        made = push_starter(studio, cards, tasks) if protocol else push_batch(workspace, studio, cards, tasks)
        console.print(f"{made} cards created in project {studio.project} ({len(tasks) + made} tasks in all).")


def read_contexts(workspace: Workspace, settings: PlanSettings) -> list[Scene]:
    """Scenes to offer: the named file or the packaged one, and `contexts.jsonl` in the workspace on top."""
    import analysis

    paths = [Path(settings.contexts) if settings.contexts else PACKAGED_CONTEXTS, workspace.home / "contexts.jsonl"]
    if settings.contexts and not paths[0].is_absolute():
        paths[0] = workspace.home / paths[0]
    needed = bool(settings.contexts)
    return [s for p in paths if needed or p.exists() for s in analysis.read_scenes(list(files.read_jsonl(p)))]


def read_tasks(studio: Connection) -> list[dict[str, Any]]:
    """All tasks of the project: id, data, number of annotations."""
    found = studio.client.tasks.list(
        project=studio.project, fields="task_only", include="id,data,total_annotations", page_size=500
    )
    return [{"id": t.id, "data": t.data, "annotations": int(t.total_annotations or 0)} for t in found]


def open_cards(tasks: Sequence[dict[str, Any]], exported: set[int | None]) -> list[Card]:
    """Cards that count as planned: not annotated yet, or annotated but not in the data set so far."""
    cards = []
    for task in tasks:
        if task["annotations"] and task["id"] in exported:
            continue
        try:
            card = from_task(task["data"], f"task {task['id']}")
        except RecordError:  # a task that is no card of ours says nothing about the plan
            continue
        if card.record is None:
            cards.append(card)
    return cards


def push_starter(studio: Connection, cards: Sequence[PlannedCard], tasks: Sequence[dict[str, Any]]) -> int:
    """Create those of the ten starting cards that are not there yet; returns how many."""
    present = {task["data"].get("plan_key") for task in tasks}
    return _create(studio, [(card.key, card.card) for card in cards if card.key not in present])


def push_batch(
    workspace: Workspace, studio: Connection, cards: Sequence[PlannedCard], tasks: Sequence[dict[str, Any]]
) -> int:
    """Create a batch; one that was interrupted is finished first, instead of the new one.

    The batch is noted in the workspace before the first task is made, and every task carries its
    key, so that running the command again after a failure completes the batch and doubles nothing.
    """
    journal = workspace.state / "plan.json"
    noted = files.read_json(journal) if journal.exists() else {"project": None, "cards": [], "done": True}
    if noted["done"] or noted["project"] != studio.project:
        batch = uuid.uuid4().hex[:12]
        rows = [{"key": f"{batch}-{i}", "data": to_task(card.card)} for i, card in enumerate(cards)]
        noted = {"project": studio.project, "cards": rows, "done": False}
        files.write_json(journal, noted)
    else:
        console.print(f"Finishing the interrupted batch of {len(noted['cards'])} cards first; run again for new ones.")
    present = {task["data"].get("plan_key") for task in tasks}
    made = _import(studio, [(row["key"], row["data"]) for row in noted["cards"] if row["key"] not in present])
    files.write_json(journal, {**noted, "done": True})
    return made


def _create(studio: Connection, cards: Sequence[tuple[str, Card]]) -> int:
    return _import(studio, [(key, to_task(card)) for key, card in cards])


def _import(studio: Connection, rows: Sequence[tuple[str, dict[str, Any]]]) -> int:
    import httpx
    from label_studio_sdk.core.api_error import ApiError

    with progress_bar() as progress:
        bar = progress.add_task("cards", total=len(rows))
        for start in range(0, len(rows), _BATCH):
            part = [{"data": {**data, "plan_key": key}} for key, data in rows[start : start + _BATCH]]
            try:
                studio.client.projects.import_tasks(id=studio.project, request=part)
            except (ApiError, httpx.HTTPError) as error:
                raise LabelStudioError(
                    f"Label Studio took {start} of {len(rows)} cards and then failed; run the command again to go on."
                ) from error
            progress.update(bar, advance=len(part))
    return len(rows)


def _studio(workspace: Workspace, *, needed: bool) -> Connection | None:
    """The studio whose waiting cards count; without --push a studio that is down is no hindrance."""
    from aku.connection import connect

    try:
        return connect(workspace)
    except LabelStudioError:
        if needed:
            raise
        return None
