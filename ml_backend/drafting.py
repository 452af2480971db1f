"""The drafting engine without any server: requests in, drafts out.

drafter = Drafter(checkpoint, BackendSettings(temperature=0))
drafts = drafter.draft([DraftRequest("1", "公園で。", blank_turns(4, ["こんにちは"]), Attribute(2, 2))])
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch

from dialogue.checkpoints import Checkpoint
from ml_backend.decoding import Decoder, Emit, Source
from ml_backend.packing import pack_if_same
from ml_backend.requests import Draft, DraftRequest
from ml_backend.settings import BackendSettings
from ml_backend.weights import Weights, load

__all__ = ["Draft", "DraftRequest", "Drafter"]


class Drafter:
    """A checkpoint that drafts.  Not for use from several threads at once."""

    def __init__(
        self, checkpoint: Checkpoint, settings: BackendSettings | None = None, share: Drafter | None = None
    ) -> None:
        """Load the checkpoint; with `share`, an adapter goes onto the base that is already in memory.

        Raises `CheckpointError` when the checkpoint can not be used.
        """
        self.settings = settings or BackendSettings()
        self.id = checkpoint.id
        torch.set_num_threads(self.settings.threads or os.cpu_count() or 1)
        weights = share.weights if share is not None else None
        self.weights: Weights = load(checkpoint, self.settings.device, self.settings.dtype, weights)
        if self.weights.adapter is None:  # an adapter needs PyTorch's own layers to hold on to
            pack_if_same(self.weights.model)
        self.decoder = Decoder(self.weights, self.settings)

    def draft(self, requests: Sequence[DraftRequest], on_draft: Emit | None = None) -> list[Draft]:
        """Draft all requests; returns one draft each, in their order.

        `on_draft` is called with each request and its draft as soon as it is done.
        """
        return collect(self.run, requests, on_draft)

    def run(self, source: Source, emit: Emit) -> None:
        """Draft until `source` is empty, taking new requests from it while running."""
        self.weights.activate()
        self.decoder.run(source, emit)


def collect(
    run: Callable[[Source, Emit], None], requests: Sequence[DraftRequest], on_draft: Emit | None = None
) -> list[Draft]:
    """Run a list of requests through a drafter's `run`; returns one draft each, in their order."""
    done: dict[str, Draft] = {}

    def emit(request: DraftRequest, draft: Draft) -> None:
        done[request.digest()] = draft
        if on_draft is not None:
            on_draft(request, draft)

    run(_Listed(requests), emit)
    return [done[request.digest()] for request in requests]


class _Listed:
    """A source that is a list, longest conversations first so that rows of one batch are of like length."""

    def __init__(self, requests: Sequence[DraftRequest]) -> None:
        self._left = sorted(requests, key=lambda request: request.size)

    def take(self, count: int) -> Sequence[DraftRequest]:
        return [self._left.pop() for _ in range(min(count, len(self._left)))]

    def urgent(self) -> bool:
        return False
