"""Choosing the next token: seeded per turn, independent of what else is in the batch.

Every turn draws its own stream of uniform numbers from a counter-based generator keyed by what the
turn is; a token is the inverse of the cumulative distribution at that number.  So a draft can be
made again, alone or in any batch, as long as the logits are the same.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def draws(count: int, *key: object) -> list[float]:
    """Return `count` uniform numbers in [0, 1) that depend on `key` alone.

    Philox4x64 (Salmon et al. 2011), keyed by 128 bits of SHA-256.
    """
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode("utf-8", "surrogatepass")).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    return [float(x) for x in generator.random(count)]


def choose(
    logits: torch.Tensor, uniform: torch.Tensor, temperature: torch.Tensor, *, top_k: int, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose one token a row.

    Args:
        logits: Scores, float32, shape (rows, vocabulary); forbidden tokens are -inf.
        uniform: One number in [0, 1) a row, shape (rows,).
        temperature: One a row, shape (rows,); 0 takes the likeliest token.
        top_k: Only so many of the likeliest tokens are eligible.
        top_p: Of these, only the likeliest that hold this share of the probability (Holtzman et al. 2020).

    Returns:
        Token ids and their log-probabilities under the untempered distribution, each of shape (rows,).
    """
    token = logits.argmax(-1)
    if bool((temperature > 0).any()):
        best, index = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
        probability = torch.softmax(best / temperature.clamp(min=1e-6)[:, None], dim=-1)
        before = probability.cumsum(-1) - probability
        cumulative = (probability * (before < top_p)).cumsum(-1)
        reached = cumulative > uniform[:, None] * cumulative[:, -1:]
        sampled = index.gather(-1, reached.int().argmax(-1, keepdim=True)).squeeze(-1)
        token = torch.where(temperature > 0, sampled, token)
    chosen = logits.gather(-1, token[:, None]).squeeze(-1)
    return token, chosen - torch.logsumexp(logits, dim=-1)
