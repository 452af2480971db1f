"""The status page: one small HTML page, in Japanese, that refreshes itself."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

_ROWS = (
    ("engine", "エンジン"),
    ("gate", "ゲート"),
    ("version", "使用中のチェックポイント"),
    ("loading", "読み込み中"),
    ("queued", "待っているカード"),
    ("running", "下書き中のカード"),
    ("drafts_per_second", "下書き／秒（直近1分）"),
    ("tokens_per_second", "トークン／秒（直近1分）"),
    ("drafts_total", "下書きの合計"),
    ("failed_total", "失敗の合計"),
    ("swaps", "切り替え回数"),
)

_HEAD = """<!doctype html><html lang="ja"><meta charset="utf-8"><meta http-equiv="refresh" content="5">
<title>Aku ML backend</title>
<style>
body { font: 15px/1.7 sans-serif; max-width: 720px; margin: 2em auto; padding: 0 1em; color-scheme: light dark }
th { text-align: left; padding-right: 2em; font-weight: 600 }
td { font-variant-numeric: tabular-nums }
time { opacity: .6 }
</style>
<h1>下書きサーバーの状態</h1>
"""


def status_page(status: Mapping[str, Any]) -> str:
    """Return the page for what /status says."""
    engine = status.get("engine") or {}
    values = {
        **engine,
        "engine": "動作中" if status.get("engine") else "停止中（自動で再起動します）",
        "gate": "開いている（下書きあり）" if status["gate_open"] else "閉じている（下書きなし）",
        "version": status["version"],
        "loading": "、".join(engine.get("loading") or ()) or "なし",
    }
    rows = "".join(
        f"<tr><th>{label}</th><td>{html.escape(str(values.get(key, '–')))}</td></tr>" for key, label in _ROWS
    )
    errors = "".join(
        f"<li><time>{html.escape(error['at'])}</time> {html.escape(error['error'])}</li>"
        for error in reversed(status["errors"])
    )
    listed = errors or "<li>なし</li>"
    return f"{_HEAD}<table>{rows}</table><h2>最近のエラー</h2><ul>{listed}</ul></html>"
