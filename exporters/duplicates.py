"""Near-duplicates among many texts: pairs with character 5-gram Jaccard at or above a bound.

Exact copies are found by their hash, the rest by MinHash bands (`dialogue.minhash`): a pair right at the bound is
missed less than once in a million.  Every candidate is verified with `dialogue.text.jaccard`, so that nothing is
reported by chance.

A text's signature depends on the text alone: what is found does not change when others are added.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator

from dialogue.minhash import band_keys, banding, grams, packed, sharing
from dialogue.text import character_ngrams, jaccard

__all__ = ["Groups", "band_keys", "banding", "grams", "near_duplicates", "packed"]

_N = 5


class Groups:
    """Disjoint sets of whole numbers (union-find, path halving)."""

    def __init__(self) -> None:
        """Begin with every number by itself."""
        self._parent: dict[int, int] = {}

    def find(self, x: int) -> int:
        """Return the smallest number of the set that `x` belongs to."""
        parent = self._parent
        while (above := parent.get(x, x)) != x:
            parent[x] = parent.get(above, above)
            x = parent[x]
        return x

    def join(self, a: int, b: int) -> None:
        """Unite the sets of `a` and `b`; the smaller number leads."""
        low, high = sorted((self.find(a), self.find(b)))
        if low != high:
            self._parent[high] = low


def near_duplicates(
    texts: Iterable[tuple[int, str]], text: Callable[[int], str], threshold: float
) -> Iterator[tuple[int, int, float]]:
    """Yield pairs `(a, b, Jaccard)` that connect every cluster of near-duplicates.

    Pairs whose members are already connected through yielded pairs are left out, which keeps a cluster of
    n copies at n − 1 pairs.

    Args:
        texts: pairs of number and text, walked once.
        text: returns the text of one number.
        threshold: Jaccard similarity of character 5-gram sets, 0 < threshold ≤ 1.
    """
    import numpy as np

    rows, bands = banding(threshold)
    groups = Groups()
    first: dict[bytes, int] = {}
    numbers: list[int] = []
    keys = []
    for number, content in texts:
        digest = hashlib.blake2b(packed(content).encode(), digest_size=16).digest()
        if (original := first.setdefault(digest, number)) != number:
            groups.join(original, number)
            yield original, number, 1.0
            continue
        numbers.append(number)
        keys.append(band_keys(grams(content), rows, bands))
    del first
    if len(keys) < 2:
        return
    table = np.stack(keys)
    del keys
    refuted: set[tuple[int, int]] = set()
    for band in range(bands):
        for members in sharing(table[:, band]):
            for i, j in itertools.combinations(members, 2):
                a, b = numbers[i], numbers[j]
                if (a, b) in refuted or groups.find(a) == groups.find(b):
                    continue
                similarity = jaccard(character_ngrams(text(a), _N), character_ngrams(text(b), _N))
                if similarity >= threshold:
                    groups.join(a, b)
                    yield a, b, similarity
                else:
                    refuted.add((a, b))
