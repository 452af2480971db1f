"""How a Japanese utterance sounds: countable surface features of politeness, closeness and mood."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PARTICLES = (
    "よね",
    "かな",
    "けど",
    "じゃん",
    "もん",
    "って",
    "よ",
    "ね",
    "な",
    "の",
    "か",
    "さ",
    "ぞ",
    "わ",
    "し",
    "だ",
    "ん",
)
"""Sentence-final particles and forms, longer ones first."""
NAMES = (
    "polite",
    *(f"ends in {particle}" for particle in PARTICLES),
    "exclamation",
    "question",
    "ellipsis",
    "lengthened",
    "emoji",
    "log length",
    "sentences",
    "log sentence length",
    "kanji share",
    "small tsu share",
)
_SENTENCE = re.compile(r"[^。！？!?…\n♪〜～]+[。！？!?…♪〜～]*")
_POLITE = re.compile(
    r"(?:です|ます|ました|ません|でした|でしょう|ましょう|ください|下さい|ございま\S{0,3})(?:よね|よ|ね|か|かね|が|けど|し|から|って|っけ)?$"
)
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf♪]|\\([^()\\w]{2,8}\\)|（[^（）\\w]{2,8}）")
_TAIL = "。．.！？!?…♪〜～ーっッ、,」』）) 　\n"
_FRAGMENT = 6
"""A sentence shorter than so many characters says nothing about politeness ("うん。", "ほんと？")."""


def sentences(text: str) -> list[str]:
    """Cut an utterance into sentences, their end marks kept."""
    return [part for part in _SENTENCE.findall(text) if part.strip()] or [text]


def surface(texts: Sequence[str]) -> Floats:
    """Return one row of features a text, shape (n, len(NAMES))."""
    return np.array([_row(text) for text in texts], dtype=np.float64).reshape(len(texts), len(NAMES))


def _row(text: str) -> list[float]:
    found = sentences(text)
    count = len(found)
    bare = [sentence.rstrip(_TAIL) for sentence in found]
    endings = [next((p for p in PARTICLES if sentence.endswith(p)), "") for sentence in bare]
    length = max(1, len(text))
    return [
        sum(bool(_POLITE.search(sentence)) for sentence in bare) / count,
        *(endings.count(particle) / count for particle in PARTICLES),
        sum("！" in s or "!" in s for s in found) / count,
        sum("？" in s or "?" in s for s in found) / count,
        text.count("…") / count,
        len(re.findall("[ー〜～]", text)) / count,
        float(bool(_EMOJI.search(text))),
        float(np.log1p(len(text))),
        float(count),
        float(np.log1p(len(text) / count)),
        len(re.findall("[一-龥]", text)) / length,
        len(re.findall("[っッ]", text)) / length,
    ]


def politeness(text: str) -> Literal["polite", "plain"] | None:
    """Whether an utterance is in です/ます style, by most of its whole sentences; None for mere fragments."""
    bare = [sentence.rstrip(_TAIL) for sentence in sentences(text)]
    polite = sum(bool(_POLITE.search(sentence)) for sentence in bare)
    plain = sum(len(sentence) >= _FRAGMENT and not _POLITE.search(sentence) for sentence in bare)
    if polite == plain:
        return "polite" if polite else None
    return "polite" if polite > plain else "plain"


def consistency(texts: Sequence[str]) -> float:
    """Share of a speaker's utterances that keep to the style of most of them; NaN with fewer than two to compare."""
    styles = [style for style in map(politeness, texts) if style]
    if len(styles) < 2:
        return float("nan")
    return max(styles.count("polite"), styles.count("plain")) / len(styles)
