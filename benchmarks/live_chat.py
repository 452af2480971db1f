"""Live chat through a real Label Studio: how much later than the bare model does Aku's reply come?

    python benchmarks/live_chat.py                      # starts a Label Studio of its own; takes two minutes
    python benchmarks/live_chat.py --size 100M --rounds 20

Every reply is timed twice, one right after the other: through Label Studio (its interactive API →
the backend → the engine), and as a bare `generate` on the same prompt in this process.  The model has
random weights, drafts greedily, and both sides write the same text.  Then a batch of cards is drafted
while /health, /setup and /webhook are asked.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import torch
from drafting import cards, random_checkpoint

from aku.studio import running_studio
from dialogue import Attribute, Registry, Workspace, files, label_studio
from dialogue.label_studio import Card, blank_turns
from dialogue.records import Turn
from dialogue.rendering import render_prompt
from ml_backend.weights import Weights, load

NEW_TOKENS = 24


def bare_generate(weights: Weights, context: str, said: list[Turn], attribute: Attribute) -> tuple[str, float]:
    """Write one reply with `generate`; returns its text and the seconds it took."""
    started = time.perf_counter()
    prompt = render_prompt(context, said, attribute, weights.tokenizer, weights.format)
    with torch.inference_mode():
        ids = weights.model.generate(
            torch.tensor([prompt], device=weights.device),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=1,
            suppress_tokens=weights.forbidden[0].isinf().nonzero()[:, 0].tolist(),
            eos_token_id=weights.tokenizer.eos_token_id,
            pad_token_id=weights.tokenizer.eos_token_id,
        )[0, len(prompt) :]
    text = weights.tokenizer.decode(ids, skip_special_tokens=True)
    return text, time.perf_counter() - started


def screen(texts: list[str], context: str) -> dict[str, Any]:
    """What stands on the screen, as Label Studio's editor sends it."""
    turns = blank_turns(len(texts), texts)
    result = label_studio.to_result(turns, context=context, attribute=Attribute(2, 2), genre=(), fill=True)
    return {"result": [item for item in result if "text" in item["value"]]}


def quantiles(values: list[float]) -> dict[str, float]:
    """Median, 95 % quantile and maximum in milliseconds."""
    ordered = sorted(values)
    return {
        "median_ms": round(1000 * ordered[len(ordered) // 2], 1),
        "p95_ms": round(1000 * ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)], 1),
        "max_ms": round(1000 * ordered[-1], 1),
        "n": len(ordered),
    }


def timed(call: Callable[[], requests.Response]) -> tuple[Any, float]:
    """Make a request; returns its JSON and the seconds it took."""
    started = time.perf_counter()
    answer = call()
    seconds = time.perf_counter() - started
    assert answer.ok, f"{answer.status_code} {answer.text[:300]}"
    return answer.json(), seconds


def chat(workspace: Workspace, url: str, project: int, weights: Weights, rounds: int) -> dict[str, Any]:
    """Hold conversations of five replies each; returns the figures."""
    session = requests.Session()
    session.headers["Authorization"] = f"Token {workspace.read_secrets()['LABEL_STUDIO_USER_TOKEN']}"
    backend = files.read_json(workspace.state / "studio.json")["backend"]
    ours: list[float] = []
    bare: list[float] = []
    equal = 0
    for request in cards(rounds, 10):
        attribute = request.attribute or Attribute(2, 2)
        card = Card("c", request.context, attribute, (), blank_turns(10))
        imported = session.post(
            f"{url}/api/projects/{project}/import?return_task_ids=true", json=[{"data": label_studio.to_task(card)}]
        )
        task = imported.json()["task_ids"][0]
        texts: list[str] = []
        for turn in request.turns[::2]:
            texts.append(turn.text)
            body = {"task": task, "context": screen(texts, request.context)}
            answer, seconds = timed(
                lambda body=body: session.post(f"{url}/api/ml/{backend}/interactive-annotating", json=body)
            )
            reply = answer["data"]["result"][0]["value"]["text"][0]
            said = [Turn("Aku" if i % 2 else "User", text) for i, text in enumerate(texts)]
            expected, bare_seconds = bare_generate(weights, request.context, said, attribute)
            equal += reply == expected
            ours.append(seconds)
            bare.append(bare_seconds)
            texts.append(reply)
    differences = [a - b for a, b in zip(ours, bare, strict=True)]
    return {
        "through_label_studio": quantiles(ours),
        "bare_generate": quantiles(bare),
        "difference": quantiles(differences),
        "equal_replies": f"{equal}/{len(ours)}",
    }


def control_plane(workspace: Workspace, backend_url: str) -> dict[str, Any]:
    """Ask the control plane while a batch of cards is being drafted."""
    secrets = workspace.read_secrets()
    auth = (secrets["BACKEND_USER"], secrets["BACKEND_PASSWORD"])
    tasks = [
        {"id": 10**6 + i, "data": label_studio.to_task(Card("c", r.context, r.attribute, (), r.turns))}  # type: ignore[arg-type]
        for i, r in enumerate(cards(200, 10))
    ]
    drafting = threading.Thread(
        target=requests.post,
        args=(f"{backend_url}/predict",),
        kwargs={"json": {"tasks": tasks, "project": "1.1"}, "auth": auth, "timeout": 100},
    )
    calls: dict[str, Callable[[], requests.Response]] = {
        "health": lambda: requests.get(f"{backend_url}/health", auth=auth, timeout=5),
        "setup": lambda: requests.post(f"{backend_url}/setup", json={"project": "1.1"}, auth=auth, timeout=5),
        "webhook": lambda: requests.post(f"{backend_url}/webhook", json={"action": "x"}, auth=auth, timeout=5),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    drafting.start()
    while drafting.is_alive() and len(times["health"]) < 300:
        for name, call in calls.items():
            times[name].append(timed(call)[1])
        time.sleep(0.02)
    drafting.join()
    return {name: quantiles(seconds) for name, seconds in times.items()}


def main() -> None:
    """Start a studio, measure, stop it."""
    parser = argparse.ArgumentParser(description="Latency of live chat through Label Studio.")
    parser.add_argument("--size", default="2M", choices=["2M", "100M"])
    parser.add_argument("--rounds", type=int, default=20, help="conversations of five replies")
    parser.add_argument("--port", type=int, default=18200, help="Label Studio's port; the backend takes the next one")
    parser.add_argument("--keep", type=Path, help="workspace to use and keep, so that a second run starts faster")
    options = parser.parse_args()
    home = options.keep or Path(tempfile.mkdtemp(prefix="live-chat-"))
    workspace = Workspace(home.absolute())
    home.mkdir(parents=True, exist_ok=True)
    workspace.settings.write_text(
        f"[studio]\nport = {options.port}\nbackend_port = {options.port + 1}\n"
        f"[backend]\ntemperature = 0\nretries = 0\nmax_new_tokens = {NEW_TOKENS}\n",
        encoding="utf-8",
    )
    registry = Registry(workspace.checkpoints)
    checkpoint = random_checkpoint(options.size, registry)
    registry.use(checkpoint.id, {"open": True, "reason": "benchmark"})
    try:
        with running_studio(workspace) as studio:
            weights = load(checkpoint, "auto", "auto")
            chat(workspace, studio.url, studio.project, weights, 2)  # warm up
            figures = chat(workspace, studio.url, studio.project, weights, options.rounds)
            print(json.dumps({"model": options.size, **figures}))
            print(json.dumps({"control_plane_during_drafting": control_plane(workspace, studio.backend_url)}))
    finally:
        if options.keep is None:
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
