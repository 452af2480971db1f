"""The search for near-duplicates finds what comparing everything with everything finds."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialogue.text import character_ngrams, jaccard
from exporters.duplicates import Groups, band_keys, banding, grams, near_duplicates


def clusters(count: int, pairs: list[tuple[int, int]]) -> list[list[int]]:
    groups = Groups()
    for a, b in pairs:
        groups.join(a, b)
    found: dict[int, list[int]] = {}
    for number in range(count):
        found.setdefault(groups.find(number), []).append(number)
    return sorted(found.values())


def by_brute_force(texts: list[str], threshold: float) -> list[tuple[int, int]]:
    sets = [character_ngrams(text) for text in texts]
    return [(a, b) for a, b in itertools.combinations(range(len(texts)), 2) if jaccard(sets[a], sets[b]) >= threshold]


def joined(texts: list[str], threshold: float) -> list[tuple[int, int, float]]:
    return list(near_duplicates(enumerate(texts), texts.__getitem__, threshold))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_same_clusters_as_brute_force(threshold: float) -> None:
    random_ = random.Random(7)
    texts = ["".join(random_.choices("あいうえおかきくけこ", k=random_.randint(1, 60))) for _ in range(120)]
    for _ in range(180):  # variants at every distance
        text = list(random_.choice(texts))
        for _ in range(random_.randint(0, 6)):
            text.insert(random_.randrange(len(text) + 1), random_.choice("さしすせそ \n"))
        texts.append("".join(text))
    expected = by_brute_force(texts, threshold)
    found = joined(texts, threshold)
    assert len(expected) > 30
    assert clusters(len(texts), [(a, b) for a, b, _ in found]) == clusters(len(texts), expected)
    assert all(jaccard(character_ngrams(texts[a]), character_ngrams(texts[b])) == s for a, b, s in found)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(alphabet="ab\n 🎉\u3099", max_size=14), max_size=14), st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_any_texts(texts: list[str], threshold: float) -> None:
    found = joined(texts, threshold)
    expected = clusters(len(texts), by_brute_force(texts, threshold))
    assert clusters(len(texts), [(a, b) for a, b, _ in found]) == expected
    assert len(found) == len(texts) - len(expected)


@given(st.text(max_size=40))
def test_grams_are_the_character_ngrams(text: str) -> None:
    assert len(grams(text)) == len(character_ngrams(text))


def test_many_copies_stay_cheap() -> None:
    """A cluster of n copies is reported by n - 1 pairs, not by n²."""
    texts = ["今日は天気がいいから散歩に行こうよ"] * 5000
    assert len(joined(texts, 0.8)) == 4999


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.8, 0.9, 0.95, 1.0])
def test_banding_misses_hardly_anything_at_the_threshold(threshold: float) -> None:
    rows, bands = banding(threshold)
    assert (1 - threshold**rows) ** bands <= 1e-6
    assert rows == 20 or (1 - threshold ** (rows + 1)) ** (200 // (rows + 1)) > 1e-6


def test_minhashes_agree_as_often_as_sets_overlap() -> None:
    """The share of equal MinHashes estimates the Jaccard similarity (Broder 1997)."""
    random_ = random.Random(3)
    for similarity in (0.2, 0.5, 0.8):
        agreeing = compared = 0
        for _ in range(30):
            size = 300
            union = np.array(random_.sample(range(1 << 62), size), dtype=np.uint64) << np.uint64(2)
            both = int(similarity * size)
            half = (size - both) // 2
            a, b = np.sort(union[: both + half]), np.sort(np.concatenate([union[:both], union[both + half :]]))
            agreeing += int((band_keys(a, 1, 200) == band_keys(b, 1, 200)).sum())
            compared += 200
        assert agreeing / compared == pytest.approx(both / size, abs=0.03)
