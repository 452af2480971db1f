"""The bias report as a library call: dialogues in, typed results out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from analysis.embedding import embed
from analysis.features import features, text_of
from analysis.meaning import meaning_view
from analysis.planning import Scene, plan
from analysis.results import NextCard, Report, View, settled
from analysis.settings import PlanSettings, ReportSettings
from analysis.views import genre_view, length_view, pair_view, turns_view
from dialogue.genres import Taxonomy, load_taxonomy
from dialogue.label_studio import Card
from dialogue.records import Dialogue

Progress = Callable[[str], None]


def report(
    dialogues: Sequence[Dialogue],
    *,
    taxonomy: Taxonomy | None = None,
    settings: ReportSettings | None = None,
    plan_settings: PlanSettings | None = None,
    waiting: Sequence[Card] = (),
    contexts: Sequence[Scene] = (),
    version: str = "",
    progress: Progress | None = None,
) -> Report:
    """Look at a data set from every side.

    Args:
        dialogues: The data set; may be empty.
        taxonomy: Topics and the published lists (default: the packaged ones).
        settings: How to test and draw.
        plan_settings: The targets.
        waiting: Cards made but not written, so that the next cards follow on from them.
        contexts: Scenes for the next cards.
        version: Name of the data set version, for the page.
        progress: Called with the name of each step as it begins.

    Returns:
        The report.  Equal arguments give an equal report.
    """
    taxonomy = taxonomy or load_taxonomy()
    settings, aims = settings or ReportSettings(), plan_settings or PlanSettings()
    tell = progress or (lambda _step: None)
    data = features(dialogues, taxonomy)
    tell("counts")
    views: list[View] = [
        genre_view(data, aims, settings),
        pair_view(data, aims, settings),
        turns_view(data, aims, settings),
        length_view(data, settings),
    ]
    tell("meaning")
    vectors = embed(
        [text_of(d) for d in dialogues],
        dimensions=settings.dimensions,
        model=settings.embedding,
        seed=settings.seed,
    )
    views.insert(1, meaning_view(data, vectors, settings))
    tell("next cards")
    cards = plan(dialogues, 6, waiting=waiting, contexts=contexts, settings=aims, taxonomy=taxonomy)
    return Report(
        version=version,
        n=data.n,
        goal=settings.goal,
        views=settled(views, settings.alpha),
        next_cards=tuple(NextCard(card.card.text, card.reason) for card in cards),
    )
