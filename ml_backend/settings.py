"""Settings of the ML backend: table `[backend]` of `aku.toml`."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, Literal

from dialogue.settings import setting


@dataclasses.dataclass(frozen=True, slots=True)
class BackendSettings:
    """How drafts are made and served.  Raises `ValueError` (shown as a `SettingsError`) for values out of range."""

    engine: Literal["local", "openai"] = setting(
        "local", 'Who runs the model: "local", or "openai" for any OpenAI-compatible /v1/completions server.'
    )
    engine_url: str = setting("http://127.0.0.1:8000/v1", 'Address of that server, only with engine = "openai".')
    engine_model: str = setting("", "Model name to ask that server for; empty: the checkpoint's id.")
    engine_prompt: Literal["text", "ids"] = setting(
        "text", 'How it gets the prompt: "ids" is exact where the server takes token ids, as vLLM does.'
    )
    engine_parallel: int = setting(32, "Requests sent to that server at the same time.")
    engine_extra: dict[str, Any] = setting(
        {}, "More fields for its requests, for example { logprobs = 1, top_k = 50 } for vLLM."
    )
    device: str = setting("auto", 'Torch device of the local engine: "auto", "cpu", "cuda", "cuda:1".')
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "Number format of the weights; auto: bfloat16 on CUDA, and on CPUs made for it from 50M parameters on."
    )
    threads: int = setting(0, "CPU threads of the local engine; 0: all cores.")
    niceness: int = setting(5, "Unix niceness of the engine process, so that Label Studio is never starved by it.")
    temperature: float = setting(0.8, "Sampling temperature; 0 is greedy.")
    top_k: int = setting(50, "Sample from the k likeliest tokens.")
    top_p: float = setting(0.95, "Of these, sample from the likeliest that hold this share of the probability.")
    candidates: int = setting(1, "Candidates per turn; the one with the best mean token log-probability is kept.")
    retries: int = setting(2, "New tries for a turn that came out empty, cut off or garbled.")
    max_new_tokens: int = setting(96, "Tokens a drafted turn may have at most.")
    token_budget: int = setting(16384, "Tokens of key-value cache in flight at a time; halved when memory runs out.")
    batch_rows: int = setting(64, "Turns written side by side at most.")
    draft_user_turns: bool = setting(False, "Draft User's turns too, so that whole conversations come from a context.")
    blind_share: float = setting(0.0, "Share of cards (chosen by a hash of the task id) that never get a draft.")
    deadline: float = setting(80.0, "Seconds after which /predict answers with what is ready; the rest goes on.")
    swap_wait: float = setting(
        2.0, "Seconds a call waits for a newly chosen checkpoint to load; after that the old one serves until it has."
    )
    workers: int = setting(1, "Web worker processes.")
    web_threads: int = setting(16, "Threads per web worker.")
    max_body_mb: int = setting(32, "Larger request bodies are refused with 413.")

    def __post_init__(self) -> None:
        """Check ranges."""
        checks = (
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_k", self.top_k >= 1, "1 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("candidates", 1 <= self.candidates <= 32, "1 to 32"),
            ("retries", self.retries >= 0, "0 or more"),
            ("max_new_tokens", 1 <= self.max_new_tokens <= 2048, "1 to 2048"),
            ("token_budget", self.token_budget >= 256, "256 or more"),
            ("batch_rows", self.batch_rows >= 1, "1 or more"),
            ("blind_share", 0 <= self.blind_share <= 1, "0 to 1"),
            ("deadline", self.deadline > 0, "above 0"),
            ("swap_wait", 0 <= self.swap_wait <= 2.5, "0 to 2.5, since Label Studio waits 3 seconds for /setup"),
            ("workers", self.workers >= 1, "1 or more"),
            ("web_threads", self.web_threads >= 2, "2 or more"),
            ("max_body_mb", self.max_body_mb >= 1, "1 or more"),
            ("engine_parallel", self.engine_parallel >= 1, "1 or more"),
        )
        for name, holds, wanted in checks:
            if not holds:
                raise ValueError(f"{name} must be {wanted}.")

    def fingerprint(self) -> str:
        """Hash of all settings that change what a draft says; drafts kept under another one are not used."""
        names = ("engine", "dtype", "temperature", "top_k", "top_p", "candidates", "retries", "max_new_tokens")
        values = [(name, field) for name, field in dataclasses.asdict(self).items() if name in names]
        return hashlib.sha256(repr(values).encode()).hexdigest()[:12]
