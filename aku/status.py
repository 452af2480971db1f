"""`aku status`: the memo's stage, who wrote how much, gate, report, and what is next."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

from rich.table import Table

from aku.commands.report import latest_dialogues
from aku.connection import connect
from aku.console import console
from aku.settings import StageSettings, stage_settings
from dialogue import Registry, files
from dialogue.errors import LabelStudioError
from dialogue.settings import Workspace


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """What is known of a project at one moment; `finished` and `waiting` are None while Label Studio is down.

    `verdict` is the worst of the last report, `live` what `aku watch` noted last.
    """

    stage: str
    next: str
    written: int
    goal: int
    finished: int | None
    waiting: int | None
    studio: str
    people: dict[str, int]
    checkpoint: str | None
    gate: dict[str, Any]
    verdict: str | None
    report: str | None
    live: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return dataclasses.asdict(self)


def gather(workspace: Workspace) -> Status:
    """Collect the facts; Label Studio being down is one of them, not an error."""
    dialogues = latest_dialogues(workspace)
    finished = waiting = None
    try:
        from aku.tasks import count_finished, waiting_cards

        connection = connect(workspace)
        finished, waiting = count_finished(connection), len(waiting_cards(connection))
        studio = connection.url
    except LabelStudioError as error:
        studio = str(error)
    current = Registry(workspace.checkpoints).current()
    latest = workspace.reports / "latest.json"
    report = files.read_json(latest) if latest.exists() else {}
    written = finished if finished is not None else len(dialogues)
    may_draft = current is not None and current.may_draft
    stage, following = stage_of(written, may_draft, current is not None, stage_settings(workspace))
    return Status(
        stage=stage,
        next=following,
        written=written,
        goal=stage_settings(workspace).goal,
        finished=finished,
        waiting=waiting,
        studio=studio,
        people=dict(collections.Counter(d.source.annotator or "unknown" for d in dialogues).most_common()),
        checkpoint=current.id if current else None,
        gate=dict(current.gate) if current else {},
        verdict=report.get("verdict"),
        report=report.get("path"),
        live=files.read_json(workspace.reports / "quick.json") if (workspace.reports / "quick.json").exists() else {},
    )


def stage_of(written: int, may_draft: bool, trained: bool, settings: StageSettings) -> tuple[str, str]:
    """Return the memo's stage and the next step, from the number of dialogues and the gate."""
    if written >= settings.goal:
        return f"done {written}/{settings.goal}", "export the final version and train on it"
    if may_draft:
        return f"drafting {written}/{settings.goal}", "correct the drafts; `aku report` after every batch"
    if written < settings.by_hand:
        return f"by hand {written}/{settings.by_hand}", "`aku plan --push` makes cards; write them by hand"
    if written < settings.first_sft and not trained:
        return (
            f"by hand, first SFT at {settings.first_sft}: {written}/{settings.first_sft}",
            f"go on by hand to {settings.first_sft}, or try `aku train --base DIR` already",
        )
    if not trained:
        return f"first SFT is due ({written})", "`aku train --base DIR`"
    return f"by hand, gate shut {written}/{settings.goal}", "`aku evaluate` and `aku gate` judge the checkpoint"


def live_line(live: dict[str, Any]) -> str:
    """What `aku watch` saw last: the worst verdict, the views it comes from, how many dialogues, when."""
    views = [view["title"] for view in live["views"] if view["verdict"] == live["verdict"]]
    where = f" ({'、'.join(views)})" if live["verdict"] in ("WATCH", "FIX") else ""
    return f"{live['verdict']}{where}, {live['n']} dialogues, {live['at']}"


def show(status: Status) -> None:
    """Print the status as a table."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 1))
    table.add_row("Stage", status.stage)
    table.add_row("Next", status.next)
    table.add_row("Label Studio", status.studio)
    if status.waiting is not None:
        table.add_row("Cards", f"{status.waiting} waiting, {status.finished} finished")
    forced = " [bold yellow](forced)[/]" if status.gate.get("forced") else ""
    state = ("[green]open[/]" if status.gate.get("open") else "shut") + forced
    table.add_row("Checkpoint", f"{status.checkpoint}, gate {state}" if status.checkpoint else "none yet")
    if status.gate.get("reason"):
        table.add_row("", f"[dim]{status.gate['reason']}[/]")
    table.add_row("Report", f"{status.verdict}  {status.report}" if status.report else "none yet: `aku report`")
    if status.live:
        table.add_row("Live check", live_line(status.live))
    for person, count in status.people.items():
        table.add_row("Written by", f"{person}: {count}")
    console.print(table)
