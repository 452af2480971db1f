"""What a drafted turn may look like, and the last resort for one that does not."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dialogue.records import MAX_TURN_LENGTH, clean_text, has_control_characters

_ROLE_LINE = re.compile(r"^\s*(?:<?/?(?:ROLE|CONTEXT|ATTR)>|(?:User|Aku|Context)\s*(?:[:：]|$))", re.MULTILINE)
_SENTENCE_END = re.compile(r"[。．！？!?…♪〜～）」』\)]+")


def problem(text: str, *, ended: bool, control: Sequence[str] = ()) -> str | None:
    """Say what is wrong with a drafted turn, or None.

    `ended` tells whether the model ended the turn itself; `control` are the tokenizer's control tokens.
    """
    stripped = text.strip()
    if not stripped:
        return "empty"
    if "\ufffd" in text:
        return "broken characters"
    if has_control_characters(clean_text(text)):
        return "control characters"
    if len(stripped) > MAX_TURN_LENGTH:
        return "too long"
    if _ROLE_LINE.search(text) or any(token in text for token in control):
        return "role leak"
    return None if ended else "cut off"


def salvaged(text: str, control: Sequence[str] = ()) -> str:
    """Make the best of a turn that stayed wrong after all tries: what comes before the fault.

    A cut-off text ends after its last whole sentence if it has one.  May return an empty text.
    """
    leak = _ROLE_LINE.search(text)
    if leak:
        text = text[: leak.start()]
    for token in control:
        text = text.split(token, 1)[0]
    text = "".join(c for c in text if c != "\ufffd" and not has_control_characters(c))
    text = clean_text(text)[:MAX_TURN_LENGTH]
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else text
