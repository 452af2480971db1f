"""The judge and what it counts."""

import numpy as np
import pytest

from analysis.judge import HandWritten, Judge, cross_validated, rounded
from analysis.judge_features import NAMES, consistency, politeness, surface
from analysis.repetition import COPIED, index, repetition
from benchmarks.planted import STARTER_PAIRS, planted
from dialogue import Dialogue, RecordError


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("夕方まではもつらしいですよ。西の空、ちょっと怪しいけど。", "polite"),
        ("おかえりー！見て見て、六十八個！皮から作ったんだよ、皮から！", "plain"),
        ("はい、ありがとうございます。", "polite"),
        ("帰りに牛乳買ってきてくれる？", "plain"),
        ("うん。", None),
        ("ほんと？", None),
    ],
)
def test_politeness_of_an_utterance(text: str, style: str | None) -> None:
    assert politeness(text) == style


def test_consistency_is_the_share_that_keeps_to_its_style() -> None:
    assert consistency(["そうですね。", "雨が降りそうだよ。", "傘を持ちました。", "うん。"]) == pytest.approx(2 / 3)
    assert np.isnan(consistency(["そうですね。", "うん。"]))


def test_surface_features_count_what_they_name() -> None:
    row = dict(zip(NAMES, surface(["やったー！そうだよね？"])[0], strict=True))
    assert row["ends in よね"] == 0.5
    assert row["ends in ね"] == 0
    assert row["exclamation"] == row["question"] == 0.5
    assert row["sentences"] == 2


def test_repetition() -> None:
    seen = index(["きのうの夜は友だちと遅くまで花火を見ていたんだよ"])
    assert repetition("そうなんだ、よかったね。", ["いい天気", "暑いね", "海に行こうよ"], seen) is None
    assert repetition("はいはいはい、わかったよ。", [], seen) is None
    assert repetition("とてもとてもとてもとてもとても寒い", [], seen) == "loop"
    assert repetition("知らないよ。うん。知らないよ。まあ。知らないよ。", [], seen) == "loop"
    assert repetition("海に行こうよ、今から。", ["暑いね", "海に行こうよ、今から！"], seen) == "copy"
    assert (
        repetition("きょうはカレーにしよう", ["なに食べる？", "きょうはカレーにしよう", "ほかには？"], seen) == "copy"
    )
    assert (
        repetition("なに食べようかなあ今日", ["なに食べようかなあ今日", "きょうはカレー", "ほかには？"], seen) is None
    )
    assert repetition("うん、そう", ["うん、そう"], seen) is None
    copied = "夜は友だちと遅くまで花火を見ていたん"
    assert len(copied) < COPIED
    assert repetition(copied + "です", [], seen) is None
    assert repetition(copied + "だよ、楽しかった", [], seen) == "training"


def test_people_hardly_repeat_themselves(starter: list[Dialogue]) -> None:
    found = []
    for d in starter:
        others = index(t.text for e in starter if e is not d for t in e.conversation)
        for number, turn in enumerate(d.conversation):
            found.append(repetition(turn.text, [t.text for t in d.conversation[:number]], others))
    assert sum(f is not None for f in found) <= 0.005 * len(found)


def test_judge_hears_what_was_planted_in_dialogues_it_never_saw() -> None:
    judge = Judge(HandWritten.of(list(planted(100, seed=1))))
    fresh = HandWritten.of(list(planted(50, seed=2)))
    wrong = np.abs(rounded(judge.hear(fresh.texts)) - fresh.levels)
    assert (wrong == 0).mean() > 0.6
    assert (wrong <= 1).mean() > 0.85
    together = judge.hear_together([fresh.texts[:3], (), fresh.texts[3:4]])
    assert together.shape == (3, 2)
    assert np.isnan(together[1]).all()


def test_cross_validation_never_hears_a_turn_of_a_dialogue_it_was_trained_on() -> None:
    """A judge that could know dialogues by heart would be right about levels dealt out at random."""
    import dataclasses
    import random

    chance = random.Random(0)
    corpus = [
        dataclasses.replace(
            d,
            conversation=tuple(dataclasses.replace(t, text=f"{d.id}番" * 3 + "だよ。") for t in d.conversation),
            attribute=dataclasses.replace(d.attribute, closeness=chance.randrange(5), mood=chance.randrange(5)),
        )
        for d in planted(60, seed=3)
    ]
    turns = HandWritten.of(corpus)
    known = (rounded(Judge(turns).hear(turns.texts)) == turns.levels).mean()
    honest = (rounded(cross_validated(turns)) == turns.levels).mean()
    assert honest < 0.4 < known


def test_judge_learns_from_people_alone_and_needs_enough_of_them() -> None:
    import dataclasses

    corpus = list(planted(30, seed=4))
    machine = [dataclasses.replace(d, source=dataclasses.replace(d.source, kind="drafted")) for d in corpus]
    assert HandWritten.of([*corpus[:20], *machine[20:]]).dialogues == 20
    with pytest.raises(RecordError, match="9 hand-written dialogues"):
        Judge(HandWritten.of([*corpus[:9], *machine]))
    with pytest.raises(RecordError, match="1 level"):
        Judge(HandWritten.of(list(planted(20, pairs=[(2, 2)]))))


def test_same_turns_same_judge() -> None:
    turns = HandWritten.of(list(planted(30, seed=5, pairs=STARTER_PAIRS)))
    assert np.array_equal(Judge(turns).hear(turns.texts), Judge(turns).hear(turns.texts))
