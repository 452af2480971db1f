"""The screen in its states, as pictures; `make images` writes them to docs/images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from screen import Screen

from dialogue import Registry, files, label_studio

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = request.config.getoption("--images")
    path = Path(named).absolute() if named else tmp_path_factory.mktemp("images")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="module")
def drafted_task(demo: Any) -> int:
    """A waiting card that holds a drafted conversation of eight to twelve turns."""
    current = Registry(demo.workspace.checkpoints).current()
    assert current is not None
    for task in demo.client.tasks.list(project=demo.project, fields="all"):
        drafts = [dict(p) for p in task.predictions if dict(p)["model_version"] == current.id]
        if (
            not task.total_annotations
            and drafts
            and 8 <= len(task.data["turns"]) <= 12
            and "Akuから" not in task.data["card"]
        ):
            return int(task.id)
    pytest.fail("no drafted card waits")


def brightness(page: Any) -> float:
    """Mean of the background's channels, 0 to 255."""
    colour = page.evaluate("getComputedStyle(document.querySelector('.aku-head')).backgroundColor")
    return sum(float(x) for x in colour[colour.index("(") + 1 : -1].split(",")[:3]) / 3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_bubbles_can_be_told_apart_in_both_themes(browser: Any, demo: Any, drafted_task: int, folder: Path, theme: str):
    screen = Screen(browser, demo, dark=theme == "dark")
    screen.open(demo.project, drafted_task)
    assert (brightness(screen.page) > 128) == (theme == "light")
    colours, sides = [], []
    for number in (0, 1):
        colours.append(screen.box(number).evaluate("e => getComputedStyle(e).backgroundColor"))
        sides.append(screen.box(number).bounding_box()["x"])
    assert colours[0] != colours[1]
    assert sides[1] > sides[0] + 50
    screen.page.screenshot(path=folder / f"screen-{theme}.png")
    screen.close()


def test_a_reviewer_sees_which_turns_are_the_models(browser: Any, demo: Any, drafted_task: int, folder: Path) -> None:
    screen = Screen(browser, demo)
    screen.open(demo.project, drafted_task)
    drafts = [screen.box(i).input_value() for i in range(6)]
    screen.box(1).fill("うん、そうしよ。わたしも同じこと考えてた。")
    screen.caret_out()
    screen.submit()
    for _ in range(60):  # the studio marks the card a moment after the submit
        plan = demo.client.tasks.get(id=str(drafted_task)).data["plan"]
        if "aku-changed-1" in plan:
            break
        screen.page.wait_for_timeout(500)
    assert "aku-changed-1" in plan
    assert "aku-draft-3" in plan or not drafts[3]
    screen.open(demo.project, drafted_task)
    badge = screen.page.evaluate(
        "n => getComputedStyle(document.querySelector(`.aku-turn-${n}`), '::after').content", 1
    )
    assert badge == '"AIの下書きを修正"'
    screen.choose("合格")
    screen.page.screenshot(path=folder / "screen-reviewed.png")
    screen.caret_out()
    screen.submit()
    found = demo.client.tasks.get(id=str(drafted_task))
    assert label_studio.read_result(dict(found.annotations[-1])["result"]).decision == "合格"
    screen.close()


def test_the_report_as_a_picture(browser: Any, demo: Any, folder: Path) -> None:
    path = demo.workspace.home / files.read_json(demo.workspace.reports / "latest.json")["path"]
    page = browser.new_page(viewport={"width": 1400, "height": 1300})
    page.goto(path.as_uri())
    page.wait_for_timeout(500)
    page.screenshot(path=folder / "report.png")
    assert page.locator("figure").count() >= 5
    page.close()
