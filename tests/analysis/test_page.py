"""The page in a real browser: every plot visible, hover works, no errors, nothing in a dialogue does harm."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis import PlanSettings, ReportSettings, report, with_comparison, write_report
from analysis.fonts import embedded_font
from analysis.page import page as html
from analysis.page import safe_json
from analysis.pictures import png
from dialogue import Turn, load_taxonomy

FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
).split()
EVIL = "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"
NAMES = load_taxonomy().names


@pytest.fixture(scope="module")
def index(make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every kind of figure, and with dialogues that try to break out of it."""
    words = "傘 鍋 電車 宿題 花火 猫 映画 散歩 弁当 手紙".split()
    dialogues = [
        make(
            i,
            pair=(i % 5, i // 5 % 5),
            genre=(NAMES[i % 20],) if i % 10 else (),
            turns=4 + i % 9,
            text=f"{words[i % 10]}と{words[i // 10 % 10]}の話をしよう。",
            kind="drafted" if i % 2 else "manual",
            annotator=EVIL if i % 3 == 0 else f"書き手{i % 3}",
            created_at=f"2026-0{1 + i % 4}-1{i % 9}T00:00:00+00:00",
            project=1,
            task=i,
        )
        for i in range(120)
    ]
    evil = dataclasses.replace(
        dialogues[0],
        id=EVIL,
        context=EVIL + "\n& \u2028 ${alert(1)} <!--",
        conversation=tuple(Turn(t.speaker, EVIL) for t in dialogues[0].conversation),
    )
    settings = ReportSettings(simulations=200, permutations=99)
    options = {"settings": settings, "plan_settings": PlanSettings(stage="all"), "studio_url": "http://127.0.0.1:8080"}
    now = report([evil, *dialogues[1:]], version=EVIL, **options)  # type: ignore[arg-type]  # keywords of report
    before = report(dialogues[:60], draw_map=False, version="before", **options)  # type: ignore[arg-type]  # likewise
    return write_report(with_comparison(now, before), tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield instance
        instance.close()


@pytest.fixture
def opened(browser: Any, index: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Any, list[str]]]:
    """The page at the width (and colour scheme) that the test asks for, and everything that went wrong."""
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(f"request: {r.url}"))
    page.goto(index.as_uri())
    page.evaluate("document.fonts.ready")
    yield page, wrong
    page.close()


EVERY_WIDTH = pytest.mark.parametrize("opened", [(1400, "light"), (400, "light"), (1400, "dark")], indirect=True)
WIDE = pytest.mark.parametrize("opened", [(1400, "light")], indirect=True)


@EVERY_WIDTH
def test_every_plot_is_visible_and_nothing_goes_wrong(opened: tuple[Any, list[str]]) -> None:
    page, wrong = opened
    figures = page.locator("figure")
    assert figures.count() >= 13
    for i in range(figures.count()):
        plot = figures.nth(i).locator(".plot")
        box = plot.bounding_box()
        assert box is not None
        assert box["width"] > 200
        assert box["height"] > 20
        assert len(plot.get_attribute("aria-label")) > 10
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    assert wrong == []
    assert page.title() != "broken"


def edges(make: Any) -> dict[str, list[Any]]:
    """Data sets at which a report might stumble."""
    long = dataclasses.replace(
        make(0), conversation=tuple(Turn(t.speaker, "長い話" * 10_000) for t in make(0).conversation)
    )
    word = dataclasses.replace(make(0), id="i" * 300, context="w" * 2000, genre=("g" * 300,))
    return {
        "none": [],
        "one": [make(0)],
        "one cell": [make(i, text=f"{'傘鍋猫花雪'[i % 5]}の話{i}") for i in range(60)],
        "one genre": [
            make(i, pair=(i % 5, i // 5 % 5), turns=4 + i % 13, text=f"{'傘鍋猫'[i % 3]}{i}") for i in range(60)
        ],
        "long text": [long, word],
        "no genre": [make(i, genre=(), text=f"{'傘鍋猫'[i % 3]}の話{i}", created_at="いつか") for i in range(30)],
    }


@pytest.mark.parametrize("name", ["none", "one", "one cell", "one genre", "long text", "no genre"])
def test_edges_give_a_page_that_opens(name: str, make, browser: Any, tmp_path: Path) -> None:
    found = report(edges(make)[name], settings=ReportSettings(simulations=200, permutations=99))
    index = tmp_path / "index.html"
    index.write_text(html(found), encoding="utf-8")
    opened = browser.new_page(viewport={"width": 400, "height": 900})
    wrong: list[str] = []
    opened.on("console", lambda message: wrong.append(message.text))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.goto(index.as_uri())
    try:
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
        assert opened.locator("section.view").count() == len(found.views)
        assert opened.locator(".todo li").count() > 0
        assert "まだ" in opened.locator("main").inner_text()
    finally:
        opened.close()
    assert wrong == []


def test_pictures_have_a_glyph_for_every_character(make) -> None:
    dialogues = [make(i, pair=(i % 5, i // 5 % 5), text=f"{'傘鍋猫'[i % 3]}の話{i}") for i in range(30)]
    figures = [f for view in report(dialogues, settings=ReportSettings(simulations=200)).views for f in view.figures]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a missing glyph, which it draws as a box
        for figure in figures:
            if figure.id in ("map", "pairs", "length"):
                assert png(figure).startswith(b"\x89PNG")


@EVERY_WIDTH
def test_text_stands_out_from_the_background(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    colours = page.evaluate("""() => ['p', 'td', 'small', 'figcaption', '.badge'].map(name => {
        const item = document.querySelector('.view ' + name) || document.querySelector(name);
        const sheet = getComputedStyle(document.querySelector('.view')).backgroundColor;
        return [name, getComputedStyle(item).color, sheet];
    })""")
    for name, ink, sheet in colours:
        assert contrast(ink, sheet) >= 4.5, (name, ink, sheet)


@WIDE
def test_hover_shows_the_dialogue(opened: tuple[Any, list[str]]) -> None:
    page, wrong = opened
    page.locator("figure.map circle").nth(5).hover(force=True)
    tip = page.locator("#tip.on")
    assert "User:" in tip.inner_text()
    assert "親密さ" in tip.inner_text()
    page.locator("figure.map circle").first.hover(force=True)
    assert EVIL in page.locator("#tip").inner_text()
    page.locator("#fig-pairs .cell").first.hover()
    assert "残差" in page.locator("#tip.on").inner_text()
    assert wrong == []
    assert page.title() != "broken"


@WIDE
def test_the_map_is_coloured_by_what_is_chosen(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    circles = page.locator("figure.map circle")

    def colours() -> set[str]:
        return set(circles.evaluate_all("found => found.map(c => getComputedStyle(c).fill)"))

    assert len(colours()) > 10
    for key, groups in (("closeness", 5), ("mood", 5), ("kind", 2), ("month", 4)):
        page.select_option(".color-by", key)
        assert len(colours()) == groups
        assert page.locator(".map-legend button").count() == groups
    page.locator(".map-legend button").first.click()
    assert 0 < page.locator("figure.map circle.dim").count() < circles.count()


@WIDE
def test_japanese_is_drawn_as_glyphs_by_the_embedded_font(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    drawn = page.evaluate("""async () => {
        await document.fonts.load("40px IPAexGothic", "親機嫌");
        return [...'親機嫌\\uffff'].map(letter => {
            const canvas = Object.assign(document.createElement('canvas'), {width: 50, height: 60});
            const pen = canvas.getContext('2d');
            pen.font = '40px IPAexGothic';
            pen.fillText(letter, 0, 45);
            return [...pen.getImageData(0, 0, 50, 60).data].join();
        });
    }""")
    assert len(set(drawn)) == 4, "characters look alike: boxes instead of glyphs"


def test_the_embedded_font_has_every_japanese_character_of_the_page(index: Path) -> None:
    from fontTools.ttLib import TTFont

    page = index.read_text(encoding="utf-8")
    packed = re.search(r"base64,([A-Za-z0-9+/=]+)\)", page)
    assert packed
    font = TTFont(io.BytesIO(base64.b64decode(packed[1])))
    body = page[page.index("<body>") :]
    wanted = {ord(c) for c in body if "\u3040" <= c <= "\u30ff" or "\u4e00" <= c <= "\u9fff"}
    assert wanted
    assert wanted <= set(font.getBestCmap())


def test_the_font_is_the_same_twice() -> None:
    assert embedded_font("雨の日") == embedded_font("日の雨雨")


def test_nothing_is_loaded_from_elsewhere(index: Path) -> None:
    page = index.read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert not re.search(r"""(?:src|@import|url)\s*[=(]\s*["']?https?:""", page)
    assert EVIL not in page


def test_json_for_scripts_can_not_end_the_script() -> None:
    text = safe_json({"a": "</script><!--&\u2028\u2029"})
    assert "<" not in text
    assert ">" not in text
    assert "&" not in text
    assert "\u2028" not in text


def contrast(a: str, b: str) -> float:
    """Contrast ratio of two CSS colours (WCAG 2)."""

    def luminance(colour: str) -> float:
        parts = [float(x) / 255 for x in re.findall(r"[\d.]+", colour)[:3]]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
