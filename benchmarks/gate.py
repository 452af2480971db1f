"""How often the gate decides rightly: simulated models of known quality, judged through the real `decide`.

    python -m benchmarks.gate [--simulations 2000]

Prints (1) power: how often the gate opens for a model of the stated effect; (2) false openings: how
often for a model that has one quality exactly at its limit, all others being good; (3) how soon the
rolling window shuts the gate when quality halves, and how often it does so for no reason.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr
from scipy.stats import spearmanr

from analysis.gate import Decision, decide
from analysis.gate_checks import Outcome, loss_check, people_checks, reply_checks, time_check
from analysis.gate_evidence import Evidence, HeldOutLoss, HumanTurns, JudgedTurn, Reply, SteeredReply, WorkTime
from analysis.gate_settings import GateSettings

TURNS = 5
"""Aku turns a drafted dialogue has."""
ALIKE = 0.1
"""Correlation of judgements within a dialogue (of edit distances, on the normal scale)."""
SCENE_SHARE = 0.15
"""Part of the variance of heard levels, and of faults, that belongs to the scene."""


@dataclasses.dataclass(frozen=True, slots=True)
class Quality:
    """The truth about a model: shares kept and rewritten, median distance (None: it follows), and so on."""

    kept: float = 0.50
    rewritten: float = 0.12
    median: float | None = None
    control: float = 0.70
    repetition: float = 0.005
    endings: float = 0.995
    gain: float = 0.20
    time: float = 0.50


PASSES = (Outcome.PASS, Outcome.WAITING)
GOOD = Quality()
"""The stated effect: half the drafts kept, one in eight rewritten, ρ = 0.7, a fifth of a nat better than the base."""


def distances(quality: Quality, dialogues: int, turns: int, rng: np.random.Generator) -> np.ndarray:
    """Edit distances, shape (dialogues, turns), alike within a dialogue (Gaussian copula).

    The distribution function is linear between (0.1, kept), (0.7, 1 - rewritten) and 1, with a
    further point (0.37, 0.5) where the median is asked to lie at its limit.
    """
    shared, own = rng.standard_normal((dialogues, 1)), rng.standard_normal((dialogues, turns))
    uniform = ndtr(np.sqrt(ALIKE) * shared + np.sqrt(1 - ALIKE) * own)
    points = [(0.0, 0.0), (quality.kept, 0.099), (1 - quality.rewritten, 0.7), (1.0, 1.0)]
    if quality.median is not None:
        points.insert(2, (0.5, quality.median))
    return np.interp(uniform, [p[0] for p in points], [p[1] for p in points])


def judged(values: np.ndarray, start: int = 0, origin: str = "draft") -> list[JudgedTurn]:
    """Turns in order of time, one group a row."""
    return [
        JudgedTurn(f"{start + i:08d}", f"d{start + i}", float(x), origin)  # type: ignore[arg-type]  # a literal
        for i, row in enumerate(values)
        for x in row
    ]


@functools.cache
def noise_for(rho: float) -> float:
    """Standard deviation of the judge's and the model's noise that gives this Spearman correlation."""
    rng = np.random.default_rng(0)
    wanted = np.tile(np.arange(5.0), 20_000)
    normal = rng.standard_normal(wanted.size)
    low, high = 0.01, 20.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if spearmanr(wanted, wanted + middle * normal).statistic > rho else (low, middle)
    return low


_FINE, _LOOP, _CUT = Reply("よい", None, None), Reply("悪い", "loop", None), Reply("悪い", None, "cut off")


def evaluated(quality: Quality, settings: GateSettings, rng: np.random.Generator) -> tuple[SteeredReply, ...]:
    """What `aku evaluate` would hand over: 25 pairs in every scene."""
    noise = noise_for(quality.control)
    scene_sd, own_sd = noise * np.sqrt(SCENE_SHARE), noise * np.sqrt(1 - SCENE_SHARE)
    replies = []
    for scene in range(settings.scenes):
        shift = scene_sd * rng.standard_normal(2)
        loops, cuts = (_beta(p, rng) for p in (quality.repetition, 1 - quality.endings))
        faults = rng.random((25, settings.replies))
        own = own_sd * rng.standard_normal((25, 2))
        for pair in range(25):
            said = tuple(_LOOP if x < loops else _CUT if x > 1 - cuts else _FINE for x in faults[pair])
            c, m = divmod(pair, 5)
            heard = (c + shift[0] + own[pair, 0], m + shift[1] + own[pair, 1])
            replies.append(SteeredReply(f"s{scene}", c, m, *heard, said))
    return tuple(replies)


def human(dialogues: int, rng: np.random.Generator) -> tuple[HumanTurns, ...]:
    """A judge with a ceiling of about 0.85."""
    levels = rng.integers(0, 5, (dialogues, 2))
    heard = levels + 0.8 * rng.standard_normal((dialogues, 2))
    return tuple(
        HumanTurns(f"h{i}", int(c), int(m), float(x), float(y))
        for i, ((c, m), (x, y)) in enumerate(zip(levels, heard, strict=True))
    )


_HUMAN = human(100, np.random.default_rng(0))


def _beta(mean: float, rng: np.random.Generator, alike: float = 0.01) -> float:
    """A scene's own share, beta-distributed with an intra-class correlation of `alike`."""
    size = 1 / alike - 1
    return float(rng.beta(mean * size, (1 - mean) * size))


def people(quality: Quality, settings: GateSettings, rng: np.random.Generator, source: str) -> Evidence:
    """What people say: `source` is "review" (one reply a scene) or "drafts" (a full window, and working times)."""
    if source == "review":
        turns = judged(distances(quality, settings.review_replies, 1, rng), origin="review")
        return Evidence("c", tuple(turns))
    turns = judged(distances(quality, settings.window // TURNS, TURNS, rng))
    seconds = 30 * np.exp(0.5 * rng.standard_normal(400 + settings.least_arm))
    times = [WorkTime(f"d{i}", "drafted", 5 * quality.time * s, 5) for i, s in enumerate(seconds[:400])]
    times += [WorkTime(f"b{i}", "blind", 5 * s, 5) for i, s in enumerate(seconds[400:])]
    return Evidence("c", tuple(turns), times=tuple(times))


def measured(quality: Quality, settings: GateSettings, rng: np.random.Generator) -> Evidence:
    """What `aku evaluate` says: replies, the judge's ceiling, losses on twenty held-out dialogues."""
    gains = quality.gain + 0.25 * rng.standard_normal(20)
    losses = tuple(HeldOutLoss(f"h{i}", 3.0 - g, 3.0, int(rng.integers(40, 160))) for i, g in enumerate(gains))
    return Evidence("c", (), evaluated(quality, settings, rng), _HUMAN, losses)


def opens(quality: Quality, settings: GateSettings, source: str, rng: np.random.Generator) -> Decision | None:
    """The gate's decision on one round of evidence; None where it is shut for a reason that was cheap to see.

    One check that does not pass keeps the gate shut whatever the others say, so the dear ones (a
    jackknife over 500 replies) are run only where the cheap ones pass.
    """
    said = people(quality, settings, rng, source)
    cheap = [*people_checks(said.turns, settings), time_check(said.times, settings)]
    if all(check.outcome in PASSES for check in cheap):
        found = measured(quality, settings, rng)
        cheap = [*reply_checks(found.steered, settings), loss_check(found.losses, settings)]
        if all(check.outcome in PASSES for check in cheap):
            return decide(dataclasses.replace(found, turns=said.turns, times=said.times), settings)
    return None


def opening(quality: Quality, settings: GateSettings, source: str, simulations: int, seed: int) -> float:
    """Share of simulations in which the gate opens."""
    decisions = (opens(quality, settings, source, np.random.default_rng([seed, i])) for i in range(simulations))
    return sum(decision is not None and decision.open for decision in decisions) / simulations


def shut_after(settings: GateSettings, before: Quality, after: Quality, turns: int, rng: np.random.Generator) -> int:
    """Turns drafted after the change until the window shuts the gate, looked at after each dialogue; 0: never."""
    window = judged(distances(before, settings.window // TURNS, TURNS, rng))
    new = judged(distances(after, turns // TURNS, TURNS, rng), start=len(window))
    for count in range(TURNS, turns + 1, TURNS):
        checks = people_checks([*window, *new[:count]], settings)
        if any(check.outcome is Outcome.FAIL for check in checks):
            return count
    return 0


def halved(quality: Quality) -> Quality:
    """Half as many turns kept, the others rewritten in the same proportion."""
    kept = quality.kept / 2
    return dataclasses.replace(quality, kept=kept, rewritten=quality.rewritten / (1 - quality.kept) * (1 - kept))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all three and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=2000)
    chosen = parser.parse_args(arguments)
    count, settings, begun = chosen.simulations, GateSettings(), time.monotonic()
    error = 1.96 * np.sqrt(0.05 * 0.95 / count)
    print(f"{count} simulations each; a rate of 0.05 is known to ±{error:.3f}.")
    print(f"Review round: {settings.review_replies} replies. Window: {settings.window} turns of {TURNS} a dialogue.")
    print(f"Evaluation: {settings.scenes} scenes x 25 pairs x {settings.replies} replies; 20 held-out dialogues.\n")
    print(f"1. Power at the stated effect ({GOOD})")
    for source in ("review", "drafts"):
        rate = opening(GOOD, settings, source, count, 1)
        print(f"   {source:7} opens in {rate:.3f}   goal >= 0.80", flush=True)
    print("\n2. False openings: one quality at its limit, the others good        goal <= 0.05")
    at_limit = {
        "kept": dataclasses.replace(GOOD, kept=settings.kept_limit),
        "rewritten": dataclasses.replace(GOOD, rewritten=settings.rewritten_limit),
        "median_edit": dataclasses.replace(GOOD, kept=0.46, median=settings.median_edit_limit),
        "control": dataclasses.replace(GOOD, control=settings.control_limit),
        "repetition": dataclasses.replace(GOOD, repetition=settings.repetition_limit),
        "endings": dataclasses.replace(GOOD, endings=settings.endings_limit),
        "loss": dataclasses.replace(GOOD, gain=0.0),
        "time": dataclasses.replace(GOOD, time=settings.time_limit),
    }
    worst = 0.0
    for key, quality in at_limit.items():
        for source in ("review", "drafts"):
            if key == "time" and source == "review":
                continue
            rate = opening(quality, settings, source, count, 2)
            worst = max(worst, rate)
            print(f"   {key:12} {source:7} opens in {rate:.3f}", flush=True)
    print(f"   worst: {worst:.3f}")
    print("\n   Opening by share kept (rewritten in proportion), review round:")
    for kept in (0.25, 0.30, 0.35, 0.40, 0.45, 0.50, 0.60):
        quality = dataclasses.replace(GOOD, kept=kept, rewritten=0.24 * (1 - kept))
        rate = opening(quality, settings, "review", count // 4, 3)
        print(f"     kept {kept:.2f}: opens in {rate:.3f}", flush=True)
    print("\n3. The rolling window, looked at after each dialogue")
    for kept in (0.45, 0.50, 0.60, 0.70, 0.80):
        quality = dataclasses.replace(GOOD, kept=kept)
        rng = np.random.default_rng([4, int(100 * kept)])
        taken = [shut_after(settings, quality, halved(quality), settings.window, rng) for _ in range(count // 5)]
        within = np.mean([t > 0 for t in taken])
        typical = np.median([t for t in taken if t])
        print(
            f"   kept {kept:.2f} -> {kept / 2:.3f}: shut within {settings.window} turns in {within:.3f}, "
            f"median after {typical:.0f}",
            flush=True,
        )
    for kept in (0.45, 0.50, 0.60, 0.70):
        quality = dataclasses.replace(GOOD, kept=kept)
        rng = np.random.default_rng([5, int(100 * kept)])
        alarms = [shut_after(settings, quality, quality, 1000, rng) for _ in range(max(50, count // 20))]
        print(f"   kept {kept:.2f} unchanged: shut within 1000 turns in {np.mean([a > 0 for a in alarms]):.3f}")
    print(f"\n{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
