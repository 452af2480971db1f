"""Small pure functions on text that several rooms need."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rapidfuzz.distance import Levenshtein

_DIGIT, _DASH = "[0-9０-９]", "[-‐－ー]"
_GAP = "[-‐－ー ()（）]{0,2}"
_PERSONAL = {
    "e-mail": re.compile(r"[\w.+-]+[@＠][\w-]+(?:[.．][\w-]+)+"),
    "URL": re.compile(r"(?:https?://|www\.)\S+|\b[a-z0-9-]+\.(?:com|net|org|jp|io)\b(?:/\S*)?", re.IGNORECASE),
    "telephone": re.compile(
        f"(?<!{_DIGIT})(?:[+＋]81{_GAP}|[0０]){_DIGIT}{{1,4}}{_GAP}{_DIGIT}{{1,4}}{_GAP}{_DIGIT}{{3,4}}(?!{_DIGIT})"
    ),
    "postal code": re.compile(
        f"〒\\s*{_DIGIT}{{3}}{_DASH}?{_DIGIT}{{4}}|(?<![0-9０-９-]){_DIGIT}{{3}}{_DASH}{_DIGIT}{{4}}(?![0-9０-９-])"
    ),
}


def edit_distance(before: str, after: str) -> float:
    """Normalised Levenshtein distance over characters, 0 (equal) to 1.

    Levenshtein (1966), divided by the longer length; two empty strings are equal.
    """
    return float(Levenshtein.normalized_distance(before, after))


def character_ngrams(text: str, n: int = 5) -> set[str]:
    """Set of character n-grams of `text` without white space; a shorter text is its own single gram."""
    packed = re.sub(r"\s+", "", text)
    return {packed[i : i + n] for i in range(max(1, len(packed) - n + 1))} if packed else set()


def jaccard(a: set[str], b: set[str]) -> float:
    """Jaccard similarity of two sets; 1.0 for two empty ones."""
    union = len(a | b)
    return len(a & b) / union if union else 1.0


def personal_data(text: str) -> Iterator[tuple[str, str]]:
    """Yield `(kind, match)` for every e-mail address, URL, telephone number and postal code found."""
    taken: list[tuple[int, int]] = []
    for kind, pattern in _PERSONAL.items():
        for match in pattern.finditer(text):
            if not any(start < match.end() and match.start() < end for start, end in taken):
                taken.append(match.span())
                yield kind, match.group()
