"""Writes a report into a folder: `index.html`, `report.json`, `report.md` and one PNG a figure."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from analysis.page import page
from analysis.pictures import png
from analysis.results import Report, Table
from dialogue import files


def write_report(report: Report, folder: Path, *, note: str = "") -> Path:
    """Write all files, each atomically, and return the path of `index.html`, which comes last.

    Equal reports give equal bytes.  Raises `FileError` if the folder can not be written.
    """
    for view in report.views:
        for figure in view.figures:
            with files.atomic_open(folder / f"{figure.id}.png", "wb") as handle:
                handle.write(png(figure))
    files.write_json(folder / "report.json", to_json(report))
    with files.atomic_open(folder / "report.md") as handle:
        handle.write(to_markdown(report))
    path = folder / "index.html"
    with files.atomic_open(path) as handle:
        handle.write(page(report, note))
    return path


def to_json(report: Report) -> dict[str, Any]:
    """The report as plain data; the map's texts are left out, they stand in the data set."""
    return {
        "version": report.version,
        "n": report.n,
        "goal": report.goal,
        "verdict": report.verdict.value,
        "advice": [{"verdict": v.value, "view": title, "text": text} for v, title, text in report.advice],
        "next_cards": [dataclasses.asdict(card) for card in report.next_cards],
        "views": [
            {
                "key": view.key,
                "title": view.title,
                "verdict": view.verdict.value,
                "is_now": view.is_now,
                "planned": view.planned,
                "chance": view.chance,
                "tests": [dataclasses.asdict(test) for test in view.tests],
                "facts": [dataclasses.asdict(fact) for fact in view.facts],
                "numbers": view.numbers,
                "figures": [{"file": f"{f.id}.png", "title": f.title, "alt": f.alt} for f in view.figures],
            }
            for view in report.views
        ],
        "notes": list(report.notes),
    }


def to_markdown(report: Report) -> str:
    """The report as Markdown, for reading in a terminal or a pull request."""
    lines = [
        f"# 偏りレポート {report.version}".rstrip(),
        "",
        f"{report.n:,} / {report.goal:,} 件。判定: **{report.verdict.word}**",
        "",
        "## すること",
        "",
    ]
    lines += [f"- **{v.word}**（{title}）{_plain(text)}" for v, title, text in report.advice] or [
        "- 目立った偏りはない。"
    ]
    lines += ["", "## つぎのカード", ""]
    lines += [f"- {_plain(card.text)}（{_plain(card.reason)}）" for card in report.next_cards]
    for view in report.views:
        lines += ["", f"## {view.title}: {view.verdict.word}", "", f"- いま: {_plain(view.is_now)}"]
        lines += [f"- 計画: {_plain(view.planned)}"] if view.planned else []
        lines += [f"- 偶然: {_plain(view.chance)}"] if view.chance else []
        lines += [f"- {fact.verdict.word}: {_plain(fact.text)}" for fact in view.facts]
        if view.tests:
            lines += ["", "| 問い | 大きさ | p | p（Holm） | 判定 |", "|---|---|---|---|---|"]
            lines += [
                f"| {_plain(t.question)} | {_plain(t.detail)} | {t.p:.4f} | {t.p_holm:.4f} | {t.verdict.word} |"
                for t in view.tests
            ]
        lines += [line for f in view.figures for line in ("", f"![{_plain(f.alt)}]({f.id}.png)")]
        lines += [line for table in view.tables for line in _table(table)]
    return "\n".join(lines) + "\n"


def _table(table: Table) -> list[str]:
    head = ["", f"### {table.title}", "", "| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    return head + ["| " + " | ".join(map(_plain, row)) + " |" for row in table.rows]


def _plain(text: str) -> str:
    """One line, with nothing that Markdown or HTML would act on."""
    packed = " ".join(text.split()).replace("\\", "\\\\")
    for character in "|<>[]`*_":
        packed = packed.replace(character, f"\\{character}")
    return packed
