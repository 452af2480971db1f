"""Cards and tasks that the backend's tests ask for, and how to look at a running server."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from dialogue import Attribute, Turn, load_taxonomy
from dialogue.label_studio import Card, blank_turns, read_result, to_result, to_task
from ml_backend.requests import DraftRequest

OPENER = "犬の話をしよう"


def card(*texts: str, planned: int = 6, mood: int = 3) -> Card:
    """A card with the first boxes filled."""
    return Card("犬", "犬のそば。", Attribute(2, mood), load_taxonomy().names[:1], blank_turns(planned, texts))


def task(number: int, *texts: str, **options: Any) -> dict[str, Any]:
    """A task as Label Studio sends it."""
    return {"id": number, "project": 1, "data": to_task(card(*texts, **options)), "predictions": [], "drafts": []}


def screen(*texts: str, context: str = "犬のそば。") -> dict[str, Any]:
    """The interactive context: what stands in the boxes, without the choices."""
    result = to_result(blank_turns(6, texts), context=context, attribute=Attribute(2, 2), genre=(), fill=True)
    return {"result": [item for item in result if "text" in item["value"]]}


def texts(row: dict[str, Any]) -> list[str]:
    """The texts of a row's boxes without the blank ones at the end."""
    found = read_result(row["result"]).texts
    boxes = [found.get(i, "") for i in range(max(found, default=-1) + 1)]
    while boxes and not boxes[-1]:
        boxes.pop()
    return boxes


def request(number: int, *users: str, mood: int = 3, **options: Any) -> DraftRequest:
    """A conversation whose User turns are written and whose Aku turns are not."""
    turns = [turn for user in users for turn in (Turn("User", user), Turn("Aku", ""))]
    return DraftRequest(str(number), "犬のそば。", tuple(turns), Attribute(2, mood), **options)


# -- a running server


def children(backend: Any, word: str) -> list[int]:
    """Process ids below the server whose command holds `word`."""
    assert backend.process is not None
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(backend.process.pid)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [int(line.split(None, 1)[0]) for line in listed if word in line.split(None, 1)[1]]


def journal(backend: Any, name: str) -> list[dict[str, Any]]:
    path = backend.workspace.state / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def eventually(holds: Callable[[], bool]) -> None:
    """Wait, for as long as a busy machine may take, until something holds."""
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    pytest.fail("it never came to hold")
