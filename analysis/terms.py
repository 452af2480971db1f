"""The view on specialist vocabulary: the model is small, so the data keeps to common sense."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Callable, Sequence

from analysis.features import Features
from analysis.results import Fact, Table, Verdict, View
from analysis.settings import ReportSettings
from analysis.vocabulary import Word, content_words, rare_words, readability, zipf
from dialogue.records import Dialogue

MANY, DENSE = 4, 0.05
"""A dialogue is specialist if it has so many different rare words and they are this share of its content words."""

HARD = 3.0
"""A dialogue is hard if it reads below this (about 6 is the easiest text, about 1 technical prose)."""

SHARE_WATCH, SHARE_FIX = 0.01, 0.05
"""Share of specialist or hard dialogues from which to watch, and from which to act."""

Linker = Callable[[Dialogue], str]


def terms_view(
    data: Features, chosen: Sequence[int], words: Sequence[Sequence[Word]], settings: ReportSettings, link: Linker
) -> View:
    """Rare words with their Zipf value, the dialogues full of them, and readability.

    `chosen` are the indices of the dialogues looked at and `words` their words; `link` gives a
    dialogue's address in Label Studio, or "".
    """
    if not chosen:
        fact = Fact("会話がまだない。", Verdict.UNKNOWN)
        return View("vocabulary", "専門的な言葉", is_now="まだない", facts=(fact,))
    uses: collections.Counter[str] = collections.Counter()
    example: dict[str, int] = {}
    flagged: list[tuple[int, set[str], float]] = []
    scores = []
    for i, own in zip(chosen, words, strict=True):
        rare = rare_words(own, settings.rare_zipf)
        score = readability(own)
        uses.update(set(rare))
        for word in rare:
            example.setdefault(word, i)
        if score is None:
            continue
        scores.append(score)
        dense = len(rare) >= DENSE * max(1, len(content_words(own)))
        if (len(set(rare)) >= MANY and dense) or score < HARD:
            flagged.append((i, set(rare), score))
    share = len(flagged) / len(chosen)
    verdict = Verdict.FIX if share >= SHARE_FIX else Verdict.WATCH if share >= SHARE_WATCH else Verdict.OK
    median = statistics.median(scores) if scores else 0.0
    part = "" if len(chosen) == data.n else f"（{data.n}件から選んだ{len(chosen)}件で）"
    worst = sorted(flagged, key=lambda item: (-len(item[1]), item[2], item[0]))[:30]
    top = [word for word, _ in sorted(uses.items(), key=lambda item: (-item[1], zipf(item[0]), item[0]))[:40]]
    shown = "、".join(sorted({w for _, rare, _ in worst[:5] for w in rare})[:8])
    advice = f"専門的な会話が{len(flagged)}件ある（{shown or '読みにくい文'}など）。常識の範囲の言葉に書き換える。"
    return View(
        "vocabulary",
        "専門的な言葉",
        is_now=f"専門的な会話 {len(flagged)}件（{share:.1%}）{part}、読みやすさの中央値 {median:.1f}",
        planned=f"{SHARE_WATCH:.0%}未満。読みやすさ: やさしい文で約6、専門書で約1",
        chance=f"まれな言葉 = Zipf値 {settings.rare_zipf:g}（10億語に{10**settings.rare_zipf:.0f}回）未満の名詞",
        facts=(Fact(f"専門的な会話は{share:.1%}。", verdict, advice if verdict is not Verdict.OK else ""),),
        tables=(
            Table(
                f"専門的な会話（{len(flagged)}件のうち上位）",
                ("会話", "まれな言葉", "読みやすさ"),
                tuple((data.dialogues[i].id, "、".join(sorted(rare)), f"{score:.1f}") for i, rare, score in worst),
                tuple((row, 0, url) for row, (i, _, _) in enumerate(worst) if (url := link(data.dialogues[i]))),
            ),
            Table(
                f"まれな言葉（{len(uses)}語のうち上位）",
                ("言葉", "Zipf", "会話", "例"),
                tuple((w, f"{zipf(w):.1f}", str(uses[w]), data.dialogues[example[w]].id) for w in top),
                tuple((row, 3, url) for row, w in enumerate(top) if (url := link(data.dialogues[example[w]]))),
                note="まれでも身近な言葉（湿布、値札など）はそのままでよい。ひとつの会話に固まっていないかを見る。",
            ),
        ),
        numbers={"specialist": len(flagged), "looked_at": len(chosen), "readability_median": round(median, 3)},
    )
