"""The evaluation as one self-contained page: control matrix, measures with error bars, losses, samples."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Sequence
from html import escape
from importlib import resources

from analysis.fonts import FAMILY, embedded_font
from analysis.steering import CHANCE, Ceiling, Control, Measure, Steering
from dialogue.records import CLOSENESS_MEANING, MOOD_MEANING, Attribute, Turn


@dataclasses.dataclass(frozen=True, slots=True)
class SampleReply:
    """One reply to a sample scene; `origin` is "human", "base", or a checkpoint's id."""

    letter: str
    origin: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """A held-out scene up to one of Aku's turns, and how people and models go on, in random order."""

    context: str
    attribute: Attribute
    before: tuple[Turn, ...]
    replies: tuple[SampleReply, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Loss:
    """A held-out loss, nats a token of Aku: name of the row, value with interval."""

    name: str
    measure: Measure


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """All that one evaluation found."""

    checkpoint: str
    dataset: str
    steering: Steering | None
    ceiling: Ceiling | None
    human_politeness: Measure | None
    losses: tuple[Loss, ...]
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()


def page(found: Evaluation, picture: bytes | None) -> str:
    """Return the page; `picture` is the control matrix as PNG."""
    body = "\n".join(
        [
            '<header class="top"><p class="kicker">モデルの評価</p><h1>属性どおりに話せるか</h1>'
            f'<p class="lead">チェックポイント <b>{escape(found.checkpoint)}</b> ・ データ <b>{escape(found.dataset)}'
            "</b></p></header><main>",
            *(f'<p class="note">{escape(note)}</p>' for note in found.notes),
            _matrix(found, picture),
            _controls(found),
            _losses(found.losses),
            _samples(found.samples),
            "</main><footer><p>値のうしろの括弧は90%区間（場面ごと、人の文は会話ごとに引き直したブートストラップ）。"
            "「判定器の上限」は、同じ判定器が学習に使っていない人の文を聞いた成績で、モデルはこれを超えられない。"
            "レベルは推定で、人の評価は `aku review` で集める。</p></footer>",
        ]
    )
    return html_page(f"モデルの評価 {found.checkpoint}", body)


def html_page(title: str, body: str) -> str:
    """Wrap a body into a page that needs no network: the report's style sheet, and a font of just its characters."""
    css = resources.files("analysis").joinpath("templates/report.css").read_text(encoding="utf-8")
    face = (
        f"@font-face{{font-family:'{FAMILY}';font-display:block;"
        f"src:url(data:font/woff2;base64,{embedded_font(title + body)}) format('woff2')}}"
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; font-src data:; img-src data:"
    return (
        '<!doctype html>\n<html lang="ja">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>{face}\n{css}\nimg{{max-width:100%;height:auto;background:#fff;border-radius:8px}}</style>\n"
        f"</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def shown(measure: Measure | None, percent: bool = False) -> str:
    """A measure in words: value and interval, or a dash."""
    if measure is None or math.isnan(measure.value):
        return "–"
    scale, form = (100, "{:.0f}%") if percent else (1, "{:.2f}")
    text = form.format(scale * measure.value)
    if math.isnan(measure.low):
        return text
    return f"{text}（{form.format(scale * measure.low)}–{form.format(scale * measure.high)}）"


def _section(key: str, title: str, inner: str) -> str:
    return f'<section class="view" id="{key}"><h2>{title}</h2>{inner}</section>'


def _matrix(found: Evaluation, picture: bytes | None) -> str:
    if found.steering is None or picture is None:
        return ""
    s = found.steering
    alt = (
        f"{s.scenes}場面に25ペアで答えさせ、聞こえたレベルを色で示した3枚の図。"
        f"親密さの順位相関{s.closeness.spearman.value:.2f}、機嫌の順位相関{s.mood.spearman.value:.2f}。"
    )
    data = base64.b64encode(picture).decode("ascii")
    return _section(
        "matrix",
        "25ペアの対応",
        f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{data}"></figure>'
        f'<p class="note">{s.scenes}場面 × 25ペア、応答 {s.replies}。'
        "場面はどのペアでも同じなので、違いは属性の働き。</p>",
    )


def _controls(found: Evaluation) -> str:
    if found.steering is None:
        return ""
    s, c = found.steering, found.ceiling

    def row(name: str, model: str, top: str = "–", chance: str = "–") -> tuple[str, ...]:
        return name, model, top, chance

    def control(name: str, model: Control, top: Control | None) -> list[tuple[str, ...]]:
        return [
            row(f"{name}: 順位相関（Spearman）", shown(model.spearman), shown(top.spearman if top else None), "0"),
            row(f"{name}: 場面ごとの順位相関", shown(model.within_scene)),
            row(
                f"{name}: 一致",
                shown(model.exact, True),
                shown(top.exact if top else None, True),
                f"{CHANCE['exact']:.0%}",
            ),
            row(
                f"{name}: 1段階以内",
                shown(model.within_one, True),
                shown(top.within_one if top else None, True),
                f"{CHANCE['within_one']:.0%}",
            ),
            row(f"{name}: 隣り合う段階の順が正しい", shown(model.monotone, True), chance="50%"),
            row(f"{name}: もう一方の属性からの漏れ", shown(model.leak), shown(top.leak if top else None), "0"),
        ]

    rows = control("親密さ", s.closeness, c.closeness if c else None)
    rows += control("機嫌", s.mood, c.mood if c else None)
    rows += [
        row("ていねいさの一貫性", shown(s.politeness, True), shown(found.human_politeness, True)),
        row("くり返し・丸写し", shown(s.repetition, True)),
        row("正しく終わる", shown(s.endings, True)),
    ]
    return _section("controls", "ものさし", table(("", "モデル", "判定器の上限・人", "偶然"), rows))


def _losses(losses: Sequence[Loss]) -> str:
    if not losses:
        return ""
    rows = [(loss.name, shown(loss.measure)) for loss in losses]
    note = '<p class="note">学習に使わなかった会話の、Akuの発話1トークンあたり。低いほどよい。</p>'
    return _section("losses", "取り置いた会話での損失", table(("", "nats / トークン"), rows) + note)


def _samples(samples: Sequence[Sample]) -> str:
    if not samples:
        return ""
    parts, key = [], []
    for number, sample in enumerate(samples, 1):
        a = sample.attribute
        said = "".join(f"<li><b>{turn.speaker}</b> {escape(turn.text)}</li>" for turn in sample.before)
        replies = "".join(
            f"<li><b>{reply.letter}</b> {escape(reply.text) or '（空）'}</li>" for reply in sample.replies
        )
        parts.append(
            f"<details open><summary>{number}. {escape(sample.context)}（親密さ {a.closeness} "
            f"{CLOSENESS_MEANING[a.closeness]}、機嫌 {a.mood} {MOOD_MEANING[a.mood]}）</summary>"
            f"<ul>{said}</ul><p>Akuはどう続けた？</p><ul>{replies}</ul></details>"
        )
        key += [(str(number), reply.letter, reply.origin) for reply in sample.replies]
    answers = table(("例", "記号", "書いたのは"), key)
    return _section(
        "samples", "並べて読む", "".join(parts) + f"<details><summary>答え合わせ</summary>{answers}</details>"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of text cells, the first one a row's heading."""
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr><th scope=row>{escape(row[0])}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="tests"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
