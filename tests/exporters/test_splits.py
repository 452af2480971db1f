"""Relatives stay together, strata are even, and a dialogue once in test never leaves it."""

from __future__ import annotations

import collections
import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialogue import FileError
from exporters.settings import ExportSettings
from exporters.splits import Component, assign, components, opener_author, read_ledger, write_ledger
from exporters.spool import Facts

SETTINGS = ExportSettings()


def facts(count: int, *, seed: int = 0, start: int = 0) -> list[Facts]:
    random_ = random.Random(seed)
    return [
        Facts(
            number,
            f"d{number:05d}",
            f"場面{number}",
            None,
            random_.randrange(5),
            random_.randrange(5),
            (random_.choice("abcdefgh"),),
        )
        for number in range(start, start + count)
    ]


def groups_of(rows: list[Facts], pairs: list[tuple[int, int]] | None = None) -> list[Component]:
    return components(rows, pairs or [])


def test_relatives_form_one_component() -> None:
    rows = facts(8)
    rows[1] = dataclasses.replace(rows[1], context=" 場 面 0")  # the same scene but for white space
    rows[2] = dataclasses.replace(rows[2], opener="answer1:helper")
    rows[3] = dataclasses.replace(rows[3], opener="answer2:helper")
    found = groups_of(rows, [(3, 4), (4, 5)])
    assert [[fact.number for fact in group.members] for group in found] == [[0, 1], [2, 3, 4, 5], [6], [7]]


def test_opener_author() -> None:
    assert opener_author("answer1:helper") == opener_author("answer2:helper") == "helper"
    assert opener_author("scene-7") == "scene-7"
    assert opener_author(None) is None


@pytest.mark.parametrize("count", [300, 3000])
def test_splits_have_their_sizes_and_strata_are_even(count: int) -> None:
    rows = facts(count)
    split = assign(groups_of(rows), {}, SETTINGS)
    sizes = collections.Counter(split.values())
    assert abs(sizes["test"] - count * 0.1) <= 2
    assert abs(sizes["validation"] - count * 0.1) <= 2
    for key in ("pair", "genre"):
        total: collections.Counter[object] = collections.Counter()
        inside: collections.Counter[object] = collections.Counter()
        for fact in rows:
            stratum = (fact.closeness, fact.mood) if key == "pair" else fact.genre
            total[stratum] += 1
            inside[stratum] += split[fact.id] == "test"
        assert all(abs(inside[s] - 0.1 * total[s]) <= 2.5 for s in total), (key, inside, total)


def test_the_order_of_records_does_not_matter() -> None:
    rows = facts(200)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert assign(groups_of(rows), {}, SETTINGS) == assign(groups_of(shuffled), {}, SETTINGS)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=5),
    links=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=40),
)
def test_growth_never_moves_a_dialogue_towards_training(sizes: list[int], links: list[tuple[int, int]]) -> None:
    """At every step: relatives together, nothing leaves test, and nothing leaves validation but for test."""
    rank = {"train": 0, "validation": 1, "test": 2}
    ledger: dict[str, str] = {}
    rows: list[Facts] = []
    for size in sizes:
        rows += facts(size, start=len(rows), seed=size)
        groups = groups_of(rows, [(a, b) for a, b in links if max(a, b) < len(rows)])
        split = assign(groups, ledger, SETTINGS)
        for group in groups:
            assert len({split[fact.id] for fact in group.members}) == 1
        assert all(rank[split[id_]] >= rank[before] for id_, before in ledger.items())
        ledger |= split


def test_merged_components_go_to_the_strictest_split() -> None:
    rows = facts(3)
    for known, expected in [
        ({"d00000": "train", "d00001": "test"}, "test"),
        ({"d00000": "train", "d00001": "validation"}, "validation"),
        ({"d00000": "validation", "d00001": "test"}, "test"),
    ]:
        assert set(assign(groups_of(rows, [(0, 1), (1, 2)]), known, SETTINGS).values()) == {expected}


@pytest.mark.parametrize(("count", "validation", "test"), [(1, 0, 0), (4, 0, 0), (5, 1, 0), (10, 1, 1), (19, 1, 1)])
def test_small_sets_still_have_something_to_validate_on(count: int, validation: int, test: int) -> None:
    sizes = collections.Counter(assign(groups_of(facts(count)), {}, SETTINGS).values())
    assert sizes["validation"] >= validation
    assert sizes["test"] >= test
    assert sizes["train"] >= max(1, count - 4)


def test_shares_of_zero_are_kept() -> None:
    split = assign(groups_of(facts(40)), {}, ExportSettings(validation=0.2, test=0.0))
    assert set(split.values()) == {"train", "validation"}


def test_the_ledger_remembers_what_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    assert read_ledger(path) == {}
    write_ledger(path, {}, {"b": "test", "a": "train"})
    write_ledger(path, read_ledger(path), {"c": "validation"})
    assert read_ledger(path) == {"a": "train", "b": "test", "c": "validation"}
    before = path.stat().st_mtime_ns
    write_ledger(path, read_ledger(path), {"a": "train"})
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("text", ["{", "[]", '{"splits": {"a": "dev"}}', "{}"])
def test_a_broken_ledger_is_not_guessed_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text(text)
    with pytest.raises(FileError, match=r"splits\.json"):
        read_ledger(path)


@pytest.mark.parametrize(
    "values",
    [
        {"validation": 0.6, "test": 0.5},
        {"test": -0.1},
        {"page_size": 0},
        {"near_duplicate": 0.1},
        {"preference_distance": 2.0},
        {"license": "a: b"},
    ],
)
def test_settings_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        ExportSettings(**values)
