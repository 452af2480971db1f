"""May the model draft?  A pure decision from evidence, and the signed record that says why.

`decide` is the memo's `is_good_sft_model_response()`.  The record names the files that its numbers
come from with their hashes; `verify` reads them again and computes every number anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from analysis.gate_checks import PEOPLE, Check, Outcome, people_checks, run_checks
from analysis.gate_evidence import Evidence, EvidenceFile, file_sha256, read_evidence
from analysis.gate_settings import GateSettings
from dialogue.errors import AkuError, SettingsError

FORMAT = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Force:
    """A person's order, which stands until it is lifted or, for an opening, until the drafts prove bad."""

    to: Literal["open", "shut"]
    reason: str
    at: str
    by: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What the gate comes to: `open`, `earned` (what the checks alone say), and why in sentences."""

    open: bool
    earned: bool
    checks: tuple[Check, ...]
    reasons: tuple[str, ...]
    force: Force | None = None


def decide(
    evidence: Evidence, settings: GateSettings, *, was_open: bool = False, force: Force | None = None
) -> Decision:
    """Decide from evidence alone.

    A shut gate opens when every check passes; an open one (`was_open`, for this checkpoint) shuts
    when a check fails or lacks evidence.  Between the two it stays as it is, so that chance does not
    make it swing.  The checks that need people look at the last `window` judged turns, so drafts that
    become bad shut the gate.  A forced opening overrides the checks until `least_turns` turns drafted
    since then have been judged and fail; a forced shutting stands until it is lifted.
    """
    checks = run_checks(evidence, settings)
    opening = (Outcome.PASS, Outcome.WAITING)
    enough = (*opening, Outcome.HOLDS) if was_open else opening
    failed = [check for check in checks if check.outcome not in enough]
    earned = not failed
    titles: dict[str, list[str]] = {}
    for check in failed:
        titles.setdefault(check.reason, []).append(check.title)
    reasons = [f"{' / '.join(which)}: {reason}" for reason, which in titles.items()]
    if earned:
        doubtful = any(check.outcome is Outcome.HOLDS for check in checks)
        reasons = ["no check fails, so the gate stays open" if doubtful else "every check passes"]
    is_open = earned
    if force is not None and force.to == "shut":
        is_open = False
        reasons.insert(0, f"shut by force: {force.reason}")
    elif force is not None and not earned:
        since = [turn for turn in evidence.turns if turn.at >= force.at]
        is_open = all(check.outcome is not Outcome.FAIL for check in people_checks(since, settings))
        note = f"opened by force: {force.reason}"
        if not is_open:
            seen = min(len(since), settings.window)
            note = f"a forced opening ({force.reason}) was ended by the last {seen} turns judged since"
        reasons.insert(0, note)
    return Decision(is_open, earned, checks, tuple(reasons), force)


def record(
    evidence: Evidence,
    settings: GateSettings,
    named: Sequence[EvidenceFile],
    *,
    dataset: str,
    blind_share: float,
    made_at: str,
    was_open: bool = False,
    force: Force | None = None,
) -> dict[str, Any]:
    """Decide, and return the gate record: plain JSON data signed by its own hash (`sha256`).

    `current.json` holds it; whoever drafts reads `open` alone.
    """
    decision = decide(evidence, settings, was_open=was_open, force=force)
    value: dict[str, Any] = {
        "format": FORMAT,
        "open": decision.open,
        "earned": decision.earned,
        "forced": dataclasses.asdict(force) if force else None,
        "checkpoint": evidence.checkpoint,
        "dataset": dataset,
        "made_at": made_at,
        "was_open": was_open,
        "reason": decision.reasons[0],
        "reasons": list(decision.reasons),
        "checks": [check.to_dict() for check in decision.checks],
        "counts": counts(evidence, settings),
        "blind_share": blind_share,
        "settings": dataclasses.asdict(settings),
        "files": [dataclasses.asdict(file) for file in named],
    }
    return {**value, "sha256": signature(value)}


def counts(evidence: Evidence, settings: GateSettings) -> dict[str, int]:
    """How much of each kind of evidence there is."""
    window = evidence.turns[-settings.window :]
    return {
        "judged_turns": len(evidence.turns),
        "window_turns": len(window),
        "window_reviewed": sum(turn.origin == "review" for turn in window),
        "window_drafted": sum(turn.origin == "draft" for turn in window),
        "window_people": len({turn.annotator for turn in window if turn.annotator}),
        "steered": len(evidence.steered),
        "replies": sum(len(reply.replies) for reply in evidence.steered),
        "human": len(evidence.human),
        "held_out": len(evidence.losses),
        "times_drafted": sum(time.arm == "drafted" for time in evidence.times),
        "times_blind": sum(time.arm == "blind" for time in evidence.times),
    }


def signature(value: Mapping[str, Any]) -> str:
    """SHA-256 of the record's canonical JSON, its own signature left out."""
    content = {key: item for key, item in value.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def forced(value: Mapping[str, Any]) -> Force | None:
    """Return the order that a record carries, if any."""
    order = value.get("forced")
    return Force(**order) if isinstance(order, Mapping) else None


def named_files(value: Mapping[str, Any]) -> tuple[EvidenceFile, ...]:
    """Return the evidence files that a record names."""
    return tuple(EvidenceFile(**file) for file in value.get("files") or ())


def verify(value: Mapping[str, Any], home: Path) -> list[str]:
    """Compute a record again from the files it names; returns what does not hold, [] when all does.

    Checks the signature, every file's hash, and every number, outcome and reason.
    """
    if value.get("format") != FORMAT:
        return ["it was not written by this gate, so nothing in it can be computed again"]
    problems = []
    if value.get("sha256") != signature(value):
        problems.append("its signature does not fit its content: somebody changed it")
    named = named_files(value)
    for file in named:
        try:
            if file_sha256(home / file.name) != file.sha256:
                problems.append(f"{file.name}: the file has changed since")
        except AkuError:
            problems.append(f"{file.name}: the file is gone")
    if problems:
        return problems
    settings = _settings(value["settings"])
    evidence = read_evidence(
        home, named, value["checkpoint"], blind_share=value["blind_share"], longest=settings.longest_work
    )
    again = record(
        evidence,
        settings,
        named,
        dataset=value["dataset"],
        blind_share=value["blind_share"],
        made_at=value["made_at"],
        was_open=value["was_open"],
        force=forced(value),
    )
    return [
        f"{key}: the record says {value.get(key)!r}, the files say {again[key]!r}"
        for key in again
        if json.dumps(again[key], sort_keys=True) != json.dumps(value.get(key), sort_keys=True)
    ]


def people_outcomes(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The record's checks that need people."""
    return [check for check in value.get("checks") or () if check.get("key") in PEOPLE]


def _settings(table: Mapping[str, Any]) -> GateSettings:
    try:
        return GateSettings(**table)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"the gate record's settings are of another version ({error}); run `aku gate`.") from error
