"""The report as a whole: edges, what it finds, what it must not say, and the same bytes twice."""

from __future__ import annotations

import collections
import dataclasses
import json
from pathlib import Path

import pytest

from analysis import PlanSettings, Report, ReportSettings, Scene, Verdict, quick, report, with_comparison, write_report
from analysis.targets import PAIRS
from dialogue import Dialogue, Turn, load_taxonomy

FAST = ReportSettings(simulations=400, permutations=199, map_points=400)
ALL = PlanSettings(stage="all")
NAMES = load_taxonomy().names
MEMO = ("genre", "meaning", "pairs", "turns", "length")


def verdicts(found: Report) -> dict[str, str]:
    return {view.key: view.verdict.value for view in found.views}


@pytest.fixture(scope="module")
def starter_report(starter: list[Dialogue]) -> Report:
    return report(starter, version="starter")


def test_the_starter_corpus_needs_no_fixing(starter_report: Report) -> None:
    found = verdicts(starter_report)
    assert {found[key] for key in ("genre", "pairs")} == {"OK"}
    assert found["duplicates"] == "OK"
    assert starter_report.verdict is not Verdict.FIX


def test_the_memos_five_views_come_first(starter_report: Report) -> None:
    assert tuple(view.key for view in starter_report.views[:5]) == MEMO
    assert all(view.memo for view in starter_report.views[:5])


def test_every_figure_has_a_text_alternative(starter_report: Report) -> None:
    figures = [figure for view in starter_report.views for figure in view.figures]
    assert len(figures) >= 6
    assert all(len(figure.alt) > 15 for figure in figures)
    assert len({figure.id for figure in figures}) == len(figures)


def test_coverage_names_all_entries_of_the_three_lists(starter_report: Report) -> None:
    (table,) = starter_report.view("genre").tables
    assert len(table.rows) == 8 + 13 + 11
    assert all(int(row[2]) > 0 for row in table.rows)


def test_all_tests_are_corrected_together(starter_report: Report) -> None:
    assert len(starter_report.tests) >= 10
    assert all(test.p <= test.p_holm <= 1 for test in starter_report.tests)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_a_handful_gives_a_page_that_says_what_can_not_be_said(n: int, make, tmp_path: Path) -> None:
    found = report([make(i, pair=(i % 5, 4 - i % 5)) for i in range(n)], settings=FAST)
    assert found.n == n
    assert {found.view(key).verdict for key in ("genre", "pairs", "turns", "length")} == {Verdict.UNKNOWN}
    text = write_report(found, tmp_path / "r").read_text(encoding="utf-8")
    assert "まだ" in text
    assert len(found.next_cards) == 6


def test_all_in_one_cell_is_found(make) -> None:
    found = report([make(i, text=f"{'あいうえお'[i % 5]}の話{i}") for i in range(60)], settings=FAST, plan_settings=ALL)
    assert found.view("pairs").verdict is Verdict.FIX
    assert found.view("genre").verdict is Verdict.FIX
    assert found.view("turns").verdict is Verdict.FIX
    assert any("組" in sentence for _, _, sentence in found.advice)


def test_five_starting_pairs_are_no_bias_in_the_starting_stage(make) -> None:
    pairs = [(2, 2), (4, 4), (0, 0), (4, 0), (0, 4)]
    dialogues = [make(i, pair=pairs[i % 5], genre=(NAMES[i % 20],), turns=10) for i in range(40)]
    by_design = report(dialogues, settings=FAST, plan_settings=PlanSettings(stage="starter"))
    assert by_design.view("pairs").verdict is Verdict.OK
    later = report(dialogues, settings=FAST, plan_settings=ALL)
    assert later.view("pairs").verdict is Verdict.FIX


def test_very_long_text_and_missing_genres(make, tmp_path: Path) -> None:
    long = make(0, genre=())
    long = dataclasses.replace(long, conversation=tuple(Turn(t.speaker, "長い話。" * 7500) for t in long.conversation))
    others = [make(i, genre=(NAMES[i % 3],), text="雪が降った朝に" * (1 + i % 4)) for i in range(1, 40)]
    found = report([long, *others], settings=FAST)
    path = write_report(found, tmp_path / "r")
    assert path.stat().st_size < 5_000_000
    genre = found.view("genre")
    assert genre.numbers["missing"] == 1
    assert genre.numbers["predicted"] == 1
    assert 0 <= genre.numbers["predicted_accuracy"] <= 1
    assert "推定" in genre.figures[1].title


def test_no_genre_at_all_is_said_and_not_guessed(make) -> None:
    found = report([make(i, genre=(), text=f"話{i}") for i in range(30)], settings=FAST)
    assert "predicted" not in found.view("genre").numbers
    assert any("いる" in table.note for table in found.view("genre").tables)


def test_the_same_input_gives_the_same_bytes(starter: list[Dialogue], tmp_path: Path) -> None:
    first = write_report(report(starter, settings=FAST, version="v"), tmp_path / "a")
    second = write_report(report(list(starter), settings=FAST, version="v"), tmp_path / "b")
    names = sorted(path.name for path in first.parent.iterdir())
    assert names == sorted(path.name for path in second.parent.iterdir())
    assert {"index.html", "report.json", "report.md", "map.png", "pairs.png"} <= set(names)
    for name in names:
        assert (first.parent / name).read_bytes() == (second.parent / name).read_bytes(), name


def test_json_and_markdown_say_the_same(starter_report: Report, tmp_path: Path) -> None:
    folder = write_report(starter_report, tmp_path / "r").parent
    value = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert value["verdict"] == starter_report.verdict.value
    assert [view["key"] for view in value["views"]] == [view.key for view in starter_report.views]
    assert value["views"][2]["numbers"]["counts"]["2・2"] == 4
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert all(f"## {view.title}" in markdown for view in starter_report.views)
    assert "![" in markdown


def test_quick_agrees_with_the_report_on_counts(starter: list[Dialogue], starter_report: Report) -> None:
    found = quick(starter)
    assert found.n == 100
    assert [view.key for view in found.views] == ["genre", "pairs", "turns", "length"]
    for view in found.views:
        assert view.is_now == starter_report.view(view.key).is_now
    assert found.to_json()["verdict"] == found.verdict.value


def test_comparison_shows_what_changed(starter: list[Dialogue]) -> None:
    before = [d for d in starter if d.attribute != PAIRS[0]][:60]
    now = report(starter, settings=FAST, draw_map=False, version="now")
    both = with_comparison(now, report(before, settings=FAST, draw_map=False, version="then"))
    view = both.view("comparison")
    assert [v.key for v in both.views].index("comparison") == 5
    assert "+40" in view.is_now
    rows = {row[0]: row for row in view.tables[1].rows}
    assert rows["会話"][1:] == ("60", "100", "+40")
    assert "組の実効数" in rows
    assert len(view.figures[0].bars) > 0


def test_a_link_leads_to_the_task_of_a_copy(make) -> None:
    copies = [
        make(
            i, text="夕飯のカレーに入れるものの話をしよう" if i < 2 else f"{NAMES[i % 20]}の{i}番目", task=i, project=7
        )
        for i in range(30)
    ]
    copies[1] = dataclasses.replace(copies[1], conversation=copies[0].conversation)
    found = report(copies, settings=FAST, studio_url="http://127.0.0.1:8080", draw_map=False)
    view = found.view("duplicates")
    assert view.numbers["pairs"]["exact"] == 1
    assert view.verdict is Verdict.FIX
    assert view.tables[0].rows[0][:2] == ("d0", "d1")
    assert (0, 1, "http://127.0.0.1:8080/projects/7/data?task=1") in view.tables[0].links
    harmless = report(copies, settings=FAST, studio_url="javascript:alert(1)", draw_map=False)
    assert harmless.view("duplicates").tables[0].links == ()


def test_waiting_cards_and_scenes_shape_the_next_cards(starter: list[Dialogue]) -> None:
    scenes = [Scene(name, f"{name}の場面") for name in NAMES]
    found = report(starter[:30], settings=FAST, plan_settings=ALL, contexts=scenes, draw_map=False)
    assert len({card.text for card in found.next_cards}) > 1
    assert all("目標" in card.reason for card in found.next_cards)


def test_genre_is_judged_by_its_own_target(make) -> None:
    counts = collections.Counter({NAMES[0]: 80, **dict.fromkeys(NAMES[1:], 4)})
    names = [name for name, count in counts.items() for _ in range(count)]
    dialogues = [make(i, pair=(i % 5, i // 5 % 5), genre=(name,), turns=4 + i % 13) for i, name in enumerate(names)]
    weights = {name: float(count) for name, count in counts.items()}
    assert quick(dialogues, settings=FAST, plan_settings=ALL).views[0].verdict is Verdict.FIX
    wanted = PlanSettings(stage="all", genre_weights=weights)
    assert quick(dialogues, settings=FAST, plan_settings=wanted).views[0].verdict is Verdict.OK
