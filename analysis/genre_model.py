"""A genre for records that have none: complement naive Bayes on content words, always marked as predicted."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

FOLDS = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted topics of the records without one.

    `accuracy` is cross-validated on the annotated dialogues, `chance` the share of their commonest
    topic; `predicted` maps a dialogue's index to its topic's number.
    """

    accuracy: float
    chance: float
    annotated: int
    predicted: dict[int, int]


def predict_genres(
    bags: Sequence[Sequence[str]],
    genre: Sequence[int],
    scenes: Sequence[tuple[Sequence[str], int]] = (),
) -> Prediction | None:
    """Predict the main topic of every dialogue whose `genre` is -1.

    Args:
        bags: Content words of every dialogue.
        genre: Topic numbers, -1 where there is none.
        scenes: Content words and topic of labelled scenes, for training beside the dialogues.

    Returns:
        None if nothing can be trained: fewer than 10 annotated dialogues, or one topic only.
    """
    labels = np.array(genre, dtype=np.int64)
    known, unknown = np.flatnonzero(labels >= 0), np.flatnonzero(labels < 0)
    if known.size < 2 * FOLDS or np.unique(labels[known]).size < 2:
        return None
    hits = 0
    for fold in range(FOLDS):
        held, kept = known[fold::FOLDS], np.setdiff1d(known, known[fold::FOLDS])
        model = _train([bags[i] for i in kept], labels[kept].tolist(), scenes)
        if model is not None:
            hits += int((model.predict([bags[i] for i in held]) == labels[held]).sum())
    model = _train([bags[i] for i in known], labels[known].tolist(), scenes)
    found = model.predict([bags[i] for i in unknown]) if model is not None and unknown.size else []
    commonest = collections.Counter(labels[known].tolist()).most_common(1)[0][1]
    predicted = {int(i): int(topic) for i, topic in zip(unknown, found, strict=True)}
    return Prediction(hits / known.size, commonest / known.size, int(known.size), predicted)


def _train(bags: list[Sequence[str]], labels: list[int], scenes: Sequence[tuple[Sequence[str], int]]) -> Any:
    """Complement naive Bayes (Rennie et al. 2003), which copes with few examples a topic."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.naive_bayes import ComplementNB
    from sklearn.pipeline import make_pipeline

    bags = [*bags, *(words for words, _ in scenes)]
    labels = [*labels, *(topic for _, topic in scenes)]
    if len(set(labels)) < 2 or not any(bags):
        return None
    return make_pipeline(TfidfVectorizer(analyzer=list, sublinear_tf=True), ComplementNB(alpha=0.3)).fit(bags, labels)
