"""The whole loop on the starter corpus with a demo model: every step is skipped when its result is there."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path

from aku.connection import Connection, connect
from aku.console import console, progress_bar
from aku.settings import stage_settings
from aku.studio import Studio
from dialogue import Checkpoint, Dialogue, Registry, files, load_taxonomy, read_dialogues
from dialogue.settings import Workspace, load_section

EXAMPLES = Path(__file__).parent.parent / "examples"
STARTER = EXAMPLES / "starter.jsonl"
CONTEXTS = EXAMPLES / "contexts.jsonl"


@dataclasses.dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo ends in, for the closing lines."""

    dialogues: int
    checkpoint: str
    waiting: int
    drafted: int
    report: Path


def make_base(workspace: Workspace) -> Path:
    """Make the demo base model if it is not there: it stands in for a real pre-trained base."""
    from exporters.sft.demo_base import make_demo_base

    folder = workspace.home / "demo-base"
    if (folder / "aku_base.json").exists():
        return folder
    contexts = [str(row["context"]) for _, row in files.read_jsonl(CONTEXTS)]
    with progress_bar() as bar:
        row = bar.add_task("demo base model", total=None)
        make_demo_base(
            folder,
            read_dialogues(STARTER),
            contexts,
            progress=lambda done, total, note: bar.update(
                row, completed=done, total=total, description=f"demo base model  {note}"
            ),
        )
    return folder


def run_demo(workspace: Workspace, studio: Studio) -> DemoResult:
    """Run the loop inside a running studio; a second run finds everything done and takes seconds."""
    connection = connect(workspace)
    starter = import_starter(connection)
    base = make_base(workspace)
    checkpoint = ensure_checkpoint(workspace, base)
    open_demo_gate(workspace, checkpoint)
    waiting = top_up_cards(workspace, connection)
    drafted = draft_waiting(workspace, connection)
    report = make_report(workspace)
    return DemoResult(len(starter), checkpoint.id, waiting, drafted, report)


def import_starter(connection: Connection) -> list[Dialogue]:
    """Write the starter dialogues into Label Studio as finished annotations, each once."""
    from exporters import import_dialogues

    starter = read_dialogues(STARTER)
    with progress_bar() as bar:
        row = bar.add_task("starter dialogues", total=len(starter))
        import_dialogues(
            connection.client,
            connection.project,
            starter,
            progress=lambda done, total: bar.update(row, completed=done, total=total),
        )
        bar.update(row, completed=len(starter))
    return starter


def ensure_checkpoint(workspace: Workspace, base: Path) -> Checkpoint:
    """Export from Label Studio and fine-tune, unless a checkpoint is in use already."""
    from aku.commands import export, train

    version = export.make_version(workspace)
    export.show(version)
    registry = Registry(workspace.checkpoints)
    current = registry.current()
    if current is not None:
        return registry.get(current.id)
    return train.make_checkpoint(workspace, base, version.path)


def open_demo_gate(workspace: Workspace, checkpoint: Checkpoint) -> None:
    """Let the demo model draft although nobody judged it; the record says so."""
    registry = Registry(workspace.checkpoints)
    current = registry.current()
    if current is not None and current.id == checkpoint.id and current.may_draft:
        return
    gate = {
        "open": True,
        "forced": True,
        "by": "aku demo",
        "reason": "demo model: it drafts so that the loop can be seen; no person judged it",
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    registry.use(checkpoint.id, gate)


def top_up_cards(workspace: Workspace, connection: Connection) -> int:
    """Plan cards until the set number waits; returns how many wait."""
    import analysis
    from aku.commands.plan import read_contexts
    from aku.commands.report import latest_dialogues
    from aku.tasks import add_cards, waiting_cards

    waiting = [w.card for w in waiting_cards(connection)]
    wanted = stage_settings(workspace).cards
    if len(waiting) >= wanted:
        return len(waiting)
    settings = load_section(workspace.settings, "plan", analysis.PlanSettings)
    cards = analysis.plan(
        latest_dialogues(workspace),
        wanted - len(waiting),
        waiting=waiting,
        contexts=read_contexts(workspace, settings),
        settings=settings,
        taxonomy=load_taxonomy(workspace.taxonomy),
    )
    return len(waiting) + add_cards(connection, [planned.card for planned in cards])


def draft_waiting(workspace: Workspace, connection: Connection) -> int:
    """Push whole drafted conversations to the waiting cards that have none; returns how many were pushed."""
    from aku.commands.draft import push_drafts

    return push_drafts(workspace, connection, user_turns=True)


def make_report(workspace: Workspace) -> Path:
    """Make the bias report of the newest data set version, unless that very report is there."""
    from aku.commands.report import load_dataset
    from aku.commands.report import make_report as make

    dataset = load_dataset(workspace)
    latest = workspace.reports / "latest.json"
    if latest.exists():
        path = Path(files.read_json(latest)["path"])
        if path.exists() and path.parent.name.startswith(f"{dataset.name}-"):
            return path
    return make(workspace, dataset, load_taxonomy(workspace.taxonomy))


def show(result: DemoResult, studio: Studio) -> None:
    """Print where everything is."""
    lines = (
        ("Label Studio", f"{studio.url}/projects/{studio.project}/data"),
        ("Report", str(result.report)),
        ("Dialogues", f"{result.dialogues} starter dialogues, finished"),
        ("Cards", f"{result.waiting} waiting, with the model's drafts in them"),
        ("Checkpoint", f"{result.checkpoint} (demo model: its drafts may be poor, the loop is real)"),
    )
    console.print()
    for name, value in lines:
        console.print(f"  {name:<13}{value}", markup=False, soft_wrap=True)
    console.print()
