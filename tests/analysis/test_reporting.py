"""The report as a whole: edges, what it finds, what it must not say, and the same bytes twice."""

from __future__ import annotations

import collections
import dataclasses
import json
from pathlib import Path

import pytest

from analysis import PlanSettings, Report, ReportSettings, Scene, Verdict, quick, report, with_comparison, write_report
from analysis.page import page
from analysis.targets import PAIRS
from analysis.writing import to_json, to_markdown
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
    (table,) = [table for table in starter_report.view("genre").tables if "網羅" in table.title]
    assert len(table.rows) == 8 + 13 + 11
    assert all(int(row[2]) > 0 for row in table.rows)


def test_the_memos_views_have_figure_target_band_tests_and_a_table(starter: list[Dialogue]) -> None:
    found = report(starter, settings=FAST, plan_settings=ALL)
    for key in MEMO:
        view = found.view(key)
        assert view.figures, key
        assert view.tables, key
        assert view.planned, key
        assert view.chance, key
    for key in ("genre", "pairs", "turns"):
        table = found.view(key).tables[0]
        assert table.columns[1:] == ("いま", "目標", "偶然の幅", "残差")
        assert sum(int(row[1]) for row in table.rows) == 100
        low, high = (float(x) for x in table.rows[0][3].split("〜"))
        assert low <= float(table.rows[0][2]) <= high
        assert found.view(key).tests
    assert len(found.view("pairs").tables[0].rows) == 25
    assert {row[1] for row in found.view("length").tables[0].rows} == {"User", "Aku"}


def test_who_begins_is_compared_with_the_plan(make) -> None:
    dialogues = [
        make(i, pair=(i % 5, i // 5 % 5), turns=4 + i % 13, first="Aku" if i % 2 else "User") for i in range(200)
    ]
    tests = {t.key: t for t in quick(dialogues, settings=FAST, plan_settings=ALL).views[2].tests}
    assert tests["turns.first"].verdict is Verdict.WATCH
    assert "50%" in tests["turns.first"].advice
    planned = quick(dialogues, settings=FAST, plan_settings=dataclasses.replace(ALL, aku_begins=0.5))
    assert {t.key: t.verdict for t in planned.views[2].tests}["turns.first"] is Verdict.OK


def test_all_tests_are_corrected_together(starter_report: Report) -> None:
    assert len(starter_report.tests) >= 10
    assert all(test.p <= test.p_holm <= 1 for test in starter_report.tests)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_a_handful_gives_a_page_that_says_what_can_not_be_said(n: int, make) -> None:
    found = report([make(i, pair=(i % 5, 4 - i % 5)) for i in range(n)], settings=FAST)
    assert found.n == n
    assert {found.view(key).verdict for key in ("genre", "pairs", "turns", "length")} == {Verdict.UNKNOWN}
    assert "まだ" in page(found)
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


def test_very_long_text_and_missing_genres(make) -> None:
    long = make(0, genre=())
    long = dataclasses.replace(long, conversation=tuple(Turn(t.speaker, "長い話。" * 7500) for t in long.conversation))
    others = [make(i, genre=(NAMES[i % 3],), text="雪が降った朝に" * (1 + i % 4)) for i in range(1, 40)]
    found = report([long, *others], settings=FAST)
    assert len(page(found).encode()) < 5_000_000
    genre = found.view("genre")
    assert genre.numbers["missing"] == 1
    assert genre.numbers["predicted"] == 1
    assert 0 <= genre.numbers["predicted_accuracy"] <= 1
    assert "推定" in genre.figures[1].title


def test_no_genre_at_all_is_said_and_not_guessed(make) -> None:
    found = report([make(i, genre=(), text=f"話{i}") for i in range(30)], settings=FAST)
    assert "predicted" not in found.view("genre").numbers
    assert any("いる" in table.note for table in found.view("genre").tables)


def test_all_files_are_written(make, tmp_path: Path) -> None:
    dialogues = [make(i, pair=(i % 5, 0), text=f"{'傘鍋猫'[i % 3]}の話{i}") for i in range(30)]
    folder = write_report(report(dialogues, settings=FAST, version="v"), tmp_path / "a").parent
    assert {"index.html", "report.json", "report.md", "map.png", "pairs.png"} <= {p.name for p in folder.iterdir()}
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["n"] == 30


def test_json_and_markdown_say_the_same(starter_report: Report) -> None:
    value = json.loads(json.dumps(to_json(starter_report)))
    assert value["verdict"] == starter_report.verdict.value
    assert [view["key"] for view in value["views"]] == [view.key for view in starter_report.views]
    assert value["views"][2]["numbers"]["counts"]["2・2"] == 4
    markdown = to_markdown(starter_report)
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
