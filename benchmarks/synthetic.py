"""Synthetic dialogues with known properties: unbiased ones, and ones with a planted bias.

Sentences are put together at random from the nouns of the packaged scenes (by topic) and common
predicates, so that topics differ in words, no two dialogues are copies, and nothing else is tied to anything.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from analysis.vocabulary import split
from dialogue import Attribute, Dialogue, Source, Turn, files, load_taxonomy

CONTEXTS = Path(__file__).parent.parent / "examples" / "contexts.jsonl"
_PARTICLES = "が は も を に で と から より まで".split()
_PREDICATES = """
    好き 苦手 楽しみ 気になる 思い出す 忘れてた 見つけた 待ってる 変わった 終わった 始まった 増えた 減った 笑った
    驚いた 迷ってる やめた 試した 片づけた 手伝った 遅れた 間に合った 覚えてる 聞いた 話した 書いた 選んだ 並んだ
    """.split()
_ENDINGS = "よ。 ね。 かな。 んだ。 だって。 けどね。 よね？ の？ って。 みたい。 らしい。 かも。".split()
_STARTS = "ねえ、 あのさ、 うん、 へえ、 そういえば、 でも、 それで、 やっぱり、 たしかに、 まあ、".split() + [""] * 12
_BASE = np.datetime64("2026-01-01")


@dataclasses.dataclass(frozen=True)
class Bias:
    """What is planted; every field's default plants nothing.

    `half_pair` halves one of the 25 pairs; `genre_closeness` is the share of dialogues whose closeness is
    decided by the genre; `long_annotator` multiplies the phrases of one annotator's
    turns (1, 2 or 3 at random; rounded down, so that 1.5 gives a third more); `copies` is the
    share of dialogues that copy another with a few characters changed; `drafted_nouns` is the share of the
    nouns that drafted dialogues use.
    """

    half_pair: int | None = None
    genre_closeness: float = 0.0
    long_annotator: float = 1.0
    copies: float = 0.0
    drafted_nouns: float = 1.0


@functools.lru_cache(maxsize=1)
def nouns() -> tuple[tuple[str, ...], ...]:
    """Nouns of the packaged scenes, by topic in the taxonomy's order."""
    pools: dict[str, dict[str, None]] = {name: {} for name in load_taxonomy().names}
    for _, row in files.read_jsonl(CONTEXTS):
        for word in split(str(row["context"])):
            if word.pos1 == "名詞" and word.content:
                pools[row["topic"]][word.surface] = None
    return tuple(tuple(pool) for pool in pools.values())


def dialogues(n: int, seed: int, bias: Bias | None = None) -> list[Dialogue]:
    """Make `n` dialogues; every property is drawn independently and uniformly unless `bias` says otherwise."""
    bias = bias or Bias()
    rng = np.random.default_rng([seed, n])
    names = load_taxonomy().names
    weights = np.ones(25)
    if bias.half_pair is not None:
        weights[bias.half_pair] = 0.5
    pairs = rng.choice(25, n, p=weights / weights.sum())
    genres = rng.integers(len(names), size=n)
    closeness = np.where(rng.random(n) < bias.genre_closeness, genres % 5, pairs // 5)
    turns = rng.integers(4, 17, size=n)
    annotators, drafted = rng.integers(6, size=n), rng.random(n) < 0.5
    days = rng.integers(0, 180, size=n)
    found: list[Dialogue] = []
    for i in range(n):
        share = bias.drafted_nouns if drafted[i] else 1.0
        scale = bias.long_annotator if annotators[i] == 0 else 1.0
        texts = [_turn(rng, int(genres[i]), share, scale) for _ in range(int(turns[i]) + 1)]
        if i > 10 and rng.random() < bias.copies:
            source = found[int(rng.integers(0, 5))]
            texts = [source.context, *(turn.text for turn in source.conversation)]
            k = int(rng.integers(1, len(texts)))
            texts[k] = texts[k][:-1] + "よ。"
        first = int(rng.random() < 0.1)
        speakers = ("User", "Aku")
        found.append(
            Dialogue(
                f"s{seed}-{i}",
                texts[0],
                tuple(Turn(speakers[(k + first) % 2], text) for k, text in enumerate(texts[1:])),  # type: ignore[arg-type]  # one of two
                Attribute(int(closeness[i]), int(pairs[i] % 5)),
                (names[int(genres[i])],),
                Source(
                    kind="drafted" if drafted[i] else "manual",
                    annotator=f"writer-{annotators[i]}",
                    created_at=f"{_BASE + np.timedelta64(int(days[i]), 'D')}T12:00:00+00:00",
                    lead_time=float(rng.integers(120, 600)),
                ),
            )
        )
    return found


def _turn(rng: np.random.Generator, genre: int, share: float, scale: float) -> str:
    pool = nouns()[genre]
    size = max(3, int(len(pool) * share))
    count = int(rng.integers(1, 4) * scale)
    draws = rng.random((count, 5))
    parts = [
        _STARTS[int(d[0] * len(_STARTS))]
        + pool[int(d[1] * size)]
        + _PARTICLES[int(d[2] * len(_PARTICLES))]
        + _PREDICATES[int(d[3] * len(_PREDICATES))]
        + _ENDINGS[int(d[4] * len(_ENDINGS))]
        for d in draws
    ]
    return "".join(parts)
