"""What drafted replies must not do: go round in a loop, copy the turn before, recite the training data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from dialogue.text import edit_distance

Repetition = Literal["loop", "copy", "training"]
COPIED = 20
"""Characters in a row that, found in training too, count as copied from it."""
_PACKED = re.compile(r"\s+")
_LOOP = re.compile(r"(.{2,30}?)\1{2,}", re.DOTALL)
_LOOPED = 12
"""A loop covers at least so many characters; "はいはいはい" and "まあまあまあ" are speech."""
_CLAUSE = re.compile(r"[。！？!?…、\n]+")
_COPY_LENGTH, _COPY_DISTANCE = 8, 0.1


def index(texts: Iterable[str]) -> frozenset[str]:
    """All runs of `COPIED` characters in the training turns, for `repetition`."""
    return frozenset(gram for text in texts for gram in _grams(_packed(text)))


def repetition(text: str, before: Sequence[str], training: frozenset[str] = frozenset()) -> Repetition | None:
    """Say what a reply repeats, or None.

    "loop": a unit three times in a row over 12 characters or more, or a clause of four characters or
    more three times.  "copy": the turn just before, or one of Aku's own earlier ones, almost word for word
    (edit distance at most 0.1; turns under eight characters may recur).  "training": 20 characters in a row
    from training.

    Args:
        text: The reply.
        before: The turns before it, oldest first.
        training: What `index` returned.
    """
    packed = _packed(text)
    if _loops(packed):
        return "loop"
    if len(packed) >= _COPY_LENGTH:
        own = before[-2::-2]  # Aku's, since speakers alternate and the last turn before is User's
        if any(edit_distance(packed, _packed(old)) <= _COPY_DISTANCE for old in (*before[-1:], *own)):
            return "copy"
    if any(gram in training for gram in _grams(packed)):
        return "training"
    return None


def _loops(packed: str) -> bool:
    for match in _LOOP.finditer(packed):
        if len(match[0]) >= _LOOPED and len(set(match[1])) > 1:
            return True
    clauses = [clause for clause in _CLAUSE.split(packed) if len(clause) >= 4]
    return any(clauses.count(clause) >= 3 for clause in set(clauses))


def _packed(text: str) -> str:
    return _PACKED.sub("", text)


def _grams(packed: str) -> Iterable[str]:
    return (packed[i : i + COPIED] for i in range(len(packed) - COPIED + 1))
