"""Synthetic dialogues for tests and benchmarks of the exporter: seeded, Japanese-looking, any number of them.

Texts are drawn from a small stock of fragments, so that they are varied enough not to be near-duplicates
of one another by chance; `share_of_copies` plants near-duplicates on purpose.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from dialogue import Attribute, Dialogue, Source, Turn
from dialogue.genres import load_taxonomy

_PLACES = (
    "駅前 公園 台所 教室 図書館 川べり 屋上 改札 港 畑 階段 喫茶店 病院 バス停 神社 体育館 商店街 ベランダ 玄関 廊下"
).split()
_TIMES = "朝 昼 夕方 夜 週末 雨の日 雪の日 夏休み 放課後 昼休み 仕事帰り 大晦日 誕生日 台風の前 給料日".split()
_THINGS = (
    "傘 猫 写真 弁当 自転車 花火 映画 手袋 本 地図 ギター りんご 手紙 時計 鍋 コート 電話 靴 窓 机 "
    "犬 魚 鍵 切符 帽子 布団 茶碗 鏡 箱 石けん 新聞 眼鏡 財布 歌 絵 船 雲 星 月 草"
).split()
_DOES = (
    "なくした 見つけた 買った 直した 忘れた もらった 貸した 洗った 捨てた 並べた 探した 隠した "
    "選んだ 運んだ 落とした 数えた 描いた 届けた 比べた ながめた"
).split()
_ENDS = "よね。 かな？ んだ！ の？ って。 みたい。 らしいよ。 でしょ。 だって。 かも…".split()
_EXTRA = (
    "それでさ、 実は 正直 たぶん やっぱり 昨日 さっき このあいだ なんだか 急に ようやく そういえば 本当は いつも たまに"
).split()
AWKWARD = (
    "👨‍👩‍👧‍👦と🏳️‍🌈🎉",
    "ﾊﾝｶｸ ｶﾅ ｶﾞｷﾞｸﾞ",
    "か\u3099き\u3099と e\u0301 と がぎ",
    "かれは\"引用\"と言い、'うん'と「返事」した",
    "一行目\n二行目\n\n四行目",
    "バックスラッシュ \\n と タブ\tと <ROLE> と </View>",
    "=SUM(A1:A9)",
    "あ" * 2000,
    "𠮷野家で𩸽を食べた",
    "ZWJ\u200dとBOMのない文、 全角　空白",
)


def sentence(random_: random.Random) -> str:
    """Return one short utterance."""
    pieces = [
        random_.choice(_EXTRA),
        random_.choice(_TIMES),
        random_.choice(_PLACES),
        "で",
        random_.choice(_THINGS),
        "を",
        random_.choice(_DOES),
        random_.choice(_ENDS),
    ]
    return "".join(pieces)


def dialogues(
    count: int, *, seed: int = 0, turns: tuple[int, int] = (6, 14), share_of_copies: float = 0.0, awkward: bool = False
) -> Iterator[Dialogue]:
    """Yield `count` valid records, the same ones for the same arguments.

    Args:
        count: how many.
        seed: of the generator.
        turns: fewest and most turns of a dialogue.
        share_of_copies: share of records that repeat an earlier one with one turn changed.
        awkward: put a text that is hard on encoders (emoji, half-width kana, quotes, …) into each record.
    """
    random_ = random.Random(seed)
    topics = load_taxonomy().names
    recent: list[Dialogue] = []
    for number in range(count):
        if recent and random_.random() < share_of_copies:
            original = random_.choice(recent)
            changed = list(original.conversation)
            place = random_.randrange(len(changed))
            changed[place] = Turn(changed[place].speaker, sentence(random_))
            context, conversation = original.context, tuple(changed)
            attribute, genre = original.attribute, original.genre
        else:
            scene = [random_.choice(words) for words in (_TIMES, _PLACES, _THINGS, _DOES)]
            context = f"{scene[0]}、{scene[1]}で{scene[2]}を{scene[3]}（その{number}）"
            first = random_.randrange(2)
            length = random_.randint(*turns)
            texts = ["".join(sentence(random_) for _ in range(random_.randint(1, 2))) for _ in range(length)]
            if awkward:
                texts[number % length] = AWKWARD[number % len(AWKWARD)]
            conversation = tuple(Turn("User" if (i + first) % 2 == 0 else "Aku", text) for i, text in enumerate(texts))
            attribute = Attribute(random_.randrange(5), random_.randrange(5))
            genre = tuple(random_.sample(topics, random_.randint(1, 2)))
        source = Source(kind="manual", lead_time=round(random_.uniform(60, 900), 3))
        record = Dialogue.from_dict(
            Dialogue(f"syn-{seed}-{number:06d}", context, conversation, attribute, genre, source).to_dict()
        )
        if len(recent) < 1000:
            recent.append(record)
        yield record
