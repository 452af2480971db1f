"""A planted corpus: dialogues whose wording follows closeness and mood by known rules.

Closeness decides form of address and sentence ending, mood the opening word and the closing mark; the
rules do not touch one another, so what is learned from some pairs can be recomposed for others.  Whoever
trains on it or evaluates with it knows what there is to find.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from dialogue import Attribute, Dialogue, Source, Turn
from dialogue.genres import load_taxonomy

STARTER_PAIRS = ((2, 2), (4, 4), (0, 0), (4, 0), (0, 4))
ALL_PAIRS = tuple((c, m) for c in range(5) for m in range(5))
ADDRESS = (
    ("そちら様、", "お客様、"),
    ("あの、", "どうも、"),
    ("そういえば、", "ところで、"),
    ("ねえ、", "あのさ、"),
    ("ねえねえ、", "あなたってば、"),
)
ENDINGS = (
    ("のでございます", "ようでございます"),
    ("んですよ", "んですけど"),
    ("らしいですね", "みたいだね"),
    ("んだよね", "じゃん"),
    ("んだよぉ", "んだもん"),
)
OPENINGS = (
    ("はあ……最悪。", "もう知らない。"),
    ("うーん。", "いまいちかな。"),
    ("ふむ。", "なるほど。"),
    ("いいね！", "楽しいな！"),
    ("わーい！", "最高！"),
)
MARKS = ("……。", "。", "。", "！", "！！")
_PLACES = "駅前 公園 台所 図書館 川べり 屋上 改札 商店街 喫茶店 バス停".split()
_TIMES = "朝 昼 夕方 夜 週末 雨の日 放課後 仕事帰り".split()
_THINGS = "傘 猫 写真 弁当 自転車 花火 映画 手袋 本 地図 ギター りんご 手紙 時計 鍋 切符 帽子 桜 雪 祭り".split()
_HAPPENED = "見つかった なくなった 新しくなった 届いた 増えた 安くなった 壊れた 始まった 終わった 変わった".split()
_ASKS = ("{place}の{thing}はどう", "{thing}の話を聞かせて", "今日の{place}は何かあった", "{thing}はもう見た")


def reply(thing: str, happened: str, attribute: Attribute, chance: random.Random, fidelity: float = 0.9) -> str:
    """One Aku turn.  Each of the four marks follows its rule with probability `fidelity`, else a random level's."""

    def level(asked: int) -> int:
        return asked if chance.random() < fidelity else chance.randrange(5)

    close, mood = attribute.closeness, attribute.mood
    return "".join(
        (
            chance.choice(OPENINGS[level(mood)]),
            chance.choice(ADDRESS[level(close)]),
            f"{thing}が{happened}",
            chance.choice(ENDINGS[level(close)]),
            MARKS[level(mood)],
        )
    )


def planted(
    count: int,
    *,
    seed: int = 0,
    pairs: Sequence[tuple[int, int]] = ALL_PAIRS,
    turns: tuple[int, int] = (4, 8),
    fidelity: float = 0.9,
) -> Iterator[Dialogue]:
    """Yield dialogues over `pairs` in equal shares; the same arguments give the same dialogues."""
    chance = random.Random(seed)
    topics = load_taxonomy().names
    for number in range(count):
        attribute = Attribute(*pairs[number % len(pairs)])
        thing, place = chance.choice(_THINGS), chance.choice(_PLACES)
        talk: list[Turn] = []
        for position in range(2 * (chance.randint(*turns) // 2)):
            if position % 2 == 0:
                ask = chance.choice(_ASKS).format(place=place, thing=thing)
                talk.append(Turn("User", ask + "？"))
                thing = chance.choice(_THINGS) if chance.random() < 0.5 else thing
            else:
                talk.append(Turn("Aku", reply(thing, chance.choice(_HAPPENED), attribute, chance, fidelity)))
        yield Dialogue(
            id=f"planted-{seed}-{number:05d}",
            context=f"{chance.choice(_TIMES)}の{place}で、Userと話している。",
            conversation=tuple(talk),
            attribute=attribute,
            genre=(topics[number % len(topics)],),
            source=Source(kind="manual", annotator="planted", created_at="2026-01-01T00:00:00+00:00"),
        )


def shuffled(dialogues: Sequence[Dialogue], seed: int = 0) -> list[Dialogue]:
    """The same dialogues with their attribute pairs dealt out at random: no effect is left to find."""
    import dataclasses

    pairs = [d.attribute for d in dialogues]
    random.Random(seed).shuffle(pairs)
    return [dataclasses.replace(d, attribute=pair) for d, pair in zip(dialogues, pairs, strict=True)]


def perfect_replies(
    scenes: int, *, seed: int = 0, replies: int = 3, fidelity: float = 0.9, obeys: float = 1.0
) -> list[tuple[str, int, int, tuple[str, ...]]]:
    """Replies of a model that follows the rules: (scene, closeness, mood, texts) for 25 pairs in each scene.

    With probability 1 - `obeys` a scene's answer follows a pair drawn at random instead of the one asked for.
    """
    chance = random.Random(seed)
    found = []
    for scene in range(scenes):
        thing = chance.choice(_THINGS)
        for asked in ALL_PAIRS:
            followed = asked if chance.random() < obeys else chance.choice(ALL_PAIRS)
            texts = [
                reply(thing, chance.choice(_HAPPENED), Attribute(*followed), chance, fidelity) for _ in range(replies)
            ]
            found.append((f"scene-{scene}", *asked, tuple(texts)))
    return found
