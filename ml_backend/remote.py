"""Drafting through any OpenAI-compatible completions server (vLLM, `transformers serve`, llama.cpp).

The prompt is the one that training saw, rendered here and sent to `/completions`, so no chat template
of the server's comes between.  Turns of one conversation follow each other;
conversations run side by side, and the server does the batching.
"""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from dialogue.checkpoints import Checkpoint
from dialogue.errors import BackendError
from ml_backend.decoding import Emit, Source, warmer
from ml_backend.requests import Draft, DraftRequest
from ml_backend.rows import mean
from ml_backend.sampling import draws
from ml_backend.scenes import Scene
from ml_backend.settings import BackendSettings
from ml_backend.text_rules import problem, salvaged
from ml_backend.weights import base_of, load_tokenizer

logger = logging.getLogger("ml_backend")
TIMEOUT = 60.0
"""Seconds one completion may take."""


class RemoteDrafter:
    """Drafts with a model that another server runs; only the tokenizer is loaded here."""

    def __init__(self, checkpoint: Checkpoint, settings: BackendSettings) -> None:
        """Load the tokenizer; raises `CheckpointError` when the checkpoint's folder is not usable."""
        self.id, self.settings = checkpoint.id, settings
        self.model = settings.engine_model or checkpoint.id
        self.format = checkpoint.format
        base = base_of(checkpoint) if checkpoint.is_adapter else checkpoint.path
        self.tokenizer = load_tokenizer(checkpoint, base)
        self.control = tuple({*self.tokenizer.get_added_vocab(), *self.tokenizer.all_special_tokens})

    def draft(self, requests: Sequence[DraftRequest], on_draft: Emit | None = None) -> list[Draft]:
        """Draft all requests; see `Drafter.draft`."""
        from ml_backend.drafting import collect

        return collect(self.run, requests, on_draft)

    def run(self, source: Source, emit: Emit) -> None:
        """Draft until `source` is empty; raises `BackendError` if the server does not answer."""
        running: dict[Future[Draft], DraftRequest] = {}
        with ThreadPoolExecutor(self.settings.engine_parallel, thread_name_prefix="completions") as pool:
            while True:
                while source.urgent() or len(running) < self.settings.engine_parallel:
                    taken = source.take(1)
                    if not taken:
                        break
                    running[pool.submit(self._write, taken[0])] = taken[0]
                if not running:
                    return
                done, _ = wait(running, timeout=0.05, return_when=FIRST_COMPLETED)
                for future in done:
                    emit(running.pop(future), future.result())

    def _write(self, request: DraftRequest) -> Draft:
        scene = Scene(request, self.tokenizer, self.format)
        while scene.turn is not None:
            user = scene.writes_user()
            prompt = self._prompt(scene.prompt())
            best: tuple[tuple[bool, float], str, int, float, str | None] | None = None
            for candidate in range(self.settings.candidates):
                found = self._candidate(request, scene.turn, prompt, candidate, user)
                if best is None or found[0] > best[0]:
                    best = found
            assert best is not None  # noqa: S101 - there is at least one candidate
            _, text, tokens, log_probability, fault = best
            if text:
                scene.accept(text, tokens, log_probability)
            else:
                scene.problem = fault
        return scene.draft()

    def _prompt(self, ids: list[int]) -> str | list[int]:
        """Return the prompt as the server wants it: as text that it will encode to the same ids again."""
        if self.settings.engine_prompt == "ids":
            return ids
        text = str(self.tokenizer.decode(ids, skip_special_tokens=False))
        start = str(self.tokenizer.bos_token or "")
        if start and text.startswith(start) and self.tokenizer(text)["input_ids"] != ids:
            return text.removeprefix(start)  # the server's tokenizer puts it there by itself
        return text

    def _candidate(
        self, request: DraftRequest, turn: int, prompt: str | list[int], candidate: int, user: bool
    ) -> tuple[tuple[bool, float], str, int, float, str | None]:
        """Ask for one candidate, again while it is faulty; returns rank, text, tokens, log-probability, fault."""
        for trial in range(self.settings.retries + 1):
            seed = int(draws(1, request.id, turn, self.id, request.attempt, candidate, trial)[0] * 2**31)
            temperature = warmer(self.settings.temperature, request.attempt, trial)
            choice = self._complete(prompt, seed, user, temperature)
            text = str(choice.get("text") or "")
            for end in (str(self.tokenizer.eos_token), *(("\n",) if user else ())):
                text = text.split(end, 1)[0]
            fault = problem(text, ended=choice.get("finish_reason") != "length", control=self.control)
            if fault is None:
                break
        text = text.strip() if fault is None else salvaged(text, self.control)
        scores = [
            x for x in ((choice.get("logprobs") or {}).get("token_logprobs") or ()) if isinstance(x, (int, float))
        ]
        tokens = len(scores) or len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return (fault is None, mean(sum(scores), tokens)), text, tokens, float(sum(scores)), fault

    def _complete(self, prompt: str | list[int], seed: int, user: bool, temperature: float) -> dict[str, Any]:
        settings = self.settings
        eos = str(self.tokenizer.eos_token)
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": settings.max_new_tokens,
            "temperature": temperature,
            "top_p": settings.top_p,
            "seed": seed,
            "stop": [eos, "\n", "<ROLE>"] if user else [eos],
            **settings.engine_extra,
        }
        call = urllib.request.Request(  # noqa: S310 - the address is the user's own setting
            settings.engine_url.rstrip("/") + "/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(call, timeout=TIMEOUT) as answer:  # noqa: S310
                choice = json.load(answer)["choices"][0]
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise BackendError(
                f"the completions server at {settings.engine_url} gives no answer ({type(error).__name__}); "
                "start it, or correct engine_url and engine_model in aku.toml."
            ) from error
        return dict(choice)
