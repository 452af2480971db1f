"""`aku plan`: the next cards, and their way into Label Studio."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aku.console import console
from dialogue import files
from dialogue.errors import LabelStudioError, SettingsError
from dialogue.genres import load_taxonomy
from dialogue.label_studio import Card, from_task, to_task
from dialogue.records import Dialogue
from dialogue.settings import Workspace, load_section

if TYPE_CHECKING:
    from aku.connection import Connection
    from analysis import Gap, PlannedCard, PlanSettings, Scene

PACKAGED_CONTEXTS = Path(__file__).parent.parent.parent / "examples" / "contexts.jsonl"


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

    workspace: Workspace = context.obj
    if protocol not in ("", "starter"):
        raise SettingsError(f"--protocol {protocol}: there is only one protocol, `starter`.")
    settings = load_section(workspace.settings, "plan", analysis.PlanSettings)
    taxonomy = load_taxonomy(workspace.taxonomy)
    scenes = read_contexts(workspace, settings)
    studio = _studio(workspace, needed=push)
    if protocol == "starter":
        cards = analysis.starter_plan(scenes, taxonomy, seed=settings.seed if seed is None else seed)
        written, waiting = [], []
    else:
        written, waiting = known_dialogues(workspace, studio, data), open_cards(studio)
        cards = analysis.plan(
            written, n, waiting=waiting, contexts=scenes, settings=settings, taxonomy=taxonomy, seed=seed
        )
    for card in cards:
        console.print(card.card.text, markup=False, soft_wrap=True)
        if explain:
            console.print(f"  {card.reason}", style="dim", markup=False, soft_wrap=True)
    if explain:
        show_gaps(analysis.gaps(written, cards, waiting=waiting, settings=settings, taxonomy=taxonomy))
    if push and studio:
        from aku.tasks import add_cards

        if protocol:
            made = add_cards(studio, [card.card for card in cards], [card.key for card in cards])
        else:
            made = push_batch(workspace, studio, cards)
        console.print(f"{made} cards created in project {studio.project}.")


def read_contexts(workspace: Workspace, settings: PlanSettings) -> list[Scene]:
    """Scenes to offer: the named file or the packaged one, and `contexts.jsonl` in the workspace on top."""
    import analysis

    paths = [Path(settings.contexts) if settings.contexts else PACKAGED_CONTEXTS, workspace.home / "contexts.jsonl"]
    if settings.contexts and not paths[0].is_absolute():
        paths[0] = workspace.home / paths[0]
    needed = bool(settings.contexts)
    return [s for p in paths if needed or p.exists() for s in analysis.read_scenes(list(files.read_jsonl(p)))]


def known_dialogues(workspace: Workspace, studio: Connection | None, data: str | None = None) -> list[Dialogue]:
    """What counts as written: the data set version, and what was finished in Label Studio since it was made."""
    from aku.commands.report import latest_dialogues, load_dataset
    from aku.live import live_dialogues

    if data is not None:
        return load_dataset(workspace, data).dialogues
    found = {dialogue.id: dialogue for dialogue in latest_dialogues(workspace)}
    if studio is not None:
        found |= {dialogue.id: dialogue for dialogue in live_dialogues(workspace, studio)}
    return list(found.values())


def open_cards(studio: Connection | None) -> list[Card]:
    """Cards that are made but not annotated yet."""
    from aku.tasks import waiting_cards

    return [waiting.card for waiting in waiting_cards(studio)] if studio is not None else []


def push_batch(workspace: Workspace, studio: Connection, cards: Sequence[PlannedCard]) -> int:
    """Create a batch; one that was interrupted is finished first, instead of the new one.

    The batch is noted in the workspace before the first task is made, and every task carries its
    key, so that running the command again after a failure completes the batch and doubles nothing.
    """
    from aku.tasks import add_cards

    journal = workspace.state / "plan.json"
    noted = files.read_json(journal) if journal.exists() else {"project": None, "cards": [], "done": True}
    if noted["done"] or noted["project"] != studio.project:
        batch = uuid.uuid4().hex[:12]
        rows = [{"key": f"{batch}-{i}", "data": to_task(card.card)} for i, card in enumerate(cards)]
        noted = {"project": studio.project, "cards": rows, "done": False}
        files.write_json(journal, noted)
    else:
        console.print(f"Finishing the interrupted batch of {len(noted['cards'])} cards first; run again for new ones.")
    rows = noted["cards"]
    made = add_cards(studio, [from_task(row["data"]) for row in rows], [row["key"] for row in rows])
    files.write_json(journal, {**noted, "done": True})
    return made


def show_gaps(gaps: Sequence[Gap]) -> None:
    """Print for every level of every margin: before, after, target."""
    from rich.table import Table

    for margin in dict.fromkeys(gap.margin for gap in gaps):
        table = Table(title=margin, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("", "before", "after", "target"):
            table.add_column(column, justify="left" if not column else "right")
        for gap in gaps:
            if gap.margin == margin:
                table.add_row(gap.level, str(gap.before), str(gap.after), f"{gap.target:.1f}")
        console.print(table)


def _studio(workspace: Workspace, *, needed: bool) -> Connection | None:
    """The studio whose waiting cards count; without --push a studio that is down is no hindrance."""
    from aku.connection import connect

    try:
        return connect(workspace)
    except LabelStudioError:
        if needed:
            raise
        return None
