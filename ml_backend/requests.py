"""What is asked of a drafting engine and what it gives back; no model in here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dialogue.records import Attribute, Turn

_USUAL_TURN = 20
"""Characters of a usual turn."""


@dataclasses.dataclass(frozen=True, slots=True)
class DraftRequest:
    """One conversation to go on with.

    `turns` are all boxes in order, blank where nobody has written; a turn that holds text is kept
    word for word.  Drafting goes from the first blank turn on and ends at the first one that it may
    not write: a User turn unless `user_turns`, or any turn after `limit` drafted ones.
    """

    id: str
    context: str
    turns: tuple[Turn, ...]
    attribute: Attribute | None
    user_turns: bool = False
    limit: int | None = None
    attempt: int = 0

    @property
    def size(self) -> int:
        """About how many characters the finished conversation has; conversations of like size run together."""
        return len(self.context) + sum(len(turn.text) or _USUAL_TURN for turn in self.turns)

    def digest(self) -> str:
        """Hash everything that the draft depends on, beside checkpoint and settings."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> DraftRequest:
        """Read what `to_dict` wrote."""
        attribute = value["attribute"]
        return cls(
            **{
                **value,
                "turns": tuple(Turn(**turn) for turn in value["turns"]),
                "attribute": None if attribute is None else Attribute(**attribute),
            }
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """The turns of a request with the drafted ones filled in.

    `drafted` are the numbers of the turns that the model wrote; `score` the mean natural-log
    probability of their tokens (None if there are none); `tokens` how many tokens they have.
    `problem` says in a few words why drafting ended early, if it did.
    """

    id: str
    turns: tuple[Turn, ...]
    drafted: tuple[int, ...] = ()
    score: float | None = None
    tokens: int = 0
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Draft:
        """Read what `to_dict` wrote."""
        turns = tuple(Turn(**turn) for turn in value["turns"])
        return cls(**{**value, "turns": turns, "drafted": tuple(value["drafted"])})


def next_blank(turns: tuple[Turn, ...] | list[Turn]) -> int | None:
    """Number of the first turn to write: the first blank one, or None.

    A blank User turn in front of a written Aku turn is no gap: Aku begins that conversation.
    """
    for number, turn in enumerate(turns):
        if not turn.text.strip():
            aku_begins = number == 0 and turn.speaker == "User" and len(turns) > 1 and bool(turns[1].text.strip())
            if not aku_begins:
                return number
    return None


def spoken(turns: tuple[Turn, ...] | list[Turn], before: int) -> list[Turn]:
    """Return the turns before number `before`, without a blank one in front."""
    return [turn for turn in turns[:before] if turn.text.strip()]
