"""Reading and adding cards of the Label Studio project."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from aku.connection import Connection
from dialogue import label_studio
from dialogue.errors import RecordError
from dialogue.label_studio import Card
from exporters import studio as pages
from exporters.studio import retrying

PAGE = 500


@dataclasses.dataclass(frozen=True, slots=True)
class WaitingCard:
    """A card without a finished annotation: the task's id and its assignment."""

    task: int
    card: Card


def waiting_cards(connection: Connection) -> list[WaitingCard]:
    """Return the cards that nobody has submitted yet; tasks that are no cards are left out."""
    found: list[WaitingCard] = []
    condition = ("total_annotations", "equal", "Number", 0)
    for page in pages.iter_tasks(connection.client, connection.project, condition, size=PAGE, include="id,data"):
        for task in page.tasks:
            try:
                found.append(WaitingCard(int(task["id"]), label_studio.from_task(task["data"], f"task {task['id']}")))
            except RecordError:
                continue
    return found


def count_finished(connection: Connection) -> int:
    """Return the number of tasks with at least one submitted annotation."""
    condition = pages.query(("total_annotations", "greater", "Number", 0))
    page = pages.get_page(connection.client, connection.project, condition, size=1, include="id")
    return page.total


def add_cards(connection: Connection, cards: Sequence[Card], keys: Sequence[str] = ()) -> int:
    """Make a task of every card that is not in the project yet; returns how many were added.

    `keys` name cards that must exist only once (an opener's id, a starting card's number); a card
    without a key is always added.
    """
    keys = list(keys) or [""] * len(cards)
    there = card_keys(connection) if any(keys) else set()
    rows: list[dict[str, Any]] = []
    for card, key in zip(cards, keys, strict=True):
        if key and key in there:
            continue
        data = label_studio.to_task(card)
        if key:
            data["plan_key"] = key
            there.add(key)
        rows.append({"data": data})
    for start in range(0, len(rows), 200):
        batch = rows[start : start + 200]
        send = functools.partial(connection.client.projects.import_tasks, id=connection.project, request=batch)
        retrying(send)
    return len(rows)


def card_keys(connection: Connection) -> set[str]:
    """Return the keys of the cards that are in the project."""
    found: set[str] = set()
    for page in pages.iter_tasks(connection.client, connection.project, size=PAGE, include="id,data"):
        found |= {str(task["data"]["plan_key"]) for task in page.tasks if task["data"].get("plan_key")}
    return found
