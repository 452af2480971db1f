"""The effect of drafts on people's work."""

import math

import pytest

from analysis.effect import effect_view, effects
from analysis.page import page
from analysis.results import Report, Verdict
from dialogue import Attribute, Dialogue, Source, Turn
from dialogue.blind import is_blind

TALK = (Turn("User", "やあ"), Turn("Aku", "うん"), Turn("User", "元気？"), Turn("Aku", "まあね"))


def made(task: int, checkpoint: str | None, edits: tuple, seconds: float) -> Dialogue:
    source = Source(
        kind="drafted" if checkpoint else "manual",
        checkpoint=checkpoint,
        edits=edits,
        lead_time=seconds,
        created_at=f"2026-02-01T10:{task // 60:02d}:{task % 60:02d}Z",
        project=1,
        task=task,
    )
    return Dialogue(f"d{task}", "駅で。", TALK, Attribute(2, 2), (), source)


def corpus() -> list[Dialogue]:
    """From task 10 on one checkpoint drafts, from task 1000 on another; blind tasks take 100 s, drafted ones 40 s."""
    dialogues = []
    for task in range(2000):
        checkpoint = "aaaaaaaaaaaa" if task < 1000 else "bbbbbbbbbbbb"
        if task < 10 or is_blind(1, task, 0.1):
            dialogues.append(made(task, None, (), 100.0 + task % 7))
        else:
            edit = (0.0 if task % 2 else 0.5) if task < 1000 else 0.05
            dialogues.append(made(task, checkpoint, (None, edit, None, None), 40.0 + task % 5))
    return dialogues


def test_effect_by_checkpoint_against_the_blind_arm() -> None:
    first, second = effects(corpus(), 0.1)
    assert (first.checkpoint, second.checkpoint) == ("aaaaaaaaaaaa", "bbbbbbbbbbbb")
    assert first.kept.value == pytest.approx(0.5, abs=0.03)
    assert second.kept.value == 1
    assert first.seconds_per_turn == pytest.approx(21)
    assert first.blind_seconds_per_dialogue == pytest.approx(103, abs=2)
    assert first.blind_dialogues == sum(is_blind(1, t, 0.1) for t in range(10, 1000))
    assert first.ratio.value == pytest.approx(0.41, abs=0.01)
    assert first.ratio.lower < first.ratio.value < first.ratio.upper


def test_without_a_blind_arm_there_is_no_ratio() -> None:
    (only,) = effects(corpus()[:1000], 0.0)
    assert math.isnan(only.ratio.value)
    assert only.to_dict()["blind_seconds_per_turn"] is None


def test_view_says_what_it_is_and_renders() -> None:
    view = effect_view(effects(corpus(), 0.1))
    assert "bbbbbbbbbbbb" in view.is_now
    assert len(view.tables[0].rows) == 2
    nothing = effect_view([])
    assert nothing.verdict is Verdict.UNKNOWN
    for shown in (view, nothing):
        assert "下書きの効きめ" in page(Report("v", 1, 2, (shown,), ()))
