"""The bias report as a library call: dialogues in, typed results out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from analysis.associations import association_view
from analysis.diversity import origin_view
from analysis.duplicates import duplicates_view
from analysis.embedding import embed, sample
from analysis.features import Features, features, text_of
from analysis.figures import Bar, BarChart, MapChart
from analysis.genre_model import Prediction, predict_genres
from analysis.growth import growth_view
from analysis.layout import Layout, ReferenceMap, make_layout
from analysis.meaning import meaning_view
from analysis.people import meaning_tests, people_view
from analysis.planning import Scene, plan
from analysis.results import NextCard, Report, Table, View, settled
from analysis.settings import PlanSettings, ReportSettings
from analysis.terms import terms_view
from analysis.views import genre_view, length_view, pair_view, turns_view
from analysis.vocabulary import Word, content_words, split
from dialogue.genres import Taxonomy, load_taxonomy
from dialogue.label_studio import Card
from dialogue.records import Dialogue

Progress = Callable[[str], None]
NEXT_CARDS = 6
_WORDS_OF = 20_000
"""Most dialogues whose words are kept for the view on vocabulary."""


def report(
    dialogues: Sequence[Dialogue],
    *,
    taxonomy: Taxonomy | None = None,
    settings: ReportSettings | None = None,
    plan_settings: PlanSettings | None = None,
    waiting: Sequence[Card] = (),
    contexts: Sequence[Scene] = (),
    version: str = "",
    studio_url: str = "",
    reference: ReferenceMap | None = None,
    draw_map: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Look at a data set from every side.

    Args:
        dialogues: The data set; may be empty.
        taxonomy: Topics and the published lists (default: the packaged ones).
        settings: How to test and draw.
        plan_settings: The targets.
        waiting: Cards made but not written, so that the next cards follow on from them.
        contexts: Scenes for the next cards; their topics also help to predict missing genres.
        version: Name of the data set version, for the page.
        studio_url: Address of Label Studio, for links to tasks.
        reference: A frozen map to put the dialogues on.
        draw_map: Whether to lay out the meaning map, by far the slowest step; the tests run in any case.
        progress: Called with the name of each step as it begins.

    Returns:
        The report.  Equal arguments give an equal report.
    """
    from threadpoolctl import threadpool_limits

    taxonomy = taxonomy or load_taxonomy()
    settings, aims = settings or ReportSettings(), plan_settings or PlanSettings()
    tell = progress or (lambda _step: None)
    tell("words")
    data = features(dialogues, taxonomy)
    looked_at = sample(data.n, _WORDS_OF, settings.seed).tolist()
    texts = [text_of(d) for d in dialogues]
    bags, words = _words(texts, set(looked_at))
    tell("embedding")
    vectors = embed(texts, bags, dimensions=settings.dimensions, model=settings.embedding, seed=settings.seed)
    tell("meaning map and tests")

    def link(dialogue: Dialogue) -> str:
        return task_link(studio_url, dialogue)

    def place() -> Layout | None:
        ids = [d.id for d in dialogues]
        if not draw_map or data.n < 2:
            return None
        return make_layout(ids, vectors, reference=reference, seed=settings.seed, most=settings.map_points)

    # t-SNE is one thread of compiled code that needs no interpreter: the tests run beside it.
    with threadpool_limits(1), ThreadPoolExecutor(1) as beside:
        layout = beside.submit(place)
        between = meaning_tests(data, vectors, settings)
        counted = [
            _with_predictions(genre_view(data, aims, settings), data, bags, contexts),
            pair_view(data, aims, settings),
            turns_view(data, aims, settings),
            length_view(data, settings),
            association_view(data, settings),
            duplicates_view(data, bags, link),
            terms_view(data, looked_at, words, settings, link),
            origin_view(data, vectors, settings),
            people_view(data, settings),
            growth_view(data, settings),
        ]
        meaning = meaning_view(data, vectors, bags, layout.result(), settings, between)
    views = [counted[0], meaning, *counted[1:]]
    tell("next cards")
    cards = plan(dialogues, NEXT_CARDS, waiting=waiting, contexts=contexts, settings=aims, taxonomy=taxonomy)
    return Report(
        version=version,
        n=data.n,
        goal=settings.goal,
        views=settled(views, settings.alpha),
        next_cards=tuple(NextCard(card.card.text, card.reason) for card in cards),
        notes=_notes(settings, sum(len(view.tests) for view in views)),
    )


def reference_of(found: Report) -> ReferenceMap | None:
    """The report's map as a reference for later ones; None if it has none, or took it from a reference itself."""
    charts = [f for f in found.view("meaning").figures if isinstance(f, MapChart) and f.fresh]
    return ReferenceMap(charts[0].places) if charts else None


def task_link(studio_url: str, dialogue: Dialogue) -> str:
    """Address of a dialogue's task in Label Studio, or "" where it is not known."""
    source = dialogue.source
    if not studio_url.startswith(("http://", "https://")) or source.project is None or source.task is None:
        return ""
    return f"{studio_url.rstrip('/')}/projects/{int(source.project)}/data?task={int(source.task)}"


def _words(texts: Sequence[str], kept: set[int]) -> tuple[list[list[str]], list[list[Word]]]:
    """Content words of every text, and all words of the texts in `kept`."""
    bags, words = [], []
    for i, text in enumerate(texts):
        own = split(text)
        bags.append(content_words(own))
        if i in kept:
            words.append(own)
    return bags, words


def _with_predictions(view: View, data: Features, bags: Sequence[Sequence[str]], contexts: Sequence[Scene]) -> View:
    """Add predicted topics to the genre view where records have none."""
    missing = int((data.genre < 0).sum())
    if not missing:
        return view
    number = {name: i for i, name in enumerate(data.taxonomy.names)}
    scenes = [(content_words(split(s.context)), number[s.topic]) for s in contexts if s.topic in number]
    found = predict_genres(bags, data.genre.tolist(), scenes)
    if found is None:
        note = "推定するには、ジャンルの付いた会話が10件以上、2種類以上いる。"
        return dataclasses.replace(view, tables=(*view.tables, Table("推定したジャンル", (), (), note=note)))
    return dataclasses.replace(
        view,
        figures=(*view.figures, _predicted_chart(found, data)),
        tables=(*view.tables, _predicted_table(found, data)),
        numbers={**view.numbers, "predicted_accuracy": found.accuracy, "predicted": len(found.predicted)},
    )


def _predicted_chart(found: Prediction, data: Features) -> BarChart:
    counts = np.bincount(list(found.predicted.values()), minlength=len(data.taxonomy.names))
    return BarChart(
        "genre-predicted",
        f"推定したジャンル（推定。交差検証での正解率 {found.accuracy:.0%}）",
        f"ジャンルのない{len(found.predicted)}件の推定。正解率は交差検証で{found.accuracy:.0%}、最多を答え続けると{found.chance:.0%}。",
        tuple(Bar(name, float(count)) for name, count in zip(data.taxonomy.names, counts, strict=True) if count),
    )


def _predicted_table(found: Prediction, data: Features) -> Table:
    rows = tuple(
        (data.dialogues[i].id, f"{data.taxonomy.names[topic]}（推定）", data.dialogues[i].context[:40])
        for i, topic in list(found.predicted.items())[:200]
    )
    note = f"ジャンルの付いた{found.annotated}件から学んだ推定で、上の件数や検定には数えていない。"
    return Table("推定したジャンル", ("会話", "ジャンル", "場面"), rows, note=note)


def _notes(settings: ReportSettings, tests: int) -> tuple[str, ...]:
    words = "内容語のTF-IDFと特異値分解（通信なし。言葉の重なりで測るので、会話が少ないうちは似た話も離れて置かれる）"
    kind = "文埋め込みモデル" if settings.embedding else words
    return (
        f"検定 {tests}個をまとめて Holm の方法で補正（全体の誤報 {settings.alpha:.0%} 以下）。",
        f"意味の空間: {kind}。乱数の種: {settings.seed}。同じデータからは同じページができる。",
    )
