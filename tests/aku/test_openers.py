"""Reading what Google Forms and Sheets export, and the form that asks."""

from __future__ import annotations

import pytest

from aku import openers
from dialogue import FileError, load_taxonomy

HEAD = "タイムスタンプ,「音楽」について会話を始めてください。,「天気・季節」について会話を始めてください。\r\n"
ROWS = (
    '2026/11/01 10:00:00,最近なに聴いてる？,"雨だね。\n傘ある？"\r\n'
    "2026/11/01 10:05:00,,\r\n"
    "2026/11/02 09:00:00,最近なに聴いてる？,電話して 090-1234-5678\r\n"
)


def write(tmp_path, text: str, encoding: str = "utf-8"):
    path = tmp_path / "answers.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_answers(tmp_path, encoding: str) -> None:
    found, aside = openers.read_answers(write(tmp_path, HEAD + ROWS, encoding), "salt")
    assert [(o.topic, o.text) for o in found] == [("音楽", "最近なに聴いてる？"), ("天気・季節", "雨だね。\n傘ある？")]
    assert [(a.row, a.topic, a.reason) for a in aside] == [(4, "天気・季節", "holds personal data (telephone)")]


def test_english_stamp_and_later_questions_keep_ids(tmp_path) -> None:
    before, _ = openers.read_answers(write(tmp_path, HEAD + ROWS), "salt")
    head = HEAD.replace("タイムスタンプ", "Timestamp").rstrip("\r\n") + ",「ゲーム」について会話を始めてください。\r\n"
    after, _ = openers.read_answers(write(tmp_path, head + ROWS + "2026/11/03 09:00:00,,,昨日のゲームさ\r\n"), "salt")
    assert {o.id for o in before} < {o.id for o in after}
    assert after[-1].topic == "ゲーム"


def test_authors_are_pseudonyms_told_apart(tmp_path) -> None:
    head = "タイムスタンプ,メールアドレス,「音楽」について会話を始めてください。\r\n"
    rows = "1,a@example.com,歌う？\r\n2,a@example.com,弾く？\r\n3,b@example.com,踊る？\r\n"
    found, _ = openers.read_answers(write(tmp_path, head + rows), "salt")
    assert found[0].author == found[1].author != found[2].author
    assert not any("example" in o.author for o in found)


@pytest.mark.parametrize(("text", "words"), [("", "is empty"), ("a,b\n1,2\n", "no column asks")])
def test_what_is_no_export(tmp_path, text: str, words: str) -> None:
    with pytest.raises(FileError, match=words):
        openers.read_answers(write(tmp_path, text), "salt")


def test_short_rows_and_endless_cells(tmp_path) -> None:
    head = "「音楽」について会話を始めてください。,Timestamp\n"
    found, _ = openers.read_answers(write(tmp_path, head + "歌う？\n"), "salt")
    assert [o.text for o in found] == ["歌う？"]
    with pytest.raises(FileError, match="no valid CSV"):
        openers.read_answers(write(tmp_path, head + '"' + "あ" * 200_000), "salt")


def test_shift_jis_is_refused_with_the_remedy(tmp_path) -> None:
    with pytest.raises(FileError, match="not UTF-8"):
        openers.read_answers(write(tmp_path, HEAD + ROWS, "cp932"), "salt")


def test_form_asks_for_the_thinnest_topics_and_is_read_back(tmp_path) -> None:
    taxonomy = load_taxonomy()
    written = dict.fromkeys(taxonomy.names, 5) | {"音楽": 0, "ゲーム": 1}
    topics = openers.choose_topics(written, taxonomy, 12)
    assert topics[:2] == ["音楽", "ゲーム"]
    assert len(set(topics)) == 12
    script = openers.apps_script([*topics, "音楽"])
    assert "FormApp.create" in script
    assert openers.CONSENT in script
    assert "「音楽（その2）」について会話を始めてください。" in script
    head = "Timestamp,「音楽（その2）」について会話を始めてください。\n1,こんにちは\n"
    assert openers.read_answers(write(tmp_path, head), "s")[0][0].topic == "音楽"
    page = openers.printable_list(topics)
    assert page.count("<li>") == 12
