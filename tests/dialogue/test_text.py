"""Edit distance, n-grams and the personal-data finder."""

from __future__ import annotations

import pytest

from dialogue.text import character_ngrams, edit_distance, jaccard, personal_data


def test_edit_distance() -> None:
    assert edit_distance("", "") == 0
    assert edit_distance("あいう", "あいう") == 0
    assert edit_distance("あいう", "") == 1
    assert edit_distance("あいうえ", "あいxえ") == pytest.approx(0.25)


def test_ngrams_and_jaccard() -> None:
    assert character_ngrams("あい うえお か") == {"あいうえお", "いうえおか"}
    assert character_ngrams("あ") == {"あ"}
    assert jaccard({"a", "b"}, {"b", "c"}) == pytest.approx(1 / 3)
    assert jaccard(set(), set()) == 1


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("連絡は taro.y+a@example.co.jp まで", ["e-mail"]),
        ("090-1234-5678に電話して", ["telephone"]),
        ("０３－１２３４－５６７８です", ["telephone"]),
        ("+81 90 1234 5678", ["telephone"]),
        ("〒123-4567の家", ["postal code"]),
        ("住所は123-4567だよ", ["postal code"]),
        ("https://example.com/a?b=1 を見て", ["URL"]),
        ("example.com で見た", ["URL"]),
        ("明日の10時30分に300円で、2024年の1-2月", []),
        ("0時ちょうどに、100メートルを12秒で", []),
    ],
)
def test_personal_data(text: str, kinds: list[str]) -> None:
    assert [kind for kind, _ in personal_data(text)] == kinds
