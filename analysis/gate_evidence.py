"""What the gate decides from: judged turns, steered replies, held-out losses, working times.

Everything is read from files that a gate record names, so that its numbers can be computed again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from dialogue import files
from dialogue.blind import is_blind
from dialogue.errors import FileError
from dialogue.records import Dialogue, iter_dialogues
from dialogue.review_project import RATINGS

T = TypeVar("T")
Role = Literal["records", "ratings", "replies", "losses", "ceiling"]

_DISTANCE = {RATINGS[0]: 0.0, RATINGS[1]: 0.7, RATINGS[2]: 1.0}


@dataclasses.dataclass(frozen=True, slots=True)
class EvidenceFile:
    """A file that numbers come from: its path below the workspace, the SHA-256 of its bytes, what it holds."""

    name: str
    sha256: str
    role: Role


@dataclasses.dataclass(frozen=True, slots=True)
class JudgedTurn:
    """A drafted turn on which a person has passed judgement.

    `distance` is the normalised edit distance from the draft to what was kept; `group` the dialogue
    or review item it belongs to; `origin` "draft" or "review"; `at` ISO 8601.
    """

    at: str
    group: str
    distance: float
    origin: Literal["draft", "review"]
    annotator: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """One drafted reply of the evaluation: what is wrong with it, if anything."""

    text: str
    repetition: str | None
    ending: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class SteeredReply:
    """Replies to one held-out scene under one attribute pair, and the levels that the judge hears in them."""

    scene: str
    closeness: int
    mood: int
    heard_closeness: float
    heard_mood: float
    replies: tuple[Reply, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class HumanTurns:
    """Hand-written turns of one dialogue, and the levels heard in them by a judge that never saw that dialogue."""

    dialogue: str
    closeness: int
    mood: int
    heard_closeness: float
    heard_mood: float


@dataclasses.dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """Mean loss on Aku's turns of one held-out dialogue, nats a token, for checkpoint and base."""

    dialogue: str
    checkpoint: float
    base: float
    tokens: int


@dataclasses.dataclass(frozen=True, slots=True)
class WorkTime:
    """How long a person worked on one dialogue, and how many Aku turns it has."""

    dialogue: str
    arm: Literal["drafted", "blind"]
    seconds: float
    turns: int
    at: str = ""
    annotator: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """All there is about one checkpoint; any part may be empty."""

    checkpoint: str
    turns: tuple[JudgedTurn, ...] = ()
    steered: tuple[SteeredReply, ...] = ()
    human: tuple[HumanTurns, ...] = ()
    losses: tuple[HeldOutLoss, ...] = ()
    times: tuple[WorkTime, ...] = ()


def judged_turns(dialogues: Iterable[Dialogue], checkpoint: str) -> list[JudgedTurn]:
    """Aku's turns that grew out of this checkpoint's drafts."""
    return [
        JudgedTurn(d.source.created_at or "", d.id, float(edit), "draft", d.source.annotator)
        for d in dialogues
        if d.source.checkpoint == checkpoint
        for turn, edit in zip(d.conversation, d.source.edits, strict=False)
        if edit is not None and turn.speaker == "Aku"
    ]


def rated_turn(row: Mapping[str, Any]) -> JudgedTurn:
    """A line of a review round's `ratings.jsonl` as a judged turn.

    A correction counts with its edit distance.  Without one, "同じくらい以上" counts as kept, "惜しい" as
    the worst that is not rewritten (0.7) and "だめ" as rewritten: a bare rating never flatters.
    """
    distance = row.get("distance")
    rated = _DISTANCE[row["rating"]] if distance is None else float(distance)
    return JudgedTurn(str(row["at"]), str(row["item"]), rated, "review", row.get("annotator"))


def work_times(dialogues: Iterable[Dialogue], checkpoint: str, blind_share: float, longest: float) -> list[WorkTime]:
    """Working times while this checkpoint drafted: dialogues it drafted, and those of the blind arm.

    Blind are hand-written dialogues whose task the hash put into the blind arm, finished between the
    checkpoint's first and last drafted one.  Longer than `longest` seconds: left open, not counted.
    """
    drafted, manual = [], []
    for d in dialogues:
        aku = sum(turn.speaker == "Aku" for turn in d.conversation)
        seconds = d.source.lead_time or 0.0
        if not 0 < seconds <= longest or not aku or not d.source.created_at:
            continue
        place = (d.id, seconds, aku, d.source.created_at, d.source.annotator)
        if d.source.checkpoint == checkpoint:
            drafted.append(place)
        elif d.source.kind == "manual" and is_blind(d.source.project, d.source.task, blind_share):
            manual.append(place)
    if not drafted:
        return []
    first, last = min(p[3] for p in drafted), max(p[3] for p in drafted)
    arms: list[WorkTime] = [WorkTime(p[0], "drafted", p[1], p[2], p[3], p[4]) for p in drafted]
    return arms + [WorkTime(p[0], "blind", p[1], p[2], p[3], p[4]) for p in manual if first <= p[3] <= last]


def steered_reply(row: Mapping[str, Any]) -> SteeredReply:
    """Read one line of an evaluation's `replies.jsonl`."""
    return SteeredReply(
        str(row["scene"]),
        int(row["closeness"]),
        int(row["mood"]),
        float(row["heard_closeness"]),
        float(row["heard_mood"]),
        tuple(Reply(str(r["text"]), r.get("repetition"), r.get("ending")) for r in row["replies"]),
    )


def human_turns(row: Mapping[str, Any]) -> HumanTurns:
    """Read one line of an evaluation's `ceiling.jsonl`."""
    levels = (int(row["closeness"]), int(row["mood"]), float(row["heard_closeness"]), float(row["heard_mood"]))
    return HumanTurns(str(row["dialogue"]), *levels)


def held_out_loss(row: Mapping[str, Any]) -> HeldOutLoss:
    """Read one line of an evaluation's `losses.jsonl`."""
    return HeldOutLoss(str(row["dialogue"]), float(row["checkpoint"]), float(row["base"]), int(row["tokens"]))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; raises `FileError` if it is not there."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}); restore it or evaluate anew.") from error


def evidence_file(home: Path, path: Path, role: Role) -> EvidenceFile:
    """Name a file as evidence; `path` lies below `home`."""
    return EvidenceFile(path.relative_to(home).as_posix(), file_sha256(path), role)


def read_evidence(
    home: Path, named: Sequence[EvidenceFile], checkpoint: str, *, blind_share: float, longest: float
) -> Evidence:
    """Read the evidence about a checkpoint from the files named; raises `FileError` or `RecordError`."""

    def paths(role: Role) -> list[Path]:
        return [home / f.name for f in named if f.role == role]

    dialogues = [d for path in paths("records") for d in iter_dialogues(path)]
    ratings = [
        turn for path in paths("ratings") for turn in read_rows(path, rated_turn, lambda r: r["origin"] == checkpoint)
    ]
    return Evidence(
        checkpoint,
        turns=tuple(sorted([*judged_turns(dialogues, checkpoint), *ratings], key=lambda t: (t.at, t.group))),
        steered=tuple(reply for path in paths("replies") for reply in read_rows(path, steered_reply)),
        human=tuple(turns for path in paths("ceiling") for turns in read_rows(path, human_turns)),
        losses=tuple(loss for path in paths("losses") for loss in read_rows(path, held_out_loss)),
        times=tuple(work_times(dialogues, checkpoint, blind_share, longest)),
    )


def read_rows(
    path: Path, read: Callable[[Mapping[str, Any]], T], wanted: Callable[[Mapping[str, Any]], bool] = lambda _row: True
) -> list[T]:
    """Read the wanted lines of a JSONL file; raises `FileError` naming the line that is not what it should be."""
    found = []
    for number, row in files.read_jsonl(path):
        try:
            if wanted(row):
                found.append(read(row))
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{path}, line {number}: is not what it should be ({error!r}); remove the file.") from error
    return found
