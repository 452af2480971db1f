"""Where dialogues lie in meaning: an offline embedding, the 2-D map, and names for its areas.

By default content words weighted by TF-IDF and reduced by truncated SVD (latent semantic analysis;
Deerwester et al. 1990): no model, no network, works on a fresh machine.  It sees shared words only, so that topics
stand apart weakly while there is little text, though better than with character n-grams, which are the fallback
for text without words; docs/analysis.md has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dialogue.errors import SettingsError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_FIT_ON = 20_000
_BATCH = 5_000


def embed(
    texts: Sequence[str], bags: Sequence[Sequence[str]], *, dimensions: int = 64, model: str = "", seed: int = 0
) -> Floats:
    """Return (n, d) unit vectors; a text without a known word lies at the origin.

    Args:
        texts: The dialogues' texts.
        bags: Their content words.
        dimensions: Dimensions kept.
        model: Folder of a sentence-transformers model to use instead.
        seed: Seed of the randomised SVD.

    Raises:
        SettingsError: `model` is no folder, or sentence-transformers is not installed.
    """
    if model:
        return _sentence_vectors(texts, model)
    if not texts:
        return np.zeros((0, 1))
    found = _latent(bags, dimensions, seed, analyzer=list, min_df=2 if len(texts) >= 50 else 1)
    if found is None:
        found = _latent(texts, dimensions, seed, analyzer="char", ngram_range=(2, 3), max_features=30_000)
    return np.zeros((len(texts), 1)) if found is None else found


def _latent(items: Sequence[Any], dimensions: int, seed: int, **options: Any) -> Floats | None:
    """TF-IDF and SVD, fitted on at most 20,000 items, the rest folded in batch by batch; None if there is no rank."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from threadpoolctl import threadpool_limits

    vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32, lowercase=False, **options)
    try:
        fitted = vectorizer.fit_transform([items[i] for i in sample(len(items), _FIT_ON, seed)])
    except ValueError:  # an empty vocabulary
        return None
    rank = min(dimensions, fitted.shape[1] - 1, fitted.shape[0] - 1)
    if rank < 2:
        return None
    # One thread, since the order of parallel sums would change the last digits from run to run; and no word
    # about variance shares, which scikit-learn also computes where there is no variance.
    with threadpool_limits(1), np.errstate(invalid="ignore", divide="ignore"):
        svd = TruncatedSVD(rank, random_state=seed, n_iter=4).fit(fitted)
        batches = (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))
        vectors = np.concatenate([svd.transform(vectorizer.transform(batch)) for batch in batches])
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float64)


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


def lay_out(vectors: Floats, *, seed: int = 0, most: int = 4000) -> tuple[Ints, Floats]:
    """Lay vectors out in the plane by t-SNE (van der Maaten & Hinton 2008), PCA-initialised, one thread.

    Returns the indices drawn (a seeded sample if there are more than `most`) and their (m, 2)
    coordinates.  One thread, because the order of parallel sums would change the picture from run to run; half of
    scikit-learn's usual steps with a coarser Barnes-Hut angle, which keeps the neighbours (trustworthiness 0.989 either
    way at 3,000 dialogues) in less than half of the time.
    """
    chosen = sample(len(vectors), most, seed)
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
            init=start.astype(np.float32),
            perplexity=min(30.0, (len(chosen) - 1) / 3),
            max_iter=500,
            angle=0.8,
            random_state=seed,
            n_jobs=1,
        )
        return chosen, np.asarray(tsne.fit_transform(points.astype(np.float32)), dtype=np.float64)


def unit_square(points: Floats) -> Floats:
    """Scale coordinates into 0..1 with a margin, keeping distances in proportion."""
    if not len(points):
        return points
    low, high = points.min(axis=0), points.max(axis=0)
    size = max(float((high - low).max()), 1e-9)
    return np.asarray(0.5 + (points - (low + high) / 2) / size * 0.94)


def group(vectors: Floats, *, count: int, seed: int = 0) -> Ints:
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


def typical_words(bags: Sequence[Sequence[str]], codes: Ints, words: int = 3) -> list[list[str]]:
    """Words that occur in a group's dialogues far more often than elsewhere: share × smoothed log odds."""
    sets = [set(bag) for bag in bags]
    k = int(codes.max(initial=-1)) + 1
    sizes = np.bincount(codes, minlength=k)
    tables: list[dict[str, int]] = [{} for _ in range(k)]
    total: dict[str, int] = {}
    for found, code in zip(sets, codes.tolist(), strict=True):
        for word in found:
            tables[code][word] = tables[code].get(word, 0) + 1
            total[word] = total.get(word, 0) + 1
    named: list[list[str]] = []
    for code in range(k):
        inside, outside = int(sizes[code]), max(1, len(bags) - int(sizes[code]))
        score = {}
        for word, count in tables[code].items():
            if count >= 2:
                odds = np.log((count + 0.5) / (inside + 1)) - np.log((total[word] - count + 0.5) / (outside + 1))
                score[word] = float(count / inside * odds)
        named.append(sorted(score, key=lambda word: (-score[word], word))[:words])
    return named


def sample(n: int, most: int, seed: int) -> Ints:
    """All indices below `n`, or a seeded sample of `most` of them, ascending."""
    if n <= most:
        return np.arange(n, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False)).astype(np.int64)
