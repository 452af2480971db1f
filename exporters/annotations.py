"""From a Label Studio task to one record, or to the reason why there is none.

Which annotation counts: broken ones and those a reviewer turned down are set aside; of the others an
approved one wins, else the one updated last; the rest are "superseded".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from dialogue import Dialogue, RecordError, Source, label_studio
from dialogue.records import has_control_characters
from exporters import provenance
from exporters.provenance import Draft, Journal
from exporters.settings import ExportSettings

APPROVED, HELD, DECLINED = label_studio.DECISIONS
BROKEN, SUPERSEDED, REVIEW = "broken", "superseded", "review"
"""Kinds of rejection: a rule is broken; another annotation of the task counts; a reviewer's decision."""

_KNOWN = {"context", "closeness", "mood", "genre", "decision", "reasons"}


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """A record, the drafts its turns grew out of, and where it stands."""

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
            "message": _writable(self.message),
            "link": self.link,
            "task": self.task,
            "annotation": self.annotation,
            "record": None if self.record is None else _writable(self.record),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Reader:
    """Turns tasks into records.

    `url` and `project` make links, `salt` makes pseudonyms, `journal` holds the drafts of live chat.
    """

    settings: ExportSettings
    url: str
    project: int
    salt: str
    journal: Journal = dataclasses.field(default_factory=dict)

    def read(self, task: Mapping[str, Any]) -> Iterator[Accepted | Rejected]:
        """Yield at most one record, and a rejection for every other finished annotation of the task."""
        candidates: list[tuple[bool, str, int, Accepted]] = []
        for annotation in sorted(task.get("annotations") or (), key=lambda a: int(a["id"])):
            if annotation.get("was_cancelled"):
                continue  # skipped by the annotator: not finished
            try:
                accepted = self._record(task, annotation)
            except RecordError as error:
                yield self._rejected(task, annotation, BROKEN, error.rule, str(error))
                continue
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                # Anything can be posted as a result; what no rule foresaw must not stop the export.
                message = f"{_where(task, annotation)}: malformed ({error!r}); open it and press Update."
                yield self._rejected(task, annotation, BROKEN, "malformed", message)
                continue
            decision = accepted.dialogue.source.decision
            if sentence := self._turned_down(decision):
                message = f"{_where(task, annotation)}: {sentence}"
                yield self._rejected(task, annotation, REVIEW, decision or "undecided", message)
            else:
                updated = str(annotation.get("updated_at") or "")
                candidates.append((decision == APPROVED, updated, accepted.annotation, accepted))
        candidates.sort(key=lambda candidate: candidate[:3])
        for *_, accepted in candidates[:-1]:
            winner = candidates[-1][3].annotation
            message = f"task {task['id']}: annotation {winner} counts instead (approved, or updated later)."
            yield self._rejected(task, {"id": accepted.annotation}, SUPERSEDED, SUPERSEDED, message)
        if candidates:
            yield candidates[-1][3]

    def repeated(self, row: Accepted) -> Rejected:
        """Return the rejection of a record whose id an earlier task has."""
        message = f"task {row.task}: the record id {row.dialogue.id} is also in an earlier task; delete one of the two."
        task = {"id": row.task, "data": {"record": {"id": row.dialogue.id}}}
        return self._rejected(task, {"id": row.annotation}, BROKEN, "id", message)

    def _turned_down(self, decision: str | None) -> str | None:
        if decision in (HELD, DECLINED):
            return f"a reviewer decided {decision}."
        if self.settings.accept == "approved" and decision != APPROVED:
            return "no reviewer has approved it yet, and [export] accept is approved."
        return None

    def _rejected(
        self, task: Mapping[str, Any], annotation: Mapping[str, Any], kind: str, rule: str, message: str
    ) -> Rejected:
        number, data = task.get("id"), task.get("data")
        record = data.get("record") if isinstance(data, Mapping) else None
        name = record.get("id") if isinstance(record, Mapping) else None
        link = f"{self.url.rstrip('/')}/projects/{self.project}/data?task={number}"
        return Rejected(kind, rule, message, number, annotation.get("id"), link, None if name is None else str(name))

    def _record(self, task: Mapping[str, Any], annotation: Mapping[str, Any]) -> Accepted:
        where = _where(task, annotation)
        result = annotation.get("result")
        if not isinstance(result, list) or not all(isinstance(item, Mapping) for item in result):
            raise RecordError("result", f"{where}: its result is not a list of objects; open it and press Update.")
        if not isinstance(task.get("data"), Mapping):
            raise RecordError("task", f"{where}: the task's data is not an object; import it anew.")
        card = label_studio.from_task(task["data"], where)
        written = label_studio.read_result(result)
        _check_config(result, written, where)
        dialogue = label_studio.from_annotation(task, annotation, where=where)
        _check_names(dialogue, where)
        drafts = provenance.drafts_of(task, annotation, card, written.texts, self.journal)
        source, drafts = self._source(task, annotation, card, dialogue, drafts)
        record = dataclasses.replace(dialogue, source=source)
        return Accepted(record, drafts, int(task["id"]), int(annotation["id"]))

    def _source(
        self,
        task: Mapping[str, Any],
        annotation: Mapping[str, Any],
        card: label_studio.Card,
        dialogue: Dialogue,
        drafts: tuple[Draft, ...],
    ) -> tuple[Source, tuple[Draft, ...]]:
        before = provenance.imported(card)
        if before is not None and provenance.is_unedited(card, dialogue):
            return dataclasses.replace(before[0], decision=dialogue.source.decision), before[1]
        aku = [draft for draft in drafts if dialogue.conversation[draft.turn].speaker == "Aku"]
        kind, checkpoint = ("drafted", aku[0].checkpoint) if aku else ("manual", None)
        edits = provenance.edits_of(dialogue.conversation, drafts)
        if before is not None:  # an imported record that somebody changed stays what it was made as
            original, drafts = before
            kind, checkpoint = original.kind, original.checkpoint
            drafts = tuple(draft for draft in drafts if draft.turn < len(dialogue.conversation))
            edits = provenance.edits_of(dialogue.conversation, drafts) or provenance.kept_edits(
                card, dialogue, original
            )
        source = Source(
            kind=kind,
            annotator=provenance.pseudonym(annotation.get("completed_by"), self.salt),
            annotation=annotation.get("id"),
            opener=card.opener,
            checkpoint=checkpoint,
            lead_time=annotation.get("lead_time"),
            created_at=annotation.get("created_at"),
            project=task.get("project"),
            task=task.get("id"),
            decision=dialogue.source.decision,
            edits=edits,
        )
        return source, drafts


def _where(task: Mapping[str, Any], annotation: Mapping[str, Any]) -> str:
    return f"task {task.get('id')}, annotation {annotation.get('id')}"


def _check_config(result: list[Mapping[str, Any]], written: label_studio.Written, where: str) -> None:
    """Refuse results of an older labelling configuration: unknown names, and something required is missing."""
    names = {str(item.get("from_name", "")) for item in result}
    for name, level in (("closeness", written.closeness), ("mood", written.mood)):
        if name in names and level is None:
            # Else the card's own level would stand in for one that somebody chose and we can not read.
            raise RecordError(
                "config",
                f"{where}: its {name} is a choice of another labelling configuration; choose it anew and press Update.",
            )
    unknown = sorted(n for n in names if n not in _KNOWN and not n.startswith("turn_"))
    if unknown and (written.closeness is None or written.mood is None or not written.texts):
        raise RecordError(
            "config",
            f"{where}: was written with another labelling configuration (it has {unknown[0]!r}); "
            "open it, fill in what is missing and press Update.",
        )


def _check_names(dialogue: Dialogue, where: str) -> None:
    for what, name in [("record id", dialogue.id), *(("genre", genre) for genre in dialogue.genre)]:
        if has_control_characters(name):
            raise RecordError("control", f"{where}: its {what} holds a control character; correct the task's data.")


def _writable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
