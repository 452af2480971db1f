"""Does Aku speak as the attribute pair asks?  Measures with error bars, beside the judge's own ceiling.

Every held-out scene is answered under all 25 pairs, so that what the scene itself says is the same for
all of them and differences are the attributes' work.  Intervals (90 %) come from drawing whole scenes,
or, for human turns, whole dialogues, with replacement.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.gate_bounds import Ints, bootstrap, codes, spearman
from analysis.gate_evidence import HumanTurns, SteeredReply
from analysis.judge import HandWritten, cross_validated, rounded
from analysis.judge_features import Floats, consistency

CHANCE = {"exact": 0.20, "within_one": 0.52}
"""What guessing one of five levels evenly gives."""


@dataclasses.dataclass(frozen=True, slots=True)
class Measure:
    """A number with its 90 % interval; NaN where it can not be said."""

    value: float
    low: float
    high: float
    n: int


@dataclasses.dataclass(frozen=True, slots=True)
class Control:
    """How well one attribute is heard.

    `exact` and `within_one`: share of replies whose rounded heard level is the wanted one, or next to
    it; `spearman`: over everything; `within_scene`: mean of each scene's own correlation; `monotone`:
    share of pairs of neighbouring levels (same scene, same other level) heard in the right order;
    `leak`: correlation of the heard level with the *other* attribute's wanted level.
    """

    exact: Measure
    within_one: Measure
    spearman: Measure
    within_scene: Measure
    monotone: Measure
    leak: Measure


@dataclasses.dataclass(frozen=True, slots=True)
class Steering:
    """All measures of one evaluation; `matrix` counts replies by wanted (row) and heard (column) pair, 25 × 25.

    `mean_closeness` and `mean_mood` are 5 × 5 mean heard levels by wanted closeness (row) and mood.
    """

    closeness: Control
    mood: Control
    politeness: Measure
    repetition: Measure
    endings: Measure
    matrix: Ints
    mean_closeness: Floats
    mean_mood: Floats
    scenes: int
    replies: int


@dataclasses.dataclass(frozen=True, slots=True)
class Ceiling:
    """What the judge makes of human turns that it was not trained on: no model can be heard to do better."""

    closeness: Control
    mood: Control
    dialogues: int


def steering(steered: Sequence[SteeredReply], seed: int = 0, draws: int = 400) -> Steering:
    """Measure an evaluation's replies."""
    groups = codes([reply.scene for reply in steered])
    wanted = np.array([(r.closeness, r.mood) for r in steered], dtype=np.int64).reshape(-1, 2)
    heard = np.array([(r.heard_closeness, r.heard_mood) for r in steered], dtype=np.float64).reshape(-1, 2)
    said = [(number, one) for number, reply in enumerate(steered) for one in reply.replies]
    owner = groups[[number for number, _ in said]] if said else np.zeros(0, dtype=np.int64)
    close, mood = (_control(wanted, heard, groups, a, seed, draws) for a in (0, 1))
    levels = rounded(heard)
    matrix = np.zeros((25, 25), dtype=np.int64)
    np.add.at(matrix, (wanted[:, 0] * 5 + wanted[:, 1], levels[:, 0] * 5 + levels[:, 1]), 1)
    polite = np.array([consistency([one.text for one in reply.replies]) for reply in steered])
    return Steering(
        close,
        mood,
        _mean(polite, groups, seed, draws),
        _mean(np.array([one.repetition is not None for _, one in said], dtype=float), owner, seed, draws),
        _mean(np.array([one.ending is None for _, one in said], dtype=float), owner, seed, draws),
        matrix,
        _means(wanted, heard[:, 0]),
        _means(wanted, heard[:, 1]),
        int(groups.max(initial=-1)) + 1,
        len(said),
    )


def human_turns(turns: HandWritten, together: int = 3, seed: int = 0) -> list[HumanTurns]:
    """What judges hear in human turns they were not trained on, `together` consecutive turns heard as one.

    Raises `RecordError` when there are too few hand-written dialogues.
    """
    heard = cross_validated(turns, seed)
    found = []
    for group in range(turns.dialogues):
        own = np.flatnonzero(turns.groups == group)
        for start in range(0, len(own), together):
            unit = own[start : start + together]
            close, mood = (float(x) for x in heard[unit].mean(axis=0))
            found.append(
                HumanTurns(str(group), int(turns.levels[own[0], 0]), int(turns.levels[own[0], 1]), close, mood)
            )
    return found


def ceiling(human: Sequence[HumanTurns], seed: int = 0, draws: int = 400) -> Ceiling:
    """Measure the judge on human turns."""
    groups = codes([unit.dialogue for unit in human])
    wanted = np.array([(unit.closeness, unit.mood) for unit in human], dtype=np.int64).reshape(-1, 2)
    heard = np.array([(unit.heard_closeness, unit.heard_mood) for unit in human], dtype=np.float64).reshape(-1, 2)
    close, mood = (_control(wanted, heard, groups, a, seed, draws) for a in (0, 1))
    return Ceiling(close, mood, int(groups.max(initial=-1)) + 1)


def human_politeness(dialogues: Sequence[Sequence[str]], seed: int = 0, draws: int = 400) -> Measure:
    """Politeness consistency of people's own dialogues (each Aku's turns), for comparison."""
    values = np.array([consistency(texts) for texts in dialogues])
    return _mean(values, np.arange(len(values), dtype=np.int64), seed, draws)


def only(steered: Sequence[SteeredReply], pairs: Sequence[tuple[int, int]]) -> list[SteeredReply]:
    """Replies under some of the pairs, the unseen ones, say."""
    chosen = set(pairs)
    return [reply for reply in steered if (reply.closeness, reply.mood) in chosen]


def _control(wanted: Ints, heard: Floats, groups: Ints, attribute: int, seed: int, draws: int) -> Control:
    goal, other = wanted[:, attribute], wanted[:, 1 - attribute]
    found = heard[:, attribute]
    level = rounded(found)

    def monotone(index: Ints) -> float:
        right = total = 0.0
        cells: dict[tuple[int, int], dict[int, list[float]]] = {}
        for i in index:
            cells.setdefault((int(groups[i]), int(other[i])), {}).setdefault(int(goal[i]), []).append(float(found[i]))
        for cell in cells.values():
            for k in range(4):
                if k in cell and k + 1 in cell:
                    total += 1
                    low, high = np.mean(cell[k]), np.mean(cell[k + 1])
                    right += 1.0 if high > low else 0.5 if high == low else 0.0
        return right / total if total else math.nan

    def within_scene(index: Ints) -> float:
        own = [index[groups[index] == g] for g in np.unique(groups[index])]
        each = [spearman(goal[i], found[i]) for i in own if len(i) > 4]
        return float(np.nanmean(each)) if each and not np.all(np.isnan(each)) else math.nan

    def measured(statistic: Callable[[Ints], float], times: int = draws) -> Measure:
        rng = np.random.default_rng([seed, attribute])
        value, low, high = bootstrap(statistic, groups, rng, times)
        return Measure(value, low, high, len(goal))

    return Control(
        exact=measured(lambda i: float((level[i] == goal[i]).mean())),
        within_one=measured(lambda i: float((np.abs(level[i] - goal[i]) <= 1).mean())),
        spearman=measured(lambda i: spearman(goal[i], found[i])),
        within_scene=_spread([within_scene(np.flatnonzero(groups == g)) for g in np.unique(groups)]),
        monotone=_spread([monotone(np.flatnonzero(groups == g)) for g in np.unique(groups)]),
        leak=measured(lambda i: spearman(other[i], found[i])),
    )


def _spread(each: Sequence[float]) -> Measure:
    """Mean of one number a scene, with 1.645 standard errors on both sides."""
    known = np.array([x for x in each if not math.isnan(x)])
    if not known.size:
        return Measure(math.nan, math.nan, math.nan, 0)
    reach = 1.645 * float(known.std(ddof=1)) / math.sqrt(known.size) if known.size > 1 else math.nan
    return Measure(float(known.mean()), float(known.mean()) - reach, float(known.mean()) + reach, known.size)


def _mean(values: NDArray[np.float64], groups: Ints, seed: int, draws: int) -> Measure:
    """Mean of what is known, with its bootstrap interval over groups."""
    known = ~np.isnan(values)
    if not known.any():
        return Measure(math.nan, math.nan, math.nan, 0)
    kept, own = values[known], np.unique(groups[known], return_inverse=True)[1].reshape(-1).astype(np.int64)
    value, low, high = bootstrap(lambda i: float(kept[i].mean()), own, np.random.default_rng([seed, 9]), draws)
    return Measure(value, low, high, int(known.sum()))


def _means(wanted: Ints, heard: Floats) -> Floats:
    """Mean heard level by wanted pair, shape (5, 5); NaN where there was no reply."""
    sums, counts = np.zeros((5, 5)), np.zeros((5, 5))
    np.add.at(sums, (wanted[:, 0], wanted[:, 1]), heard)
    np.add.at(counts, (wanted[:, 0], wanted[:, 1]), 1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def to_dict(found: Steering | Ceiling) -> dict[str, object]:
    """Return plain JSON data, NaN as None."""
    return {key: plain(value) for key, value in dataclasses.asdict(found).items()}


def plain(value: object) -> object:
    """Turn arrays into lists and what is no number into None, all the way down."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
