"""Where a record comes from: who wrote it, from which draft, and what an import already knew."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dialogue import Dialogue, RecordError, Source, Turn, label_studio
from dialogue.records import clean_text
from dialogue.text import edit_distance

Journal = Mapping[tuple[int, int], tuple[str, str]]
"""Live-chat drafts: (task, box number) → text and checkpoint."""


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """What a model proposed for one turn; `turn` counts from 0 in the finished conversation."""

    turn: int
    text: str
    checkpoint: str


def pseudonym(user: object, salt: str) -> str | None:
    """Return a name for an annotator (a user's number, or the object that holds it) that tells nothing without `salt`.

    HMAC-SHA-256 (RFC 2104), cut to 32 bits: short enough to read, long enough to tell people apart.
    """
    number = user.get("id") if isinstance(user, Mapping) else user
    if number is None:
        return None
    return "annotator-" + hmac.new(salt.encode(), str(number).encode(), hashlib.sha256).hexdigest()[:8]


def read_journal(path: Path, project: str) -> Journal:
    """Read the backend's journal of live-chat drafts: the latest one of each (task, box).

    Args:
        path: `state/drafts.jsonl`; an absent file is an empty journal.
        project: the project's number and the second it was made in, `"4.1795352884"`, which is how Label Studio
            names a project to its backends.  Entries of other projects are passed over: the numbers of
            tasks begin anew in a new database.

    A line that was cut off, or is no entry, is passed over: the journal is written while people chat.
    """
    latest: dict[tuple[int, int], tuple[str, str, str]] = {}
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", errors="replace") as handle:
        for line in handle:
            try:
                entry = json.loads(line)
                if str(entry.get("project") or project) not in (project, project.partition(".")[0]):
                    continue
                key = (int(entry["task"]), int(entry["turn"]))
                value = (str(entry.get("at") or ""), clean_text(str(entry["text"])), str(entry["checkpoint"]))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            if value[1] and value[0] >= latest.get(key, ("",))[0]:
                latest[key] = value
    return {key: (text, checkpoint) for key, (_, text, checkpoint) in latest.items()}


def drafts_of(
    task: Mapping[str, Any],
    annotation: Mapping[str, Any],
    card: label_studio.Card,
    texts: Mapping[int, str],
    journal: Journal,
) -> tuple[Draft, ...]:
    """Return the drafts that an annotation's turns grew out of.

    Text of the parent prediction counts before the journal's.  What the card itself gives (an opener) is
    nobody's draft, and neither is a scaffold's, whose boxes are blank or the card's.

    Args:
        task: Label Studio's JSON object, with its predictions.
        annotation: one of its annotations.
        card: the task's card.
        texts: what stands in the annotation's boxes.
        journal: see `read_journal`.
    """
    number = int(task["id"])
    found = {box: journal[number, box] for box in texts if (number, box) in journal}
    parent = annotation.get("parent_prediction")
    for prediction in task.get("predictions") or ():
        version = str(prediction.get("model_version") or "")
        if parent is None or prediction.get("id") != parent or version in ("", label_studio.SCAFFOLD_VERSION):
            continue
        proposed = label_studio.read_result(prediction.get("result") or ()).texts
        found |= {box: (clean_text(text), version) for box, text in proposed.items() if text.strip()}
    boxes = label_studio.boxes(card, texts)
    first = next((box for box, turn in enumerate(boxes) if turn.text.strip()), 0)
    given = {box for box, turn in enumerate(card.turns) if turn.text}
    written = {box for box, text in texts.items() if text.strip()}
    return tuple(Draft(box - first, *found[box]) for box in sorted(found) if box in written - given)


def imported(card: label_studio.Card) -> tuple[Source, tuple[Draft, ...]] | None:
    """Return the source and drafts that an imported task carries; None for a card that was planned here.

    Raises `RecordError` if somebody broke them.
    """
    raw = (card.record or {}).get("source")
    if raw is None:
        return None
    try:
        known = {field.name for field in dataclasses.fields(Source)}
        values = {key: value for key, value in raw.items() if key in known}
        values["edits"] = tuple(values.get("edits") or ())
        rows = (card.record or {}).get("drafts") or ()
        drafts = tuple(Draft(int(r["turn"]), str(r["text"]), str(r["checkpoint"])) for r in rows)
        return Source(**values), drafts
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordError("source", "the task's imported source is malformed; import the record anew.") from error


def is_unedited(card: label_studio.Card, dialogue: Dialogue) -> bool:
    """Whether the annotation still says what was imported.

    An import writes the whole record into the task's data as well, where annotators do not reach it.  So an
    annotation that holds the same context, turns, attributes and genres has not been changed since, or was
    changed back; either way the record is the imported one.
    """
    written = (dialogue.context, dialogue.conversation, dialogue.attribute, dialogue.genre)
    return written == (card.context, imported_turns(card), card.attribute, card.genre)


def imported_turns(card: label_studio.Card) -> tuple[Turn, ...]:
    """Return the turns of an imported record: the boxes less the blank one in front of a dialogue Aku begins."""
    return card.turns[1:] if card.turns and not card.turns[0].text else card.turns


def edits_of(conversation: Sequence[Turn], drafts: Sequence[Draft]) -> tuple[float | None, ...]:
    """Return the normalised edit distance of each turn from its draft, None where there was none; () without drafts."""
    edits: list[float | None] = [None] * len(conversation)
    for draft in drafts:
        if draft.turn < len(conversation):
            edits[draft.turn] = round(edit_distance(draft.text, conversation[draft.turn].text), 4)
    return tuple(edits) if any(edit is not None for edit in edits) else ()


def kept_edits(card: label_studio.Card, dialogue: Dialogue, original: Source) -> tuple[float | None, ...]:
    """Return the edit distances an import came with, for the turns that nobody touched since."""
    pairs = zip(dialogue.conversation, imported_turns(card), strict=False)
    kept = [
        original.edits[i] if now == then and i < len(original.edits) else None for i, (now, then) in enumerate(pairs)
    ]
    kept += [None] * (len(dialogue.conversation) - len(kept))
    return tuple(kept) if any(edit is not None for edit in kept) else ()
