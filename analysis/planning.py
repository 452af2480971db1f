"""The planner: which dialogues to write next so that every margin comes to its target.

Each margin (pair, topic, number of turns, who begins) is served like delegates on a rota: the level
whose deadline comes first is next (Tijdeman 1980, "The chairman assignment problem", Discrete Math.
32:323), which keeps every level within one dialogue of its target at every size.  Where several
levels are equally due, the combination that is rarest so far wins, which keeps pairs of margins
independent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.settings import PlanSettings
from analysis.statistics import generator
from analysis.targets import PAIRS, STARTER_PAIRS, genre_shares, is_starter, pair_shares, turn_shares
from dialogue.genres import Taxonomy
from dialogue.label_studio import MAX_TURNS, Card, blank_turns
from dialogue.records import CLOSENESS_MEANING, MOOD_MEANING, Attribute, Dialogue, clean_text

Floats = NDArray[np.float64]
AKU_FIRST = "Akuから始める"
"""Stands in a card's text if Aku begins; the boxes alone do not tell, since the first is a blank User box."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """A scene to write about: its topic, the context, and a first User turn where one is offered."""

    topic: str
    context: str
    opener: str | None = None
    id: str | None = None

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> Scene:
        """Build from one line of a contexts file."""
        opener = clean_text(str(value.get("opener") or "")) or None
        name = str(value["id"]) if value.get("id") else None
        return cls(str(value.get("topic") or ""), clean_text(str(value.get("context") or "")), opener, name)


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedCard:
    """A card and the gap it fills.  `key` names one of the ten starting cards, which are made only once."""

    card: Card
    reason: str
    key: str = ""


@dataclasses.dataclass(slots=True)
class _Margin:
    """One margin: target shares and how many dialogues each level has so far (written, in work, planned)."""

    shares: Floats
    counts: Floats
    cap: float = dataclasses.field(init=False)
    even: bool = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        used = self.shares > 0
        k = int(used.sum())
        self.cap = 1.0 if k < 2 else 1 - 1 / (2 * k - 2)
        self.even = bool(np.allclose(self.shares[used], self.shares[used][0]))

    def due(self) -> NDArray[np.intp]:
        """Levels that may come next without any level ever falling more than one behind."""
        used = self.shares > 0
        if self.even:
            return np.flatnonzero(used & (self.counts <= self.counts[used].min()))
        total = self.counts.sum() + 1
        missing = total * self.shares - self.counts
        eligible = used & (missing >= min(1 - self.cap, missing[used].max()) - 1e-9)
        slack = np.full(self.shares.shape, np.inf)
        slack[eligible] = (self.cap - missing[eligible]) / self.shares[eligible]
        return np.flatnonzero(slack <= slack.min() + 1e-9)


@dataclasses.dataclass(slots=True)
class _Tables:
    """Two-way counts, for choosing among the levels that are due."""

    pair_genre: Floats
    pair_turns: Floats
    genre_turns: Floats
    pair_first: Floats
    genre_first: Floats
    turns_first: Floats

    def add(self, pair: int, genre: int, turns: int, first: int) -> None:
        self.pair_genre[pair, genre] += 1
        self.pair_turns[pair, turns] += 1
        self.genre_turns[genre, turns] += 1
        self.pair_first[pair, first] += 1
        self.genre_first[genre, first] += 1
        self.turns_first[turns, first] += 1


def plan(
    dialogues: Sequence[Dialogue],
    n: int,
    *,
    waiting: Sequence[Card] = (),
    contexts: Sequence[Scene] = (),
    settings: PlanSettings | None = None,
    taxonomy: Taxonomy,
    seed: int | None = None,
) -> list[PlannedCard]:
    """Make the next `n` cards.

    Args:
        dialogues: What is written.
        n: Number of cards to make.
        waiting: Cards that exist but are not written yet; they count as if they were.
        contexts: Scenes to offer; the least used of a topic comes first.
        settings: Targets; defaults if None.
        taxonomy: Topics.
        seed: Overrides the settings' seed.

    Returns:
        `n` cards; equal arguments give equal cards.
    """
    settings = settings or PlanSettings()
    seed = settings.seed if seed is None else seed
    start = len(dialogues) + len(waiting)
    rng = generator(seed, f"plan {start}")
    values, shares = turn_shares(settings)
    cells = [*map(_cell_of_dialogue, dialogues), *map(_cell_of_card, waiting)]
    topics = taxonomy.names
    names = {name: i for i, name in enumerate(topics)}
    coded = [
        (PAIRS.index(pair), names.get(topic, -1), values.index(turns) if turns in values else -1, first)
        for pair, topic, turns, first in cells
    ]
    first_shares = np.array([1 - settings.aku_begins, settings.aku_begins])
    margins = {
        "genre": _Margin(genre_shares(settings, taxonomy), _count(coded, 1, len(names))),
        "turns": _Margin(shares, _count(coded, 2, len(values))),
        "first": _Margin(first_shares, _count(coded, 3, 2)),
    }
    pair_counts = _count(coded, 0, 25)
    stages: dict[bool, _Margin] = {}
    ten = np.flatnonzero(np.array(values) == 10)
    tables = _Tables(*(np.zeros(shape) for shape in _shapes(len(names), len(values))))
    for pair, genre, turns, first in coded:
        if min(genre, turns) >= 0:
            tables.add(pair, genre, turns, first)
    shelf = _Shelf(contexts, [d.context for d in dialogues] + [c.context for c in waiting], rng)
    cards = []
    for number in range(start, start + n):
        starter = is_starter(settings, number + 1)
        if starter not in stages:
            stages[starter] = _Margin(pair_shares(settings, number + 1), pair_counts)
        first = 0 if starter else int(rng.choice(margins["first"].due()))
        pair, genre = _rarest_pair(stages[starter].due(), margins["genre"].due(), first, tables, rng)
        due = ten if starter and ten.size else margins["turns"].due()
        turns = _rarest_turns(pair, genre, first, due, tables, rng)
        filled = [
            (f"組{PAIRS[pair].closeness}・{PAIRS[pair].mood}", stages[starter], pair),
            (topics[genre], margins["genre"], genre),
            (f"{values[turns]}ターン", margins["turns"], turns),
        ]
        reason = _reason(number + 1, filled)
        pair_counts[pair] += 1
        for key, level in (("genre", genre), ("turns", turns), ("first", first)):
            margins[key].counts[level] += 1
        tables.add(pair, genre, turns, first)
        count = 10 if starter else values[turns]
        scene = shelf.take(topics[genre], with_opener=not first)
        cards.append(PlannedCard(make_card(PAIRS[pair], topics[genre], count, bool(first), scene), reason))
    return cards


@dataclasses.dataclass(frozen=True, slots=True)
class Gap:
    """One level of one margin: its target after the plan, and how many there were before and will be after."""

    margin: str
    level: str
    target: float
    before: int
    after: int


def gaps(
    dialogues: Sequence[Dialogue],
    cards: Sequence[PlannedCard],
    *,
    waiting: Sequence[Card] = (),
    settings: PlanSettings | None = None,
    taxonomy: Taxonomy,
) -> list[Gap]:
    """Say for every level of every margin how far a plan brings it (written and waiting dialogues count as before)."""
    settings = settings or PlanSettings()
    before = [*map(_cell_of_dialogue, dialogues), *map(_cell_of_card, waiting)]
    after = [*before, *(_cell_of_card(card.card) for card in cards)]
    values, shares = turn_shares(settings)
    pairs = [f"{pair.closeness}・{pair.mood}" for pair in PAIRS]
    margins: list[tuple[str, int, list[Any], list[str], Floats]] = [
        ("組", 0, list(PAIRS), pairs, pair_shares(settings, len(after))),
        ("ジャンル", 1, list(taxonomy.names), list(taxonomy.names), genre_shares(settings, taxonomy)),
        ("ターン数", 2, list(values), [f"{value}" for value in values], shares),
        ("はじめる人", 3, [0, 1], ["User", "Aku"], np.array([1 - settings.aku_begins, settings.aku_begins])),
    ]
    found = []
    for name, column, levels, labels, share in margins:
        old, new = [cell[column] for cell in before], [cell[column] for cell in after]
        for level, label, part in zip(levels, labels, share.tolist(), strict=True):
            found.append(Gap(name, label, part * len(after), old.count(level), new.count(level)))
    return found


def starter_plan(contexts: Sequence[Scene], taxonomy: Taxonomy, *, seed: int = 0) -> list[PlannedCard]:
    """The ten cards to begin with: ten turns, five pairs twice, ten different contexts and topics.

    Always the same ten, with the same keys, so that creating them again adds nothing.
    """
    rng = generator(seed, "starter")
    shelf = _Shelf(contexts, [], rng)
    step = max(1, len(taxonomy.names) // 10)
    topics = list(dict.fromkeys([*taxonomy.names[::step], *taxonomy.names]))[:10]
    order = rng.permutation(len(topics))
    cards = []
    for i, pair in enumerate([*STARTER_PAIRS, *STARTER_PAIRS]):
        topic = topics[int(order[i])] if i < len(topics) else ""
        card = make_card(pair, topic, 10, False, shelf.take(topic, with_opener=False))
        cards.append(PlannedCard(card, "最初の10件（5組 × 2、10ターン、場面も話題もすべて別）", f"starter-{i}"))
    return cards


def make_card(pair: Attribute, topic: str, turns: int, aku_begins: bool, scene: Scene | None) -> Card:
    """Build the card of one cell: a one-line assignment, the scene, and as many boxes as turns are wanted."""
    parts = [
        f"親密さ{pair.closeness}（{CLOSENESS_MEANING[pair.closeness]}）",
        f"機嫌{pair.mood}（{MOOD_MEANING[pair.mood]}）",
        *([topic] if topic else []),
        f"{turns}ターン",
    ]
    text = "・".join(parts)
    if aku_begins:
        text += f"・{AKU_FIRST}（最初のUserの欄は空のまま）"
    if scene is None:
        text += "・場面も考えて書く"
    opener = scene.opener if scene is not None and not aku_begins else None
    boxes = min(MAX_TURNS, turns + int(aku_begins))
    return Card(
        text=text,
        context=scene.context if scene else "",
        attribute=pair,
        genre=(topic,) if topic else (),
        turns=blank_turns(boxes, [opener] if opener else []),
        opener=scene.id if scene is not None and opener else None,
    )


class _Shelf:
    """Scenes by topic; the least used comes first, ties in a seeded order."""

    def __init__(self, scenes: Sequence[Scene], used: Sequence[str], rng: np.random.Generator) -> None:
        self.uses: dict[str, int] = {}
        for context in used:
            self.uses[context] = self.uses.get(context, 0) + 1
        self.by_topic: dict[str, list[Scene]] = {}
        for i in rng.permutation(len(scenes)):
            self.by_topic.setdefault(scenes[int(i)].topic, []).append(scenes[int(i)])

    def take(self, topic: str, *, with_opener: bool) -> Scene | None:
        """The next scene of a topic.  Its opener is offered on first use only, else it would become a stock phrase."""
        found = self.by_topic.get(topic)
        if not found:
            return None
        scene = min(found, key=lambda s: self.uses.get(s.context, 0))
        before = self.uses.get(scene.context, 0)
        self.uses[scene.context] = before + 1
        return scene if with_opener and not before else dataclasses.replace(scene, opener=None)


def _cell_of_dialogue(dialogue: Dialogue) -> tuple[Attribute, str, int, int]:
    genre = dialogue.genre[0] if dialogue.genre else ""
    first = int(dialogue.conversation[0].speaker == "Aku")
    return dialogue.attribute, genre, len(dialogue.conversation), first


def _cell_of_card(card: Card) -> tuple[Attribute, str, int, int]:
    first = int(AKU_FIRST in card.text or card.turns[0].speaker == "Aku")
    blank_front = first and card.turns[0].speaker == "User"
    return card.attribute, card.genre[0] if card.genre else "", len(card.turns) - int(blank_front), first


def _count(coded: Sequence[tuple[int, ...]], column: int, size: int) -> Floats:
    return np.bincount([c[column] for c in coded if c[column] >= 0], minlength=size).astype(float)


def _shapes(genres: int, turns: int) -> list[tuple[int, int]]:
    return [(25, genres), (25, turns), (genres, turns), (25, 2), (genres, 2), (turns, 2)]


_CLOSENESS = np.array([pair.closeness for pair in PAIRS])
_MOOD = np.array([pair.mood for pair in PAIRS])


def _rarest_pair(
    pairs: NDArray[np.intp], genres: NDArray[np.intp], first: int, tables: _Tables, rng: np.random.Generator
) -> tuple[int, int]:
    """Choose pair and topic together: rare as a combination, with either attribute alone, and with who begins."""
    table = tables.pair_genre
    by_closeness = table.reshape(5, 5, -1).sum(axis=1)
    by_mood = table.reshape(5, 5, -1).sum(axis=0)
    cost = table[np.ix_(pairs, genres)] * 2 + by_closeness[np.ix_(_CLOSENESS[pairs], genres)]
    cost = cost + by_mood[np.ix_(_MOOD[pairs], genres)] + rng.random(cost.shape) * 0.5
    if first:  # the rarer beginner: few cards, so that each has to count
        cost = cost + 4 * (tables.pair_first[pairs, 1][:, None] + tables.genre_first[genres, 1][None, :])
    best = int(cost.argmin())
    return int(pairs[best // len(genres)]), int(genres[best % len(genres)])


def _rarest_turns(
    pair: int, genre: int, first: int, due: NDArray[np.intp], tables: _Tables, rng: np.random.Generator
) -> int:
    table = tables.pair_turns
    by_closeness = table[_CLOSENESS[pair] == _CLOSENESS].sum(axis=0)
    by_mood = table[_MOOD[pair] == _MOOD].sum(axis=0)
    cost = 2 * table[pair] + tables.genre_turns[genre] + by_closeness + by_mood + 4 * first * tables.turns_first[:, 1]
    return int(due[int((cost[due] + rng.random(len(due)) * 0.5).argmin())])


def _reason(total: int, filled: Sequence[tuple[str, _Margin, int]]) -> str:
    parts = [f"{name}は{int(m.counts[level])}件（目標{total * m.shares[level]:.1f}）" for name, m, level in filled]
    return "、".join(parts)


def read_scenes(rows: Sequence[tuple[int, Mapping[str, object]]]) -> list[Scene]:
    """Build scenes from numbered rows of a contexts file, those without a context left out."""
    return [scene for _, row in rows if (scene := Scene.from_dict(row)).context]


__all__ = ["Gap", "PlannedCard", "Scene", "gaps", "make_card", "plan", "read_scenes", "starter_plan"]
