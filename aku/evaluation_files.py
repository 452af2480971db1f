"""From drafted replies to an evaluation's files: hear, measure, write."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aku.replies import Moment, Progress, Said
from analysis.gate_settings import GateSettings
from dialogue import files
from dialogue.checkpoints import Checkpoint
from dialogue.errors import CheckpointError, RecordError
from dialogue.records import Dialogue

if TYPE_CHECKING:
    from analysis.steering_page import Loss, Sample

Replies = Mapping[tuple[str, int, int], Sequence[Said]]
MIDDLE = 2.0
"""Level that counts as heard in a conversation where nothing was said."""


@dataclasses.dataclass(frozen=True, slots=True)
class Material:
    """What a checkpoint is evaluated on: the data set version, all its dialogues, training texts, held-out ones."""

    dataset: str
    everything: list[Dialogue]
    training: list[str]
    held_out: list[Dialogue]


def write_evaluation(
    folder: Path,
    checkpoint: Checkpoint,
    material: Material,
    said: Replies,
    *,
    samples: tuple[Sample, ...],
    settings: GateSettings,
    device: str,
    facts: Mapping[str, Any],
    progress: Progress | None = None,
) -> None:
    """Hear the replies, compute losses, measure, and write everything into a new folder.

    What can not be done (too few hand-written dialogues for a judge, a base that is gone) becomes a
    note in the evaluation; the gate then lacks that evidence and says so.
    """
    from analysis import steering as measures
    from analysis.gate_evidence import human_turns, steered_reply
    from analysis.steering_page import Evaluation, page
    from analysis.steering_pictures import control_png

    notes: list[str] = []
    rows: list[dict[str, Any]] = []
    human: list[dict[str, Any]] = []
    if progress is not None:
        progress(0, 1, "training the judge")
    try:
        rows, human = heard_rows(material, said, settings)
    except RecordError as error:
        notes.append(str(error))
    files.write_jsonl(folder / "replies.jsonl", rows)
    files.write_jsonl(folder / "ceiling.jsonl", human)
    losses = []
    try:
        losses = loss_rows(checkpoint, material.held_out, device, progress)
    except CheckpointError as error:
        notes.append(str(error))
    files.write_jsonl(folder / "losses.jsonl", losses)
    steered = measures.steering([steered_reply(row) for row in rows], settings.seed) if rows else None
    picture = control_png(steered) if steered else None
    if picture:
        (folder / "control.png").write_bytes(picture)
    found = Evaluation(
        checkpoint=checkpoint.id,
        dataset=material.dataset,
        steering=steered,
        ceiling=measures.ceiling([human_turns(row) for row in human], settings.seed) if human else None,
        human_politeness=measures.human_politeness(
            [
                [turn.text for turn in d.conversation if turn.speaker == "Aku"]
                for d in material.everything
                if d.source.kind != "drafted"
            ]
        ),
        losses=shown_losses(losses, material.held_out, checkpoint, settings),
        samples=samples,
        notes=tuple(notes),
    )
    (folder / "index.html").write_text(page(found, picture), encoding="utf-8")
    summary = {
        **facts,
        "steering": measures.to_dict(found.steering) if found.steering else None,
        "ceiling": measures.to_dict(found.ceiling) if found.ceiling else None,
        "human_politeness": measures.plain(dataclasses.asdict(found.human_politeness))
        if found.human_politeness
        else None,
        "losses": measures.plain([dataclasses.asdict(loss) for loss in found.losses]),
        "samples": [dataclasses.asdict(sample) for sample in samples],
        "notes": notes,
    }
    files.write_json(folder / "evaluation.json", summary)


def heard_rows(
    material: Material, said: Replies, settings: GateSettings
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Train the judge, let it hear the replies and, for its ceiling, human turns; returns the rows of both files.

    Raises `RecordError` when there are too few hand-written dialogues.
    """
    from analysis.judge import HandWritten, Judge
    from analysis.repetition import index, repetition
    from analysis.steering import human_turns

    by_hand = HandWritten.of(material.everything, seed=settings.seed)
    judge = Judge(by_hand, settings.seed)
    training = index(material.training)
    levels = judge.hear_together([[reply.text for reply in replies if reply.text] for replies in said.values()])
    levels = np.where(np.isnan(levels), MIDDLE, levels).round(6)
    rows = [
        {
            "scene": scene,
            "closeness": closeness,
            "mood": mood,
            "heard_closeness": float(heard[0]),
            "heard_mood": float(heard[1]),
            "replies": [
                {"text": r.text, "repetition": repetition(r.text, r.before, training), "ending": r.ending}
                for r in replies
            ],
        }
        for ((scene, closeness, mood), replies), heard in zip(said.items(), levels, strict=True)
    ]
    return rows, [dataclasses.asdict(turns) for turns in human_turns(by_hand, settings.replies, settings.seed)]


def loss_rows(
    checkpoint: Checkpoint, held_out: Sequence[Dialogue], device: str, progress: Progress | None
) -> list[dict[str, Any]]:
    """Held-out losses of checkpoint and base; none where nothing is held out."""
    from aku.losses import held_out_losses

    return held_out_losses(checkpoint, held_out, device, progress) if held_out else []


def shown_losses(
    rows: Sequence[Mapping[str, Any]], held_out: Sequence[Dialogue], checkpoint: Checkpoint, settings: GateSettings
) -> tuple[Loss, ...]:
    """Losses for the page: base, checkpoint, difference, by length of dialogue, and after each training stage."""
    from analysis.gate_bounds import weighted_mean
    from analysis.steering import Measure
    from analysis.steering_page import Loss

    def measured(name: str, part: Sequence[Mapping[str, Any]], key: str) -> Loss:
        values = [row["checkpoint"] - row["base"] if key == "difference" else row[key] for row in part]
        found = weighted_mean(values, [row["tokens"] for row in part], settings.confidence)
        return Loss(name, Measure(found.value, found.lower, found.upper, found.n))

    if not rows:
        return ()
    losses = [
        measured("ベース", rows, "base"),
        measured("このチェックポイント", rows, "checkpoint"),
        measured("差（このチェックポイント − ベース）", rows, "difference"),
    ]
    turns = {d.id: len(d.conversation) for d in held_out}
    cuts = np.quantile(list(turns.values()), [1 / 3, 2 / 3])
    for number, name in enumerate(("短い会話", "中くらいの会話", "長い会話")):
        part = [row for row in rows if int(np.searchsorted(cuts, turns[row["dialogue"]])) == number]
        if part:
            losses.append(measured(f"このチェックポイント、{name}", part, "checkpoint"))
    curve = (checkpoint.card.get("metrics") or {}).get("held_out_curve") or []
    for stage in checkpoint.card.get("stages") or []:
        inside = [point["loss"] for point in curve if stage["start"] < point["step"] <= stage["stop"]]
        if inside:
            losses.append(Loss(f"学習の段階「{stage['name']}」のあと", Measure(inside[-1], math.nan, math.nan, 1)))
    return tuple(losses)


def blinded(chosen: Sequence[Moment], texts: Mapping[str, Sequence[str]], seed: int) -> tuple[Sample, ...]:
    """Lay the replies of all writers to each moment side by side in random order, the human one among them."""
    from analysis.steering_page import Sample, SampleReply

    found = []
    for number, moment in enumerate(chosen):
        chance = random.Random(f"samples/{seed}/{number}")  # noqa: S311 - an order, not a secret
        replies = [("human", moment.human), *((origin, said[number]) for origin, said in texts.items())]
        chance.shuffle(replies)
        lettered = tuple(SampleReply("ABCDEFGH"[i], origin, text) for i, (origin, text) in enumerate(replies))
        found.append(Sample(moment.context, moment.attribute, moment.before, lettered))
    return tuple(found)
