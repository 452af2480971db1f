"""Cheap numbers, for `aku status` and `aku watch`: the counting views, without embedding, map and page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from analysis.features import features
from analysis.results import Verdict, View, settled, worst
from analysis.settings import PlanSettings, ReportSettings
from analysis.views import genre_view, length_view, pair_view, turns_view
from dialogue.genres import Taxonomy, load_taxonomy
from dialogue.records import Dialogue


@dataclasses.dataclass(frozen=True, slots=True)
class Quick:
    """Number of dialogues, worst verdict, and the counting views."""

    n: int
    verdict: Verdict
    views: tuple[View, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        views = [{"key": v.key, "title": v.title, "verdict": v.verdict.value, "is_now": v.is_now} for v in self.views]
        return {"n": self.n, "verdict": self.verdict.value, "views": views}


def quick(
    dialogues: Sequence[Dialogue],
    *,
    taxonomy: Taxonomy | None = None,
    settings: ReportSettings | None = None,
    plan_settings: PlanSettings | None = None,
) -> Quick:
    """Judge genre, pairs, turns and length alone, Holm-corrected among themselves; well under a second at 3,000."""
    taxonomy = taxonomy or load_taxonomy()
    settings, aims = settings or ReportSettings(), plan_settings or PlanSettings()
    data = features(dialogues, taxonomy)
    views = settled(
        [
            genre_view(data, aims, settings),
            pair_view(data, aims, settings),
            turns_view(data, aims, settings),
            length_view(data, settings),
        ],
        settings.alpha,
    )
    return Quick(data.n, worst([view.verdict for view in views]), views)
