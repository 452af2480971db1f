"""Curriculum plans: equal budgets, stages, replay, repeatability, and clear refusals."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from dialogue import Attribute, Dialogue, SettingsError, Turn
from exporters.sft.plan import Plan, builtin_plan, staged_plan
from exporters.sft.settings import ORDERS, Stage, load_stages


def corpus(count: int) -> list[Dialogue]:
    """Dialogues whose turns and lengths rise with their number."""
    chance = random.Random(0)
    return [
        Dialogue(
            f"d{i:03d}",
            "場面",
            tuple(Turn("User" if t % 2 == 0 else "Aku", "あ" * (1 + i // 10)) for t in range(2 + 2 * (i // 20))),
            Attribute(chance.randrange(5), chance.randrange(5)),
            ("天気・季節",) if i % 2 else ("食べ物・飲み物",),
        )
        for i in range(count)
    ]


def lengths(dialogues: list[Dialogue]) -> list[int]:
    return [sum(len(t.text) + 3 for t in d.conversation) for d in dialogues]


def make(order: str, count: int = 60, **changes: object) -> Plan:
    dialogues = corpus(count)
    options = {"epochs": 4.0, "batch_size": 8, **changes}
    return builtin_plan(dialogues, lengths(dialogues), order, **options)  # type: ignore[arg-type]


def test_all_orders_have_the_same_number_of_steps() -> None:
    assert {make(order).steps for order in ORDERS} == {30}


@pytest.mark.parametrize("order", ORDERS)
def test_stages_cover_every_step_once_and_in_turn(order: str) -> None:
    plan = make(order)
    bounds = [(stage.start, stage.stop) for stage in plan.stages]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == plan.steps
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(bounds))
    assert [plan.stage_at(start) for start, _ in bounds] == list(range(len(bounds)))
    assert plan.stage_at(plan.steps - 1) == len(bounds) - 1


@pytest.mark.parametrize("order", ORDERS)
def test_the_same_seed_gives_the_same_plan_and_another_seed_another(order: str) -> None:
    assert make(order) == make(order)
    assert make(order).hash == make(order).hash
    assert make(order, seed=1).hash != make(order).hash


def test_shuffle_shows_every_dialogue_equally_often() -> None:
    counts = Counter(entry.row for entry in make("shuffle").entries)
    assert len(counts) == 60
    assert set(counts.values()) == {4}


def test_staged_begins_easy_and_ends_with_everything() -> None:
    plan = make("staged")
    easy, hard, everything = ({e.row for e in plan.entries[s.start * 8 : s.stop * 8]} for s in plan.stages)
    assert max(easy) < 30  # the corpus grows harder with its numbers
    assert len(everything) == 60
    replayed = plan.stages[1].replayed
    in_hard = [e.row for e in plan.entries[plan.stages[1].start * 8 : plan.stages[1].stop * 8]]
    assert replayed == round(0.2 * len(in_hard)) == sum(row < 30 for row in in_hard)
    assert hard >= set(range(30, 60))


def test_short_to_long_never_goes_back() -> None:
    plan = make("short_to_long")
    sizes = lengths(corpus(60))
    groups = [[sizes[e.row] for e in plan.entries[s.start * 8 : s.stop * 8]] for s in plan.stages]
    assert all(max(a) <= min(b) for a, b in itertools.pairwise(groups))


def test_cyclic_goes_through_all_groups_once_an_epoch() -> None:
    plan = make("cyclic")
    assert len(plan.stages) == 12
    assert [stage.name.split(", ")[1] for stage in plan.stages[:3]] == [f"length {i} of 3" for i in (1, 2, 3)]
    sizes = lengths(corpus(60))
    means = [sum(sizes[e.row] for e in plan.entries[s.start * 8 : s.stop * 8]) for s in plan.stages]
    assert means[3] < means[2]  # the second cycle begins short again


def test_batches_hold_dialogues_of_similar_length_but_mixed_attributes() -> None:
    dialogues = corpus(400)
    sizes = lengths(dialogues)
    plan = builtin_plan(dialogues, sizes, "shuffle", epochs=1.0, batch_size=8)
    batches = [[e.row for e in plan.entries[i : i + 8]] for i in range(0, len(plan.entries), 8)]
    grouped = sum(max(sizes[r] for r in b) * 8 for b in batches)
    shuffled = random.Random(0).sample(range(400), 400)
    unsorted = sum(max(sizes[r] for r in shuffled[i : i + 8]) * 8 for i in range(0, 400, 8))
    assert grouped < 0.8 * unsorted  # padded tokens
    assert sum(len({dialogues[r].attribute for r in b}) for b in batches) / len(batches) > 6


def test_attribute_dropout_hides_about_its_share() -> None:
    plan = make("shuffle", count=200, attribute_dropout=0.25)
    hidden = sum(not entry.with_attribute for entry in plan.entries) / len(plan.entries)
    assert 0.2 < hidden < 0.3
    assert all(entry.with_attribute for entry in make("shuffle").entries)


@pytest.mark.parametrize("order", ["staged", "short_to_long", "cyclic"])
def test_fewer_dialogues_than_stages_is_refused(order: str) -> None:
    with pytest.raises(SettingsError, match=r"2 dialogue.s. can not fill 3 stages"):
        make(order, count=2)


def test_tables_filter_repeat_and_count() -> None:
    dialogues = corpus(60)
    stages = (
        Stage("short", max_turns=4, epochs=2),
        Stage("weather", genre=("天気・季節",), epochs=1, replay=0.25),
        Stage("near", closeness=(3, 4), mood=(0, 1), epochs=1, replay=0.0),
    )
    plan = staged_plan(dialogues, lengths(dialogues), stages, batch_size=4)
    parts = [[dialogues[e.row] for e in plan.entries[s.start * 4 : s.stop * 4]] for s in plan.stages]
    assert [stage.name for stage in plan.stages] == ["short", "weather", "near"]
    assert all(len(d.conversation) <= 4 for d in parts[0])
    assert len(parts[0]) == 80  # 40 dialogues, twice
    weather = [d for d in parts[1] if d.genre == ("天気・季節",)]
    assert len(parts[1]) - len(weather) == plan.stages[1].replayed == round(0.25 * len(parts[1]))
    assert all(d.attribute.closeness in (3, 4) and d.attribute.mood in (0, 1) for d in parts[2])


def test_difficulty_stages_go_by_the_base_models_loss() -> None:
    dialogues = corpus(10)
    losses = [float(9 - i) for i in range(10)]
    stages = (Stage("easy", max_difficulty=0.5), Stage("hard", min_difficulty=0.5, replay=0.0))
    plan = staged_plan(dialogues, lengths(dialogues), stages, losses=losses, batch_size=5)
    easy = {e.row for e in plan.entries[: plan.stages[0].stop * 5]}
    assert easy == {5, 6, 7, 8, 9}


def test_a_stage_that_nothing_belongs_to_is_refused_by_name() -> None:
    dialogues = corpus(10)
    with pytest.raises(SettingsError, match=r"endless.*no dialogue passes"):
        staged_plan(dialogues, lengths(dialogues), (Stage("endless", min_turns=100),), batch_size=4)


def test_more_tables_than_dialogues_are_refused() -> None:
    dialogues = corpus(1)
    with pytest.raises(SettingsError, match=r"1 dialogue.s. can not fill 2"):
        staged_plan(dialogues, lengths(dialogues), (Stage("a"), Stage("b")), batch_size=4)


def test_stage_tables_are_read_from_the_settings_file(tmp_path) -> None:
    path = tmp_path / "aku.toml"
    path.write_text('[[stage]]\nname = "short"\nmax_turns = 6\n[[stage]]\ncloseness = [3, 4]\nepochs = 2\n')
    first, second = load_stages(path)
    assert (first.name, first.max_turns) == ("short", 6)
    assert (second.name, second.closeness, second.epochs) == ("stage 2", (3, 4), 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[stage]]\nturns = 3\n", "no key 'turns'"),
        ('[[stage]]\nmax_turns = "six"\n', "max_turns = 'six'"),
        ("[[stage]]\nepochs = 0\n", "epochs must be greater"),
        ("[[stage]]\nreplay = 1.0\n", "replay must be"),
        ("[stage]\nepochs = 1\n", "two brackets"),
        ("[[stage]\n", "not valid TOML"),
    ],
)
def test_broken_stage_tables_are_named(tmp_path, text: str, words: str) -> None:
    path = tmp_path / "aku.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=words):
        load_stages(path)
