"""Near-duplicates among many texts, found exactly: every pair with character 5-gram Jaccard at or above a bound.

A set-similarity join with prefix filter (Chaudhuri et al. 2006; Bayardo et al. 2007): if two sets have a
Jaccard similarity of at least t, then among the first |x| − ⌈t·|x|⌉ + 1 grams of each, in any common order,
they share one.  The order is rarest first, so that shared prefix grams are few; candidates are verified with
`dialogue.text.jaccard`.  Texts are streamed twice; kept in memory are a table of counts and the prefixes,
about a fifth of the grams as 12 bytes each.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from dialogue.text import character_ngrams, jaccard

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BUCKETS = 1 << 22
_N = 5
_SMALL = 8


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
    texts: Callable[[], Iterable[tuple[int, str]]], text: Callable[[int], str], threshold: float
) -> Iterator[tuple[int, int, float]]:
    """Yield pairs `(a, b, Jaccard)` that connect every cluster of near-duplicates.

    Pairs whose members are already connected through yielded pairs are left out, which keeps a cluster of
    n copies at n − 1 pairs.

    Args:
        texts: returns a fresh iteration over `(number, text)`; called twice.
        text: returns the text of one number.
        threshold: Jaccard similarity of character 5-gram sets, 0 < threshold ≤ 1.
    """
    import numpy as np

    groups = Groups()
    first: dict[bytes, int] = {}
    counts = np.zeros(_BUCKETS, dtype=np.uint32)
    for number, content in texts():
        key = hashlib.blake2b(packed(content).encode(), digest_size=16).digest()
        if (original := first.setdefault(key, number)) != number:
            groups.join(original, number)
            yield original, number, 1.0
            continue
        counts[grams(content) % _BUCKETS] += 1
    originals = set(first.values())
    first.clear()

    hashes, owners = [], []
    sizes: dict[int, int] = {}
    for number, content in texts():
        if number in originals:
            own = grams(content)
            sizes[number] = len(own)
            rarest = own[np.lexsort((own, counts[own % _BUCKETS]))]
            prefix = rarest[: len(own) - math.ceil(threshold * len(own) - 1e-9) + 1]
            hashes.append(prefix)
            owners.append(np.full(len(prefix), number, dtype=np.uint32))
    if not hashes:
        return
    gram, owner = np.concatenate(hashes), np.concatenate(owners)
    del hashes, owners, counts
    last, last_grams = -1, set[str]()
    for a, b in _candidates(gram, owner):
        if min(sizes[a], sizes[b]) < threshold * max(sizes[a], sizes[b]) - 1e-9 or groups.find(a) == groups.find(b):
            continue
        if a != last:
            last, last_grams = a, character_ngrams(text(a), _N)
        similarity = jaccard(last_grams, character_ngrams(text(b), _N))
        if similarity >= threshold:
            groups.join(a, b)
            yield a, b, similarity


def _candidates(gram: NDArray[np.uint64], owner: NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Yield pairs of owners that share a gram: those of small groups once each and in order, then the large groups'."""
    import numpy as np

    order = np.argsort(gram, kind="stable")
    gram, owner = gram[order], owner[order]
    starts = np.flatnonzero(np.concatenate(([True], gram[1:] != gram[:-1])))
    lengths = np.diff(np.append(starts, len(gram)))
    pairs = np.zeros(0, dtype=np.uint64)
    for length in range(2, _SMALL + 1):
        where = starts[lengths == length]
        for i, j in itertools.combinations(range(length), 2):
            left, right = owner[where + i].astype(np.uint64), owner[where + j].astype(np.uint64)
            pairs = np.union1d(pairs, (np.minimum(left, right) << np.uint64(32)) | np.maximum(left, right))
    for pair in pairs.tolist():
        yield pair >> 32, pair & 0xFFFFFFFF
    seen: set[bytes] = set()
    for index in np.flatnonzero(lengths > _SMALL):
        members = np.unique(owner[starts[index] : starts[index] + lengths[index]])
        key = hashlib.blake2b(members.tobytes(), digest_size=8).digest()
        if key not in seen:
            seen.add(key)
            yield from itertools.combinations(members.tolist(), 2)


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
        value = (value ^ points[i : i + count]) * np.uint64(0x9E3779B97F4A7C15)
        value ^= value >> np.uint64(29)
    return np.unique(value)
