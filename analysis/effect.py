"""What drafting does to people's work: edits and working time by checkpoint, beside the blind arm."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis import gate_bounds as bounds
from analysis.gate_bounds import NOTHING, Estimate
from analysis.gate_evidence import judged_turns, work_times
from analysis.gate_settings import GateSettings
from analysis.results import Fact, Table, Verdict, View
from dialogue.records import Dialogue


@dataclasses.dataclass(frozen=True, slots=True)
class Effect:
    """The work done on one checkpoint's drafts.

    `median_edit`, `kept`, `rewritten`: over Aku's drafted turns; `seconds_per_turn` and
    `seconds_per_dialogue` are medians, of the drafted dialogues and of the blind ones of the same time;
    `ratio` compares the arms (geometric means of seconds per turn), NaN until both exist.
    """

    checkpoint: str
    dialogues: int
    turns: int
    median_edit: Estimate
    kept: Estimate
    rewritten: Estimate
    seconds_per_turn: float
    seconds_per_dialogue: float
    blind_dialogues: int
    blind_seconds_per_turn: float
    blind_seconds_per_dialogue: float
    ratio: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        from analysis.steering import plain

        return plain(dataclasses.asdict(self))  # type: ignore[return-value]  # a dictionary in, a dictionary out


def effects(dialogues: Sequence[Dialogue], blind_share: float, settings: GateSettings | None = None) -> list[Effect]:
    """Measure the work on every checkpoint's drafts, the earliest checkpoint first."""
    chosen = settings or GateSettings()
    first: dict[str, str] = {}
    for d in dialogues:
        if d.source.checkpoint and d.source.edits:
            at = d.source.created_at or ""
            first[d.source.checkpoint] = min(at, first.get(d.source.checkpoint, at))
    return [
        effect(dialogues, name, blind_share, chosen) for name in sorted(first, key=lambda name: (first[name], name))
    ]


def effect(dialogues: Sequence[Dialogue], checkpoint: str, blind_share: float, settings: GateSettings) -> Effect:
    """Measure the work on one checkpoint's drafts."""
    turns = judged_turns(dialogues, checkpoint)
    groups = bounds.codes([turn.group for turn in turns])
    distance = np.array([turn.distance for turn in turns])
    times = work_times(dialogues, checkpoint, blind_share, settings.longest_work)
    arms = {arm: [t for t in times if t.arm == arm] for arm in ("drafted", "blind")}
    per_turn = {arm: [t.seconds / t.turns for t in found] for arm, found in arms.items()}
    whole = {arm: [t.seconds for t in found] for arm, found in arms.items()}
    level = settings.confidence
    ratio = NOTHING
    if per_turn["drafted"] and per_turn["blind"]:
        ratio = bounds.ratio_of_geometric_means(per_turn["drafted"], per_turn["blind"], level)
    return Effect(
        checkpoint=checkpoint,
        dialogues=len({turn.group for turn in turns}),
        turns=len(turns),
        median_edit=bounds.median(distance, groups, level),
        kept=bounds.share(distance < settings.kept_distance, groups, level),
        rewritten=bounds.share(distance > settings.rewritten_distance, groups, level),
        seconds_per_turn=_median(per_turn["drafted"]),
        seconds_per_dialogue=_median(whole["drafted"]),
        blind_dialogues=len(arms["blind"]),
        blind_seconds_per_turn=_median(per_turn["blind"]),
        blind_seconds_per_dialogue=_median(whole["blind"]),
        ratio=ratio,
    )


def effect_view(found: Sequence[Effect]) -> View:
    """The effect on people's work as a view of the report."""
    if not found:
        text = "下書きから作った会話はまだない。"
        return View("effect", "下書きの効きめ", is_now=text, facts=(Fact(text, Verdict.UNKNOWN),))
    last = found[-1]
    rows = tuple(
        (
            e.checkpoint,
            f"{e.dialogues}件・{e.turns}ターン",
            _interval(e.median_edit, "{:.2f}"),
            _interval(e.kept, "{:.0%}"),
            _interval(e.rewritten, "{:.0%}"),
            f"{_seconds(e.seconds_per_turn)} / {_seconds(e.seconds_per_dialogue)}",
            f"{_seconds(e.blind_seconds_per_turn)} / {_seconds(e.blind_seconds_per_dialogue)}（{e.blind_dialogues}件）",
            _interval(e.ratio, "{:.2f}倍"),
        )
        for e in found
    )
    columns = (
        "チェックポイント",
        "下書き",
        "編集距離の中央値",
        "そのまま",
        "書き直し",
        "時間（ターン / 会話）",
        "下書きなしの時間",
        "時間の比",
    )
    saved = "" if math.isnan(last.ratio.value) else f"、時間は下書きなしの{last.ratio.value:.2f}倍"
    return View(
        "effect",
        "下書きの効きめ",
        is_now=f"{last.checkpoint}: そのまま使われた下書き {last.kept.value:.0%}、"
        f"書き直し {last.rewritten.value:.0%}{saved}",
        planned="そのまま40%以上、書き直し20%以下、時間0.7倍以下（ゲートの目安）",
        tables=(
            Table(
                "チェックポイントごとの下書きの効きめ",
                columns,
                rows,
                note="括弧は片側95%の限界（下・上）。下書きなしは、くじで下書きを見せないカード（盲検群）を同じ時期に書いた会話。",
            ),
        ),
        numbers={"effects": [e.to_dict() for e in found]},
    )


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan


def _seconds(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0f}秒"


def _interval(found: Estimate, form: str) -> str:
    if math.isnan(found.value):
        return "–"
    if not (math.isfinite(found.lower) and math.isfinite(found.upper)):
        return form.format(found.value)
    return f"{form.format(found.value)}（{form.format(found.lower)}–{form.format(found.upper)}）"
