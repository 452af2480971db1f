"""The review project's side of Label Studio: replies to rate as tasks, ratings from annotations.

A task says nothing about who wrote the reply; that stands in a key that stays in the workspace.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dialogue.errors import RecordError
from dialogue.records import CLOSENESS_MEANING, MOOD_MEANING, Attribute, Turn, clean_text

CONFIG_FILE = Path(__file__).parent / "data" / "review_config.xml"
RATINGS = ("同じくらい以上", "惜しい", "だめ")
"""As good as a person's or better, nearly, no; best first."""
VERSION = "review"
"""Version of the predictions that put the replies into their boxes; the same for every writer."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReviewItem:
    """One reply to be rated: its scene, the turns before it, its text; `id` tells nothing about the writer."""

    id: str
    context: str
    attribute: Attribute
    before: tuple[Turn, ...]
    reply: str


@dataclasses.dataclass(frozen=True, slots=True)
class Rating:
    """What a person said of an item; `text` is the reply as they left it, corrected or not."""

    item: str
    rating: str
    text: str


def review_config() -> str:
    """Return the labelling configuration of a review project."""
    return CONFIG_FILE.read_text(encoding="utf-8")


def scene_html(item: ReviewItem) -> str:
    """Show scene, attributes and the turns before as HTML; every text of a person or a model is escaped."""
    closeness, mood = item.attribute.closeness, item.attribute.mood
    said = "".join(
        f'<div class="aku-said{" aku-own" if turn.speaker == "Aku" else ""}"><b>{turn.speaker}</b> '
        f"{escape(turn.text)}</div>"
        for turn in item.before
    )
    return (
        f'<div class="aku-scene">{escape(item.context)}</div>'
        f'<div class="aku-pair">親密さ {closeness} {CLOSENESS_MEANING[closeness]} ・ '
        f"機嫌 {mood} {MOOD_MEANING[mood]}</div>{said}"
    )


def to_task(item: ReviewItem) -> dict[str, Any]:
    """Return the task to import: its data, and a prediction that puts the reply into the box."""
    box = {"id": "reply", "from_name": "reply", "to_name": "scene", "type": "textarea", "value": {"text": [item.reply]}}
    return {
        "data": {"item": item.id, "scene": scene_html(item)},
        "predictions": [{"model_version": VERSION, "score": 0.0, "result": [box]}],
    }


def read_rating(task: Mapping[str, Any], annotation: Mapping[str, Any], reply: str) -> Rating:
    """Read a finished annotation; a box that was never touched holds the reply itself.

    Raises `RecordError` naming task and annotation when the rating is missing.
    """
    where = f"review task {task.get('id')}, annotation {annotation.get('id')}"
    rating, text = None, reply
    for result in _mappings(annotation.get("result")):
        value = result.get("value") or {}
        if result.get("from_name") == "rating":
            rating = next(iter(value.get("choices") or ()), None)
        elif result.get("from_name") == "reply":
            raw = value.get("text") or ""
            written = clean_text("\n".join(raw) if isinstance(raw, list) else str(raw))
            text = written or reply
    if rating not in RATINGS:
        raise RecordError("rating", f"{where}: has no rating; open it, choose one and press Update.")
    return Rating(str((task.get("data") or {}).get("item")), str(rating), text)


def _mappings(result: object) -> Sequence[Mapping[str, Any]]:
    return [item for item in result if isinstance(item, Mapping)] if isinstance(result, list) else []
