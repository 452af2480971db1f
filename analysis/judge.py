"""The judge: which closeness and mood one hears in Aku's turns.  Trained on hand-written turns only.

Ordinal regression by four logistic regressions "is the level above k?" (Frank & Hall, ECML 2001) on
character n-grams (TF-IDF → truncated SVD) and surface features.  A level is heard as the expected
level, the sum of the four probabilities, averaged over the turns given; so levels that training never
had (the starting pairs hold 0, 2 and 4 only) can still be heard in between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.judge_features import Floats, surface
from dialogue.errors import RecordError
from dialogue.records import LEVELS, Dialogue

Ints = NDArray[np.int64]
ATTRIBUTES = ("closeness", "mood")
FOLDS = 5
_DIMENSIONS = 64
_STRENGTH = 0.1
"""Inverse strength C of the L2 penalty; 0.03 to 1 make no difference on the starter corpus."""


@dataclasses.dataclass(frozen=True, slots=True)
class HandWritten:
    """Aku's hand-written turns: texts, the number of the dialogue each is from, levels of shape (n, 2)."""

    texts: tuple[str, ...]
    groups: Ints
    levels: Ints

    @classmethod
    def of(cls, dialogues: Sequence[Dialogue], most: int = 1500, seed: int = 0) -> HandWritten:
        """Take Aku's turns from dialogues in which no model had a hand; beyond `most`, from a seeded sample of them."""
        by_hand = [d for d in dialogues if d.source.kind in ("manual", "starter")]
        if len(by_hand) > most:
            chosen = np.sort(np.random.default_rng(seed).choice(len(by_hand), most, replace=False))
            by_hand = [by_hand[i] for i in chosen]
        rows = [
            (turn.text, number, d.attribute.closeness, d.attribute.mood)
            for number, d in enumerate(by_hand)
            for turn in d.conversation
            if turn.speaker == "Aku"
        ]
        groups = np.unique([row[1] for row in rows], return_inverse=True)[1].reshape(-1)
        return cls(
            tuple(row[0] for row in rows),
            np.asarray(groups, dtype=np.int64),
            np.array([row[2:] for row in rows], dtype=np.int64).reshape(len(rows), 2),
        )

    @property
    def dialogues(self) -> int:
        """Number of dialogues."""
        return int(self.groups.max(initial=-1)) + 1


class Judge:
    """A trained judge.  Deterministic: the same turns give the same judge."""

    def __init__(self, turns: HandWritten, seed: int = 0) -> None:
        """Train; raises `RecordError` when there is too little to learn a difference from."""
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import StandardScaler

        spread = [len(np.unique(column)) for column in turns.levels.T]
        if turns.dialogues < 2 * FOLDS or min(spread) < 2:
            raise RecordError(
                "judge",
                f"{turns.dialogues} hand-written dialogues with {min(spread)} level(s) are too few to train the judge; "
                f"it needs {2 * FOLDS} dialogues and two levels of each attribute.",
            )
        self._vectorizer = TfidfVectorizer(
            analyzer="char", ngram_range=(1, 3), sublinear_tf=True, min_df=2, max_features=30_000
        )
        grams = self._vectorizer.fit_transform(turns.texts)
        rank = max(1, min(_DIMENSIONS, grams.shape[1] - 1, grams.shape[0] - 1))
        self._svd = TruncatedSVD(rank, random_state=seed).fit(grams)
        self._scaler = StandardScaler().fit(self._raw(turns.texts))
        rows = self._scaler.transform(self._raw(turns.texts))
        self._steps = [[_fitted(rows, levels > k) for k in LEVELS[:-1]] for levels in turns.levels.T]

    def hear(self, texts: Sequence[str]) -> Floats:
        """Return the expected levels of each text, shape (n, 2): closeness, mood; each 0.0-4.0."""
        if not texts:
            return np.zeros((0, 2))
        rows = self._scaler.transform(self._raw(texts))
        return np.column_stack([sum(_above(step, rows) for step in steps) for steps in self._steps])

    def hear_together(self, texts: Sequence[Sequence[str]]) -> Floats:
        """Return the mean expected levels of several turns heard as one, shape (n, 2); NaN where there are none."""
        flat = self.hear([text for several in texts for text in several])
        ends = np.cumsum([len(several) for several in texts])
        parts = np.split(flat, ends[:-1]) if len(texts) else []
        return np.array([part.mean(axis=0) if len(part) else (np.nan, np.nan) for part in parts]).reshape(-1, 2)

    def _raw(self, texts: Sequence[str]) -> Floats:
        return np.hstack([self._svd.transform(self._vectorizer.transform(texts)), surface(texts)])


def cross_validated(turns: HandWritten, seed: int = 0) -> Floats:
    """What judges hear in turns of dialogues they were not trained on, shape (n, 2).

    Grouped cross-validation by dialogue; the judge's ceiling is computed from it.  Raises `RecordError`
    like `Judge`.
    """
    from sklearn.model_selection import GroupKFold

    heard = np.zeros((len(turns.texts), 2))
    Judge(turns, seed)  # says in words when there is too little
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(turns.levels, groups=turns.groups):
        part = HandWritten(
            tuple(turns.texts[i] for i in train),
            np.unique(turns.groups[train], return_inverse=True)[1].reshape(-1).astype(np.int64),
            turns.levels[train],
        )
        heard[test] = Judge(part, seed).hear([turns.texts[i] for i in test])
    return heard


def rounded(heard: Floats) -> Ints:
    """Whole levels 0-4 from expected ones."""
    return np.clip(np.floor(np.nan_to_num(heard, nan=2.0) + 0.5), 0, 4).astype(np.int64)


def _fitted(rows: Floats, above: NDArray[np.bool_]) -> Any:
    """One step of the ordinal regression: a fitted classifier, or the constant where all turns agree."""
    from sklearn.linear_model import LogisticRegression

    if above.all() or not above.any():
        return float(above[0])
    return LogisticRegression(C=_STRENGTH, max_iter=1000).fit(rows, above)


def _above(step: Any, rows: Floats) -> Floats:
    if isinstance(step, float):
        return np.full(len(rows), step)
    return np.asarray(step.predict_proba(rows)[:, 1], dtype=np.float64)
