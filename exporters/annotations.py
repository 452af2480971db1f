"""From a Label Studio task to one record, or to the reason why there is none.

Which annotation counts: broken and declined ones are set aside; of the others an approved one wins, else
the one updated last; the rest are "superseded".  Provenance: drafts come from the prediction an
annotation grew out of, or, for live chat, whose answers Label Studio does not store, from the backend's
journal.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dialogue import Dialogue, RecordError, Source, label_studio
from dialogue.records import clean_text
from dialogue.text import edit_distance
from exporters.settings import ExportSettings

APPROVED, HELD, DECLINED = label_studio.DECISIONS
BROKEN, SUPERSEDED, REVIEW = "broken", "superseded", "review"
"""Kinds of rejection: a rule is broken; another annotation of the task counts; a reviewer's decision."""

_KNOWN = {"context", "closeness", "mood", "genre", "decision", "reasons"}


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """What a model proposed for one turn of a finished record."""

    turn: int
    text: str
    checkpoint: str


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """A record, with the drafts its turns grew out of (turn numbers count from 0 in the conversation)."""

    dialogue: Dialogue
    drafts: tuple[Draft, ...]
    task: int
    annotation: int


@dataclasses.dataclass(frozen=True, slots=True)
class Rejected:
    """An annotation that is not in the data set: kind, name of the rule, the sentence, and where it stands."""

    kind: str
    rule: str
    message: str
    task: int | None
    annotation: int | None
    link: str
    record: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the line of `rejected.jsonl`."""
        return {
            "reason": self.rule,
            "kind": self.kind,
            "message": self.message,
            "link": self.link,
            "task": self.task,
            "annotation": self.annotation,
            "record": self.record,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Reader:
    """Turns tasks into records.  `journal` maps (task, box number) to the latest live-chat draft."""

    settings: ExportSettings
    url: str
    project: int
    salt: str
    journal: Mapping[tuple[int, int], tuple[str, str]] = dataclasses.field(default_factory=dict)

    def read(self, task: Mapping[str, Any]) -> Iterator[Accepted | Rejected]:
        """Yield at most one record, and a rejection for every other finished annotation of the task."""
        candidates: list[tuple[bool, str, int, Accepted]] = []
        for annotation in sorted(task.get("annotations") or (), key=lambda a: int(a["id"])):
            if annotation.get("was_cancelled"):
                continue  # skipped by the annotator: not finished
            try:
                accepted, decision = self._record(task, annotation)
            except RecordError as error:
                yield self._rejected(task, annotation, BROKEN, error.rule, str(error))
                continue
            if sentence := self._declined(decision):
                yield self._rejected(task, annotation, REVIEW, decision or "undecided", sentence)
            else:
                updated = str(annotation.get("updated_at") or "")
                candidates.append((decision == APPROVED, updated, int(annotation["id"]), accepted))
        candidates.sort(key=lambda candidate: candidate[:3])
        for *_, accepted in candidates[:-1]:
            winner = candidates[-1][3].annotation
            sentence = f"task {task['id']}: annotation {winner} counts (approved, or updated later)."
            yield self._rejected(task, {"id": accepted.annotation}, SUPERSEDED, "superseded", sentence)
        if candidates:
            yield candidates[-1][3]

    def repeated(self, row: Accepted) -> Rejected:
        """Return the rejection of a record whose id an earlier task has."""
        sentence = (
            f"task {row.task}: the record id {row.dialogue.id} is also in an earlier task; delete one of the two tasks."
        )
        task = {"id": row.task, "project": self.project, "data": {"record": {"id": row.dialogue.id}}}
        return self._rejected(task, {"id": row.annotation}, BROKEN, "id", sentence)

    def pseudonym(self, user: object) -> str | None:
        """Return a name for an annotator that tells nothing without the workspace's salt."""
        number = user.get("id") if isinstance(user, Mapping) else user
        if number is None:
            return None
        digest = hmac.new(self.salt.encode(), str(number).encode(), hashlib.sha256).hexdigest()
        return f"annotator-{digest[:8]}"

    def _declined(self, decision: str | None) -> str | None:
        if decision in (HELD, DECLINED):
            return f"a reviewer decided {decision}."
        if self.settings.accept == "approved" and decision != APPROVED:
            return "no reviewer has approved it yet, and [export] accept is approved."
        return None

    def _rejected(
        self, task: Mapping[str, Any], annotation: Mapping[str, Any], kind: str, rule: str, message: str
    ) -> Rejected:
        number = task.get("id")
        data = task.get("data")
        record = (data.get("record") or {}).get("id") if isinstance(data, Mapping) else None
        link = f"{self.url.rstrip('/')}/projects/{self.project}/data?task={number}"
        return Rejected(kind, rule, message, number, annotation.get("id"), link, record)

    def _record(self, task: Mapping[str, Any], annotation: Mapping[str, Any]) -> tuple[Accepted, str | None]:
        where = f"task {task.get('id')}, annotation {annotation.get('id')}"
        result = annotation.get("result")
        if not isinstance(result, list) or not all(isinstance(item, Mapping) for item in result):
            raise RecordError("result", f"{where}: its result is not a list of objects; open it and press Update.")
        if not isinstance(task.get("data"), Mapping):
            raise RecordError("task", f"{where}: the task's data is not an object; import it anew.")
        dialogue = label_studio.from_annotation(task, annotation, where=where)
        card = label_studio.from_task(task["data"], where)
        written = label_studio.read_result(result)
        _check_config(result, written, where)
        drafts = self._drafts(task, annotation, card, written)
        texts = [turn.text for turn in dialogue.conversation]
        offset = _leading_blanks(card, written)
        found = tuple(
            Draft(box - offset, text, checkpoint)
            for box, (text, checkpoint) in sorted(drafts.items())
            if 0 <= box - offset < len(texts)
        )
        source = self._source(task, annotation, card, dialogue, found)
        record = dataclasses.replace(dialogue, source=source)
        return Accepted(record, found, int(task["id"]), int(annotation["id"])), written.decision

    def _drafts(
        self,
        task: Mapping[str, Any],
        annotation: Mapping[str, Any],
        card: label_studio.Card,
        written: label_studio.Written,
    ) -> dict[int, tuple[str, str]]:
        """Return draft text and checkpoint by box; texts that the card itself gives are nobody's draft."""
        drafts = {box: self.journal[task["id"], box] for box in written.texts if (task["id"], box) in self.journal}
        parent = annotation.get("parent_prediction")
        for prediction in task.get("predictions") or ():
            version = str(prediction.get("model_version") or "")
            if parent is None or prediction.get("id") != parent or version in ("", label_studio.SCAFFOLD_VERSION):
                continue
            texts = label_studio.read_result(prediction.get("result") or ()).texts
            drafts |= {box: (clean_text(text), version) for box, text in texts.items() if text.strip()}
        given = {box for box, turn in enumerate(card.turns) if turn.text}
        return {box: draft for box, draft in drafts.items() if box not in given}

    def _source(
        self,
        task: Mapping[str, Any],
        annotation: Mapping[str, Any],
        card: label_studio.Card,
        dialogue: Dialogue,
        drafts: tuple[Draft, ...],
    ) -> Source:
        original, decision = _imported_source(card), dialogue.source.decision
        if original is not None and _unedited(card, dialogue) and decision == original.decision:
            return original
        aku = [draft for draft in drafts if dialogue.conversation[draft.turn].speaker == "Aku"]
        edits: list[float | None] = [None] * len(dialogue.conversation)
        for draft in drafts:
            edits[draft.turn] = round(edit_distance(draft.text, dialogue.conversation[draft.turn].text), 4)
        kind, checkpoint = ("drafted", aku[0].checkpoint) if aku else ("manual", None)
        if original is not None:  # an imported record that somebody changed stays what it was made as
            kind, checkpoint = original.kind, original.checkpoint
            edits = _kept_edits(card, dialogue, original)
        return Source(
            kind=kind,
            annotator=self.pseudonym(annotation.get("completed_by")),
            annotation=annotation.get("id"),
            opener=card.opener,
            checkpoint=checkpoint,
            lead_time=annotation.get("lead_time"),
            created_at=annotation.get("created_at"),
            project=task.get("project"),
            task=task.get("id"),
            decision=decision,
            edits=tuple(edits) if any(edit is not None for edit in edits) else (),
        )


def read_journal(path: Path) -> dict[tuple[int, int], tuple[str, str]]:
    """Read the backend's journal of live-chat drafts: the latest text and checkpoint by (task, box number).

    A line that was cut off, or is not an entry, is passed over: the journal is written while people chat.
    """
    latest: dict[tuple[int, int], tuple[str, str, str]] = {}
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", errors="replace") as handle:
        for line in handle:
            try:
                entry = json.loads(line)
                key = (int(entry["task"]), int(entry["turn"]))
                value = (str(entry.get("at") or ""), clean_text(str(entry["text"])), str(entry["checkpoint"]))
            except (json.JSONDecodeError, KeyError, TypeError, ValueError):
                continue
            if value[1] and value[0] >= latest.get(key, ("",))[0]:
                latest[key] = value
    return {key: (text, checkpoint) for key, (_, text, checkpoint) in latest.items()}


def _check_config(result: list[Mapping[str, Any]], written: label_studio.Written, where: str) -> None:
    """Refuse results of an older labelling configuration: unknown names, and something required is missing."""
    names = {str(item.get("from_name", "")) for item in result}
    unknown = sorted(n for n in names if n not in _KNOWN and not n.startswith("turn_"))
    if unknown and (written.closeness is None or written.mood is None or not written.texts):
        raise RecordError(
            "config",
            f"{where}: was written with another labelling configuration (it has {unknown[0]!r}); "
            "open it, fill in what is missing and press Update.",
        )


def _leading_blanks(card: label_studio.Card, written: label_studio.Written) -> int:
    boxes = label_studio.boxes(card, written.texts)
    return next((number for number, turn in enumerate(boxes) if turn.text.strip()), 0)


def _imported_source(card: label_studio.Card) -> Source | None:
    raw = (card.record or {}).get("source")
    if not isinstance(raw, Mapping):
        return None
    known = {field.name for field in dataclasses.fields(Source)}
    values = {key: value for key, value in raw.items() if key in known}
    values["edits"] = tuple(values.get("edits") or ())
    return Source(**values)


def _unedited(card: label_studio.Card, dialogue: Dialogue) -> bool:
    """Whether the annotation still says what the task's own data say, which for an import is the whole record."""
    turns = card.turns[1:] if card.turns and not card.turns[0].text else card.turns
    return (dialogue.context, dialogue.conversation, dialogue.attribute, dialogue.genre) == (
        card.context,
        turns,
        card.attribute,
        card.genre,
    )


def _kept_edits(card: label_studio.Card, dialogue: Dialogue, original: Source) -> list[float | None]:
    """Edit distances of an imported draft survive for the turns that nobody touched since."""
    edits: list[float | None] = [None] * len(dialogue.conversation)
    turns = card.turns[1:] if card.turns and not card.turns[0].text else card.turns
    for number, (turn, before) in enumerate(zip(dialogue.conversation, turns, strict=False)):
        if turn == before and number < len(original.edits):
            edits[number] = original.edits[number]
    return edits
