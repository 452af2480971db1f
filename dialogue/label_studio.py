"""Dialogue ⇄ Label Studio: the one file that knows the names in `labeling_config.xml`.

Words of Label Studio for its things (task, annotation, prediction, result), ours for ours (context,
conversation, attribute).  On the screen a conversation always begins with a User box; a dialogue
that Aku begins leaves it blank.  There are always `MAX_TURNS` boxes, `turn_0` to `turn_29`; the style
sheet shows the planned ones and opens one more as the last one is filled.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dialogue.errors import RecordError
from dialogue.genres import Taxonomy
from dialogue.migrations import CONFIG_FORMAT, check_format, config_class
from dialogue.records import SPEAKERS, Attribute, Dialogue, Source, Turn, clean_text, validated

CONFIG_FILE = Path(__file__).parent.parent / "labeling_config.xml"
OBJECT_TAG = "card"
DECISIONS = ("合格", "保留", "不採用")
REASONS = ("不自然", "属性と違う", "専門的すぎる", "個人情報・不適切", "重複")
SCAFFOLD_VERSION = "scaffold"
MAX_TURNS = 30
_BOX = re.compile(r"turn_(\d+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """An assignment for an annotator: what Label Studio calls a task.

    `turns` are the planned boxes, blank where the text is still to be written; `opener` names the
    helper's answer that the first turn comes from; `record` holds a finished record's id and
    source, so that an imported dialogue keeps them.
    """

    text: str
    context: str
    attribute: Attribute
    genre: tuple[str, ...]
    turns: tuple[Turn, ...]
    opener: str | None = None
    record: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """What a result list holds: texts by box number, and the choices made (None where not chosen)."""

    context: str | None = None
    texts: Mapping[int, str] = dataclasses.field(default_factory=dict)
    closeness: int | None = None
    mood: int | None = None
    genre: tuple[str, ...] = ()
    decision: str | None = None
    reasons: tuple[str, ...] = ()
    origins: Mapping[int, str] = dataclasses.field(default_factory=dict)


def labeling_config(taxonomy: Taxonomy, path: Path = CONFIG_FILE) -> str:
    """Return the labelling configuration that a project is given.

    The taxonomy's topics become the genre choices, the Repeater is written out as `MAX_TURNS` boxes,
    the style rules that depend on a box's number are added, and the configuration's version stands
    among the classes of its outermost view.
    """
    tree = ET.parse(path)  # noqa: S314 - our own file, not untrusted input
    root = tree.getroot()
    for choices in root.iter("Choices"):
        if choices.get("name") == "genre":
            for child in list(choices):
                choices.remove(child)
            for name in taxonomy.names:
                ET.SubElement(choices, "Choice", value=name)
    for parent in list(root.iter("View")):
        for position, repeater in enumerate(list(parent)):
            if repeater.tag == "Repeater":
                parent.remove(repeater)
                flag = repeater.get("indexFlag", "{{idx}}")
                inner = "".join(ET.tostring(child, encoding="unicode") for child in repeater)
                for number in range(MAX_TURNS):
                    box = ET.fromstring(inner.replace(flag, str(number)))  # noqa: S314 - likewise
                    parent.insert(position + number, box)
    style = root.find("Style")
    if style is not None:
        style.text = (style.text or "") + _numbered_rules()
    root.set("className", config_class(root.get("className", "")))
    ET.indent(tree, "  ")
    return ET.tostring(root, encoding="unicode") + "\n"


def _numbered_rules() -> str:
    """CSS that hides the boxes after the planned ones until asked for, and marks the model's turns.

    No child combinator: Label Studio hands the style sheet on with `>` still escaped.
    """
    rules = []
    for planned in range(1, MAX_TURNS):
        hidden = f".aku:not(:has(details[open])):has(.aku-plan-{planned}) .aku-turn:nth-of-type(n+{planned + 1})"
        rules.append(f"    {hidden} {{ display: none; }}")
    for number in range(MAX_TURNS):
        for kind, label, colour in (
            ("draft", "AIの下書きのまま", "#8a6d00"),
            ("changed", "AIの下書きを修正", "#2e7d32"),
        ):
            badge = f'::after {{ content: "{label}"; background: {colour}; }}'
            rules.append(f"    .aku:has(.aku-{kind}-{number}) .aku-turn-{number}{badge}")
    return "\n" + "\n".join(rules) + "\n  "


def plan_html(planned: int, boxes: int, drafted: Mapping[int, bool] | None = None) -> str:
    """Return the small HTML beside the card: planned length, a switch for more boxes, marks of the model's turns.

    `drafted` says by box number whether the model's text was changed by a person.
    """
    marks = [f"aku-{'changed' if changed else 'draft'}-{number}" for number, changed in sorted((drafted or {}).items())]
    classes = " ".join(["aku-plan", f"aku-plan-{boxes}", *marks])
    return f'<span class="{classes}">予定 {planned} ターン</span><details><summary>もっと書く</summary></details>'


def blank_turns(count: int, texts: Sequence[str] = ()) -> tuple[Turn, ...]:
    """Return `count` boxes, User first and alternating, the first ones filled with `texts`."""
    filled = [*texts, *[""] * (count - len(texts))]
    return tuple(Turn(SPEAKERS[i % 2], text) for i, text in enumerate(filled))


def screen_turns(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Return turns as boxes: a blank User box in front if Aku begins."""
    return (Turn("User", ""), *turns) if turns and turns[0].speaker == "Aku" else tuple(turns)


def to_task(card: Card) -> dict[str, Any]:
    """Return the task data that Label Studio stores and shows."""
    turns = screen_turns(card.turns)
    data: dict[str, Any] = {
        "card": card.text,
        "context": card.context,
        "closeness": card.attribute.closeness,
        "mood": card.attribute.mood,
        "genre": list(card.genre),
        "turns": [{"speaker": turn.speaker, "text": turn.text} for turn in turns],
        "plan": plan_html(len(card.turns), len(turns)),
    }
    if card.opener is not None:
        data["opener"] = card.opener
    if card.record is not None:
        data["record"] = dict(card.record)
    return data


def from_task(data: Mapping[str, Any], where: str = "task") -> Card:
    """Read task data.

    Raises `RecordError` when `turns` or the attributes are missing or malformed, or a later release made the task.
    """
    check_format(data, CONFIG_FORMAT, where, functools.partial(RecordError, "format"))
    turns = data.get("turns")
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise RecordError(
            "task", f'{where}: has no "turns" list; make cards with `aku plan` or add it to the task data.'
        )
    speakers = [turn.get("speaker") if isinstance(turn, Mapping) else None for turn in turns]
    if any(s not in SPEAKERS for s in speakers) or any(a == b for a, b in itertools.pairwise(speakers)):
        raise RecordError("task", f'{where}: the speakers in "turns" must alternate between User and Aku.')
    levels = (data.get("closeness"), data.get("mood"))
    if any(isinstance(x, bool) or not isinstance(x, int) or not 0 <= x <= 4 for x in levels):
        raise RecordError("task", f"{where}: closeness and mood must be whole numbers from 0 to 4, found {levels}.")
    genre = data.get("genre") or ()
    record = data.get("record")
    return Card(
        text=str(data.get("card") or ""),
        context=clean_text(str(data.get("context") or "")),
        attribute=Attribute(*levels),  # type: ignore[arg-type]  # both checked above
        genre=(genre,) if isinstance(genre, str) else tuple(str(g) for g in genre),
        turns=tuple(Turn(s, clean_text(str(t.get("text") or ""))) for s, t in zip(speakers, turns, strict=True)),  # type: ignore[arg-type]  # checked above
        opener=data.get("opener"),
        record=record if isinstance(record, Mapping) else None,
    )


def to_result(
    turns: Sequence[Turn], *, context: str, attribute: Attribute, genre: Sequence[str], fill: bool = False
) -> list[dict[str, Any]]:
    """Return Label Studio's result list for boxes `turns` (User first), blank ones included.

    With `fill` the boxes after the last turn are added as blank ones, up to `MAX_TURNS`.
    """
    texts = [turn.text for turn in turns]
    texts += [""] * (MAX_TURNS - len(texts)) if fill else []
    result = [_textarea("context", context)]
    result += [_textarea(f"turn_{number}", text) for number, text in enumerate(texts)]
    result.append(_choices("closeness", [str(attribute.closeness)]))
    result.append(_choices("mood", [str(attribute.mood)]))
    if genre:
        result.append(_choices("genre", list(genre)))
    return result


def to_prediction(
    card: Card, turns: Sequence[Turn], *, version: str, score: float = 0.0, taxonomy: Taxonomy | None = None
) -> dict[str, Any]:
    """Return a prediction row: the card's context, attributes and genre with `turns` in the boxes.

    Blank boxes are kept: they make every box an editable region that is saved when it loses focus.
    Genres that are not on the screen are left out, since Label Studio refuses unknown choices.
    """
    genre = [g for g in card.genre if taxonomy is None or g in taxonomy.names]
    result = to_result(turns, context=card.context, attribute=card.attribute, genre=genre, fill=True)
    return {"result": result, "score": score, "model_version": version}


def scaffold(card: Card, version: str = SCAFFOLD_VERSION, taxonomy: Taxonomy | None = None) -> dict[str, Any]:
    """Return the prediction row that drafts nothing: the plan and known texts in editable boxes."""
    return to_prediction(card, card.turns, version=version, taxonomy=taxonomy)


def to_annotation(dialogue: Dialogue) -> dict[str, Any]:
    """Return a finished annotation that holds exactly this record."""
    result = to_result(
        screen_turns(dialogue.conversation),
        context=dialogue.context,
        attribute=dialogue.attribute,
        genre=dialogue.genre,
    )
    if dialogue.source.decision:
        result.append(_choices("decision", [dialogue.source.decision]))
    return {"result": result, "lead_time": dialogue.source.lead_time, "was_cancelled": False}


def card_from_dialogue(dialogue: Dialogue, text: str = "") -> Card:
    """Return the card under which a finished record stands in Label Studio; it keeps id and source."""
    source = dialogue.to_dict()["source"]
    return Card(
        text=text or f"完成済みの会話（{len(dialogue.conversation)}ターン）",
        context=dialogue.context,
        attribute=dialogue.attribute,
        genre=dialogue.genre,
        turns=dialogue.conversation,
        opener=dialogue.source.opener,
        record={"id": dialogue.id, "source": source},
    )


def read_result(result: Iterable[Mapping[str, Any]]) -> Written:
    """Read a result list (annotation, draft, prediction or interactive context); unknown names are ignored."""
    context: str | None = None
    texts: dict[int, str] = {}
    origins: dict[int, str] = {}
    chosen: dict[str, list[str]] = {}
    for item in result:
        name, value = str(item.get("from_name", "")), item.get("value") or {}
        if not isinstance(value, Mapping):
            continue
        if "choices" in value and isinstance(value["choices"], Sequence):
            chosen[name] = [str(choice) for choice in value["choices"]]
        elif "text" in value:
            raw = value["text"]
            text = "\n".join(map(str, raw)) if isinstance(raw, (list, tuple)) else str(raw)
            if name == "context":
                context = text
            elif box := _BOX.fullmatch(name):
                number = int(box[1])
                texts[number] = text
                origins[number] = str(item.get("origin") or "manual")
    return Written(
        context=context,
        texts=texts,
        closeness=_level(chosen.get("closeness")),
        mood=_level(chosen.get("mood")),
        genre=tuple(chosen.get("genre", ())),
        decision=next(iter(chosen.get("decision", ())), None),
        reasons=tuple(chosen.get("reasons", ())),
        origins=origins,
    )


def boxes(card: Card, texts: Mapping[int, str]) -> list[Turn]:
    """Return all boxes up to the last planned or written one, with what stands in them."""
    count = max([len(card.turns), *(number + 1 for number, text in texts.items() if text.strip())])
    first = SPEAKERS.index(card.turns[0].speaker)
    return [Turn(SPEAKERS[(first + i) % 2], texts.get(i, "")) for i in range(count)]


def from_annotation(
    task: Mapping[str, Any], annotation: Mapping[str, Any], source: Source | None = None, where: str = ""
) -> Dialogue:
    """Return the record that a finished annotation holds.

    `task` and `annotation` are Label Studio's JSON objects.  `source` overrides what is derived from
    them.  Attributes not chosen are taken from the card; blank boxes in front and at the end are dropped.
    Raises `RecordError` naming task and annotation.
    """
    where = where or f"task {task.get('id')}, annotation {annotation.get('id')}"
    card = from_task(task.get("data") or {}, where)
    written = read_result(annotation.get("result") or ())
    turns = boxes(card, written.texts)
    while turns and not turns[0].text.strip():
        turns.pop(0)
    record = card.record or {}
    return validated(
        Dialogue(
            id=str(record.get("id") or f"ls-{task.get('project') or 0}-{task.get('id')}"),
            context=card.context if written.context is None else written.context,
            conversation=tuple(turns),
            attribute=Attribute(
                card.attribute.closeness if written.closeness is None else written.closeness,
                card.attribute.mood if written.mood is None else written.mood,
            ),
            genre=written.genre or card.genre,
            source=source or Source(annotation=annotation.get("id"), task=task.get("id"), decision=written.decision),
        ),
        where,
    )


def _textarea(name: str, text: str) -> dict[str, Any]:
    return {"id": name, "from_name": name, "to_name": OBJECT_TAG, "type": "textarea", "value": {"text": [text]}}


def _choices(name: str, choices: list[str]) -> dict[str, Any]:
    return {"id": name, "from_name": name, "to_name": OBJECT_TAG, "type": "choices", "value": {"choices": choices}}


def _level(choices: Sequence[str] | None) -> int | None:
    return int(choices[0][0]) if choices and choices[0][:1].isdigit() else None
