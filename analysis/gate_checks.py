"""The checks of the gate: each takes evidence and gives an estimate with a bound, and passes or not."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis import gate_bounds as bounds
from analysis.gate_bounds import Estimate
from analysis.gate_evidence import Evidence, HeldOutLoss, HumanTurns, JudgedTurn, SteeredReply, WorkTime
from analysis.gate_settings import GateSettings

PEOPLE = ("median_edit", "kept", "rewritten", "kept_drop")
"""Checks that need people's judgement; a rolling window of them shuts an open gate."""


class Outcome(enum.StrEnum):
    """What a check comes to.

    `PASS` opens; `HOLDS` is not good enough to open a gate and not bad enough to shut one; `FAIL` and
    `MISSING` shut; `WAITING` says nothing yet and blocks nothing.
    """

    PASS = "PASS"  # noqa: S105 - no password
    HOLDS = "HOLDS"
    FAIL = "FAIL"
    MISSING = "MISSING"
    WAITING = "WAITING"


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Passes when `value` is on the right side of `goal` and `bound` on that of `limit`; fails when
    `value` itself lies beyond `limit`; holds in between.
    `at_least` says which side is right.  `n` observations in `groups` groups tell as much as
    `effective` independent ones.
    """

    key: str
    title: str
    outcome: Outcome
    value: float | None
    bound: float | None
    goal: float
    limit: float
    at_least: bool
    n: int
    groups: int
    effective: float
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {**dataclasses.asdict(self), "outcome": self.outcome.value}


def run_checks(evidence: Evidence, settings: GateSettings) -> tuple[Check, ...]:
    """All checks of METRICS: people's judgement, steering, repetition, endings, loss, working time."""
    return (
        *people_checks(evidence.turns, settings),
        *control_checks(evidence.steered, evidence.human, settings),
        *reply_checks(evidence.steered, settings),
        loss_check(evidence.losses, settings),
        time_check(evidence.times, settings),
    )


def people_checks(turns: Sequence[JudgedTurn], settings: GateSettings) -> tuple[Check, Check, Check, Check]:
    """Edit distance, share kept, share rewritten, over the last `window` judged turns; a drop in the share kept."""
    recent = turns[-settings.window :]
    groups = bounds.codes([turn.group for turn in recent])
    distance = np.array([turn.distance for turn in recent])
    level = settings.confidence
    short = ""
    if len(recent) < settings.least_turns:
        short = (
            f"{len(recent)} of {settings.least_turns} judged turns; "
            "correct more drafts, or run a review round (`aku review start`)"
        )
    return (
        _check(
            "median_edit",
            "median edit distance, draft to what was kept",
            bounds.median(distance, groups, level),
            settings.median_edit,
            settings.median_edit_limit,
            at_least=False,
            short=short,
        ),
        _check(
            "kept",
            f"share of drafts kept (edited less than {settings.kept_distance:g})",
            bounds.share(distance < settings.kept_distance, groups, level),
            settings.kept,
            settings.kept_limit,
            at_least=True,
            short=short,
        ),
        _check(
            "rewritten",
            f"share of drafts rewritten (edited more than {settings.rewritten_distance:g})",
            bounds.share(distance > settings.rewritten_distance, groups, level),
            settings.rewritten,
            settings.rewritten_limit,
            at_least=False,
            short=short,
        ),
        drop_check(turns, settings),
    )


def drop_check(turns: Sequence[JudgedTurn], settings: GateSettings) -> Check:
    """Share kept of the last `least_turns` drafts over that of all before; fails when it has surely fallen.

    A model whose drafts were kept seven times in ten stays above every limit when that halves, so the
    limits alone would not notice.  Only drafts count, since people may rate more kindly in a review
    than they correct; waits (and blocks nothing) until there are as many before.
    """
    drafts = [turn for turn in turns if turn.origin == "draft"]
    recent, before = drafts[-settings.least_turns :], drafts[: -settings.least_turns]

    def share(part: Sequence[JudgedTurn]) -> Estimate:
        kept = np.array([turn.distance < settings.kept_distance for turn in part])
        return bounds.share(kept, bounds.codes([turn.group for turn in part]), settings.confidence)

    now, then = share(recent), share(before)
    found = bounds.ratio_of_shares(now, then, settings.confidence)
    title = f"share of drafts kept, the last {len(recent)} over all before"
    words = f"upper bound {found.upper:.3f} (limit {settings.kept_drop:g})"
    if len(before) < settings.least_turns:
        outcome = Outcome.WAITING
        few = f"{len(drafts)} corrected drafts, {2 * settings.least_turns} are needed"
        reason = f"{few}; this check waits and blocks nothing"
    elif found.upper < settings.kept_drop:
        outcome = Outcome.FAIL
        reason = f"{now.value:.0%} kept where it was {then.value:.0%}: surely fewer than before, {words}"
    else:
        outcome, reason = Outcome.PASS, f"{now.value:.0%} kept, {then.value:.0%} before: {words}"
    mark = settings.kept_drop
    numbers = (_number(found.value), _number(found.upper), mark, mark)
    return Check("kept_drop", title, outcome, *numbers, True, found.n, found.groups, round(found.effective, 2), reason)


def control_checks(
    steered: Sequence[SteeredReply], human: Sequence[HumanTurns], settings: GateSettings
) -> tuple[Check, Check]:
    """Spearman correlation of wanted and heard level for both attributes, bounded over scenes.

    A judge that does not surely hear the levels in human turns themselves proves nothing about a
    model, whatever it says: then the check has no evidence.
    """
    groups = bounds.codes([reply.scene for reply in steered])
    owners = bounds.codes([turns.dialogue for turns in human])
    wanted = {"closeness": [r.closeness for r in steered], "mood": [r.mood for r in steered]}
    heard = {"closeness": [r.heard_closeness for r in steered], "mood": [r.heard_mood for r in steered]}
    true = {"closeness": [h.closeness for h in human], "mood": [h.mood for h in human]}
    judged = {"closeness": [h.heard_closeness for h in human], "mood": [h.heard_mood for h in human]}

    def check(key: str) -> Check:
        top = bounds.correlation(true[key], judged[key], owners, settings.confidence)
        short = ""
        if not steered:
            short = "no evaluation yet; run `aku evaluate`"
        elif not top.lower >= settings.control_limit:
            short = (
                f"the judge itself hears {key} in human turns with only {top.value:.2f} (lower bound {top.lower:.2f}); "
                "write more dialogues by hand"
            )
        return _check(
            f"control_{key}",
            f"control of {key}, Spearman",
            bounds.correlation(wanted[key], heard[key], groups, settings.confidence),
            settings.control,
            settings.control_limit,
            at_least=True,
            short=short,
        )

    return check("closeness"), check("mood")


def reply_checks(steered: Sequence[SteeredReply], settings: GateSettings) -> tuple[Check, Check]:
    """Shares of replies that repeat, and that end properly, bounded over scenes."""
    rows = [(reply.scene, said) for reply in steered for said in reply.replies]
    groups = bounds.codes([scene for scene, _ in rows])
    repeats = np.array([said.repetition is not None for _, said in rows], dtype=bool)
    proper = np.array([said.ending is None for _, said in rows], dtype=bool)
    short = "" if rows else "no evaluation yet; run `aku evaluate`"
    units, level = len(steered), settings.confidence
    return (
        _check(
            "repetition",
            "share of replies with a loop or a copy",
            bounds.share(repeats, groups, level, units),
            settings.repetition,
            settings.repetition_limit,
            at_least=False,
            short=short,
        ),
        _check(
            "endings",
            "share of replies that end properly",
            bounds.share(proper, groups, level, units),
            settings.endings,
            settings.endings_limit,
            at_least=True,
            short=short,
        ),
    )


def loss_check(losses: Sequence[HeldOutLoss], settings: GateSettings) -> Check:
    """Held-out loss minus the base's, weighted by tokens, bounded over dialogues."""
    found = bounds.weighted_mean(
        [loss.checkpoint - loss.base for loss in losses], [loss.tokens for loss in losses], settings.confidence
    )
    short = "" if losses else "no held-out loss yet; run `aku evaluate`"
    title = "held-out loss minus the base's, nats a token"
    return _check("loss", title, found, settings.loss, settings.loss, at_least=False, short=short, strict=True)


def time_check(times: Sequence[WorkTime], settings: GateSettings) -> Check:
    """Seconds per Aku turn, drafted against blind; waits (and blocks nothing) until both arms are large enough."""
    arms = {arm: [t.seconds / t.turns for t in times if t.arm == arm] for arm in ("drafted", "blind")}
    found = bounds.ratio_of_geometric_means(arms["drafted"], arms["blind"], settings.confidence)
    fewest = min(map(len, arms.values()))
    waiting = ""
    if fewest < settings.least_arm:
        sizes = f"{len(arms['drafted'])} drafted and {len(arms['blind'])} blind dialogues"
        waiting = f"{sizes}, {settings.least_arm} of each are needed; this check waits and blocks nothing"
    title = "working time per turn against the blind arm, ratio"
    check = _check("time", title, found, settings.time, settings.time_limit, at_least=False, short=waiting)
    return dataclasses.replace(check, outcome=Outcome.WAITING) if waiting else check


def _check(
    key: str,
    title: str,
    found: Estimate,
    goal: float,
    limit: float,
    *,
    at_least: bool,
    short: str,
    strict: bool = False,
) -> Check:
    bound = found.lower if at_least else found.upper
    words = ("at least", "lower") if at_least else ("below" if strict else "at most", "upper")
    if short:
        outcome, reason = Outcome.MISSING, short
    elif math.isnan(bound):
        outcome, reason = Outcome.MISSING, f"{found.groups} group(s) are too few for a bound; evaluate on more"
    elif not _within(found.value, limit, at_least, strict):
        outcome, reason = Outcome.FAIL, f"{found.value:.3f} where {words[0]} {goal:g} is wanted"
    elif not _within(found.value, goal, at_least, strict):
        outcome, reason = Outcome.HOLDS, f"{found.value:.3f} where {words[0]} {goal:g} is wanted"
    elif not _within(bound, limit, at_least, strict):
        outcome = Outcome.HOLDS
        reason = f"its {words[1]} bound {bound:.3f} crosses the limit {limit:g}: good, but not surely good enough"
    else:
        outcome = Outcome.PASS
        reason = f"{found.value:.3f} ({words[0]} {goal:g}), {words[1]} bound {bound:.3f} (limit {limit:g})"
    return Check(
        key,
        title,
        outcome,
        _number(found.value),
        _number(bound),
        goal,
        limit,
        at_least,
        found.n,
        found.groups,
        round(found.effective, 2),
        reason,
    )


def _within(value: float, mark: float, at_least: bool, strict: bool) -> bool:
    if strict:
        return value > mark if at_least else value < mark
    return value >= mark if at_least else value <= mark


def _number(value: float) -> float | None:
    """Six decimals, or None for what JSON has no word for."""
    return round(value, 6) if math.isfinite(value) else None
