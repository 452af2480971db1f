"""Another engine: the same prompts to a real OpenAI-compatible server (`transformers serve`)."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from backends import Backend
from cards import OPENER, request, screen, task, texts

from dialogue import BackendError
from dialogue.checkpoints import Checkpoint
from dialogue.label_studio import blank_turns
from ml_backend.drafting import Drafter, DraftRequest
from ml_backend.remote import RemoteDrafter
from ml_backend.settings import BackendSettings

LOCAL = BackendSettings(temperature=0, retries=0, max_new_tokens=24, threads=1)


@pytest.fixture(scope="module")
def server(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a completions server that runs the trained model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(checkpoint.path)]
    with log.open("wb") as handle:
        process = subprocess.Popen(
            [*command, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)], stdout=handle, stderr=handle
        )
    url = f"http://127.0.0.1:{port}/v1"
    for _ in range(1200):
        try:
            if requests.get(f"{url}/models", timeout=1).ok:
                break
        except requests.RequestException:
            assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    yield url
    process.terminate()
    process.wait(20)


@pytest.fixture
def settings(server: str, checkpoint: Checkpoint) -> BackendSettings:
    return dataclasses.replace(LOCAL, engine="openai", engine_url=server, engine_model=str(checkpoint.path))


def test_both_engines_write_the_same(checkpoint: Checkpoint, settings: BackendSettings) -> None:
    wanted = [request(i, OPENER, "最近犬はどう？", mood=i % 5) for i in range(6)]
    wanted.append(DraftRequest("whole", "海のそば。", blank_turns(4), wanted[0].attribute, user_turns=True))
    local, remote = Drafter(checkpoint, LOCAL).draft(wanted), RemoteDrafter(checkpoint, settings).draft(wanted)
    assert [draft.turns for draft in remote] == [draft.turns for draft in local]
    assert [draft.drafted for draft in remote] == [draft.drafted for draft in local]


def test_the_server_drafts_through_it(
    backends: Callable[..., Backend], checkpoint: Checkpoint, settings: BackendSettings
) -> None:
    backend = backends(engine="openai", engine_url=settings.engine_url, engine_model=settings.engine_model)
    backend.use(checkpoint)
    backend.start()
    (row,) = backend.predict([task(1, OPENER)])
    assert len(texts(row)) == 2
    assert row["model_version"] == checkpoint.id
    (live,) = backend.predict([task(2, OPENER)], context=screen(OPENER))
    assert live["result"][0]["from_name"] == "turn_1"
    backend.stop()


def test_a_server_that_is_away_is_named(checkpoint: Checkpoint) -> None:
    gone = dataclasses.replace(LOCAL, engine="openai", engine_url="http://127.0.0.1:9/v1")
    with pytest.raises(BackendError, match=r"http://127\.0\.0\.1:9/v1"):
        RemoteDrafter(checkpoint, gone).draft([request(1, OPENER)])
