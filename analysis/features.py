"""Dialogues as columns: codes and lengths as arrays, so that every measure is a few array operations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dialogue.genres import Taxonomy
from dialogue.records import Dialogue

Ints = NDArray[np.int64]
KINDS = ("manual", "drafted", "starter")
KIND_WORDS = {"manual": "手書き", "drafted": "下書きから", "starter": "見本"}
NO_ANNOTATOR = "（不明）"


@dataclasses.dataclass(frozen=True, slots=True)
class Features:
    """One row a dialogue, unless said otherwise.

    `pair` is closeness·5 + mood; `genre` the main topic's number, -1 where there is none or it is not
    in the taxonomy; `genres` all topic numbers; `length`, `position`, `speaker` (0 User, 1 Aku) and
    `owner` have one row a turn.
    """

    dialogues: tuple[Dialogue, ...]
    taxonomy: Taxonomy
    closeness: Ints
    mood: Ints
    genre: Ints
    genres: tuple[tuple[int, ...], ...]
    turns: Ints
    aku_begins: NDArray[np.bool_]
    annotator: Ints
    annotators: tuple[str, ...]
    kind: Ints
    month: Ints
    months: tuple[str, ...]
    length: Ints
    position: Ints
    speaker: Ints
    owner: Ints

    @property
    def n(self) -> int:
        """Number of dialogues."""
        return len(self.dialogues)

    @property
    def pair(self) -> Ints:
        """closeness·5 + mood."""
        return self.closeness * 5 + self.mood

    @property
    def mean_length(self) -> NDArray[np.float64]:
        """Mean characters a turn, one value a dialogue."""
        sums = np.bincount(self.owner, weights=self.length, minlength=self.n)
        return np.asarray(sums / np.maximum(1, self.turns))


def features(dialogues: Sequence[Dialogue], taxonomy: Taxonomy) -> Features:
    """Turn dialogues into columns."""
    number = {name: i for i, name in enumerate(taxonomy.names)}
    genres = tuple(tuple(number[g] for g in d.genre if g in number) for d in dialogues)
    names = [d.source.annotator or NO_ANNOTATOR for d in dialogues]
    dates = [(d.source.created_at or "")[:7] for d in dialogues]
    annotators, months = tuple(sorted(set(names))), tuple(sorted(set(dates)))
    turns = _ints(len(d.conversation) for d in dialogues)
    return Features(
        dialogues=tuple(dialogues),
        taxonomy=taxonomy,
        closeness=_ints(d.attribute.closeness for d in dialogues),
        mood=_ints(d.attribute.mood for d in dialogues),
        genre=_ints(g[0] if g else -1 for g in genres),
        genres=genres,
        turns=turns,
        aku_begins=np.array([d.conversation[0].speaker == "Aku" for d in dialogues], dtype=bool),
        annotator=_ints(annotators.index(name) for name in names),
        annotators=annotators,
        kind=_ints(KINDS.index(d.source.kind) if d.source.kind in KINDS else 0 for d in dialogues),
        month=_ints(months.index(date) for date in dates),
        months=months,
        length=_ints(len(t.text) for d in dialogues for t in d.conversation),
        position=_ints(i for d in dialogues for i in range(len(d.conversation))),
        speaker=_ints(int(t.speaker == "Aku") for d in dialogues for t in d.conversation),
        owner=np.repeat(np.arange(len(dialogues), dtype=np.int64), turns),
    )


def text_of(dialogue: Dialogue) -> str:
    """The words of a dialogue: context and turns, one a line."""
    return "\n".join([dialogue.context, *(turn.text for turn in dialogue.conversation)])


def _ints(values: object) -> Ints:
    return np.fromiter(values, dtype=np.int64)  # type: ignore[call-overload, no-any-return]  # any iterable of int
