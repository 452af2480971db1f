"""The planner keeps every margin within one dialogue of its target, and invents nothing twice."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import PlanSettings, Scene, gaps, plan, starter_plan
from analysis.planning import AKU_FIRST
from analysis.statistics import cramers_v
from analysis.targets import PAIRS, STARTER_PAIRS, genre_shares, turn_shares
from dialogue import SettingsError, load_taxonomy
from dialogue.label_studio import Card, to_task

TAXONOMY = load_taxonomy()
NAMES = TAXONOMY.names
SCENES = [Scene(topic, f"{topic}の場面{i}", f"{topic}のひとこと{i}") for topic in NAMES for i in range(3)]


def cells(cards: list[Card]) -> np.ndarray:
    rows = []
    for card in cards:
        first = AKU_FIRST in card.text
        rows.append((PAIRS.index(card.attribute), NAMES.index(card.genre[0]), len(card.turns) - first, int(first)))
    return np.array(rows)


ALL = PlanSettings(stage="all")


@pytest.fixture(scope="module")
def three_thousand() -> list[Card]:
    return [p.card for p in plan([], 3000, contexts=SCENES, settings=ALL, taxonomy=TAXONOMY)]


def deviations(found: np.ndarray, options: PlanSettings) -> dict[str, np.ndarray]:
    """For each margin, the largest distance from its target at every size."""
    values, turns = turn_shares(options)
    margins = {
        "pair": (found[:, 0], np.arange(25), np.full(25, 1 / 25)),
        "genre": (found[:, 1], np.arange(len(NAMES)), genre_shares(options, TAXONOMY)),
        "turns": (found[:, 2], np.array(values), turns),
        "first": (found[:, 3], np.arange(2), np.array([0.9, 0.1])),
    }
    sizes = np.arange(1, len(found) + 1)[:, None]
    return {
        name: np.abs(np.cumsum(codes[:, None] == levels, axis=0) - sizes * shares).max(axis=1)
        for name, (codes, levels, shares) in margins.items()
    }


def test_every_margin_is_within_one_at_every_size(three_thousand: list[Card]) -> None:
    for name, off in deviations(cells(three_thousand), ALL).items():
        assert off.max() <= 1, name


def test_after_the_starting_ten_every_margin_comes_within_one_as_soon_as_whole_dialogues_allow() -> None:
    off = deviations(cells([p.card for p in plan([], 400, taxonomy=TAXONOMY)]), PlanSettings())
    assert off["genre"].max() <= 1
    assert off["first"][10:].max() <= 1
    assert off["pair"][29:].max() <= 1  # two of each of five pairs: 20 cells have to be filled first
    assert off["turns"][129:].max() <= 1  # ten dialogues of ten turns are a thirteenth of 130


def test_pairs_of_margins_are_independent(three_thousand: list[Card]) -> None:
    found = cells(three_thousand)
    for a, b in ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)):
        table = np.zeros((found[:, a].max() + 1, found[:, b].max() + 1))
        np.add.at(table, (found[:, a], found[:, b]), 1)
        assert cramers_v(table)[1] < 0.02, (a, b)


def test_the_first_ten_cards_are_the_five_pairs_with_ten_turns() -> None:
    cards = [p.card for p in plan([], 12, taxonomy=TAXONOMY)]
    assert collections.Counter(c.attribute for c in cards[:10]) == dict.fromkeys(STARTER_PAIRS, 2)
    assert {len(c.turns) for c in cards[:10]} == {10}
    assert all(c.attribute not in STARTER_PAIRS for c in cards[10:])


def test_the_starting_protocol_is_the_memos_ten() -> None:
    cards = starter_plan(SCENES, TAXONOMY)
    assert collections.Counter(c.card.attribute for c in cards) == dict.fromkeys(STARTER_PAIRS, 2)
    assert {len(c.card.turns) for c in cards} == {10}
    assert len({c.card.context for c in cards}) == 10
    assert len({c.card.genre for c in cards}) == 10
    assert len({c.key for c in cards}) == 10
    assert cards == starter_plan(SCENES, TAXONOMY)


def test_the_same_arguments_give_the_same_cards() -> None:
    first = plan([], 60, contexts=SCENES, taxonomy=TAXONOMY, seed=3)
    assert first == plan([], 60, contexts=SCENES, taxonomy=TAXONOMY, seed=3)
    assert first != plan([], 60, contexts=SCENES, taxonomy=TAXONOMY, seed=4)


def test_written_and_waiting_count(make) -> None:
    written = [make(i, pair=(p.closeness, p.mood), genre=(NAMES[i % 20],)) for i, p in enumerate(PAIRS[:-1])]
    (only,) = plan(written, 1, settings=PlanSettings(stage="all"), taxonomy=TAXONOMY)
    assert only.card.attribute == PAIRS[-1]
    following = plan(written, 5, waiting=[only.card], settings=PlanSettings(stage="all"), taxonomy=TAXONOMY)
    assert following[0].card.attribute != PAIRS[-1]


def test_planning_in_two_steps_keeps_the_targets() -> None:
    options = PlanSettings(stage="all")
    first = [p.card for p in plan([], 70, settings=options, taxonomy=TAXONOMY)]
    second = [p.card for p in plan([], 80, waiting=first, settings=options, taxonomy=TAXONOMY)]
    counts = np.bincount(cells([*first, *second])[:, 0], minlength=25)
    assert set(counts) == {6}


def test_scenes_come_round_before_any_comes_twice() -> None:
    cards = [p.card for p in plan([], 60, contexts=SCENES, settings=PlanSettings(stage="all"), taxonomy=TAXONOMY)]
    assert max(collections.Counter(c.context for c in cards).values()) == 1
    more = [p.card for p in plan([], 60, waiting=cards, contexts=SCENES, taxonomy=TAXONOMY)]
    assert max(collections.Counter(c.context for c in [*cards, *more]).values()) == 2
    assert all(not turn.text for card in more for turn in card.turns), "an opener is offered once only"


def test_a_card_says_in_one_line_what_is_wanted() -> None:
    cards = [p.card for p in plan([], 120, contexts=SCENES, settings=PlanSettings(stage="all"), taxonomy=TAXONOMY)]
    user = next(c for c in cards if AKU_FIRST not in c.text)
    assert "\n" not in user.text
    assert user.text.startswith(f"親密さ{user.attribute.closeness}（")
    assert user.genre[0] in user.text
    assert f"{len(user.turns)}ターン" in user.text
    assert user.turns[0].text.startswith(user.genre[0])
    aku = next(c for c in cards if AKU_FIRST in c.text)
    assert aku.turns[0].speaker == "User"
    assert aku.turns[0].text == ""
    assert f"{len(aku.turns) - 1}ターン" in aku.text
    assert to_task(aku)["turns"][0] == {"speaker": "User", "text": ""}


def test_without_scenes_the_annotator_is_asked_for_one() -> None:
    (card,) = plan([], 1, taxonomy=TAXONOMY)
    assert card.card.context == ""
    assert "場面も考えて書く" in card.card.text


def test_weights_move_the_targets() -> None:
    options = PlanSettings(stage="all", genre_weights={NAMES[0]: 3, NAMES[1]: 0}, pair_weights={"4,0": 2})
    found = cells([p.card for p in plan([], 520, settings=options, taxonomy=TAXONOMY)])
    shares = genre_shares(options, TAXONOMY)
    assert np.abs(np.bincount(found[:, 1], minlength=20) - 520 * shares).max() <= 1
    assert (found[:, 0] == PAIRS.index(STARTER_PAIRS[3])).sum() == pytest.approx(40, abs=1)


@given(st.lists(st.integers(0, 9), min_size=20, max_size=20), st.integers(1, 400))
@settings(max_examples=25, deadline=None)
def test_uneven_targets_are_kept_within_one_at_every_size(weights: list[int], n: int) -> None:
    if not any(weights):
        return
    options = PlanSettings(stage="all", genre_weights={k: float(w) for k, w in zip(NAMES, weights, strict=True)})
    codes = cells([p.card for p in plan([], n, settings=options, taxonomy=TAXONOMY)])[:, 1]
    sums = np.cumsum(codes[:, None] == np.arange(20), axis=0)
    assert np.abs(sums - np.arange(1, n + 1)[:, None] * genre_shares(options, TAXONOMY)).max() <= 1 + 1e-9


def test_gaps_say_before_after_and_target() -> None:
    cards = plan([], 25, settings=PlanSettings(stage="all"), taxonomy=TAXONOMY)
    found = gaps([], cards, settings=PlanSettings(stage="all"), taxonomy=TAXONOMY)
    pairs = [gap for gap in found if gap.margin == "組"]
    assert [(gap.before, gap.after, gap.target) for gap in pairs] == [(0, 1, 1.0)] * 25
    assert sum(gap.after for gap in found if gap.margin == "ジャンル") == 25


def test_reasons_name_the_gap() -> None:
    first = plan([], 1, settings=PlanSettings(stage="all"), taxonomy=TAXONOMY)[0]
    assert f"組{first.card.attribute.closeness}・{first.card.attribute.mood}は0件" in first.reason


def test_nonsense_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="no topic"):
        plan([], 1, settings=PlanSettings(genre_weights={"量子力学": 1.0}), taxonomy=TAXONOMY)
    with pytest.raises(SettingsError, match="nothing to plan"):
        plan([], 1, settings=PlanSettings(genre_weights=dict.fromkeys(NAMES, 0.0)), taxonomy=TAXONOMY)
    for wrong in ({"turns": ()}, {"turns": (1,)}, {"aku_begins": 2.0}, {"pair_weights": {"5,0": 1.0}}):
        with pytest.raises(ValueError, match=r"must|write"):
            dataclasses.replace(PlanSettings(), **wrong)
