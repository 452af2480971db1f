"""`aku watch`: the cheap numbers again whenever somebody finishes a dialogue."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aku.connection import Connection
from aku.console import console
from aku.live import live_dialogues
from dialogue import files
from dialogue.errors import LabelStudioError
from dialogue.genres import load_taxonomy
from dialogue.settings import Workspace, load_section

if TYPE_CHECKING:
    from analysis import Quick

JOURNAL_EVERY = 0.5
"""Seconds between looks at the webhook journal, which is a file and costs nothing."""


def refresh(workspace: Workspace, connection: Connection) -> Quick:
    """Read what changed, measure, and note the result as `reports/quick.json`."""
    import analysis

    found = analysis.quick(
        live_dialogues(workspace, connection),
        taxonomy=load_taxonomy(workspace.taxonomy),
        settings=load_section(workspace.settings, "report", analysis.ReportSettings),
        plan_settings=load_section(workspace.settings, "plan", analysis.PlanSettings),
    )
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    files.write_json(workspace.reports / "quick.json", {**found.to_json(), "at": now})
    return found


def watch(workspace: Workspace, connection: Connection, interval: float, keep_on: Callable[[], bool]) -> None:
    """Show the numbers, then again after every event in the webhook journal, and at least every `interval` seconds.

    A Label Studio that goes away is waited for.  Ends when `keep_on` says so.
    """
    journal = workspace.state / "webhooks.jsonl"
    shown: tuple[object, ...] = ()
    while keep_on():
        seen = _size(journal)
        try:
            found = refresh(workspace, connection)
        except LabelStudioError as error:
            console.print(f"{error} Waiting.", style="yellow", markup=False)
        else:
            line = (found.n, *((view.title, view.verdict) for view in found.views))
            if line != shown:
                shown = line
                show(found)
        until = time.monotonic() + interval
        while keep_on() and time.monotonic() < until and _size(journal) == seen:
            time.sleep(min(JOURNAL_EVERY, interval))


def show(found: Quick) -> None:
    """Print one line: the time, how many, and the verdict of each counting view."""
    parts = [f"{view.title} {view.verdict.word}" for view in found.views]
    console.print(f"{datetime.datetime.now():%H:%M:%S}  {found.n}件  {'　'.join(parts)}", markup=False)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
