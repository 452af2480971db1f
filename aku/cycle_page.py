"""The page at the end of a round: stage, gate with its reasons, effect on people's work, where to read on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from aku import evaluation, status
from aku.commands.report import latest_dialogues
from aku.cycle import Step
from aku.gatekeeping import now
from analysis.effect import effect_view, effects
from analysis.gate_settings import GateSettings
from analysis.page import table as folded
from analysis.steering_page import html_page, table
from dialogue.files import atomic_open
from dialogue.settings import Workspace, load_section

STEP_NAMES = {
    "export": "書き出し",
    "train": "学習",
    "evaluate": "評価",
    "gate": "ゲート",
    "draft": "下書き",
    "report": "偏りレポート",
    "plan": "カード",
}
CHECK_NAMES = {
    "median_edit": "下書きから採用文までの編集距離（中央値）",
    "kept": "そのまま使われた下書き",
    "rewritten": "書き直された下書き",
    "kept_drop": "そのまま使われた下書き、以前との比",
    "control_closeness": "親密さの制御（順位相関）",
    "control_mood": "機嫌の制御（順位相関）",
    "repetition": "くり返し・丸写し",
    "endings": "正しく終わる",
    "loss": "取り置いた会話での損失、ベースとの差",
    "time": "作業時間、下書きなしとの比",
}
OUTCOMES = {
    "PASS": "合格",
    "HOLDS": "開くには足りないが、閉じるほどではない",
    "FAIL": "不合格",
    "MISSING": "材料がない",
    "WAITING": "まだ判断しない",
}


def write_page(workspace: Workspace, steps: Sequence[Step]) -> Path:
    """Write `cycle/index.html` and return its path."""
    from ml_backend.settings import BackendSettings

    facts = status.gather(workspace)
    share = load_section(workspace.settings, "backend", BackendSettings).blind_share
    found = effects(latest_dialogues(workspace), share, load_section(workspace.settings, "gate", GateSettings))
    path = workspace.home / "cycle" / "index.html"
    body = "\n".join(
        [
            f'<header class="top"><p class="kicker">{escape(now())}</p><h1>ひとまわりの結果</h1>'
            f'<p class="lead">段階 <b>{escape(facts.stage)}</b> ・ つぎ: {escape(facts.next)}</p></header><main>',
            _section("やったこと", table(("", "", "結果"), [_step(step) for step in steps])),
            _gate(facts.gate, facts.checkpoint),
            _section("下書きの効きめ", _effect(found)),
            _section("くわしく", _links(workspace, facts, path.parent)),
            "</main>",
        ]
    )
    with atomic_open(path) as handle:
        handle.write(html_page("ひとまわりの結果", body))
    return path


def _section(title: str, inner: str) -> str:
    return f'<section class="view"><h2>{title}</h2>{inner}</section>'


def _step(step: Step) -> tuple[str, str, str]:
    return STEP_NAMES[step.name], "実行" if step.done else "そのまま", step.note


def _gate(record: Mapping[str, Any], checkpoint: str | None) -> str:
    if checkpoint is None:
        return _section("ゲート", '<p class="fact">チェックポイントはまだない。</p>')
    state = "開いている（モデルが下書きする）" if record.get("open") else "閉じている（人が書く）"
    order = record.get("forced")
    forced = ""
    if isinstance(order, Mapping):
        word = "開く" if order["to"] == "open" else "閉じる"
        told = f"人の指示で{word}: {order['reason']}（{order['by']}、{order['at']}）"
        forced = f'<p class="fact"><b>{escape(told)}</b></p>'
    elif order:
        forced = f'<p class="fact"><b>人の指示で開いている: {escape(str(record.get("reason", "")))}</b></p>'
    rows = [
        (
            CHECK_NAMES.get(check["key"], check["key"]),
            _number(check["value"]),
            f"{'≥' if check['at_least'] else '≤'} {check['goal']:g}",
            _number(check["bound"]),
            f"{check['limit']:g}",
            str(check["n"]),
            OUTCOMES.get(check["outcome"], check["outcome"]),
        )
        for check in record.get("checks") or ()
    ]
    columns = ("", "値", "目安", "片側95%の限界", "許せる限界", "件数", "判定")
    checks = table(columns, rows) if rows else '<p class="note">まだ判定していない。</p>'
    return _section("ゲート", f'<p class="fact">{escape(checkpoint)}: {state}</p>{forced}{checks}')


def _effect(found: Sequence[Any]) -> str:
    view = effect_view(found)
    return f'<p class="fact">{escape(view.is_now)}</p>' + "".join(map(folded, view.tables))


def _links(workspace: Workspace, facts: status.Status, here: Path) -> str:
    places = [("偏りレポート", Path(facts.report) if facts.report else None)]
    folder = evaluation.newest(workspace, facts.checkpoint) if facts.checkpoint else None
    places.append(("モデルの評価", folder / "index.html" if folder else None))
    items = [
        f'<li><a href="{escape(os.path.relpath(path, here))}">{name}</a></li>'
        for name, path in places
        if path is not None
    ]
    return f"<ul>{''.join(items)}</ul>" if items else '<p class="note">まだない。</p>'


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
