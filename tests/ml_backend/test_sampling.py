"""Choosing tokens: right distribution, right cuts, reproducible."""

from __future__ import annotations

import torch

from ml_backend.sampling import choose, draws


def pick(
    logits: list[float], uniform: list[float], temperature: float, top_k: int = 50, top_p: float = 1.0
) -> list[int]:
    rows = len(uniform)
    tokens, _ = choose(
        torch.tensor([logits] * rows), torch.tensor(uniform), torch.full((rows,), temperature), top_k=top_k, top_p=top_p
    )
    return [int(t) for t in tokens]


def test_draws_depend_on_the_key_alone() -> None:
    assert draws(5, "task", 1, "a") == draws(5, "task", 1, "a")
    assert draws(5, "task", 1, "a")[:3] == draws(3, "task", 1, "a")
    assert draws(5, "task", 1, "a") != draws(5, "task", 1, "b")
    assert draws(5, "task1", 1) != draws(5, "task", 11)
    assert all(0 <= x < 1 for x in draws(1000, "x"))


def test_zero_temperature_takes_the_likeliest() -> None:
    assert pick([0.0, 3.0, 2.9], [0.0, 0.5, 0.999], 0.0) == [1, 1, 1]


def test_frequencies_follow_the_softmax() -> None:
    logits, temperature = [1.0, 0.0, -1.0, 2.0], 0.8
    drawn = pick(logits, draws(20000, "frequencies"), temperature)
    expected = torch.softmax(torch.tensor(logits) / temperature, -1)
    observed = torch.bincount(torch.tensor(drawn), minlength=4) / len(drawn)
    # Three standard errors of a proportion at n = 20,000.
    assert bool(((observed - expected).abs() < 3 * (expected * (1 - expected) / len(drawn)).sqrt()).all())


def test_top_k_and_top_p_cut_the_tail() -> None:
    grid = [i / 997 for i in range(997)]
    assert set(pick([3.0, 2.0, 1.0, 0.0], grid, 1.0, top_k=2)) == {0, 1}
    # 0.64 and 0.24 of the probability: the second one is needed to hold 0.7, the third is not.
    assert set(pick([3.0, 2.0, 1.0, 0.0], grid, 1.0, top_p=0.7)) == {0, 1}
    assert set(pick([3.0, 2.0, 1.0, 0.0], grid, 1.0, top_p=0.5)) == {0}


def test_forbidden_tokens_are_never_chosen() -> None:
    grid = [i / 997 for i in range(997)]
    assert set(pick([float("-inf"), 0.0, float("-inf"), 0.0], grid, 1.5)) == {1, 3}


def test_log_probability_is_the_untempered_one() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0]])
    token, score = choose(logits, torch.tensor([0.5]), torch.tensor([3.0]), top_k=50, top_p=1.0)
    torch.testing.assert_close(score, torch.log_softmax(logits, -1)[0, token])
