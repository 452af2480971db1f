"""Label Studio's requests → draft requests → Label Studio's rows; pure functions, no model, no server.

A row is either a prediction or `[]`, which tells Label Studio "nothing now, ask again".
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from dialogue import label_studio
from dialogue.errors import RecordError
from dialogue.genres import Taxonomy
from dialogue.label_studio import Card
from dialogue.records import Attribute, Turn, clean_text, has_control_characters
from ml_backend.requests import Draft, DraftRequest, next_blank


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A task as far as drafting needs it; `key` tells it from every other task of every project."""

    key: str
    id: int | str | None
    card: Card


@dataclasses.dataclass(frozen=True, slots=True)
class Chat:
    """A live-chat call: what stands on the screen, and the number of the turn that is wanted (None: none)."""

    turns: tuple[Turn, ...]
    context: str
    attribute: Attribute
    turn: int | None


def read_task(value: object, project: str) -> Task | None:
    """Read one task of a call; None if it is no card of ours."""
    if not isinstance(value, Mapping) or not isinstance(value.get("data"), Mapping):
        return None
    try:
        card = label_studio.from_task(value["data"])
    except (RecordError, ValueError, TypeError):
        return None
    texts = [card.context, *(turn.text for turn in card.turns)]
    if len(card.turns) > label_studio.MAX_TURNS or any(has_control_characters(text) for text in texts):
        return None
    number = value.get("id")
    if not isinstance(number, (int, str)) or isinstance(number, bool):
        number = None
    name = f"{project}/{number}" if number is not None else f"{project}/?{_hash(repr(card))}"
    return Task(name, number, card)


def draft_request(task: Task, *, user_turns: bool) -> DraftRequest:
    """Return what to ask the engine for a whole card."""
    card = task.card
    return DraftRequest(task.key, card.context, card.turns, card.attribute, user_turns=user_turns)


def is_draftable(request: DraftRequest) -> bool:
    """Tell whether there is a turn that the model may write: one with something to go on."""
    number = next_blank(request.turns)
    if number is None:
        return False
    if request.turns[number].speaker == "User":
        return request.user_turns
    return number > 0


def draft_row(task: Task, draft: Draft, version: str, taxonomy: Taxonomy | None) -> dict[str, Any]:
    """Return the prediction that puts a draft into the boxes."""
    score = probability(draft)
    return label_studio.to_prediction(task.card, draft.turns, version=version, score=score, taxonomy=taxonomy)


def probability(draft: Draft) -> float:
    """Geometric mean of the drafted tokens' probabilities: Label Studio takes scores from 0 to 1 only."""
    return 0.0 if draft.score is None else round(math.exp(min(0.0, draft.score)), 6)


def scaffold_row(task: Task, version: str, taxonomy: Taxonomy | None) -> dict[str, Any]:
    """Return the prediction that drafts nothing but makes every box editable."""
    return label_studio.scaffold(task.card, version, taxonomy)


def is_blind(task: Task, share: float) -> bool:
    """Tell whether the card belongs to the arm that never sees a draft: always the same for one task."""
    return int(_hash(task.key), 16) / 16**16 < share


def interactive_result(context: object) -> Sequence[object] | None:
    """Return the screen's results when a call's context makes it a live-chat one, else None."""
    result = context.get("result") if isinstance(context, Mapping) else None
    return result if isinstance(result, list) else None


def read_chat(task: Task, stored: Mapping[str, Any], result: Sequence[object]) -> Chat:
    """Read a live-chat call.

    The screen's results carry the texts but not the choices: attributes come from them if they do,
    else from the annotator's draft, else from the stored prediction, else from the card.  Wanted is
    the first blank Aku turn whose User turn is written; a blank User turn before it ends the search.
    """
    card = task.card
    written = label_studio.read_result(_mappings(result))
    texts = {number: turn.text for number, turn in enumerate(card.turns)}
    texts |= {n: _usable(text) for n, text in written.texts.items() if n < label_studio.MAX_TURNS}
    turns = label_studio.boxes(card, texts)
    number = next_blank(turns)
    last_user = max((n for n, turn in enumerate(turns) if turn.speaker == "User" and turn.text.strip()), default=None)
    if number is None and last_user == len(turns) - 1 and len(turns) < label_studio.MAX_TURNS:
        number = len(turns)  # the person went on beyond the plan
        turns.append(Turn("Aku", ""))
    if number is not None and (turns[number].speaker == "User" or number == 0):
        number = None
    closeness, mood = written.closeness, written.mood
    for source in (*_results(stored.get("drafts")), *_results(stored.get("predictions"))):
        chosen = label_studio.read_result(_mappings(source))
        closeness = chosen.closeness if closeness is None else closeness
        mood = chosen.mood if mood is None else mood
    attribute = Attribute(
        card.attribute.closeness if closeness is None else min(closeness, 4),
        card.attribute.mood if mood is None else min(mood, 4),
    )
    context = card.context if written.context is None else _usable(written.context)
    return Chat(tuple(turns), context, attribute, number)


def chat_request(task: Task, chat: Chat, attempt: int) -> DraftRequest:
    """Return what to ask the engine for one live reply; what stands after it is not shown to the model."""
    assert chat.turn is not None  # noqa: S101
    return DraftRequest(task.key, chat.context, chat.turns[: chat.turn + 1], chat.attribute, limit=1, attempt=attempt)


def silence() -> list[Any]:
    """Return the answer to a live-chat call that has nothing to say.

    A bare list, not a row without results: for a row Label Studio draws all boxes anew, and whoever
    is typing in one of them loses the caret.
    """
    return []


def chat_row(chat: Chat, draft: Draft | None, version: str) -> dict[str, Any] | list[Any]:
    """Return the answer to a live-chat call: the one drafted turn, or nothing; it is never stored."""
    if draft is None or not draft.drafted or chat.turn is None:
        return silence()
    boxes = label_studio.to_result(draft.turns, context="", attribute=chat.attribute, genre=())
    wanted = boxes[1 + chat.turn]  # the context box comes first
    return {"result": [wanted], "score": probability(draft), "model_version": version}


def _usable(text: str) -> str:
    text = clean_text(text)
    return "".join(c for c in text if not has_control_characters(c))


def _mappings(result: Sequence[object]) -> list[Mapping[str, Any]]:
    return [item for item in result if isinstance(item, Mapping)]


def _results(stored: object) -> list[Sequence[object]]:
    """Result lists of stored drafts or predictions, newest first."""
    if not isinstance(stored, list):
        return []
    rows = [row for row in stored if isinstance(row, Mapping) and isinstance(row.get("result"), list)]
    rows.sort(key=lambda row: str(row.get("updated_at") or row.get("created_at") or ""), reverse=True)
    return [row["result"] for row in rows]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
