"""Comparisons: the interval covers what it should, a comparison can be stopped and resumed, bases side by side."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from dialogue import Dialogue, Registry, SettingsError, write_dialogues
from exporters.sft import TrainSettings, train
from exporters.sft.compare import Run, base_result, compare_bases, compare_orders, difference, mean_curve
from tests.exporters.sft.conftest import save_nano

FAST = TrainSettings(epochs=1, evaluations=2, learning_rate=3e-3)


def simulated(effect: float, chance: np.random.Generator, seeds: int = 3, dialogues: int = 20) -> list[Run]:
    """Runs whose orders differ by `effect`, with noise from the seed, the dialogue and both together."""
    level = chance.normal(3, 0.5, dialogues)
    runs = []
    for order, shift in (("shuffle", 0.0), ("staged", effect)):
        liked = chance.normal(0, 0.03, dialogues)  # some dialogues gain more than others
        for seed in range(seeds):
            losses = level + shift + liked + chance.normal(0, 0.03) + chance.normal(0, 0.05, dialogues)
            runs.append(Run(order, seed, float(losses.mean()), tuple(losses), ()))
    return runs


def test_no_effect_is_called_one_in_at_most_five_of_a_hundred() -> None:
    chance = np.random.default_rng(0)
    found = [difference(simulated(0.0, chance), "staged") for _ in range(400)]
    wrong = sum(interval.low > 0 or interval.high < 0 for interval in found) / len(found)
    assert wrong <= 0.05


def test_a_large_effect_is_found_with_its_direction() -> None:
    chance = np.random.default_rng(1)
    better = [difference(simulated(-0.4, chance), "staged") for _ in range(50)]
    worse = [difference(simulated(0.4, chance), "staged") for _ in range(50)]
    assert sum(i.verdict.startswith("earned its place") for i in better) >= 45
    assert sum(i.verdict.startswith("does harm") for i in worse) >= 45


def test_curves_are_averaged_where_all_have_points() -> None:
    assert mean_curve([[(1, 2.0), (2, 4.0)], [(1, 4.0), (3, 1.0)]]) == [(1, 3.0)]


def test_orders_are_trained_on_one_budget_and_judged(nano: Path, version: Path, tmp_path: Path) -> None:
    result = compare_orders(nano, version, FAST, ["staged"], [0, 1], work=tmp_path)
    assert [(run.order, run.seed) for run in result.runs] == [
        ("shuffle", 0),
        ("staged", 0),
        ("shuffle", 1),
        ("staged", 1),
    ]
    assert {len(run.by_dialogue) for run in result.runs} == {4}
    assert [interval.name for interval in result.intervals] == ["staged"]
    saved = json.loads((result.folder / "orders.json").read_text())
    assert saved["intervals"][0]["verdict"] == result.intervals[0].verdict
    assert {path.name for path in result.folder.glob("*.svg")} == {"curves.svg", "intervals.svg"}
    # Finished runs are not repeated: their results are read, and pictures come out byte-equal.
    before = {path: path.read_bytes() for path in result.folder.glob("*")}
    assert compare_orders(nano, version, FAST, ["staged"], [0, 1], work=tmp_path, progress=refuse) == result
    assert before == {path: path.read_bytes() for path in result.folder.glob("*")}


def refuse(done: int, total: int, note: str) -> None:
    raise AssertionError("trained again")


def test_one_seed_says_nothing(nano: Path, version: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at least two seeds"):
        compare_orders(nano, version, FAST, ["staged"], [0], work=tmp_path)


def test_orders_can_not_be_compared_without_held_out_dialogues(
    nano: Path, tmp_path: Path, some: list[Dialogue]
) -> None:
    write_dialogues(tmp_path / "v" / "train.jsonl", some[:6])
    with pytest.raises(SettingsError, match="nothing to compare"):
        compare_orders(nano, tmp_path / "v", FAST, ["staged"], [0, 1], work=tmp_path)


def test_bases_with_different_tokenizers_are_compared_by_character(
    nano: Path, version: Path, tmp_path: Path, some: list[Dialogue]
) -> None:
    wide = save_nano(tmp_path / "wide", some[:3], hidden_size=48)
    longer = dataclasses.replace(FAST, epochs=3)
    registry = Registry(tmp_path / "checkpoints")
    made = [
        train(base, version, registry, settings, work=tmp_path / "runs")
        for base, settings in ((nano, FAST), (wide, longer))
    ]
    results = [base_result(checkpoint, version) for checkpoint in made]
    best, intervals = compare_bases(results, tmp_path / "side")
    assert best.after == min(result.after for result in results)
    assert len(intervals) == 1
    assert intervals[0].mean > 0
    for result, checkpoint in zip(results, made, strict=True):
        assert result.after == checkpoint.card["metrics"]["held_out_per_character"]["after"]
        assert result.before > result.after
        # The same loss per character, whichever way it is averaged: over dialogues or over all characters.
        assert np.mean(result.by_dialogue) == pytest.approx(result.after, rel=0.1)
    assert json.loads((tmp_path / "side" / "bases.json").read_text())["kept"] == best.checkpoint
