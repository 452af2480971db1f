"""How varied the dialogues are: Vendi score, self-repetition, and hand-written against drafted."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.associations import MATERIAL_EPSILON
from analysis.features import KINDS, Features
from analysis.figures import Bar, BarChart
from analysis.results import Fact, Table, Test, Verdict, View
from analysis.settings import ReportSettings
from analysis.statistics import Floats, generator, group_means_test, sequential_p
from dialogue.text import character_ngrams

SLICE = 500
"""Most dialogues of a slice that are compared; both slices always have equal n, since Vendi grows with n."""

SMALLEST = 20
"""Smallest slice that is compared at all."""

_GRAM = 8


def vendi(vectors: Floats) -> float:
    """Vendi score of order 1: exp of the entropy of the eigenvalues of K/n, cosine kernel (Friedman & Dieng 2023).

    `vectors` is (n, d) of unit length.  The (d, d) matrix has the same non-zero eigenvalues as K, so
    that the cost grows with n·d² and not with n².
    """
    n, d = vectors.shape
    if n == 0:
        return 0.0
    gram = vectors.T @ vectors / n if d < n else vectors @ vectors.T / n
    values = np.linalg.eigvalsh(gram)
    kept = values[values > 1e-12]
    return float(np.exp(-(kept * np.log(kept)).sum()))


def vendi_at(vectors: Floats, n: int, rng: np.random.Generator, draws: int = 20) -> float | None:
    """Mean Vendi score of samples of `n`, so that sets of different size can be compared; None if there are fewer."""
    if len(vectors) < n:
        return None
    return float(np.mean([vendi(vectors[rng.choice(len(vectors), n, replace=False)]) for _ in range(draws)]))


class Repetition:
    """How much of a slice's Aku turns stands in another dialogue of the slice too: share of character 8-grams."""

    def __init__(self, texts: Sequence[str]) -> None:
        grams = [character_ngrams(text, _GRAM) for text in texts]
        counts = collections.Counter(g for own in grams for g in own)
        shared = {g: i for i, g in enumerate(sorted(g for g, count in counts.items() if count > 1))}
        rows = [[shared[g] for g in own if g in shared] for own in grams]
        self._sizes = np.array([len(own) for own in grams], dtype=np.int64)
        self._lengths = np.array([len(row) for row in rows], dtype=np.int64)
        self._gram = np.array(
            [g for row in rows for g in row], dtype=np.int64
        )  # grams of one dialogue alone never count
        self._shared = len(shared)

    def __call__(self, chosen: NDArray[np.bool_]) -> float:
        """Share over the dialogues that the mask chooses."""
        grams = self._gram[np.repeat(chosen, self._lengths)]
        total = int(self._sizes[chosen].sum())
        repeated = np.bincount(grams, minlength=self._shared)
        return float(repeated[repeated > 1].sum() / total) if total else 0.0


def origin_view(data: Features, vectors: Floats, settings: ReportSettings) -> View:
    """Compare what was written by hand with what grew out of a draft, at equal n."""
    drafted = data.kind == KINDS.index("drafted")
    counts = f"手書き {int((~drafted).sum())}件、下書きから {int(drafted.sum())}件"
    if min(int(drafted.sum()), int((~drafted).sum())) < SMALLEST:
        text = f"下書きからの会話と手書きの会話が{SMALLEST}件ずつそろうと、多様さを比べられる。"
        fact = Fact(text, Verdict.UNKNOWN)
        return View("origin", "手書きと下書き", is_now=counts, facts=(fact,), numbers={"drafted": int(drafted.sum())})
    rng = generator(settings.seed, "origin")
    m = min(SLICE, int(drafted.sum()), int((~drafted).sum()))
    hand = rng.choice(np.flatnonzero(~drafted), m, replace=False)
    draft = rng.choice(np.flatnonzero(drafted), m, replace=False)
    both = np.concatenate([hand, draft])
    pooled = vectors[both]
    repeats = Repetition([_aku(data, int(i)) for i in both])
    first = np.arange(2 * m) < m
    vendi_hand, vendi_draft = vendi(pooled[first]), vendi(pooled[~first])
    repeat_hand, repeat_draft = repeats(first), repeats(~first)
    vendi_drawn: list[float] = []

    def draw_vendi() -> float:
        half = rng.permutation(first)
        vendi_drawn.append(vendi(pooled[half]) - vendi(pooled[~half]))
        return vendi_drawn[-1]

    def draw_repetition() -> float:
        half = rng.permutation(first)
        return repeats(~half) - repeats(half)

    draws = max(99, settings.permutations // 2)
    p_vendi = sequential_p(vendi_hand - vendi_draft, draw_vendi, draws)
    p_repetition = sequential_p(repeat_draft - repeat_hand, draw_repetition, draws)
    while len(vendi_drawn) < 99:  # for the band that is shown
        draw_vendi()
    groups = drafted.astype(np.int64)
    effect, p_length = group_means_test(data.mean_length, groups, rng, settings.permutations)
    hand_length, draft_length = (float(data.mean_length[groups == g].mean()) for g in (0, 1))
    ratio = vendi_draft / max(vendi_hand, 1e-9)
    tests = (
        Test(
            "origin.vendi",
            "下書きからの会話は意味の幅が狭くないか",
            "Vendiスコアの差",
            round(vendi_hand - vendi_draft, 3),
            f"手書き {vendi_hand:.1f}、下書き {vendi_draft:.1f}（{m}件ずつ）",
            p_vendi,
            material=ratio <= 0.95,
            advice=f"下書きからの会話は意味の幅が手書きの{ratio:.0%}しかない。下書きをもっと書き換えるか、手書きを増やす。",
        ),
        Test(
            "origin.repetition",
            "下書きからの会話は同じ言い回しが多くないか",
            "言い回しの重なりの差",
            round(repeat_draft - repeat_hand, 3),
            f"手書き {repeat_hand:.1%}、下書き {repeat_draft:.1%}（{m}件ずつ）",
            p_repetition,
            material=repeat_draft - repeat_hand >= 0.02,
            advice=f"下書きからの会話は、ほかの会話と重なる言い回しが{repeat_draft:.1%}ある（手書きは{repeat_hand:.1%}）。"
            "決まり文句を直す。",
        ),
        Test(
            "origin.length",
            "下書きからの会話は長さが違わないか",
            "説明率 ε²",
            round(effect, 3),
            f"手書き 平均{hand_length:.1f}文字、下書き 平均{draft_length:.1f}文字",
            p_length,
            material=effect >= MATERIAL_EPSILON,
            advice=f"下書きからの会話は1ターンが平均{draft_length:.1f}文字（手書きは{hand_length:.1f}文字）。",
        ),
    )
    rows = (
        ("Vendiスコア（意味の実効数）", f"{vendi_hand:.1f}", f"{vendi_draft:.1f}"),
        ("ほかの会話と重なる言い回し", f"{repeat_hand:.1%}", f"{repeat_draft:.1%}"),
        ("1ターンの平均文字数", f"{hand_length:.1f}", f"{draft_length:.1f}"),
    )
    return View(
        "origin",
        "手書きと下書き",
        is_now=counts,
        planned="下書きからの会話が、手書きと同じくらい多様",
        chance=f"由来を入れ替えるだけで、Vendiスコアの差は {np.quantile(vendi_drawn, 0.95):.2f} までありうる",
        tests=tests,
        figures=(_chart(vendi_hand, vendi_draft, vendi_drawn, m),),
        tables=(Table(f"{m}件ずつ選んで比べた値", ("", "手書き", "下書きから"), rows),),
        numbers={
            "n": m,
            "vendi": {"manual": vendi_hand, "drafted": vendi_draft},
            "repetition": {"manual": repeat_hand, "drafted": repeat_draft},
        },
    )


def _chart(hand: float, draft: float, drawn: list[float], m: int) -> BarChart:
    """Vendi scores of both slices, each in the band that swapping origins gives around their mean."""
    middle, reach = (hand + draft) / 2, float(np.quantile(np.abs(drawn), 0.95)) / 2
    return BarChart(
        "origin-vendi",
        f"意味の実効数（Vendiスコア、{m}件ずつ）",
        f"手書きと下書きからの会話の意味の実効数。手書き {hand:.1f}、下書きから {draft:.1f}（{m}件ずつ）。",
        tuple(
            Bar(name, round(value, 1), target=middle, low=middle - reach, high=middle + reach)
            for name, value in (("手書き", hand), ("下書きから", draft))
        ),
        unit="",
        mark="差がない場合",
    )


def _aku(data: Features, i: int) -> str:
    return "\n".join(turn.text for turn in data.dialogues[i].conversation if turn.speaker == "Aku")
