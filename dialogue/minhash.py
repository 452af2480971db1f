"""MinHash with banding: which of many sets are alike, without comparing everything with everything.

Two sets agree in one MinHash with a probability equal to their Jaccard similarity s, so that they share one of b
bands of r hashes with probability 1 − (1 − sʳ)ᵇ (Broder 1997; Leskovec, Rajaraman and Ullman, "Mining of Massive
Datasets", chapter 3).  A set's keys depend on the set alone: what is found does not change when others are added.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

N = 5
"""Characters of a gram."""

_HASHES = 200
_MISS = 1e-6


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


def sharing(keys: NDArray[np.uint64]) -> Iterator[list[int]]:
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


def hashes(words: Iterable[str]) -> NDArray[np.uint64]:
    """Return 64-bit hashes of the distinct words, sorted, shape (k,)."""
    import numpy as np

    codes = np.array(sorted({zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words}), dtype=np.uint64)
    return np.unique(_mixed(codes + np.uint64(1)))


def packed(text: str) -> str:
    """Return `text` without white space, as `character_ngrams` compares it."""
    return re.sub(r"\s+", "", text)


def grams(text: str) -> NDArray[np.uint64]:
    """Return 64-bit hashes of the distinct character 5-grams of `text`, sorted, shape (k,).

    A text shorter than five characters is its own single gram, as in `character_ngrams`.
    """
    import numpy as np

    points = np.frombuffer(packed(text).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    width = min(N, len(points))
    if width == 0:
        return np.zeros(0, dtype=np.uint64)
    count = len(points) - width + 1
    value: NDArray[np.uint64] = np.full(count, width, dtype=np.uint64)
    for i in range(width):
        value = _mixed(value ^ points[i : i + count])
    return np.unique(value)
