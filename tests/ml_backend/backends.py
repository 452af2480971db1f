"""A tiny model that can be trained on the spot, and a real server process."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from dialogue import Attribute, Registry, Turn, Workspace
from dialogue.checkpoints import Checkpoint
from dialogue.rendering import render

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
USER, PASSWORD, SECRET = "aku", "correct horse", "staple"
TOPICS = ("犬", "本", "雨", "海")
REPLIES = ("知らない。", "べつに。", "{}はふつうかな。", "{}は好き。", "{}、いっしょに行こうね！")


def conversations(count: int, seed: int = 0) -> list[tuple[str, list[Turn], Attribute]]:
    """Dialogues whose replies depend on topic and mood."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        topic, attribute = rng.choice(TOPICS), Attribute(rng.randrange(5), rng.randrange(5))
        turns: list[Turn] = []
        for _ in range(rng.randint(1, 4)):
            turns.append(Turn("User", rng.choice(("{}の話をしよう", "最近{}はどう？", "ねえ、{}だよ")).format(topic)))
            start = rng.choice(("うん。", "えっと、", ""))
            turns.append(Turn("Aku", start + REPLIES[attribute.mood].format(topic)))
        made.append((f"{topic}のそば。", turns, attribute))
    return made


def tokenizer_of(texts: list[str]) -> Any:
    """A tokenizer of single characters that knows the tags."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tags = ["<ROLE>", "</ROLE>", "<ATTR>", "</ATTR>", "<CONTEXT>", "</CONTEXT>"]
    # `transformers serve` tries stop strings behind "abcdef", which a tokenizer must be able to write.
    letters = sorted({*"".join(texts), *"UserAkuclosenessmood01234:,\n?!abcdef"})
    words = ["</s>", "<unk>", *tags, *letters]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="</s>", unk_token="<unk>", additional_special_tokens=tags
    )


def shape(tokenizer: Any, **changes: Any) -> dict[str, Any]:
    """Sizes of a tiny model, in the names that all architectures here share."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": None,
        "pad_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        **changes,
    }


def train(model: Any, tokenizer: Any, steps: int, seed: int = 0) -> None:
    """Teach the model the conversations above, every token of them."""
    import torch

    rendered = [render(c, turns, a, tokenizer, "tags").ids for c, turns, a in conversations(200, seed)]
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    rng = random.Random(seed)
    for _ in range(steps):
        batch = rng.sample(rendered, 16)
        width = max(map(len, batch))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in batch])
        labels = torch.tensor([[*row, *[-100] * (width - len(row))] for row in batch])
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def saved(model: Any, tokenizer: Any, folder: Path) -> Path:
    """Save a model and its tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Backend:
    """`python -m ml_backend` on a workspace of its own, as a child process."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.workspace = Workspace(home)
        self.registry = Registry(self.workspace.checkpoints)
        self.workspace.write_secrets({"BACKEND_USER": USER, "BACKEND_PASSWORD": PASSWORD, "WEBHOOK_SECRET": SECRET})
        settings = {"temperature": 0, "threads": 1, "niceness": 0, **settings}
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        self.workspace.settings.write_text("\n".join(["[backend]", *lines, ""]), encoding="utf-8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home / "backend.log"
        self.process: subprocess.Popen[bytes] | None = None

    def add(self, checkpoint: Checkpoint) -> None:
        """Copy a checkpoint of the run's registry into this workspace."""
        target = self.workspace.checkpoints / checkpoint.id
        if not target.exists():
            shutil.copytree(checkpoint.path, target)

    def use(self, checkpoint: Checkpoint, *, gate: bool = True) -> None:
        """Choose a checkpoint, its gate open or shut."""
        self.add(checkpoint)
        self.registry.use(checkpoint.id, {"open": gate})

    def start(self) -> Backend:
        """Start and wait until it answers."""
        command = [sys.executable, "-m", "ml_backend", "--home", str(self.workspace.home), "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        for _ in range(1200):
            try:
                if requests.get(f"{self.url}/health", timeout=1).ok:
                    return self
            except requests.RequestException:
                assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        pytest.fail(f"the backend did not come up: {self.log.read_text()}")

    def stop(self, sign: int = signal.SIGTERM) -> None:
        """End the server and wait until its port is free."""
        assert self.process is not None
        self.process.send_signal(sign)
        self.process.wait(30)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)):
                    return
            time.sleep(0.1)

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET with the right password."""
        return requests.get(self.url + path, timeout=100, **{"auth": (USER, PASSWORD), **options})

    def post(self, path: str, body: Any, **options: Any) -> requests.Response:
        """POST JSON with the right password."""
        return requests.post(self.url + path, json=body, timeout=100, **{"auth": (USER, PASSWORD), **options})

    def setup(self, project: str = "1.1") -> str:
        """The version that /setup says."""
        return str(self.post("/setup", {"project": project, "schema": "<View/>"}).json()["model_version"])

    def predict(self, tasks: list[Any], project: str = "1.1", context: Any = None) -> list[Any]:
        """The rows of a /predict call as Label Studio makes it."""
        body = {
            "tasks": tasks,
            "project": project,
            "label_config": "<View/>",
            "params": {"login": "", "password": "", "context": context},
        }
        answer = self.post("/predict", body)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["results"])
