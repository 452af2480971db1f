"""Random bodies: always a valid answer, never a 500, and a good task among bad ones gets its draft.

`AKU_FUZZ=10000 pytest tests/ml_backend/test_fuzz.py` runs as many examples of each kind as it says.
"""

from __future__ import annotations

import json
import os
from typing import Any

import requests
from backends import PASSWORD, USER, Backend
from cards import OPENER, screen, task, texts
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dialogue.checkpoints import Checkpoint

EXAMPLES = int(os.environ.get("AKU_FUZZ", "60"))
fuzz = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES < 1000
)
KEYS = st.sampled_from(
    "id data turns speaker text closeness mood context genre result value choices from_name type drafts predictions "
    "card project params tasks created_at record opener login label_config action annotation annotations".split()
)
WORDS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["User", "Aku", "turn_0", "turn_1", "turn_29", "turn_99999999999", "<ROLE>", "\x00", "\ud800", ""]),
)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), WORDS)
JSON = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.one_of(KEYS, st.text(max_size=5)), inner, max_size=6)
    ),
    max_leaves=20,
)


@st.composite
def bent_tasks(draw: st.DrawFn) -> Any:
    """A good task with something replaced somewhere."""
    value = task(
        draw(st.integers(1, 50)), *draw(st.lists(st.text(max_size=12), max_size=6)), mood=draw(st.integers(0, 4))
    )
    for _ in range(draw(st.integers(0, 2))):
        place: Any = value
        while isinstance(place, (dict, list)) and place:
            key = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], (dict, list)) or not place[key] or draw(st.booleans()):
                place[key] = draw(JSON)
                break
            place = place[key]
    return value


TASKS = st.one_of(bent_tasks(), bent_tasks(), JSON)
CONTEXTS = st.one_of(
    st.none(), JSON, st.builds(screen, *[st.text(max_size=8)] * 3), st.fixed_dictionaries({"result": st.lists(JSON)})
)


def send(backend: Backend, path: str, body: Any) -> requests.Response:
    """Send JSON as lenient as Python writes it: NaN, lone surrogates and all."""
    data = json.dumps(body).encode("utf-8")
    return backend.post(path, None, data=data, headers={"Content-Type": "application/json"})


def check_rows(rows: Any, count: int, version: str) -> None:
    assert isinstance(rows, list)
    assert len(rows) == count
    for row in rows:
        if row == []:
            continue
        assert set(row) == {"result", "score", "model_version"}
        assert row["model_version"] == version
        assert isinstance(row["score"], (int, float))
        for item in row["result"]:
            assert {"from_name", "to_name", "type", "value"} <= set(item)
            kind = {"textarea": "text", "choices": "choices"}[item["type"]]
            assert all(isinstance(text, str) for text in item["value"][kind])


@fuzz
@example(tasks=[], context=None, project="\ud800")
@given(tasks=st.lists(TASKS, max_size=5), context=CONTEXTS, project=st.one_of(st.just("1.1"), JSON))
def test_random_tasks_get_valid_rows(
    backend: Backend, checkpoint: Checkpoint, tasks: list[Any], context: Any, project: Any
) -> None:
    body = {"tasks": [*tasks, task(77, OPENER)], "project": project, "params": {"context": context}}
    answer = send(backend, "/predict", body)
    assert answer.status_code == 200, answer.text
    rows = answer.json()["results"]
    check_rows(rows, len(tasks) + 1, checkpoint.id)
    if not (isinstance(context, dict) and isinstance(context.get("result"), list)):
        assert len(texts(rows[-1])) == 2, "a good task among bad ones gets its draft"


@fuzz
@given(path=st.sampled_from(["/predict", "/setup", "/webhook"]), body=JSON)
def test_random_bodies_are_answered(backend: Backend, path: str, body: Any) -> None:
    assert send(backend, path, body).status_code in (200, 201, 400)


@fuzz
@given(data=st.binary(max_size=200), kind=st.sampled_from(["application/json", "text/plain", "multipart/form-data"]))
def test_random_bytes_are_answered(backend: Backend, data: bytes, kind: str) -> None:
    answer = requests.post(
        f"{backend.url}/predict", data, auth=(USER, PASSWORD), headers={"Content-Type": kind}, timeout=60
    )
    assert answer.status_code in (200, 400)
