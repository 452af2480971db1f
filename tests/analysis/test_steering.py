"""The steering evaluation finds what is there, and nothing where nothing is."""

import json

import numpy as np
import pytest

from analysis.gate_evidence import Reply, SteeredReply
from analysis.judge import HandWritten, Judge
from analysis.steering import CHANCE, ceiling, human_turns, only, steering, to_dict
from benchmarks.planted import ALL_PAIRS, STARTER_PAIRS, perfect_replies, planted, shuffled


def replies(scenes: int, hear: object) -> list[SteeredReply]:
    rows = []
    for scene in range(scenes):
        for c, m in ALL_PAIRS:
            x, y = hear(c, m)  # type: ignore[operator]
            rows.append(SteeredReply(f"s{scene}", c, m, x, y, (Reply("そうですね。", None, None),) * 2))
    return rows


def heard(judge: Judge, scenes: int, obeys: float, seed: int) -> list[SteeredReply]:
    rows = perfect_replies(scenes, seed=seed, obeys=obeys)
    levels = judge.hear_together([texts for *_, texts in rows])
    return [
        SteeredReply(s, c, m, float(h[0]), float(h[1]), tuple(Reply(t, None, None) for t in texts))
        for (s, c, m, texts), h in zip(rows, levels, strict=True)
    ]


def test_perfect_control() -> None:
    found = steering(replies(6, lambda c, m: (float(c), float(m))))
    for control in (found.closeness, found.mood):
        assert control.exact.value == control.within_one.value == control.monotone.value == 1
        assert control.spearman.value == control.within_scene.value == pytest.approx(1)
        assert control.leak.value == pytest.approx(0, abs=1e-9)
    assert np.array_equal(found.matrix, 6 * np.eye(25, dtype=int))
    assert found.mean_mood[3].tolist() == [0, 1, 2, 3, 4]
    assert found.mean_closeness[:, 3].tolist() == [0, 1, 2, 3, 4]


def test_leak_is_seen() -> None:
    found = steering(replies(6, lambda c, m: (float(c), (c + m) / 2)))
    assert found.mood.leak.value > 0.6
    assert abs(found.closeness.leak.value) < 1e-9


def test_guessing_gives_chance() -> None:
    rng = np.random.default_rng(0)
    found = steering(replies(100, lambda _c, _m: (float(rng.integers(5)), float(rng.integers(5)))), draws=50)
    assert found.mood.exact.value == pytest.approx(CHANCE["exact"], abs=0.03)
    assert found.mood.within_one.value == pytest.approx(CHANCE["within_one"], abs=0.03)
    assert found.mood.spearman.low < 0 < found.mood.spearman.high


def test_planted_effect_is_recovered_and_a_shuffled_one_not_found() -> None:
    corpus = list(planted(150, seed=1))
    turns = HandWritten.of(corpus)
    found = steering(heard(Judge(turns), 8, 1.0, 2), draws=50)
    assert min(found.closeness.spearman.low, found.mood.spearman.low) > 0.8
    assert max(abs(found.closeness.leak.value), abs(found.mood.leak.value)) < 0.2
    top = ceiling(human_turns(turns), draws=50)
    assert min(top.closeness.spearman.low, top.mood.spearman.low) > 0.8
    broken = HandWritten.of(shuffled(corpus, 3))
    nothing = steering(heard(Judge(broken), 8, 0.0, 4), draws=50)
    assert max(abs(nothing.closeness.spearman.value), abs(nothing.mood.spearman.value)) < 0.25
    bottom = ceiling(human_turns(broken), draws=50)
    assert max(bottom.closeness.spearman.value, bottom.mood.spearman.value) < 0.3


def test_judge_from_the_five_starting_pairs_hears_the_other_twenty() -> None:
    judge = Judge(HandWritten.of(list(planted(100, seed=6, pairs=STARTER_PAIRS))))
    rows = heard(judge, 8, 1.0, 7)
    unseen = only(rows, [pair for pair in ALL_PAIRS if pair not in STARTER_PAIRS])
    assert len(unseen) == 8 * 20
    found = steering(unseen, draws=50)
    assert min(found.closeness.within_one.value, found.mood.within_one.value) >= 0.75
    everywhere = steering(rows, draws=50)
    assert min(everywhere.closeness.spearman.value, everywhere.mood.spearman.value) >= 0.75


def test_same_replies_same_figures_and_plain_json() -> None:
    rows = replies(4, lambda c, m: (c * 0.5, m * 0.7))
    assert json.dumps(to_dict(steering(rows))) == json.dumps(to_dict(steering(rows)))
    assert "NaN" not in json.dumps(to_dict(steering([])))
