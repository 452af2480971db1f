"""Which annotation becomes a record, with which provenance, and why the others do not."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialogue import Attribute, Dialogue, Source, Turn, label_studio
from exporters.annotations import Accepted, Reader, Rejected
from exporters.imports import to_import
from exporters.provenance import Draft, pseudonym, read_journal
from exporters.settings import ExportSettings

URL = "http://127.0.0.1:8080"
CARD = label_studio.Card(
    text="カード",
    context="夜の駅で",
    attribute=Attribute(2, 3),
    genre=("趣味",),
    turns=label_studio.blank_turns(4, ["こんばんは"]),
    opener="ab12:author9",
)
TURNS = (Turn("User", "こんばんは"), Turn("Aku", "やあ、遅いね"), Turn("User", "残業でさ"), Turn("Aku", "おつかれ"))


def reader(**changes: Any) -> Reader:
    return dataclasses.replace(Reader(ExportSettings(), URL, 7, "salt"), **changes)


def annotation(
    turns: tuple[Turn, ...] = TURNS, *, id_: int = 5, decision: str | None = None, updated: str = "1", **more: Any
) -> dict[str, Any]:
    result = label_studio.to_result(turns, context="夜の駅で", attribute=Attribute(2, 3), genre=("趣味",))
    if decision:
        result.append({"from_name": "decision", "to_name": "card", "type": "choices", "value": {"choices": [decision]}})
    row = {"id": id_, "result": result, "completed_by": 3, "lead_time": 61.5, "created_at": "2026-01-01T00:00:00Z"}
    return {**row, "updated_at": updated, "was_cancelled": False, "parent_prediction": None, **more}


def task(*annotations: dict[str, Any], card: label_studio.Card = CARD, **more: Any) -> dict[str, Any]:
    row = {"id": 41, "project": 7, "data": label_studio.to_task(card), "annotations": list(annotations)}
    return {**row, "predictions": [], **more}


def only(rows: Any) -> Any:
    (row,) = list(rows)
    return row


def test_a_record_tells_where_it_comes_from() -> None:
    row = only(reader().read(task(annotation(decision="合格"))))
    assert isinstance(row, Accepted)
    assert row.dialogue == Dialogue(
        id="ls-7-41",
        context="夜の駅で",
        conversation=TURNS,
        attribute=Attribute(2, 3),
        genre=("趣味",),
        source=Source(
            kind="manual",
            annotator=pseudonym(3, "salt"),
            annotation=5,
            opener="ab12:author9",
            lead_time=61.5,
            created_at="2026-01-01T00:00:00Z",
            project=7,
            task=41,
            decision="合格",
        ),
    )


def test_pseudonyms_hide_the_user_and_depend_on_the_salt() -> None:
    assert pseudonym(3, "a") == pseudonym({"id": 3, "email": "x@example.com"}, "a") != pseudonym(3, "b")
    assert pseudonym(3, "a") != pseudonym(4, "a")
    assert pseudonym(None, "a") is None


def test_drafted_turns_carry_checkpoint_and_edit_distance() -> None:
    drafted = (TURNS[0], Turn("Aku", "やあ、早いね"), Turn("User", ""), Turn("Aku", "おつかれ"))
    prediction = {
        "id": 9,
        "model_version": "0123456789ab",
        "result": label_studio.to_result(drafted, context="夜の駅で", attribute=Attribute(2, 3), genre=()),
    }
    row = only(reader().read(task(annotation(parent_prediction=9), predictions=[prediction])))
    assert row.dialogue.source.kind == "drafted"
    assert row.dialogue.source.checkpoint == "0123456789ab"
    assert row.dialogue.source.edits == (None, pytest.approx(1 / 6, abs=1e-4), None, 0.0)
    assert row.drafts == (Draft(1, "やあ、早いね", "0123456789ab"), Draft(3, "おつかれ", "0123456789ab"))


@pytest.mark.parametrize(("parent", "version"), [(None, "0123456789ab"), (8, "0123456789ab"), (9, "scaffold")])
def test_other_predictions_and_scaffolds_are_nobodys_draft(parent: int | None, version: str) -> None:
    prediction = label_studio.to_prediction(CARD, TURNS, version=version) | {"id": 9}
    row = only(reader().read(task(annotation(parent_prediction=parent), predictions=[prediction])))
    assert (row.dialogue.source.kind, row.dialogue.source.edits, row.drafts) == ("manual", (), ())


def test_a_blind_row_with_the_checkpoints_version_is_written_by_hand() -> None:
    prediction = label_studio.scaffold(CARD, version="0123456789ab") | {"id": 9}
    row = only(reader().read(task(annotation(parent_prediction=9), predictions=[prediction])))
    assert row.dialogue.source.kind == "manual"


def test_live_chat_drafts_come_from_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "drafts.jsonl"
    lines = [
        {"project": "7.100", "task": 41, "turn": 1, "text": "早い", "checkpoint": "aaaaaaaaaaaa", "at": "2026-01-01"},
        {"project": "7.100", "task": 41, "turn": 1, "text": "やあ", "checkpoint": "bbbbbbbbbbbb", "at": "2026-01-03"},
        {"project": "7.100", "task": 41, "turn": 1, "text": "古い", "checkpoint": "aaaaaaaaaaaa", "at": "2026-01-02"},
        {"project": "7.99", "task": 41, "turn": 3, "text": "別の", "checkpoint": "aaaaaaaaaaaa", "at": "2026-01-02"},
        {"project": "7.100", "task": 42, "turn": 3, "text": "別の", "checkpoint": "aaaaaaaaaaaa", "at": "2026-01-02"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + '\nnonsense\n[]\n{"task": 41, "turn": 3, "te', encoding="utf-8")
    journal = read_journal(path, "7.100")
    assert journal == {(41, 1): ("やあ", "bbbbbbbbbbbb"), (42, 3): ("別の", "aaaaaaaaaaaa")}
    row = only(reader(journal=journal).read(task(annotation())))
    assert row.dialogue.source.kind == "drafted"
    assert row.dialogue.source.checkpoint == "bbbbbbbbbbbb"
    assert row.drafts == (Draft(1, "やあ", "bbbbbbbbbbbb"),)
    assert read_journal(tmp_path / "absent", "7.100") == {}


def test_a_stored_draft_counts_before_the_journals() -> None:
    prediction = label_studio.to_prediction(
        CARD, (TURNS[0], Turn("Aku", "やあ、早いね"), Turn("User", ""), Turn("Aku", "")), version="0123456789ab"
    ) | {"id": 9}
    journal = {(41, 1): ("別", "bbbbbbbbbbbb"), (41, 3): ("おつ", "bbbbbbbbbbbb"), (41, 0): ("card", "bbbbbbbbbbbb")}
    row = only(reader(journal=journal).read(task(annotation(parent_prediction=9), predictions=[prediction])))
    assert [(d.turn, d.text) for d in row.drafts] == [(1, "やあ、早いね"), (3, "おつ")]


def test_drafts_count_turns_from_the_first_written_one() -> None:
    """A dialogue that Aku begins stands one box lower on the screen."""
    card = dataclasses.replace(CARD, turns=label_studio.blank_turns(4))
    boxes = (Turn("User", ""), Turn("Aku", "やあ"), Turn("User", "うん"), Turn("Aku", "ね"))
    prediction = label_studio.to_prediction(card, boxes, version="0123456789ab") | {"id": 9}
    row = only(reader().read(task(annotation(boxes, parent_prediction=9), card=card, predictions=[prediction])))
    assert [t.text for t in row.dialogue.conversation] == ["やあ", "うん", "ね"]
    assert [d.turn for d in row.drafts] == [0, 1, 2]


@pytest.mark.parametrize(
    ("accept", "decisions", "kept", "reasons"),
    [
        ("undecided", [None], 5, []),
        ("undecided", ["合格"], 5, []),
        ("undecided", ["保留"], None, ["保留"]),
        ("undecided", ["不採用"], None, ["不採用"]),
        ("approved", [None], None, ["undecided"]),
        ("approved", ["合格"], 5, []),
        ("undecided", [None, None], 6, ["superseded"]),
        ("undecided", ["合格", None], 5, ["superseded"]),
        ("undecided", ["合格", "合格"], 6, ["superseded"]),
        ("undecided", ["不採用", None], 6, ["不採用"]),
        ("undecided", [None, "不採用"], 5, ["不採用"]),
    ],
)
def test_decisions(accept: Any, decisions: list[str | None], kept: int | None, reasons: list[str]) -> None:
    """Annotation 6 was updated after annotation 5."""
    rows = [annotation(id_=5 + i, decision=d, updated=str(i)) for i, d in enumerate(decisions)]
    found = list(reader(settings=ExportSettings(accept=accept)).read(task(*rows)))
    assert [row.annotation for row in found if isinstance(row, Accepted)] == ([] if kept is None else [kept])
    rejected = [row for row in found if isinstance(row, Rejected)]
    assert [row.rule for row in rejected] == reasons
    assert all(row.kind in ("review", "superseded") for row in rejected)


def test_skipped_annotations_are_not_finished() -> None:
    assert list(reader().read(task(annotation(was_cancelled=True)))) == []


def without(name: str) -> dict[str, Any]:
    row = annotation()
    row["result"] = [item for item in row["result"] if item["from_name"] != name]
    return row


def changed(name: str, value: Any) -> dict[str, Any]:
    row = copy.deepcopy(annotation())
    for item in row["result"]:
        if item["from_name"] == name:
            item["value"] = value
    return row


MALFORMED = {
    "context": changed("context", {"text": ["  "]}),
    "turns": annotation((TURNS[0], Turn("Aku", ""), Turn("User", ""), Turn("Aku", ""))),
    "gap": annotation((TURNS[0], Turn("Aku", ""), *TURNS[2:])),
    "closeness": changed("closeness", {"choices": ["7"]}),
    "mood": changed("mood", {"choices": ["9"]}),
    "control": changed("turn_1", {"text": ["a\u0000b"]}),
    "length": changed("turn_1", {"text": ["あ" * 2001]}),
    "genre": changed("genre", {"choices": ["趣味", "音楽", "仕事"]}),
    "result": annotation() | {"result": "text"},
    "malformed": changed("closeness", {"choices": ["²"]}),
    "config": annotation()
    | {"result": [{"from_name": "user_0", "to_name": "chat", "type": "textarea", "value": {"text": ["やあ"]}}]},
}


@pytest.mark.parametrize("rule", MALFORMED)
def test_each_rule_rejects_with_reason_and_link(rule: str) -> None:
    row = only(reader().read(task(MALFORMED[rule])))
    assert isinstance(row, Rejected)
    assert (row.kind, row.rule, row.annotation) == ("broken", rule, 5)
    assert row.link == f"{URL}/projects/7/data?task=41"
    assert "task 41, annotation 5" in row.message
    json.dumps(row.to_dict(), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "data",
    [
        {"text": "x"},
        {**label_studio.to_task(CARD), "turns": []},
        {**label_studio.to_task(CARD), "closeness": 5},
        {**label_studio.to_task(CARD), "turns": [{"speaker": "User"}, {"speaker": "User"}]},
        {**label_studio.to_task(CARD), "record": {"id": "a\ud800", "source": {}}},
        {**label_studio.to_task(CARD), "record": {"id": "a", "source": ["no"]}},
        "text",
    ],
)
def test_foreign_tasks_are_rejected(data: Any) -> None:
    row = only(reader().read(task(annotation()) | {"data": data}))
    assert isinstance(row, Rejected)
    assert row.kind == "broken"
    json.dumps(row.to_dict(), ensure_ascii=False).encode()


def test_a_broken_annotation_does_not_hide_a_good_one() -> None:
    rows = list(reader().read(task(annotation(id_=5), MALFORMED["gap"] | {"id": 6, "updated_at": "9"})))
    assert [type(row) for row in rows] == [Rejected, Accepted]


def test_extra_controls_are_no_older_configuration() -> None:
    row = annotation()
    row["result"].append({"from_name": "note", "to_name": "card", "type": "textarea", "value": {"text": ["memo"]}})
    assert isinstance(only(reader().read(task(row))), Accepted)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["context", "turn_0", "turn_1", "turn_99999", "closeness", "mood", "genre", "decision", "x", ""]
)
ITEM = st.fixed_dictionaries(
    {
        "from_name": NAMES | JSON,
        "value": st.fixed_dictionaries({"text": JSON}) | st.fixed_dictionaries({"choices": JSON}) | JSON,
    }
)


@settings(max_examples=300, deadline=None)
@given(result=st.lists(ITEM | JSON, max_size=6) | JSON, record=JSON, data=st.none() | JSON)
def test_nothing_that_can_be_posted_stops_an_export(result: Any, record: Any, data: Any) -> None:
    given_data = {**label_studio.to_task(CARD), "record": record} if data is None else data
    for row in reader().read(task(annotation() | {"result": result}) | {"data": given_data}):
        if isinstance(row, Rejected):
            json.dumps(row.to_dict(), ensure_ascii=False).encode()
        else:
            assert Dialogue.from_dict(json.loads(json.dumps(row.dialogue.to_dict()))) == row.dialogue


# --- records that were imported ---------------------------------------------------------------------------------

ORIGINAL = Dialogue(
    "old-1",
    "港で",
    (Turn("Aku", "風が強いね"), Turn("User", "帽子が"), Turn("Aku", "飛んだね")),
    Attribute(4, 0),
    ("天気・季節", "旅行・お出かけ"),
    Source(
        kind="drafted",
        annotator="annotator-1",
        annotation=77,
        checkpoint="cccccccccccc",
        lead_time=12.0,
        created_at="2025-12-01T00:00:00Z",
        project=2,
        task=88,
        decision="合格",
        edits=(0.5, None, 0.0),
    ),
)
DRAFTS = (Draft(0, "風が弱いよ", "cccccccccccc"), Draft(2, "飛んだね", "cccccccccccc"))


def imported_task(dialogue: Dialogue = ORIGINAL) -> dict[str, Any]:
    row = json.loads(json.dumps(to_import(dialogue, drafts=DRAFTS)))
    return {
        "id": 41,
        "project": 7,
        "data": row["data"],
        "annotations": [a | {"id": 5, "completed_by": 1, "updated_at": "1"} for a in row["annotations"]],
    }


def test_an_untouched_import_keeps_id_source_and_drafts() -> None:
    assert only(reader().read(imported_task())) == Accepted(ORIGINAL, DRAFTS, 41, 5)


def test_a_decision_on_an_import_changes_the_decision_alone() -> None:
    given_task = imported_task(
        dataclasses.replace(ORIGINAL, source=dataclasses.replace(ORIGINAL.source, decision=None))
    )
    given_task["annotations"][0]["result"].append(
        {"from_name": "decision", "to_name": "card", "type": "choices", "value": {"choices": ["合格"]}}
    )
    assert only(reader().read(given_task)).dialogue == ORIGINAL


@pytest.mark.parametrize("name", ["context", "turn_1", "mood", "genre"])
def test_a_changed_import_keeps_its_id_and_kind_but_names_who_changed_it(name: str) -> None:
    given_task = imported_task()
    for item in given_task["annotations"][0]["result"]:
        if item["from_name"] == name:
            item["value"] = (
                {"choices": ["1" if name == "mood" else "音楽"]} if "choices" in item["value"] else {"text": ["新"]}
            )
    row = only(reader().read(given_task))
    assert row.dialogue.id == "old-1"
    assert (row.dialogue.source.kind, row.dialogue.source.checkpoint) == ("drafted", "cccccccccccc")
    assert (row.dialogue.source.annotator, row.dialogue.source.task) == (pseudonym(1, "salt"), 41)
    assert row.drafts == DRAFTS
    assert row.dialogue.source.edits == ((1.0, None, 0.0) if name == "turn_1" else (0.4, None, 0.0))


def test_a_card_made_from_a_record_keeps_the_id_and_gets_a_new_source() -> None:
    row = json.loads(json.dumps(to_import(ORIGINAL, as_card=True)))
    assert "annotations" not in row
    filled = label_studio.to_annotation(ORIGINAL) | {"id": 5, "completed_by": 3, "updated_at": "1"}
    found = only(reader().read({"id": 41, "project": 7, "data": row["data"], "annotations": [filled]}))
    assert found.dialogue.id == "old-1"
    assert (found.dialogue.source.kind, found.dialogue.source.annotator) == ("manual", pseudonym(3, "salt"))
