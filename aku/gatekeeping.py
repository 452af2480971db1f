"""Opening and shutting the gate: gather the evidence's files, decide, write `current.json`, keep the record."""

from __future__ import annotations

import dataclasses
import datetime
import getpass
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from analysis import gate
from analysis.gate_evidence import EvidenceFile, evidence_file, read_evidence
from analysis.gate_settings import GateSettings
from dialogue import files
from dialogue.checkpoints import Checkpoint, Registry
from dialogue.errors import CheckpointError
from dialogue.settings import Workspace, load_section


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """A decision as it was carried out: the record, where it is kept, and whether the checkpoint is in use now."""

    record: dict[str, Any]
    path: Path
    in_use: bool


def records_of(workspace: Workspace) -> Path:
    """Where gate records are kept, one file a decision."""
    return workspace.home / "gate"


def evidence_files(workspace: Workspace, checkpoint: str) -> list[EvidenceFile]:
    """Name everything that there is about a checkpoint: newest data set version, closed rounds, newest evaluation."""
    from aku import evaluation
    from aku.review import rounds_of

    found: list[EvidenceFile] = []
    home = workspace.home
    latest = workspace.datasets / "latest.json"
    if latest.exists():
        version = workspace.datasets / str(files.read_json(latest)["id"])
        splits = [version / f"{split}.jsonl" for split in ("train", "validation", "test")]
        found += [evidence_file(home, path, "records") for path in splits if path.exists()]
    for path in sorted(rounds_of(workspace).glob(f"*-{checkpoint}/ratings.jsonl")):
        found.append(evidence_file(home, path, "ratings"))
    folder = evaluation.newest(workspace, checkpoint)
    if folder is not None:
        found.append(evidence_file(home, folder / "replies.jsonl", "replies"))
        found.append(evidence_file(home, folder / "ceiling.jsonl", "ceiling"))
        found.append(evidence_file(home, folder / "losses.jsonl", "losses"))
    return found


def decide(
    workspace: Workspace, checkpoint: Checkpoint, *, order: gate.Force | None = None, lift: bool = False
) -> dict[str, Any]:
    """Return the gate record for a checkpoint from all evidence there is; changes nothing.

    Args:
        workspace: Where the evidence lies.
        checkpoint: Whose gate it is.
        order: A new forced opening or shutting.
        lift: Take back the order that stands.
    """
    from ml_backend.settings import BackendSettings

    settings = load_section(workspace.settings, "gate", GateSettings)
    share = load_section(workspace.settings, "backend", BackendSettings).blind_share
    current = Registry(workspace.checkpoints).current()
    before: Mapping[str, Any] = current.gate if current is not None and current.id == checkpoint.id else {}
    standing = None if lift else order or standing_order(before)
    named = evidence_files(workspace, checkpoint.id)
    evidence = read_evidence(workspace.home, named, checkpoint.id, blind_share=share, longest=settings.longest_work)
    return gate.record(
        evidence,
        settings,
        named,
        dataset=str(checkpoint.card.get("dataset", "")),
        blind_share=share,
        made_at=now(),
        was_open=bool(before.get("open")) and bool(before.get("earned")),
        force=standing,
    )


def standing_order(before: Mapping[str, Any]) -> gate.Force | None:
    """Return the order in a record that still holds: a shutting, or an opening that was not ended by bad drafts.

    `aku demo` opens with a bare `"forced": true`; that counts as an order too.
    """
    if before.get("forced") is True:
        return gate.Force("open", str(before.get("reason", "")), str(before.get("at", "")), str(before.get("by", "")))
    order = gate.forced(before)
    if order is not None and order.to == "open" and not before.get("open"):
        return None
    return order


def apply(workspace: Workspace, checkpoint: Checkpoint, record: dict[str, Any]) -> Outcome:
    """Keep the record, and write it into `current.json`, which the backend follows at once.

    A checkpoint that is not in use comes into use when its gate is open or when there is none yet; so a
    candidate that is not good enough never takes the place of one that drafts.
    """
    registry = Registry(workspace.checkpoints)
    current = registry.current()
    stamp = record["made_at"].replace(":", "").replace("-", "").replace("+0000", "Z")
    path = records_of(workspace) / f"{stamp}-{checkpoint.id}-{record['sha256'][:8]}.json"
    files.write_json(path, record)
    in_use = current is None or current.id == checkpoint.id or bool(record["open"])
    if in_use:
        registry.use(checkpoint.id, record)
    return Outcome(record, path, in_use)


def chosen_checkpoint(workspace: Workspace, checkpoint: str | None) -> Checkpoint:
    """Return the named checkpoint, else the one in use, else the newest; raises `CheckpointError` if there is none."""
    registry = Registry(workspace.checkpoints)
    if checkpoint is not None:
        return registry.get(checkpoint)
    current = registry.current()
    if current is not None:
        return registry.get(current.id)
    newest = newest_checkpoint(workspace)
    if newest is None:
        raise CheckpointError(f"{registry.root}: there is no checkpoint yet; run `aku train --base DIR`.")
    return newest


def newest_checkpoint(workspace: Workspace) -> Checkpoint | None:
    """Return the checkpoint made last, if any."""
    return next(iter(reversed(list(Registry(workspace.checkpoints)))), None)


def make_order(to: Literal["open", "shut"], reason: str) -> gate.Force:
    """Return an order given now by the person at the keyboard."""
    try:
        person = getpass.getuser()
    except (KeyError, OSError):  # no name for this user, as in some containers
        person = f"user {os.getuid()}"
    return gate.Force(to, reason, now(), person)


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
