"""Single measures: diversity, copies, vocabulary, predicted genres, layout, writers, growth."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from analysis.diversity import Repetition, vendi, vendi_at
from analysis.duplicates import _Weights, near_duplicates
from analysis.embedding import embed, typical_words
from analysis.features import features
from analysis.genre_model import predict_genres
from analysis.growth import growth_view
from analysis.layout import ReferenceMap, make_layout
from analysis.people import people_view
from analysis.results import Verdict, settled
from analysis.settings import ReportSettings
from analysis.terms import terms_view
from analysis.vocabulary import content_words, rare_words, readability, split, tagger, zipf
from dialogue import Dialogue, FileError, SettingsError, Turn, load_taxonomy
from dialogue.text import character_ngrams, jaccard

SETTINGS = ReportSettings(permutations=199)
TAXONOMY = load_taxonomy()


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_vendi_counts_the_distinct_things() -> None:
    assert vendi(np.eye(5)) == pytest.approx(5)
    assert vendi(np.ones((7, 1))) == pytest.approx(1)
    assert vendi(np.repeat(np.eye(3), 4, axis=0)) == pytest.approx(3)
    assert vendi(np.zeros((0, 4))) == 0.0


def test_vendi_is_the_same_from_either_side_of_the_kernel() -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(40, 12)))
    values = np.linalg.eigvalsh(vectors @ vectors.T / 40)
    kept = values[values > 1e-12]
    assert vendi(vectors) == pytest.approx(np.exp(-(kept * np.log(kept)).sum()))


def test_vendi_at_equal_n_does_not_grow_with_the_set() -> None:
    rng = np.random.default_rng(1)
    vectors = unit(rng.normal(size=(2000, 64)))
    small, large = (vendi_at(vectors[:n], 100, np.random.default_rng(0)) for n in (150, 2000))
    assert small == pytest.approx(large, rel=0.03)
    assert vendi(vectors) > 1.2 * small
    assert vendi_at(vectors[:20], 100, rng) is None


def test_repetition_is_the_share_that_stands_elsewhere() -> None:
    texts = ["きのうの夕飯はカレーでした", "きのうの夕飯はカレーでした", "まったく別のことを言っている"]
    repeats = Repetition(texts)
    assert repeats(np.array([True, True, False])) == 1.0
    assert repeats(np.array([True, False, True])) == 0.0
    assert repeats(np.array([False, False, False])) == 0.0
    assert 0 < repeats(np.array([True, True, True])) < 1


def test_near_duplicates_by_text_jaccard_and_cosine() -> None:
    base = (
        "日曜の朝は近所の公園まで歩いて、帰りにパン屋で食パンを買うのが決まりになっている。"
        "雨の日は傘をさしてでも行くし、雪の日は長靴で行く。店の人とは天気の話をするくらいの仲だ。"
    )
    texts = [
        base,
        base,
        base.replace("食パン", "クロワッサン"),
        "夜中に目が覚めて、冷蔵庫の音を聞いていた。",
        " " + base,
    ]
    bags = [content_words(split(text)) for text in texts]
    pairs, left_off = near_duplicates(texts, bags)
    found = {(p.a, p.b): p.kind for p in pairs}
    assert found[0, 1] == found[0, 4] == "同じ"
    assert found[0, 2] == "ほぼ同じ"
    assert not any(3 in pair for pair in found)
    assert not left_off


def test_the_same_words_in_another_order_are_much_alike() -> None:
    words = "猫 公園 夕方 散歩 写真 友達 手紙 電車 駅前 花屋".split()
    texts = ["と".join(words), "が".join(reversed(words)), *(f"{word}だけの話" for word in words)]
    bags = [content_words(split(text)) for text in texts]
    pairs, _ = near_duplicates(texts, bags)
    assert [(p.a, p.b, p.kind) for p in pairs] == [(0, 1, "よく似ている")]


def test_many_alike_stay_linear() -> None:
    pairs, left_off = near_duplicates(["同じ話"] * 3000, [[]] * 3000)
    assert len(pairs) == 2999
    assert not left_off
    story = "日曜の朝は近所の公園まで歩いて、帰りにパン屋で食パンを買うのが決まりになっている。" * 2
    almost = [f"{story}{i}" for i in range(1000)]
    pairs, left_off = near_duplicates(almost, [content_words(split(story))] * 1000)
    assert len(pairs) == 999
    assert {p.kind for p in pairs} == {"ほぼ同じ"}
    assert not left_off


def test_too_many_candidates_are_cut_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "猫 公園 夕方 散歩 写真 友達 手紙 電車 駅前 花屋 図書館 海岸".split()
    bags = [[*words, *(f"別{i}の{k}" for k in range(2))] for i in range(60)]
    texts = ["".join(np.random.default_rng(i).permutation(bag)) for i, bag in enumerate(bags)]
    assert not near_duplicates(texts, bags)[1]
    monkeypatch.setattr("analysis.duplicates.MOST", 20)
    pairs, left_off = near_duplicates(texts, bags)
    assert left_off
    assert len(pairs) <= 20


@pytest.mark.parametrize("seed", range(3))
def test_no_pair_is_missed_that_comparing_everything_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = [f"{a}{b}" for a in "雨雪風花鳥月星海山川" for b in "音色道見頃影町店日夜"]
    bags = [list(rng.choice(words, rng.integers(20, 60))) for _ in range(60)]
    for _ in range(90):  # near-copies at every distance
        bag = list(bags[int(rng.integers(60))])
        for _ in range(int(rng.integers(0, 8))):
            bag[int(rng.integers(len(bag)))] = str(rng.choice(words))
        if rng.random() < 0.3:
            rng.shuffle(bag)
        bags.append(bag)
    texts = ["".join(bag) for bag in bags]
    found, _ = near_duplicates(texts, bags)
    weigh = _Weights(bags)
    sets = [character_ngrams(text) for text in texts]
    alike = {
        b
        for a, b in itertools.combinations(range(150), 2)
        if jaccard(sets[a], sets[b]) >= 0.8 or weigh.cosine(a, b) >= 0.95
    }
    assert len(alike) > 30
    assert {p.b for p in found} <= alike
    assert len(alike - {p.b for p in found}) <= 0.02 * len(alike)


def test_readability_equals_the_published_implementation(starter: list[Dialogue]) -> None:
    compute_readability = pytest.importorskip("jreadability").compute_readability
    for dialogue in starter[:20]:
        text = "".join(turn.text for turn in dialogue.conversation)
        assert readability(split(text)) == pytest.approx(compute_readability(text, tagger()))
    assert readability([]) is None


def test_everyday_words_are_common_and_terms_are_rare() -> None:
    assert zipf("今日") > 5
    assert zipf("プリエンプション") < 3
    assert rare_words(split("今日は自転車で駅まで行って、カレーを食べたよ。")) == []
    rare = rare_words(split("スケジューラのプリエンプションでオーバーヘッドが出る。"))
    assert {"スケジューラ", "プリエンプション", "オーバーヘッド"} <= set(rare)
    assert rare_words(split("Akuとふたりで、しょんぼりした。")) == []


def test_specialist_dialogues_are_named_with_their_words(make) -> None:
    technical = "スケジューラのプリエンプションとコンテキストのオーバーヘッド、それにプロパゲーション。"
    dialogues = [make(i) for i in range(19)] + [make(19, text=technical)]
    data = features(dialogues, TAXONOMY)
    words = [split("".join(t.text for t in d.conversation)) for d in dialogues]
    view = terms_view(data, range(20), words, SETTINGS, lambda _: "")
    assert view.numbers["specialist"] == 1
    assert view.verdict is Verdict.FIX
    assert view.tables[0].rows[0][0] == "d19"
    assert "プリエンプション" in view.tables[0].rows[0][1]
    plain = terms_view(data, range(19), words[:19], SETTINGS, lambda _: "")
    assert plain.verdict is Verdict.OK


def test_genres_are_predicted_better_than_chance(starter: list[Dialogue]) -> None:
    bags = [content_words(split(d.context + "".join(t.text for t in d.conversation))) for d in starter]
    genre = [TAXONOMY.names.index(d.genre[0]) for d in starter]
    hidden = [-1 if i < 5 else g for i, g in enumerate(genre)]
    found = predict_genres(bags, hidden)
    assert found is not None
    assert found.annotated == 95
    assert set(found.predicted) == set(range(5))
    assert found.accuracy > 2 * found.chance
    assert predict_genres(bags[:8], genre[:8]) is None
    assert predict_genres(bags, [0] * 100) is None


def test_embedding_brings_one_topic_together(starter: list[Dialogue]) -> None:
    topics = ["猫 毛 ひげ 肉球", "電車 駅 切符 改札", "鍋 野菜 味 台所"]
    rng = np.random.default_rng(0)
    bags = [list(rng.choice(topics[i % 3].split(), 6)) for i in range(90)]
    vectors = embed(["".join(bag) for bag in bags], bags)
    similar = vectors @ vectors.T
    same = np.equal.outer(np.arange(90) % 3, np.arange(90) % 3)
    assert similar[same].mean() > similar[~same].mean() + 0.5
    assert typical_words(bags, np.arange(90) % 3)[1][0] in topics[1].split()


def test_embedding_survives_text_without_words() -> None:
    assert embed([], []).shape == (0, 1)
    assert embed(["。"], [[]]).shape == (1, 1)
    assert np.isfinite(embed(["？！", "……", "ーー"], [[], [], []])).all()
    with pytest.raises(SettingsError, match="no folder"):
        embed(["a"], [["a"]], model="/nowhere/at/all")


def test_a_frozen_map_keeps_old_places_and_puts_new_ones_beside_their_like() -> None:
    rng = np.random.default_rng(0)
    centres = unit(rng.normal(size=(3, 20)))
    codes = np.arange(90) % 3
    vectors = unit(centres[codes] + rng.normal(size=(90, 20)) * 0.05)
    ids = [f"d{i}" for i in range(90)]
    first = make_layout(ids[:60], vectors[:60])
    assert first.fresh
    assert ((first.points >= 0) & (first.points <= 1)).all()
    reference = ReferenceMap({ids[i]: tuple(p) for i, p in zip(first.chosen, first.points.tolist(), strict=True)})
    again = make_layout(ids, vectors, reference=reference)
    assert not again.fresh
    assert again.placed == 30
    np.testing.assert_array_equal(again.points[:60], first.points)
    middles = np.array([first.points[codes[:60] == k].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(again.points[60:, None] - middles, axis=2).argmin(axis=1)
    assert (nearest == codes[60:]).all()
    mostly_new = make_layout([f"new{i}" for i in range(90)], vectors, reference=reference)
    assert mostly_new.fresh


def test_a_large_set_is_sampled_and_the_rest_is_shade() -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(500, 10)))
    layout = make_layout([f"d{i}" for i in range(500)], vectors, most=100)
    assert len(layout.chosen) == 100
    assert layout.density.sum() == 500


def test_a_broken_map_file_is_one_sentence() -> None:
    for wrong in ([], {"a": [1]}, {"a": "xy"}, {"a": ["x", "y"]}):
        with pytest.raises(FileError, match="remove it"):
            ReferenceMap.from_json(wrong, "map.json")
    reference = ReferenceMap({"a": (0.25, 0.5)})
    assert ReferenceMap.from_json(reference.to_json()) == reference


def test_a_writer_who_writes_longer_is_found(make) -> None:
    dialogues = [
        make(i, text="ことば" * (8 if i % 3 == 0 else 3), annotator=f"p{i % 3}", lead_time=60.0) for i in range(90)
    ]
    (view,) = settled([people_view(features(dialogues, TAXONOMY), SETTINGS)], 0.05)
    assert {t.key: t.verdict for t in view.tests}["people.length"] is Verdict.FIX
    assert {t.key: t.verdict for t in view.tests}["people.turns"] is Verdict.OK
    assert [row[:2] for row in view.tables[0].rows] == [("p0", "30"), ("p1", "30"), ("p2", "30")]
    alone = people_view(features(dialogues[::3], TAXONOMY), SETTINGS)
    assert alone.verdict is Verdict.UNKNOWN


def test_growth_counts_by_the_records_own_dates(make) -> None:
    dates = ["2026-03-01", "2026-03-01", "2026-03-08", "2026-03-15"]
    dialogues = [make(i, created_at=f"{day}T10:00:00+00:00") for i, day in enumerate(dates)]
    dialogues[3] = dataclasses.replace(dialogues[3], source=dataclasses.replace(dialogues[3].source, kind="drafted"))
    view = growth_view(features([*dialogues, make(9)], TAXONOMY), SETTINGS)
    total, hand, drafted = view.figures[0].lines
    assert total.values[0] == 3  # one has no date and counts from the start
    assert (total.values[-1], hand.values[-1], drafted.values[-1]) == (5, 4, 1)
    assert view.figures[0].goal == 3000
    assert "年" in view.chance
    odd = make(1, created_at="いつか")
    assert growth_view(features([odd], TAXONOMY), SETTINGS).verdict is Verdict.UNKNOWN


def test_first_turn_by_aku_and_lengths_by_speaker(make) -> None:
    dialogue = make(0, first="Aku", turns=3)
    dialogue = dataclasses.replace(
        dialogue, conversation=(Turn("Aku", "あ" * 9), Turn("User", "い" * 3), Turn("Aku", "う" * 5))
    )
    data = features([dialogue], TAXONOMY)
    assert data.aku_begins.tolist() == [True]
    assert data.length.tolist() == [9, 3, 5]
    assert data.speaker.tolist() == [1, 0, 1]
    assert data.mean_length.tolist() == [pytest.approx(17 / 3)]
