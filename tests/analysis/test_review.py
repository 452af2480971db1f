"""Review rounds: what is shown, what comes back, how far people agree."""

import math
import random

import pytest

from aku.replies import Moment
from aku.review import HUMAN, item_of, shuffled_items
from analysis.review import krippendorff_alpha, summarise
from dialogue import Attribute, RecordError, Turn
from dialogue.review_project import RATINGS, ReviewItem, read_rating, review_config, scene_html, to_task

ITEM = ReviewItem("r001", "<b>雨</b>の駅で。", Attribute(0, 4), (Turn("User", "傘、<i>ない</i>？"),), "どうぞ。")


def test_alpha_is_krippendorffs() -> None:
    """The worked example of Krippendorff (2011): four observers, twelve units, ordinal alpha 0.815."""
    observers = (
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    )
    columns = zip(*(row.split() for row in observers), strict=True)
    units = [[int(x) - 1 for x in column if x != "."] for column in columns]
    assert krippendorff_alpha(units, 5) == pytest.approx(0.815, abs=0.001)


def test_alpha_of_perfect_and_of_chance() -> None:
    chance = random.Random(0)
    assert krippendorff_alpha([[0, 0], [1, 1], [2, 2]], 3) == 1
    noise = [[chance.randrange(3), chance.randrange(3)] for _ in range(3000)]
    assert abs(krippendorff_alpha(noise, 3)) < 0.05
    assert math.isnan(krippendorff_alpha([[0], [1]], 3))
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]], 3))


def row(item: str, origin: str, rating: int, person: str, distance: float | None = None) -> dict:
    return {"item": item, "origin": origin, "rating": RATINGS[rating], "annotator": person, "distance": distance}


def test_summary_by_writer_counts_an_item_once_however_many_rate_it() -> None:
    rows = [row(f"r{n}", "c", n % 2, "a") for n in range(40)] + [row(f"r{n}", "c", n % 2, "b") for n in range(40)]
    rows += [row("h1", HUMAN, 0, "a", 0.3)]
    found = summarise(rows)
    model, human = found.of("c"), found.of(HUMAN)
    assert model is not None and human is not None
    assert model.counts == (40, 40, 0)
    assert model.kept.groups == 40
    assert model.kept.effective <= 41
    assert human.corrected == 1
    assert found.agreement.alpha == 1
    assert (found.agreement.items, found.agreement.people) == (40, 2)


def test_one_person_alone_agrees_with_nobody() -> None:
    assert math.isnan(summarise([row("r1", "c", 0, "a"), row("r2", "c", 2, "a")]).agreement.alpha)


def test_tasks_do_not_tell_who_wrote_the_reply() -> None:
    moment = Moment("d1/3", "駅で。", Attribute(1, 2), (Turn("User", "やあ"),), "人の返事です。")
    rows = shuffled_items([moment] * 5, ["モデルの返事。"] * 5, [moment] * 5, "abcdefabcdef", "seed")
    assert sorted(r["origin"] for r in rows) == ["abcdefabcdef"] * 5 + [HUMAN] * 5
    assert [r["origin"] for r in rows] != sorted(r["origin"] for r in rows)
    tasks = [to_task(item_of(r)) for r in rows]
    assert not any(word in str(task) for task in tasks for word in ("abcdefabcdef", HUMAN, "d1/3"))
    assert len({str(task["predictions"][0]["model_version"]) for task in tasks}) == 1
    assert [task["data"]["item"] for task in tasks] == [f"r{n:03d}" for n in range(10)]


def test_texts_are_escaped() -> None:
    html = scene_html(ITEM)
    assert "&lt;b&gt;雨&lt;/b&gt;" in html
    assert "<i>" not in html
    assert "親密さ 0 知らない人" in html
    assert "機嫌 4 とても良い" in html


def test_prediction_fits_the_configuration() -> None:
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface(review_config())
    task = to_task(ITEM)
    assert interface.validate_prediction(task["predictions"][0])


def annotation(rating: str | None, text: str | None) -> dict:
    result = []
    if rating:
        result.append({"from_name": "rating", "to_name": "scene", "type": "choices", "value": {"choices": [rating]}})
    if text is not None:
        result.append({"from_name": "reply", "to_name": "scene", "type": "textarea", "value": {"text": [text]}})
    return {"id": 7, "result": result}


def test_ratings_are_read_back() -> None:
    task = {"id": 3, **to_task(ITEM)}
    assert read_rating(task, annotation("惜しい", "どうぞ、これ。"), ITEM.reply).text == "どうぞ、これ。"
    assert read_rating(task, annotation("惜しい", None), ITEM.reply).text == ITEM.reply
    assert read_rating(task, annotation("だめ", "  "), ITEM.reply).text == ITEM.reply
    with pytest.raises(RecordError, match="review task 3, annotation 7: has no rating"):
        read_rating(task, annotation(None, "どうぞ。"), ITEM.reply)
