"""Where dialogues lie in meaning: an offline embedding, the 2-D map, and names for its areas.

By default character 2- and 3-grams weighted by TF-IDF, reduced by truncated SVD (latent semantic
analysis; Deerwester et al. 1990): no model, no network, works on a fresh machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dialogue.errors import SettingsError

Floats = NDArray[np.float64]
_FIT_ON = 20_000
_BATCH = 5_000


def embed(texts: Sequence[str], *, dimensions: int = 64, model: str = "", seed: int = 0) -> Floats:
    """Return (n, d) unit vectors.  Fitted on at most 20,000 texts; the rest is folded in, batch by batch."""
    if model:
        return _sentence_vectors(texts, model)
    if not texts:
        return np.zeros((0, 1))
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    chosen = _sample(len(texts), _FIT_ON, seed)
    vectorizer = TfidfVectorizer(
        analyzer="char", ngram_range=(2, 3), max_features=30_000, sublinear_tf=True, dtype=np.float32
    )
    try:
        fitted = vectorizer.fit_transform([texts[i] for i in chosen])
    except ValueError:  # no text is two characters long
        return np.zeros((len(texts), 1))
    rank = min(dimensions, fitted.shape[1] - 1, fitted.shape[0] - 1)
    if rank < 1:
        return np.ones((len(texts), 1))
    svd = TruncatedSVD(rank, random_state=seed, n_iter=4)
    svd.fit(fitted)
    parts = [
        svd.transform(vectorizer.transform(texts[start : start + _BATCH])) for start in range(0, len(texts), _BATCH)
    ]
    vectors = np.concatenate(parts).astype(np.float64)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _sentence_vectors(texts: Sequence[str], model: str) -> Floats:
    if not Path(model).is_dir():
        raise SettingsError(f"[report] embedding = {model!r} is no folder; name a sentence-transformers directory.")
    try:
        from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]  # optional
    except ImportError as error:
        raise SettingsError(
            "[report] embedding needs `pip install sentence-transformers`; or leave it empty."
        ) from error
    vectors = SentenceTransformer(model, trust_remote_code=False).encode(list(texts), normalize_embeddings=True)
    return np.asarray(vectors, dtype=np.float64)


def lay_out(vectors: Floats, *, seed: int = 0, most: int = 4000) -> tuple[NDArray[np.int64], Floats]:
    """Lay vectors out in the plane by t-SNE (van der Maaten & Hinton 2008), PCA-initialised, one thread.

    Returns the indices drawn (a seeded sample if there are more than `most`) and their (m, 2)
    coordinates.  One thread, because the order of parallel sums would change the picture from run to run.
    """
    chosen = _sample(len(vectors), most, seed)
    points = vectors[chosen]
    if len(chosen) < 5 or np.allclose(points, points[:1]):
        angle = 2 * np.pi * np.arange(len(chosen)) / max(1, len(chosen))
        return chosen, np.column_stack([np.cos(angle), np.sin(angle)])
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        rank = min(2, *points.shape)
        start = PCA(rank, random_state=seed, svd_solver="full").fit_transform(points)
        if rank < 2:
            start = np.column_stack([start, np.zeros(len(start))])
        start = start / max(float(start[:, 0].std()), 1e-12) * 1e-4
        tsne = TSNE(
            init=start.astype(np.float32), perplexity=min(30.0, (len(chosen) - 1) / 3), random_state=seed, n_jobs=1
        )
        return chosen, np.asarray(tsne.fit_transform(points.astype(np.float32)), dtype=np.float64)


def unit_square(points: Floats) -> Floats:
    """Scale coordinates into 0..1 with a margin, keeping distances in proportion."""
    if not len(points):
        return points
    low, high = points.min(axis=0), points.max(axis=0)
    size = max(float((high - low).max()), 1e-9)
    return np.asarray(0.5 + (points - (low + high) / 2) / size * 0.94)


def areas(vectors: Floats, texts: Sequence[str], *, count: int = 12, seed: int = 0, words: int = 3) -> list[list[str]]:
    """Group vectors by k-means and return the typical words of each group; see `group`."""
    codes = group(vectors, count=count, seed=seed)
    return typical_words(texts, codes, words)


def group(vectors: Floats, *, count: int, seed: int = 0) -> NDArray[np.int64]:
    """K-means groups in embedding space, numbered by size (largest first)."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    k = min(count, len(np.unique(vectors.round(6), axis=0)), max(1, len(vectors) // 8))
    if k < 2:
        return np.zeros(len(vectors), dtype=np.int64)
    with threadpool_limits(1):
        labels = KMeans(k, random_state=seed, n_init=4).fit_predict(vectors)
    order = np.argsort(-np.bincount(labels, minlength=k), kind="stable")
    rank = np.empty(k, dtype=np.int64)
    rank[order] = np.arange(k)
    return np.asarray(rank[labels])


def typical_words(texts: Sequence[str], codes: NDArray[np.int64], words: int = 3) -> list[list[str]]:
    """Words that occur in a group's dialogues far more often than elsewhere (smoothed log odds)."""
    from analysis.vocabulary import content_words

    sets = [set(content_words(text)) for text in texts]
    k = int(codes.max(initial=-1)) + 1
    sizes = np.bincount(codes, minlength=k)
    tables: list[dict[str, int]] = [{} for _ in range(k)]
    total: dict[str, int] = {}
    for found, code in zip(sets, codes, strict=True):
        for word in found:
            tables[code][word] = tables[code].get(word, 0) + 1
            total[word] = total.get(word, 0) + 1
    named: list[list[str]] = []
    for code in range(k):
        rest = max(1, len(texts) - int(sizes[code]))
        score = {
            word: count
            / sizes[code]
            * np.log((count + 0.5) / (sizes[code] + 1) / ((total[word] - count + 0.5) / (rest + 1)))
            for word, count in tables[code].items()
            if count >= 2 or len(texts) < 20
        }
        named.append(sorted(score, key=lambda word: (-score[word], word))[:words])
    return named


def _sample(n: int, most: int, seed: int) -> NDArray[np.int64]:
    if n <= most:
        return np.arange(n, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False)).astype(np.int64)
