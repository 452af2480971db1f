"""Fixtures: a tiny trained model, a registry around it, running servers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import backends as helpers
import pytest
from backends import Backend, conversations, saved, shape, tokenizer_of, train

from dialogue import Registry
from dialogue.checkpoints import Checkpoint


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The tokenizer of all models here."""
    texts = [text for c, turns, _ in conversations(200) for text in (c, *(t.text for t in turns))]
    return tokenizer_of(texts)


@pytest.fixture(scope="session")
def model_folder(pytestconfig: pytest.Config, tokenizer: Any) -> Path:
    """A tiny trained Mistral; kept in pytest's cache until this file changes."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    key = hashlib.sha256(Path(helpers.__file__).read_bytes() + torch.__version__.encode()).hexdigest()[:12]
    folder = Path(pytestconfig.cache.mkdir(f"tiny-{key}"))
    if not (folder / "tokenizer.json").exists():
        torch.manual_seed(0)
        model = MistralForCausalLM(MistralConfig(**shape(tokenizer, sliding_window=None)))
        train(model, tokenizer, 120)
        saved(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry that the whole run adds to."""
    return Registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="session")
def checkpoint(registry: Registry, model_folder: Path) -> Checkpoint:
    """The trained model as a checkpoint."""
    return registry.add(model_folder, {"format": "tags", "base": "none", "created_at": "2026-01-01"})


@pytest.fixture(scope="session")
def second(
    registry: Registry, model_folder: Path, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    """Another checkpoint: the same model, trained on."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder)
    train(model, tokenizer, 5, seed=1)
    folder = saved(model, tokenizer, tmp_path_factory.mktemp("second"))
    return registry.add(folder, {"format": "tags", "base": "none", "created_at": "2026-01-02"})


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Backend]]:
    """Makes backends; all of them are stopped at the end."""
    made: list[Backend] = []

    def make(**settings: Any) -> Backend:
        made.append(Backend(tmp_path_factory.mktemp("home"), **settings))
        return made[-1]

    yield make
    for backend in made:
        if backend.process is not None and backend.process.poll() is None:
            backend.stop()


@pytest.fixture(scope="session")
def backend(backends: Callable[..., Backend], checkpoint: Checkpoint) -> Backend:
    """A running backend with an open gate, for tests that change nothing about it."""
    made = backends()
    made.use(checkpoint)
    return made.start()


@pytest.fixture(scope="session")
def shared(backends: Callable[..., Backend]) -> Backend:
    """A running backend for tests that swap checkpoints, kill and restart; see `changeable`."""
    return backends().start()


@pytest.fixture
def changeable(shared: Backend, checkpoint: Checkpoint) -> Backend:
    """That backend, running, serving the trained checkpoint, with empty journals."""
    assert shared.process is not None
    if shared.process.poll() is not None:
        shared.start()
    shared.use(checkpoint)
    for name in ("drafts.jsonl", "webhooks.jsonl"):
        (shared.workspace.state / name).unlink(missing_ok=True)
    for _ in range(300):
        if shared.setup() == checkpoint.id:
            return shared
        time.sleep(0.1)
    pytest.fail(f"the checkpoint does not come to serve: {shared.log.read_text()}")
