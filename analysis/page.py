"""The report as one self-contained HTML page: no network, no scripts from elsewhere, dark-mode aware.

Everything that comes from dialogues is escaped here; data for scripts is JSON in which `<`, `>` and
`&` are written as escapes, so that no text can end the script element.
"""

from __future__ import annotations

import json
from html import escape
from importlib import resources

from analysis.drawing import draw
from analysis.fonts import FAMILY, embedded_font
from analysis.results import Fact, Report, Table, Test, Verdict, View

_MARK = {Verdict.OK: "●", Verdict.UNKNOWN: "○", Verdict.WATCH: "▲", Verdict.FIX: "■"}


def page(report: Report, note: str = "") -> str:
    """Return the whole page."""
    body = "\n".join([_head(report, note), *map(_view, report.views), _foot(report)])
    font = embedded_font(body)
    css = resources.files("analysis").joinpath("templates/report.css").read_text(encoding="utf-8")
    js = resources.files("analysis").joinpath("templates/report.js").read_text(encoding="utf-8")
    face = (
        f"@font-face{{font-family:'{FAMILY}';font-display:block;"
        f"src:url(data:font/woff2;base64,{font}) format('woff2')}}"
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; font-src data:; img-src data:"
    return (
        '<!doctype html>\n<html lang="ja">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>偏りレポート {escape(report.version)}</title>\n"
        f"<style>{face}\n{css}</style>\n</head>\n<body>\n{body}\n<script>{js}</script>\n</body>\n</html>\n"
    )


def safe_json(value: object) -> str:
    """JSON that is safe inside a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "&<>\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def badge(verdict: Verdict) -> str:
    """The verdict as a word with a mark (never by colour alone)."""
    mark = f'<span aria-hidden="true">{_MARK[verdict]}</span>'
    return f'<span class="badge {verdict.value.lower()}">{mark} {verdict.word}</span>'


def _head(report: Report, note: str) -> str:
    share = min(1.0, report.n / max(1, report.goal))
    rows = "".join(
        f'<li><a href="#{escape(v.key)}"><span>{escape(v.title)}</span>{badge(v.verdict)}</a></li>'
        for v in report.views
    )
    advice = report.advice
    todo = "".join(f"<li>{badge(v)}<p>{escape(s)}<small>{escape(title)}</small></p></li>" for v, title, s in advice[:6])
    if not advice:
        todo = f"<li>{badge(report.verdict)}<p>{escape(_calm(report))}</p></li>"
    cards = "".join(f"<li>{escape(card.text)}<small>{escape(card.reason)}</small></li>" for card in report.next_cards)
    version = f"データ <b>{escape(report.version)}</b>" if report.version else "データ"
    return (
        f'<header class="top"><p class="kicker">偏りレポート</p><h1>つぎに書くもの</h1>'
        f'<p class="lead">{version} ・ {report.n:,} / {report.goal:,} 件</p>'
        f'<div class="progress" role="img" aria-label="目標 {report.goal:,} 件のうち {report.n:,} 件">'
        f'<i style="width:{share * 100:.2f}%"></i></div>{_paragraph(note)}</header>\n'
        f'<main><section class="first"><div class="todo"><h2>すること</h2><ol>{todo}</ol></div>'
        f'<div class="cards"><h2>つぎのカード</h2><ol>{cards}</ol></div>'
        f'<nav aria-label="観点"><h2>観点ごとの判定</h2><ul>{rows}</ul></nav></section>'
    )


def _calm(report: Report) -> str:
    if report.verdict is Verdict.UNKNOWN:
        return "まだ件数が少なく、偏りについては何も言えない。右のカードから書き始める。"
    return "目立った偏りはない。つぎのカードをそのまま書けばよい。"


def _view(view: View) -> str:
    lines = [("いま", view.is_now), ("計画", view.planned), ("偶然", view.chance)]
    facts = "".join(f"<dt>{k}</dt><dd>{escape(v)}</dd>" for k, v in lines if v)
    return (
        f'<section class="view" id="{escape(view.key)}"><h2>{escape(view.title)} {badge(view.verdict)}</h2>'
        f"<dl>{facts}</dl>{''.join(map(_fact, view.facts))}"
        f"{''.join(draw(f, safe_json) for f in view.figures)}{_tests(view.tests)}"
        f"{''.join(map(table, view.tables))}</section>"
    )


def _fact(fact: Fact) -> str:
    return f'<p class="fact">{badge(fact.verdict)} {escape(fact.text)}</p>'


def _tests(tests: tuple[Test, ...]) -> str:
    if not tests:
        return ""
    names = ("問い", "大きさ", "統計量", "p", "p（Holm）", "判定")

    def row(test: Test) -> str:
        cells = (escape(test.detail), f"{escape(test.statistic)} {test.value:g}", _p(test.p), _p(test.p_holm))
        tds = "".join(f'<td data-k="{name}">{cell}</td>' for name, cell in zip(names[1:5], cells, strict=True))
        return f"<tr><th scope=row>{escape(test.question)}</th>{tds}<td>{badge(test.verdict)}</td></tr>"

    rows = "".join(map(row, tests))
    head = "".join(f"<th scope=col>{name}</th>" for name in names)
    return (
        f'<div class="scroll" tabindex="0"><table class="tests"><caption>検定</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def table(content: Table) -> str:
    """An HTML table that folds away."""
    links = {(row, column): address for row, column, address in content.links}

    def cell(text: str, row: int, column: int) -> str:
        address = links.get((row, column))
        inner = escape(text)
        return f'<a href="{escape(address)}" rel="noreferrer">{inner}</a>' if address else inner

    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in content.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{cell(text, i, j)}</td>" for j, text in enumerate(row)) + "</tr>"
        for i, row in enumerate(content.rows)
    )
    return (
        f"<details><summary>{escape(content.title)}</summary>{_paragraph(content.note)}"
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        "</details>"
    )


def _p(value: float) -> str:
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def _paragraph(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>' if text else ""


def _foot(report: Report) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return (
        "</main><footer><p>判定は、全検定をまとめて補正した p（Holm）と、偏りの大きさの両方で決める。"
        "「よい」は偏りが見つからなかったこと、「見守る」は小さいか意図したものかもしれないこと、"
        f"「直す」ははっきりした偏りがあることを表す。</p><ul>{notes}</ul></footer>"
    )
