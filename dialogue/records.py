"""What a dialogue is: context, alternating turns of User and Aku, an attribute pair; and its rules."""

from __future__ import annotations

import dataclasses
import functools
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dialogue import files
from dialogue.errors import FileError, RecordError
from dialogue.migrations import upgraded_record

Speaker = Literal["User", "Aku"]
SPEAKERS: tuple[Speaker, Speaker] = ("User", "Aku")
LEVELS = range(5)
CLOSENESS_MEANING = ("知らない人", "顔は知っている人", "ちょいちょい会う人", "仲のいい友人", "パートナー")
MOOD_MEANING = ("とても悪い", "わりと悪い", "良くも悪くもない", "わりと良い", "とても良い")
MAX_TURN_LENGTH = 2000
"""Characters a turn may have at most, after NFC normalisation."""


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """One utterance."""

    speaker: Speaker
    text: str


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Attribute:
    """The pair that conditions Aku: how close User is, and Aku's mood; whole numbers 0-4."""

    closeness: int
    mood: int


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where a dialogue comes from.

    `kind` is "manual", "drafted" or "starter"; `annotator` a pseudonym; `lead_time` in seconds;
    `created_at` ISO 8601; `edits` one number a turn: the normalised character edit distance from
    the model's draft to what was kept, or None where no draft stood.
    """

    kind: str = "manual"
    annotator: str | None = None
    annotation: int | None = None
    opener: str | None = None
    checkpoint: str | None = None
    lead_time: float | None = None
    created_at: str | None = None
    project: int | None = None
    task: int | None = None
    decision: str | None = None
    edits: tuple[float | None, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Dialogue:
    """One canonical record.  Build it with `Dialogue.from_dict` or pass it through `validated`."""

    id: str
    context: str
    conversation: tuple[Turn, ...]
    attribute: Attribute
    genre: tuple[str, ...] = ()
    source: Source = Source()

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], where: str = "") -> Dialogue:
        """Build and validate a record from its JSON form; raises `RecordError` naming the record."""
        name = _name(value, where)
        value = upgraded_record(value, name, functools.partial(RecordError, "format"))
        attribute, turns = value.get("attribute"), value.get("conversation")
        if not isinstance(attribute, Mapping):
            raise RecordError("attribute", f'{name}: "attribute" must be an object with closeness and mood, each 0-4.')
        if not isinstance(turns, Sequence) or isinstance(turns, str):
            raise RecordError("conversation", f'{name}: "conversation" must be a list of turns.')
        pairs = [(t.get("speaker"), t.get("text")) if isinstance(t, Mapping) else (None, None) for t in turns]
        genre = value.get("genre") or ()
        if isinstance(genre, str) or not all(isinstance(g, str) for g in genre):
            raise RecordError("genre", f'{name}: "genre" must be a list of topic names.')
        raw = value.get("source")
        if raw is not None and not isinstance(raw, Mapping):
            raise RecordError("source", f'{name}: "source" must be an object.')
        known = {field.name for field in dataclasses.fields(Source)}
        source = {k: v for k, v in (raw or {}).items() if k in known}
        source["edits"] = tuple(source.get("edits") or ())
        return validated(
            cls(
                id=str(value.get("id") or ""),
                context=value.get("context"),  # type: ignore[arg-type]  # validated below
                conversation=tuple(Turn(s, t) for s, t in pairs),  # type: ignore[arg-type]  # likewise
                attribute=Attribute(attribute.get("closeness"), attribute.get("mood")),  # type: ignore[arg-type]  # likewise
                genre=tuple(genre),
                source=Source(**source),
            ),
            where,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the canonical JSON form, keys in the contract's order."""
        source = dataclasses.asdict(self.source)
        source["edits"] = list(self.source.edits)
        return {
            "id": self.id,
            "context": self.context,
            "conversation": [{"speaker": turn.speaker, "text": turn.text} for turn in self.conversation],
            "attribute": {"closeness": self.attribute.closeness, "mood": self.attribute.mood},
            "genre": list(self.genre),
            "source": source,
        }


def clean_text(text: str) -> str:
    """Normalise to NFC, unify line ends and strip white space at both ends."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def has_control_characters(text: str) -> bool:
    """Tell whether `text` holds a control character (Cc, lone surrogate) other than a line break or tab."""
    return any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text)


def validated(dialogue: Dialogue, where: str = "") -> Dialogue:
    """Return the record with clean texts and no trailing blank turns, or raise `RecordError`.

    Rules: context not empty; at least two turns; speakers strictly alternate, either may begin; no
    empty text between texts; both attributes whole numbers 0-4; text NFC, free of control
    characters, at most `MAX_TURN_LENGTH` characters a turn; at most two genres.
    """
    name = _name({"id": dialogue.id}, where)
    context = _checked(dialogue.context, "context", f"{name}: the context")
    if not context:
        raise RecordError("context", f"{name}: the context (場面) is empty; describe the scene in a sentence.")
    turns: list[Turn] = []
    for number, turn in enumerate(dialogue.conversation, 1):
        if turn.speaker not in SPEAKERS:
            raise RecordError("speaker", f'{name}: turn {number} has speaker {turn.speaker!r}; use "User" or "Aku".')
        turns.append(Turn(turn.speaker, _checked(turn.text, "text", f"{name}: turn {number}")))
    while turns and not turns[-1].text:
        turns.pop()
    if len(turns) < 2:
        raise RecordError("turns", f"{name}: has {len(turns)} turn(s); a dialogue needs at least two.")
    for number, turn in enumerate(turns, 1):
        if not turn.text:
            raise RecordError(
                "gap", f"{name}: turn {number} is empty between written turns; fill it or clear the rest."
            )
        if number > 1 and turn.speaker == turns[number - 2].speaker:
            raise RecordError("alternate", f"{name}: turns {number - 1} and {number} are both by {turn.speaker}.")
    for key, level in (("closeness", dialogue.attribute.closeness), ("mood", dialogue.attribute.mood)):
        if isinstance(level, bool) or not isinstance(level, int) or level not in LEVELS:
            raise RecordError(key, f"{name}: {key} is {level!r}; it must be a whole number from 0 to 4.")
    genre = tuple(dict.fromkeys(clean_text(g) for g in dialogue.genre))
    if len(genre) > 2:
        raise RecordError("genre", f"{name}: has {len(genre)} genres; choose one or two, the main one first.")
    return dataclasses.replace(dialogue, context=context, conversation=tuple(turns), genre=genre)


def _checked(text: object, rule: str, what: str) -> str:
    if not isinstance(text, str):
        raise RecordError(rule, f"{what} must be text, found {type(text).__name__}.")
    if has_control_characters(text.replace("\r", "\n")):
        raise RecordError("control", f"{what} holds a control character; retype the text.")
    cleaned = clean_text(text)
    if len(cleaned) > MAX_TURN_LENGTH:
        raise RecordError("length", f"{what} has {len(cleaned)} characters; at most {MAX_TURN_LENGTH} are allowed.")
    return cleaned


def _name(value: Mapping[str, Any], where: str) -> str:
    record = f"record {value['id']}" if value.get("id") else "record without id"
    return f"{where}: {record}" if where else record


def iter_dialogues(path: Path) -> Iterator[Dialogue]:
    """Yield the validated dialogues of a canonical JSONL file one by one, in flat memory.

    Raises `FileError` for a file that is missing or not JSONL, `RecordError` for a broken record or
    an id that occurs twice.
    """
    seen: set[str] = set()
    for number, value in files.read_jsonl(path):
        dialogue = Dialogue.from_dict(value, f"{path}, line {number}")
        if not dialogue.id:
            raise RecordError("id", f'{path}, line {number}: the record has no "id".')
        if dialogue.id in seen:
            raise RecordError("id", f"{path}, line {number}: the id {dialogue.id} occurs twice; ids must be unique.")
        seen.add(dialogue.id)
        yield dialogue


def read_dialogues(path: Path) -> list[Dialogue]:
    """Read a whole canonical JSONL file; see `iter_dialogues`.  An empty file is an error."""
    dialogues = list(iter_dialogues(path))
    if not dialogues:
        raise FileError(f"{path}: holds no dialogue.")
    return dialogues


def write_dialogues(path: Path, dialogues: Sequence[Dialogue]) -> int:
    """Write canonical JSONL atomically; returns the number of records."""
    return files.write_jsonl(path, (d.to_dict() for d in dialogues))
