"""The memo's loop as one command: export → train → evaluate → gate → draft → report → plan.

Every step is skipped when nothing has changed for it, and each can be stopped at any moment: what is
done stays done (versions, checkpoints and evaluations are named after their content), and the next
run goes on from there.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aku.connection import Connection, connect
from aku.console import console
from aku.cycle_settings import CycleSettings
from aku.settings import stage_settings
from dialogue import files
from dialogue.checkpoints import Checkpoint, Registry
from dialogue.errors import LabelStudioError
from dialogue.settings import Workspace, load_section

if TYPE_CHECKING:
    from exporters import DatasetVersion


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """What came of one step: its name, whether anything was done, and a line to read."""

    name: str
    done: bool
    note: str


STEPS = ("export", "train", "evaluate", "gate", "draft", "report", "plan")


def run(workspace: Workspace, base: Path | None = None) -> list[Step]:
    """Go round once; returns what each step came to.

    Raises what the steps raise (`LabelStudioError` while Label Studio is down, above all); what was
    done before stays.
    """
    connection = connect(workspace)
    steps: list[Step] = []

    def heading(name: str) -> None:
        console.print(f"[bold]{STEPS.index(name) + 1}/{len(STEPS)} {name}[/]")

    def settle(step: Step) -> None:
        steps.append(step)
        console.print(f"    {step.note}", style="" if step.done else "dim", markup=False, soft_wrap=True)

    heading("export")
    version, step = export(workspace)
    settle(step)
    heading("train")
    settle(train(workspace, version, base))
    heading("evaluate")
    settle(evaluate(workspace))
    heading("gate")
    settle(gate(workspace))
    heading("draft")
    settle(draft(workspace, connection))
    heading("report")
    settle(report(workspace))
    heading("plan")
    settle(plan(workspace, connection))
    return steps


def export(workspace: Workspace) -> tuple[DatasetVersion, Step]:
    """Make a data set version from what people have finished."""
    from aku.commands.export import make_version

    latest = workspace.datasets / "latest.json"
    before = files.read_json(latest)["id"] if latest.exists() else None
    version = make_version(workspace)
    size = dialogues_in(version.counts)
    if version.id == before:
        return version, Step("export", False, f"nothing new: version {version.id}, {size} dialogues")
    return version, Step("export", True, f"version {version.id}: {size} dialogues")


def dialogues_in(counts: Mapping[str, Any]) -> int:
    """Number of dialogues of a version."""
    return sum(int(counts.get(split, 0)) for split in ("train", "validation", "test"))


def training_due(dialogues: int, trained_on: int | None, first: int, every: int) -> str | None:
    """Say why training is not due yet, or return None when it is.

    The first time at `first` dialogues, then whenever `every` more than the newest checkpoint knew.
    """
    if trained_on is None:
        return None if dialogues >= first else f"{dialogues} of {first} dialogues for the first training"
    new = dialogues - trained_on
    return None if new >= every else f"{new} new dialogues; training is due at {every}"


def train(workspace: Workspace, version: DatasetVersion, base: Path | None) -> Step:
    """Fine-tune the base on the version if enough is new."""
    from aku.commands.train import default_base, make_checkpoint
    from aku.gatekeeping import newest_checkpoint

    settings = load_section(workspace.settings, "cycle", CycleSettings)
    newest = newest_checkpoint(workspace)
    size = dialogues_in(version.counts)
    waiting = training_due(
        size, trained_on(workspace, newest) if newest else None, stage_settings(workspace).first_sft, settings.every
    )
    if waiting is not None:
        return Step("train", False, waiting)
    checkpoint = make_checkpoint(workspace, base or default_base(workspace), version)
    return Step("train", True, f"checkpoint {checkpoint.id} on {size} dialogues")


def trained_on(workspace: Workspace, checkpoint: Checkpoint) -> int:
    """Return how many dialogues the data set version had that a checkpoint was trained on."""
    manifest = workspace.datasets / str(checkpoint.card.get("dataset", "")) / "manifest.json"
    if manifest.exists():
        return dialogues_in(files.read_json(manifest).get("counts") or {})
    known = checkpoint.card.get("dialogues") or {}
    return int(known.get("train", 0)) + int(known.get("held_out", 0))


def candidates(workspace: Workspace) -> list[Checkpoint]:
    """Return the checkpoint in use and, if it is another one, the newest."""
    from aku.gatekeeping import newest_checkpoint

    registry = Registry(workspace.checkpoints)
    current = registry.current()
    found = {current.id: registry.get(current.id)} if current is not None else {}
    newest = newest_checkpoint(workspace)
    if newest is not None:
        found[newest.id] = newest
    return list(found.values())


def evaluate(workspace: Workspace) -> Step:
    """Evaluate the newest checkpoint and the one in use, each once."""
    from aku import evaluation
    from aku.commands.gate import make_evaluation

    missing = [c for c in candidates(workspace) if evaluation.newest(workspace, c.id) is None]
    if not missing:
        known = ", ".join(c.id for c in candidates(workspace))
        return Step("evaluate", False, f"evaluated already: {known}" if known else "there is no checkpoint yet")
    for checkpoint in missing:
        make_evaluation(workspace, checkpoint)
    return Step("evaluate", True, "evaluated " + ", ".join(c.id for c in missing))


def gate(workspace: Workspace) -> Step:
    """Decide about both where the evidence has changed since the last decision."""
    from aku.commands.gate import judge

    chosen = [c for c in candidates(workspace) if evidence_changed(workspace, c)]
    for checkpoint in chosen:
        judge(workspace, checkpoint)
    current = Registry(workspace.checkpoints).current()
    if current is None:
        return Step("gate", False, "there is no checkpoint yet")
    state = "open" if current.may_draft else "shut"
    by_force = " by force" if current.gate.get("forced") else ""
    return Step("gate", bool(chosen), f"{state}{by_force} for {current.id}: {current.gate.get('reason', '')}")


def evidence_changed(workspace: Workspace, checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint's evidence, or the settings that judge it, differ from its latest gate record's."""
    from aku.gatekeeping import evidence_files, records_of
    from analysis.gate_settings import GateSettings

    records = sorted(records_of(workspace).glob(f"*-{checkpoint.id}-*.json"))
    if not records:
        return True
    last = files.read_json(records[-1])
    named = [dataclasses.asdict(file) for file in evidence_files(workspace, checkpoint.id)]
    settings = dataclasses.asdict(load_section(workspace.settings, "gate", GateSettings))
    return bool(last.get("files") != named or last.get("settings") != settings)


def draft(workspace: Workspace, connection: Connection) -> Step:
    """Draft the waiting cards if the gate is open."""
    from aku.commands.draft import push_drafts

    current = Registry(workspace.checkpoints).current()
    if current is None or not current.may_draft:
        return Step("draft", False, "the gate is shut: people write by hand")
    pushed = push_drafts(workspace, connection)
    return Step("draft", pushed > 0, f"{pushed} cards drafted by {current.id}")


def report(workspace: Workspace) -> Step:
    """Make the bias report of the newest version, unless it is there."""
    from aku.demo import make_report

    latest = workspace.reports / "latest.json"
    before = files.read_json(latest) if latest.exists() else None
    path = make_report(workspace)
    found = files.read_json(latest)
    return Step("report", found != before, f"{found['verdict']}: {path}")


def plan(workspace: Workspace, connection: Connection) -> Step:
    """Keep the set number of cards waiting."""
    from aku.demo import top_up_cards
    from aku.tasks import waiting_cards

    before = len(waiting_cards(connection))
    after = top_up_cards(workspace, connection)
    note = f"{after} cards wait" + (f", {after - before} of them new" if after > before else "")
    return Step("plan", after > before, note)


def watch(workspace: Workspace, base: Path | None, keep_on: Callable[[], bool] = lambda: True) -> None:
    """Go round whenever enough is new, and decide about the gate in between; a server that is away is waited for.

    After a full round the next one comes with `every` new dialogues; every `gate_every` the version
    and the gate alone are brought up to date, so that bad drafts shut it soon.
    """
    from aku.cycle_page import write_page
    from aku.tasks import count_finished

    settings = load_section(workspace.settings, "cycle", CycleSettings)
    full: int | None = None
    light = 0
    while keep_on():
        try:
            finished = count_finished(connect(workspace))
            if full is None or finished - full >= settings.every:
                console.print(str(write_page(workspace, run(workspace, base))), soft_wrap=True, markup=False)
                full = light = finished
            elif finished - light >= settings.gate_every:
                export(workspace)
                console.print(gate(workspace).note, markup=False, soft_wrap=True)
                light = finished
        except LabelStudioError as error:
            console.print(f"{error} Waiting.", style="yellow", markup=False)
        time.sleep(settings.poll)
