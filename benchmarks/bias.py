"""How often the bias report raises a false alarm, what it finds, and how near the planner comes to its targets.

    python -m benchmarks.bias                        # everything, about ten minutes on two cores
    python -m benchmarks.bias --only planner chance  # parts: chance, embedding, planner, false-alarms, planted

Every set of dialogues goes through the whole report except the picture of the map: all tests, corrected together.
Only the thousand sets of 3,000 in which one pair is halved go through the two tests of the pairs alone, and are held to
Bonferroni's bound for all tests of a report, which is stricter than what the report does (Holm).
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import dataclasses
import functools
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from analysis import PlanSettings, Report, ReportSettings, Verdict, plan, report
from analysis.embedding import embed
from analysis.features import text_of
from analysis.planning import AKU_FIRST
from analysis.statistics import contingency, cramers_v, effective_number, generator, goodness_of_fit
from analysis.targets import PAIRS
from analysis.views import pair_name, share_tests
from analysis.vocabulary import content_words, split
from benchmarks.synthetic import CONTEXTS, Bias, dialogues
from dialogue import files, load_taxonomy, read_dialogues

SETTINGS = ReportSettings(simulations=2000)
ALL_PAIRS = PlanSettings(stage="all")


@dataclasses.dataclass(frozen=True)
class Planted:
    """One planted bias: how it is made, at what size, and which tests or facts have to say FIX."""

    name: str
    bias: Bias
    n: int
    found_by: tuple[str, ...]


HALF_PAIR = 12
"""The pair that is planned half as often as the others: 2・2."""

PLANTED = (
    Planted("20 % of closeness decided by genre", Bias(genre_closeness=0.2), 600, ("association.genre.closeness",)),
    Planted("one of six writers writes a third longer", Bias(long_annotator=1.5), 400, ("people.length",)),
    Planted("3 % near-copies of five dialogues", Bias(copies=0.03), 400, ("duplicates",)),
    Planted(
        "drafts use three tenths of the nouns", Bias(drafted_nouns=0.3), 400, ("origin.vendi", "origin.repetition")
    ),
)


def measured(n: int, bias: Bias, seed: int) -> Report:
    """The report of one synthetic set."""
    return report(dialogues(n, seed, bias), settings=SETTINGS, plan_settings=ALL_PAIRS, draw_map=False)


def alarms(found: Report) -> list[str]:
    """Keys of tests that are not OK, and "duplicates".  Vocabulary is no chance matter and left out."""
    keys = [test.key for test in found.tests if test.verdict is not Verdict.OK]
    return keys + ["duplicates"] * (found.view("duplicates").verdict is not Verdict.OK)


def fixes(found: Report) -> set[str]:
    """Keys of tests that say FIX, and "duplicates" if that view does."""
    keys = {test.key for test in found.tests if test.verdict is Verdict.FIX}
    return keys | ({"duplicates"} if found.view("duplicates").verdict is Verdict.FIX else set())


def _alarms_of(n: int, seed: int) -> list[str]:
    return alarms(measured(n, Bias(), seed))


def _half_pair_found(tests: int, seed: int) -> bool:
    """Whether the pair tests alone find a pair at half its target at n=3,000, at alpha / `tests` each."""
    weights = np.ones(25)
    weights[HALF_PAIR] = 0.5
    counts = np.random.default_rng([seed, 3000]).multinomial(3000, weights / weights.sum())
    fit = goodness_of_fit(counts, np.full(25, 0.04), generator(seed, "pairs"), SETTINGS.simulations)
    found = share_tests("pairs", "組", fit, [pair_name(pair) for pair in PAIRS])
    return any(test.material and test.p * tests <= SETTINGS.alpha for test in found)


def _found(n: int, bias: Bias, keys: tuple[str, ...], seed: int) -> bool:
    return bool(fixes(measured(n, bias, seed)) & set(keys))


def mapped(function: Callable[[int], object], seeds: Iterable[int], workers: int) -> Iterator[object]:
    """Apply to every seed, in several processes if asked."""
    if workers < 2:
        yield from map(function, seeds)
        return
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        yield from pool.map(function, seeds, chunksize=2)


def false_alarms(sets: int, sizes: tuple[int, ...], workers: int) -> None:
    """Share of unbiased sets with any alarm."""
    print("\nFalse alarms: unbiased sets in which any of all tests says anything but OK (goal ≤ 5 %)")
    for n in sizes:
        results = [list(r) for r in mapped(functools.partial(_alarms_of, n), range(sets), workers)]  # type: ignore[call-overload]  # lists of keys
        wrong = [keys for keys in results if keys]
        low, high = wilson(len(wrong), sets)
        keys = collections.Counter(key for found in wrong for key in found).most_common(4)
        print(
            f"  n={n:5}: {len(wrong):3} of {sets} sets = {len(wrong) / sets:.1%} (95 % interval {low:.1%}-{high:.1%})",
            *(f"{key}×{count}" for key, count in keys),
            flush=True,
        )


def planted(sets: int, whole_sets: int, workers: int) -> None:
    """Share of sets in which a planted bias is found."""
    print("\nPlanted biases that the right test calls FIX (goal ≥ 95 %)")
    tests = len(measured(3000, Bias(), 0).tests)
    alone = functools.partial(_half_pair_found, tests)
    shown(f"one pair at half its target, alpha / {tests}", 3000, list(mapped(alone, range(1000), workers)))
    whole = functools.partial(_found, 3000, Bias(half_pair=HALF_PAIR), ("pairs.cell", "pairs.whole"))
    shown(
        "one pair at half its target, whole report",
        3000,
        list(mapped(whole, range(10_000, 10_000 + whole_sets), workers)),
    )
    for case in PLANTED:
        function = functools.partial(_found, case.n, case.bias, case.found_by)
        shown(case.name, case.n, list(mapped(function, range(10_000, 10_000 + sets), workers)))


def shown(name: str, n: int, found: list[object]) -> None:
    """Print how often something was found."""
    hits = sum(map(bool, found))
    low, high = wilson(hits, len(found))
    print(f"  {name:45} n={n:5}: {hits:4} of {len(found)} = {hits / len(found):.1%} ({low:.1%}-{high:.1%})", flush=True)


def chance() -> None:
    """What pure chance does to naive numbers."""
    rng = np.random.default_rng(0)
    print("\nPure chance, uniform process over 25 pairs: effective number, mean and 5 % quantile")
    for n in (100, 500, 1000, 3000):
        values = [effective_number(row) for row in rng.multinomial(n, np.full(25, 0.04), size=2000)]
        print(f"  n={n:5}: {np.mean(values):.2f}, {np.quantile(values, 0.05):.2f} (not 25)")
    print("Cramér's V of independent 11 × 25 tables: plain, bias-corrected (means)")
    for n in (100, 500, 3000):
        pairs = [cramers_v(contingency(rng.integers(11, size=n), rng.integers(25, size=n), 11, 25)) for _ in range(400)]
        plain, corrected = np.mean(pairs, axis=0)
        print(f"  n={n:5}: {plain:.2f}, {corrected:.3f}")
    worst = np.abs(rng.multinomial(500, np.full(25, 0.04), size=4000) / 20 - 1).max(axis=1)
    print(f"Worst of 25 cells under random assignment at n=500: {np.quantile(worst, 0.95):.0%} off (95 % quantile)")


def embedding() -> None:
    """Do the nearest neighbours of a text share its topic?  Content words against character n-grams."""
    taxonomy = load_taxonomy()
    scenes = [(str(row["context"]), str(row["topic"])) for _, row in files.read_jsonl(CONTEXTS)]
    starter = [(text_of(d), d.genre[0]) for d in read_dialogues(CONTEXTS.with_name("starter.jsonl"))]
    print(f"\nEmbedding: share of the 5 nearest neighbours with the same topic (chance {1 / len(taxonomy.names):.0%})")
    for name, rows in (("scenes", scenes), ("starter dialogues", starter)):
        texts = [text for text, _ in rows]
        codes = np.array([taxonomy.names.index(topic) for _, topic in rows])
        by_words = embed(texts, [content_words(split(text)) for text in texts])
        by_characters = embed(texts, [[] for _ in texts])
        shares = [same_topic(vectors, codes) for vectors in (by_words, by_characters)]
        print(f"  {len(rows)} {name:18}: content words {shares[0]:.0%}, character n-grams {shares[1]:.0%}")


def same_topic(vectors: np.ndarray, codes: np.ndarray, k: int = 5) -> float:
    """Share of the `k` nearest neighbours (cosine) that have the same code."""
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -1)
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    return float((codes[nearest] == codes[:, None]).mean())


def planner() -> None:
    """The planner against random assignment, side by side."""
    taxonomy = load_taxonomy()
    began = time.perf_counter()
    cards = plan([], 3000, settings=ALL_PAIRS, taxonomy=taxonomy)
    seconds = time.perf_counter() - began
    rng = np.random.default_rng(0)
    values = sorted(ALL_PAIRS.turns)
    rows = np.array(
        [
            (
                PAIRS.index(c.card.attribute),
                taxonomy.names.index(c.card.genre[0]),
                values.index(len(c.card.turns) - (AKU_FIRST in c.card.text)),
                int(AKU_FIRST in c.card.text),
            )
            for c in cards
        ]
    )
    sizes = (25, len(taxonomy.names), len(values))
    chosen = np.column_stack([rng.integers(k, size=3000) for k in sizes] + [rng.random(3000) < 0.1]).astype(int)
    print(f"\nPlanner: 3,000 cards in {seconds:.2f} s (goal ≤ 1 s)")
    print("Largest distance of any level from its target at any n from 25 to 3,000 (goal ≤ 1): planner, random")
    shares = [np.full(k, 1 / k) for k in sizes] + [np.array([0.9, 0.1])]
    names = ("pair", "genre", "turns", "who begins")
    for column, (name, share) in enumerate(zip(names, shares, strict=True)):
        print(f"  {name:10}: {deviation(rows[:, column], share):.2f}, {deviation(chosen[:, column], share):.1f}")
    print("Cramér's V of pairs of margins at n=3,000 (plain; 0 is independent): planner, random")
    k = (*sizes, 2)
    for a, b in ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3)):
        both = [cramers_v(contingency(r[:, a], r[:, b], k[a], k[b]))[0] for r in (rows, chosen)]
        print(f"  {names[a]} × {names[b]}: {both[0]:.3f}, {both[1]:.3f}")


def deviation(codes: np.ndarray, shares: np.ndarray) -> float:
    """Largest distance from the target over all levels and all sizes from 25 on."""
    sums = np.cumsum(codes[:, None] == np.arange(len(shares)), axis=0)
    off = np.abs(sums - np.arange(1, len(codes) + 1)[:, None] * shares)
    return float(off[24:].max())


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    p = hits / n
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return float((middle - half) / (1 + z * z / n)), float((middle + half) / (1 + z * z / n))


def main() -> None:
    """Run the parts that were asked for."""
    parts = ("chance", "embedding", "planner", "false-alarms", "planted")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--sets", type=int, default=1000, help="unbiased sets of each size")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200], help="their sizes")
    parser.add_argument("--planted-sets", type=int, default=100)
    parser.add_argument("--whole-sets", type=int, default=20, help="sets of 3,000 that go through the whole report")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    began = time.perf_counter()
    if "chance" in options.only:
        chance()
    if "embedding" in options.only:
        embedding()
    if "planner" in options.only:
        planner()
    if "false-alarms" in options.only:
        false_alarms(options.sets, tuple(options.sizes), options.workers)
    if "planted" in options.only:
        planted(options.planted_sets, options.whole_sets, options.workers)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(u.ru_utime + u.ru_stime for u in used)
    print(f"\n{time.perf_counter() - began:.0f} s with {options.workers} processes, {cpu:.0f} s of CPU")


if __name__ == "__main__":
    sys.exit(main())
