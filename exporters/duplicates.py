"""Near-duplicates among many texts: pairs with character 5-gram Jaccard at or above a bound.

Exact copies are found by their hash.  The rest is MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman,
"Mining of Massive Datasets", chapter 3): two texts agree in one MinHash with a probability equal to their
Jaccard similarity s, so that they share one of b bands of r hashes with probability 1 − (1 − sʳ)ᵇ.  r and b are chosen
such that a pair right at the bound is missed less than once in a million; pairs that are not alike share a band
about as rarely.  Every candidate is verified with `dialogue.text.jaccard`, so that nothing is reported by chance.

A text's signature depends on the text alone: what is found does not change when others are added.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from dialogue.text import character_ngrams, jaccard

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_N = 5
_HASHES = 200
_MISS = 1e-6


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
        for members in _sharing(table[:, band]):
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


def banding(threshold: float) -> tuple[int, int]:
    """Return rows a band and bands: as many rows as still miss a pair at the threshold at most `_MISS` of the time."""
    fitting = [r for r in range(1, 21) if (1 - threshold**r) ** (_HASHES // r) <= _MISS]
    rows = max(fitting, default=1)
    return rows, _HASHES // rows


def band_keys(own: NDArray[np.uint64], rows: int, bands: int) -> NDArray[np.uint64]:
    """Return one key a band, shape (bands,): texts that agree in all MinHashes of a band have the same key.

    The hash functions are odd affine maps of 32-bit numbers, drawn once from a fixed seed.
    """
    import numpy as np

    factors, offsets = _functions()
    if not len(own):
        return np.zeros(bands, dtype=np.uint64)
    points = (own >> np.uint64(32)).astype(np.uint32)
    count = rows * bands
    minima = (factors[:count, None] * points[None, :] + offsets[:count, None]).min(axis=1).reshape(bands, rows)
    key: NDArray[np.uint64] = np.zeros(bands, dtype=np.uint64)
    for row in range(rows):
        key = _mixed(key ^ minima[:, row].astype(np.uint64))
    return key


@functools.cache
def _functions() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    import numpy as np

    random = np.random.default_rng(5)
    drawn = random.integers(0, 1 << 32, size=(2, _HASHES), dtype=np.uint32)
    return drawn[0] | np.uint32(1), drawn[1]


def _sharing(keys: NDArray[np.uint64]) -> Iterator[list[int]]:
    """Yield the positions, in order, of each key that occurs more than once."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    lengths = np.diff(np.append(starts, len(ordered)))
    for start, length in zip(starts[lengths > 1].tolist(), lengths[lengths > 1].tolist(), strict=True):
        yield order[start : start + length].tolist()


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit numbers (one round of a multiplicative hash)."""
    import numpy as np

    value = value * np.uint64(0x9E3779B97F4A7C15)
    return value ^ (value >> np.uint64(29))


def packed(text: str) -> str:
    """Return `text` without white space, as `character_ngrams` compares it."""
    return re.sub(r"\s+", "", text)


def grams(text: str) -> NDArray[np.uint64]:
    """Return 64-bit hashes of the distinct character 5-grams of `text`, sorted, shape (k,).

    A text shorter than five characters is its own single gram, as in `character_ngrams`.
    """
    import numpy as np

    points = np.frombuffer(packed(text).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    width = min(_N, len(points))
    if width == 0:
        return np.zeros(0, dtype=np.uint64)
    count = len(points) - width + 1
    value: NDArray[np.uint64] = np.full(count, width, dtype=np.uint64)
    for i in range(width):
        value = _mixed(value ^ points[i : i + count])
    return np.unique(value)
