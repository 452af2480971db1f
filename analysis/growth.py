"""Growth towards the goal, by day or month, from the dates in the records themselves."""

from __future__ import annotations

import collections
import datetime

from analysis.features import KINDS, Features
from analysis.figures import Line, LineChart
from analysis.results import Fact, Verdict, View
from analysis.settings import ReportSettings
from analysis.tables import line_table


def growth_view(data: Features, settings: ReportSettings) -> View:
    """Cumulative dialogues over time, written by hand and drafted, and when the goal comes at this pace."""
    dates = [day for d in data.dialogues if (day := _day(d.source.created_at))]
    left = max(0, settings.goal - data.n)
    is_now = f"{data.n:,} / {settings.goal:,} 件（あと {left:,} 件）"
    if len(set(dates)) < 2:
        fact = Fact("日付のある会話が2日分そろうと、増え方を描ける。", Verdict.UNKNOWN)
        return View("growth", "増え方", is_now=is_now, facts=(fact,), numbers={"n": data.n, "goal": settings.goal})
    first, last = min(dates), max(dates)
    by_day = (last - first).days <= 92
    steps = _steps(first, last, by_day)
    index = {step: i for i, step in enumerate(steps)}
    added = {False: [0] * len(steps), True: [0] * len(steps)}
    for dialogue in data.dialogues:
        if day := _day(dialogue.source.created_at):
            added[dialogue.source.kind == KINDS[1]][index[_label(day, by_day)]] += 1
    undated = data.n - len(dates)
    hand, drafted = _sums(added[False], undated), _sums(added[True], 0)
    total = tuple(a + b for a, b in zip(hand, drafted, strict=True))
    lines = [Line("合計", total)]
    if drafted[-1]:
        lines += [Line("手書き", hand), Line("下書きから", drafted)]
    recent = sum(1 for day in dates if (last - day).days < 28)
    pace = recent / min(28, max(1, (last - first).days + 1)) * 7
    forecast = ""
    if left and pace > 0:
        due = last + datetime.timedelta(days=round(left / pace * 7))
        forecast = f"最近4週間は週{pace:.0f}件。このペースなら{due.year}年{due.month}月ごろに{settings.goal:,}件"
    undated_note = f"日付のない{undated}件ははじめから数えている。" if undated else ""
    chart = LineChart(
        "growth",
        "件数の増え方",
        f"{steps[0]}から{steps[-1]}までの件数の推移。今は{data.n:,}件、目標は{settings.goal:,}件。{forecast}。",
        tuple(steps),
        tuple(lines),
        goal=float(settings.goal),
    )
    return View(
        "growth",
        "増え方",
        is_now=is_now,
        planned=f"{settings.goal:,}件",
        chance=forecast,
        facts=(Fact(f"最近4週間は週{pace:.0f}件。{undated_note}"),),
        figures=(chart,),
        tables=(line_table(chart),),
        numbers={"n": data.n, "goal": settings.goal, "pace_per_week": round(pace, 2)},
    )


def _day(text: str | None) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat((text or "")[:10])
    except ValueError:
        return None


def _label(day: datetime.date, by_day: bool) -> str:
    return day.isoformat() if by_day else day.isoformat()[:7]


def _steps(first: datetime.date, last: datetime.date, by_day: bool) -> list[str]:
    days = [first + datetime.timedelta(days=i) for i in range((last - first).days + 1)]
    return list(collections.OrderedDict.fromkeys(_label(day, by_day) for day in days))


def _sums(added: list[int], start: int) -> tuple[float, ...]:
    total, sums = float(start), []
    for count in added:
        total += count
        sums.append(total)
    return tuple(sums)
