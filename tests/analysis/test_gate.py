"""The gate: bounds, checks, decision, record."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from analysis import gate
from analysis.gate_checks import Outcome, people_checks, run_checks
from analysis.gate_evidence import (
    Evidence,
    HeldOutLoss,
    HumanTurns,
    JudgedTurn,
    Reply,
    SteeredReply,
    WorkTime,
    evidence_file,
    judged_turns,
    rated_turn,
    read_evidence,
    work_times,
)
from analysis.gate_settings import GateSettings
from dialogue import Attribute, Dialogue, FileError, Source, Turn, files, write_dialogues
from dialogue.blind import is_blind
from dialogue.review_project import RATINGS
from dialogue.settings import load_section

SETTINGS = GateSettings()


def turns(distances: list[float], start: int = 0, origin: str = "draft") -> tuple[JudgedTurn, ...]:
    return tuple(JudgedTurn(f"2026-01-01T{start + i:06d}", f"d{start + i}", x, origin) for i, x in enumerate(distances))


def steered(rng: np.random.Generator, noise: float = 0.8, fault: Reply | None = None) -> tuple[SteeredReply, ...]:
    fine = Reply("うん。", None, None)
    return tuple(
        SteeredReply(f"s{s}", c, m, c + noise * rng.standard_normal(), m + noise * rng.standard_normal(), (said,) * 3)
        for s in range(20)
        for c in range(5)
        for m in range(5)
        for said in [fault if fault and s == 0 and m < 4 else fine]
    )


def human(noise: float = 0.8) -> tuple[HumanTurns, ...]:
    rng = np.random.default_rng(9)
    return tuple(
        HumanTurns(f"h{i}", i % 5, i // 5 % 5, i % 5 + noise * rng.normal(), i // 5 % 5 + noise * rng.normal())
        for i in range(100)
    )


def good() -> Evidence:
    rng = np.random.default_rng(0)
    mix = [0.0] * 65 + [0.3] * 45 + [0.9] * 10
    return Evidence(
        "abcdefabcdef",
        turns=turns([float(x) for x in rng.permutation(mix)]),
        steered=steered(rng),
        human=human(),
        losses=tuple(HeldOutLoss(f"h{i}", 2.0 + 0.01 * i, 2.5, 80) for i in range(20)),
    )


def test_good_evidence_opens_and_says_so() -> None:
    decision = gate.decide(good(), SETTINGS)
    assert decision.open
    assert {c.key for c in decision.checks if c.outcome is not Outcome.PASS} == {"kept_drop", "time"}
    assert {c.outcome for c in decision.checks if c.key in ("kept_drop", "time")} == {Outcome.WAITING}


def test_no_evidence_shuts_with_what_to_do() -> None:
    decision = gate.decide(Evidence("c"), SETTINGS)
    assert not decision.open
    assert "aku evaluate" in " ".join(decision.reasons)
    assert "aku review start" in " ".join(decision.reasons)
    assert {c.outcome for c in decision.checks} == {Outcome.MISSING, Outcome.WAITING}


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("kept", {"turns": turns([0.2] * 120)}),
        ("median_edit", {"turns": turns([0.0] * 55 + [0.6] * 65)}),
        ("rewritten", {"turns": turns([0.0] * 80 + [0.9] * 40)}),
        (
            "control_mood",
            {"steered": tuple(dataclasses.replace(r, heard_mood=2.0 + r.closeness) for r in good().steered)},
        ),
        ("repetition", {"steered": steered(np.random.default_rng(0), fault=Reply("あはは", "loop", None))}),
        ("endings", {"steered": steered(np.random.default_rng(0), fault=Reply("それで", None, "cut off"))}),
        ("loss", {"losses": tuple(HeldOutLoss(f"h{i}", 2.6, 2.5, 80) for i in range(20))}),
        (
            "time",
            {
                "times": tuple(
                    WorkTime(f"{arm}{i}", arm, seconds + i, 5)
                    for arm, seconds in (("drafted", 300.0), ("blind", 200.0))
                    for i in range(15)
                )
            },
        ),
    ],
)
def test_each_check_alone_shuts(key: str, change: dict) -> None:
    decision = gate.decide(dataclasses.replace(good(), **change), SETTINGS)
    assert not decision.open
    assert [c.key for c in decision.checks if c.outcome in (Outcome.FAIL, Outcome.HOLDS, Outcome.MISSING)] == [key]
    assert len(decision.reasons) == 1


def test_a_judge_that_hears_nothing_in_human_turns_proves_nothing() -> None:
    decision = gate.decide(dataclasses.replace(good(), human=human(noise=8.0)), SETTINGS)
    assert not decision.open
    assert [c.outcome for c in decision.checks if c.key.startswith("control")] == [Outcome.MISSING, Outcome.MISSING]
    assert "the judge itself hears closeness in human turns with only" in decision.reasons[0]


def test_mean_alone_never_opens() -> None:
    """45 % kept of 120 passes; of 100 in twenty dialogues that agree with themselves it does not."""
    enough = people_checks(turns([0.0] * 54 + [0.25] * 66), SETTINGS)[1]
    assert enough.outcome is Outcome.PASS
    alike = [JudgedTurn("2026", f"d{d}", 0.0 if d < 9 else 0.25, "draft") for d in range(20) for _ in range(5)]
    doubtful = people_checks(alike, SETTINGS)[1]
    assert doubtful.value == 0.45
    assert doubtful.outcome is Outcome.HOLDS
    assert "not surely" in doubtful.reason


def test_between_the_marks_the_gate_stays_as_it_is() -> None:
    middling = dataclasses.replace(
        good(), turns=turns([0.0, 0.25, 0.0, 0.25, 0.0, 0.25, 0.25, 0.25] * 25)
    )  # 37.5 % kept
    assert not gate.decide(middling, SETTINGS).open
    assert gate.decide(middling, SETTINGS, was_open=True).open


def test_bad_drafts_shut_an_open_gate_and_old_ones_do_not_count() -> None:
    evidence = good()
    worse = [0.0, 0.5, 0.5, 0.5] * 50  # 25 % kept
    later = dataclasses.replace(evidence, turns=evidence.turns + turns(worse, start=500))
    decision = gate.decide(later, SETTINGS, was_open=True)
    assert not decision.open
    assert any("kept" in reason for reason in decision.reasons)
    better = dataclasses.replace(later, turns=later.turns + turns([0.0, 0.3] * 100, start=1000))
    assert gate.decide(better, SETTINGS).open


def test_a_good_model_that_becomes_half_as_good_shuts_the_gate_before_any_limit_is_reached() -> None:
    before, after = turns(([0.0] * 7 + [0.2] * 3) * 20), turns([0.0, 0.2, 0.2] * 40, start=200)
    checks = {check.key: check for check in people_checks(before + after, SETTINGS)}
    fell = checks.pop("kept_drop")
    assert fell.outcome is Outcome.FAIL
    assert fell.value == pytest.approx((33.5 / 100.5) / (147.5 / 220.5))  # 33 of the last 100; 147 of 220 before
    assert fell.bound < SETTINGS.kept_drop
    assert "33% kept where it was 67%" in fell.reason
    assert {check.outcome for check in checks.values()} == {Outcome.PASS}
    evidence = dataclasses.replace(good(), turns=before + after)
    assert not gate.decide(evidence, SETTINGS, was_open=True).open


def test_a_drop_is_sought_among_drafts_alone_and_not_before_there_are_enough() -> None:
    rated = turns([0.0] * 200, origin="review")
    corrected = turns([0.0, 0.2] * 99, start=500)
    (waiting,) = (c for c in people_checks(rated + corrected, SETTINGS) if c.key == "kept_drop")
    assert waiting.outcome is Outcome.WAITING
    assert waiting.reason.startswith("198 corrected drafts, 200 are needed")
    (steady,) = (c for c in people_checks(corrected + turns([0.0, 0.2], start=800), SETTINGS) if c.key == "kept_drop")
    assert steady.outcome is Outcome.PASS
    assert steady.value == pytest.approx(1.0)


def test_force_opens_until_the_drafts_prove_bad_and_stays_visible() -> None:
    order = gate.Force("open", "trying it out", "2026-01-01T000600")
    decision = gate.decide(Evidence("c"), SETTINGS, force=order)
    assert decision.open
    assert not decision.earned
    assert decision.reasons[0] == "opened by force: trying it out"
    before = turns([0.9] * 100, start=100)  # bad, but judged before the order
    assert gate.decide(Evidence("c", before), SETTINGS, force=order).open
    few = turns([0.9] * 99, start=700)
    assert gate.decide(Evidence("c", few), SETTINGS, force=order).open
    many = turns([0.9] * 100, start=700)
    ended = gate.decide(Evidence("c", many), SETTINGS, force=order)
    assert not ended.open
    assert "was ended by the last 100 turns" in ended.reasons[0]
    assert not gate.decide(good(), SETTINGS, force=gate.Force("shut", "exam week", "2026")).open


def test_ratings_never_flatter() -> None:
    row = {"item": "i1", "origin": "c", "at": "2026", "rating": RATINGS[0], "distance": None, "annotator": None}
    assert [rated_turn({**row, "rating": r}).distance for r in RATINGS] == [0.0, 0.7, 1.0]
    assert rated_turn({**row, "rating": RATINGS[1], "distance": 0.15}).distance == 0.15
    two_people = [rated_turn(row)] * 2
    assert len({t.group for t in two_people}) == 1


def dialogue(number: int, *, edits: tuple, checkpoint: str | None = "abcdefabcdef", **source: object) -> Dialogue:
    talk = tuple(Turn("User" if i % 2 == 0 else "Aku", f"{number}の{i}") for i in range(4))
    made = Source(
        kind="drafted" if checkpoint else "manual",
        checkpoint=checkpoint,
        edits=edits,
        created_at=f"2026-01-02T00:{number // 60:02d}:{number % 60:02d}",
        project=1,
        task=number,
        **source,
    )
    return Dialogue(f"d{number}", "公園で。", talk, Attribute(2, 2), (), made)


def test_only_akus_own_drafted_turns_are_judged() -> None:
    records = [dialogue(1, edits=(None, 0.2, 0.9, None)), dialogue(2, edits=(), checkpoint=None)]
    assert [(t.group, t.distance) for t in judged_turns(records, "abcdefabcdef")] == [("d1", 0.2)]
    assert judged_turns(records, "another") == []


def test_blind_arm_is_what_the_backend_leaves_out() -> None:
    from ml_backend import protocol

    card = {"data": {"turns": [{"speaker": "User", "text": ""}], "closeness": 1, "mood": 1}}
    numbers = range(1, 2001)
    ours = [is_blind(7, n, 0.1) for n in numbers]
    theirs = [protocol.is_blind(protocol.read_task({"id": n, **card}, "7"), 0.1) for n in numbers]
    assert ours == theirs
    assert 150 < sum(ours) < 250
    assert all(is_blind(7, n, 0.3) for n in numbers if is_blind(7, n, 0.1))


def test_working_times_compare_the_arms_at_the_same_time() -> None:
    blind = [n for n in range(100, 1000) if is_blind(1, n, 0.1)]
    records = [dialogue(n, edits=(None, 0.1, None, 0.2), lead_time=60.0) for n in range(100, 3000, 400)]
    records += [dialogue(n, edits=(), checkpoint=None, lead_time=90.0) for n in blind[:4]]
    records += [dialogue(blind[5], edits=(), checkpoint=None, lead_time=99999.0)]  # left open over night
    records += [dialogue(n, edits=(), checkpoint=None, lead_time=90.0) for n in range(100, 110) if n not in blind]
    found = work_times(records, "abcdefabcdef", 0.1, 7200.0)
    assert {t.dialogue for t in found if t.arm == "blind"} == {f"d{n}" for n in blind[:4]}
    assert sum(t.arm == "drafted" for t in found) == 8
    assert work_times(records, "another", 0.1, 7200.0) == []


@pytest.fixture
def home(tmp_path: Path) -> Path:
    rng = np.random.default_rng(4)
    records = [dialogue(n, edits=(None, 0.0, None, float(rng.choice([0.0, 0.4, 0.9])))) for n in range(30)]
    write_dialogues(tmp_path / "datasets" / "v" / "train.jsonl", records)
    ratings = [
        {"item": f"i{n}", "origin": "abcdefabcdef" if n % 6 else "human", "rating": RATINGS[n % 2], "distance": None}
        for n in range(60)
    ]
    files.write_jsonl(tmp_path / "ratings.jsonl", ({**r, "at": "2026-01-01", "annotator": "p"} for r in ratings))
    rows = [
        {
            "scene": r.scene,
            "closeness": r.closeness,
            "mood": r.mood,
            "heard_closeness": r.heard_closeness,
            "heard_mood": r.heard_mood,
            "replies": [dataclasses.asdict(said) for said in r.replies],
        }
        for r in steered(rng)
    ]
    files.write_jsonl(tmp_path / "replies.jsonl", rows)
    files.write_jsonl(tmp_path / "ceiling.jsonl", map(dataclasses.asdict, human()))
    losses = ({"dialogue": f"h{i}", "checkpoint": 2.0, "base": 2.4 + i / 99, "tokens": 50 + i} for i in range(12))
    files.write_jsonl(tmp_path / "losses.jsonl", losses)
    return tmp_path


def recorded(home: Path) -> dict:
    roles = {"datasets/v/train.jsonl": "records", "ratings.jsonl": "ratings"}
    roles |= {"replies.jsonl": "replies", "ceiling.jsonl": "ceiling", "losses.jsonl": "losses"}
    named = [evidence_file(home, home / name, role) for name, role in roles.items()]
    evidence = read_evidence(home, named, "abcdefabcdef", blind_share=0.1, longest=7200.0)
    value = gate.record(
        evidence,
        SETTINGS,
        named,
        dataset="v",
        blind_share=0.1,
        made_at="2026-01-03",
        force=gate.Force("open", "x", "2025"),
    )
    return json.loads(json.dumps(value))


def test_every_number_of_a_record_is_computed_again(home: Path) -> None:
    value = recorded(home)
    assert value["counts"]["judged_turns"] == 60 + 50
    assert value["counts"]["window_people"] == 1
    assert gate.verify(value, home) == []


def test_a_changed_number_is_found_even_when_signed_anew(home: Path) -> None:
    value = recorded(home)
    value["checks"][1]["value"] = 0.99
    assert gate.verify(value, home) == ["its signature does not fit its content: somebody changed it"]
    value["sha256"] = gate.signature(value)
    (problem,) = (p for p in gate.verify(value, home) if p.startswith("checks"))
    assert "0.99" in problem


def test_a_changed_or_missing_file_is_found(home: Path) -> None:
    value = recorded(home)
    with (home / "losses.jsonl").open("a") as handle:
        handle.write("\n")
    (home / "ratings.jsonl").unlink()
    assert gate.verify(value, home) == [
        "ratings.jsonl: the file is gone",
        "losses.jsonl: the file has changed since",
    ]


def test_a_broken_evidence_line_is_named(home: Path) -> None:
    files.write_jsonl(home / "losses.jsonl", [{"dialogue": "h", "checkpoint": "x", "base": 1, "tokens": 2}])
    named = [evidence_file(home, home / "losses.jsonl", "losses")]
    with pytest.raises(FileError, match=r"losses.jsonl, line 1"):
        read_evidence(home, named, "c", blind_share=0.1, longest=1.0)


def test_settings_refuse_limits_stricter_than_goals(tmp_path: Path) -> None:
    (tmp_path / "aku.toml").write_text("[gate]\nkept = 0.3\n")
    with pytest.raises(Exception, match="kept_limit must not be above kept"):
        load_section(tmp_path / "aku.toml", "gate", GateSettings)


def test_checks_are_those_of_the_metrics() -> None:
    keys = [check.key for check in run_checks(good(), SETTINGS)]
    assert keys == (
        "median_edit kept rewritten kept_drop control_closeness control_mood repetition endings loss time".split()
    )
