"""The review round: a small Label Studio project in which people rate or correct replies without knowing whose.

A round's folder under `reviews/` holds `items.jsonl` (the key: who wrote which reply), `round.json`, and,
once it is closed, `ratings.jsonl`, which the gate reads, and `summary.json`.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aku.connection import Connection, connect
from aku.evaluation import read_material
from aku.evaluation_files import Material
from aku.gatekeeping import now
from aku.replies import PAIRS, Moment, Progress, make_drafter, moments
from analysis.gate_settings import GateSettings
from dialogue import files
from dialogue.checkpoints import Checkpoint
from dialogue.errors import FileError, LabelStudioError, RecordError, SettingsError
from dialogue.records import Attribute, Turn
from dialogue.review_project import VERSION, Rating, ReviewItem, read_rating, review_config, to_task
from dialogue.settings import Workspace, load_section
from dialogue.text import edit_distance

if TYPE_CHECKING:
    from analysis.review import Round

HUMAN = "human"
INSTRUCTION = (
    "場面と会話を読み、Aku の返事を評価してください。直せるところは直してください。"
    "書いたのが人かモデルかは伏せてあります。"
)
_PAGE = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Progressed:
    """How far an open round is: items rated at least once, ratings, people, items in all."""

    rated: int
    ratings: int
    people: int
    items: int


def rounds_of(workspace: Workspace) -> Path:
    """Where review rounds lie."""
    return workspace.home / "reviews"


def open_round(workspace: Workspace) -> Path | None:
    """Return the folder of the round that is open, if one is."""
    found = [p.parent for p in sorted(rounds_of(workspace).glob("*/round.json")) if _facts(p.parent)["open"]]
    return found[-1] if found else None


def start(
    workspace: Workspace,
    checkpoint: Checkpoint,
    *,
    replies: int | None = None,
    human: int | None = None,
    progress: Progress | None = None,
) -> tuple[Path, str]:
    """Draft replies, hide human turns among them, make the project; returns the round's folder and its address.

    Raises `SettingsError` while another round is open, `FileError` when there is nothing to reply to,
    `LabelStudioError` when the server is down.
    """
    running = open_round(workspace)
    if running is not None:
        raise SettingsError(f"the review round {running.name} is still open; close it first: `aku review close`.")
    connection = connect(workspace)
    settings = load_section(workspace.settings, "gate", GateSettings)
    material = read_material(workspace, checkpoint)
    by_model, by_people = choose(
        workspace,
        material,
        settings.review_replies if replies is None else replies,
        settings.review_human if human is None else human,
        settings.seed,
    )
    if not by_model:
        raise FileError(f"{workspace.datasets}: holds no scene to reply to; write more dialogues, then `aku export`.")
    texts = draft(workspace, checkpoint, by_model, settings, progress)
    stamp = now().replace(":", "").replace("-", "").replace("+0000", "Z")
    rows = shuffled_items(by_model, texts, by_people, checkpoint.id, f"{settings.seed}/{stamp}")
    folder = rounds_of(workspace) / f"{stamp}-{checkpoint.id}"
    project = make_project(workspace, connection, rows, checkpoint, stamp, settings)
    files.write_jsonl(folder / "items.jsonl", rows)
    facts = {"open": True, "project": project, "checkpoint": checkpoint.id, "dataset": material.dataset}
    files.write_json(folder / "round.json", {**facts, "started_at": now(), "closed_at": None})
    return folder, f"{connection.url}/projects/{project}/data"


def choose(
    workspace: Workspace, material: Material, replies: int, human: int, seed: int
) -> tuple[list[Moment], list[Moment]]:
    """Choose the moments models and people reply to, all different.

    Held-out dialogues give both; where they have too few turns, scenes that nobody has written about
    yet are added for the model, each under an attribute pair drawn at random.
    """
    from aku.evaluation import unwritten_scenes

    pool = moments(material.held_out, replies + human, seed)
    by_people = pool[: min(human, len(pool) // 2)]
    by_model = pool[len(by_people) :][:replies]
    chance = random.Random(f"review/{seed}")  # noqa: S311 - a sample, not a secret
    scenes = unwritten_scenes(workspace, material)
    for scene in chance.sample(scenes, min(len(scenes), replies - len(by_model))):
        pair = Attribute(*chance.choice(PAIRS))
        by_model.append(Moment(scene.id, scene.context, pair, (Turn("User", scene.turns[0].text),), ""))
    return by_model, by_people


def draft(
    workspace: Workspace,
    checkpoint: Checkpoint,
    chosen: Sequence[Moment],
    settings: GateSettings,
    progress: Progress | None,
) -> list[str]:
    """Let the checkpoint write each moment's turn: the likeliest of `candidates` tries."""
    from ml_backend.settings import BackendSettings

    backend = load_section(workspace.settings, "backend", BackendSettings)
    drafter = make_drafter(checkpoint, dataclasses.replace(backend, candidates=settings.candidates))
    done = 0

    def advance(*_: object) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(chosen), "drafting replies")

    drafts = drafter.draft([moment.request(settings.seed) for moment in chosen], advance)
    return [found.turns[-1].text.strip() for found in drafts]


def shuffled_items(
    by_model: Sequence[Moment], texts: Sequence[str], by_people: Sequence[Moment], checkpoint: str, seed: str
) -> list[dict[str, Any]]:
    """Return the round's items in random order under ids that tell nothing; the origin is the key to them."""
    pairs = [(moment, text, checkpoint) for moment, text in zip(by_model, texts, strict=True)]
    pairs += [(moment, moment.human, HUMAN) for moment in by_people]
    random.Random(f"items/{seed}").shuffle(pairs)  # noqa: S311 - an order, not a secret
    return [
        {
            "item": f"r{number:03d}",
            "origin": origin,
            "moment": moment.id,
            "context": moment.context,
            "attribute": dataclasses.asdict(moment.attribute),
            "before": [dataclasses.asdict(turn) for turn in moment.before],
            "reply": text,
        }
        for number, (moment, text, origin) in enumerate(pairs)
    ]


def item_of(row: Mapping[str, Any]) -> ReviewItem:
    """Read one line of `items.jsonl`."""
    before = tuple(Turn(turn["speaker"], turn["text"]) for turn in row["before"])
    return ReviewItem(row["item"], row["context"], Attribute(**row["attribute"]), before, row["reply"])


def make_project(
    workspace: Workspace,
    connection: Connection,
    rows: Sequence[Mapping[str, Any]],
    checkpoint: Checkpoint,
    stamp: str,
    settings: GateSettings,
) -> int:
    """Make the round's Label Studio project and its tasks; returns the project's id.

    An empty reply is not shown: it counts as だめ when the round is closed.
    """
    from aku.provision import api
    from exporters.studio import retrying

    created = retrying(
        lambda: connection.client.projects.create(
            title=f"Aku レビュー {stamp[:13]}",
            label_config=review_config(),
            color="#D9488B",
            show_collab_predictions=True,
            expert_instruction=INSTRUCTION,
        )
    )
    project = int(created.id)
    with api(workspace, connection.url) as http:
        response = http.patch(
            f"/api/projects/{project}",
            json={
                "maximum_annotations": 2,
                "overlap_cohort_percentage": settings.review_overlap,
                "show_skip_button": False,
                "enable_empty_annotation": False,
            },
        )
        if response.status_code >= 400:
            raise LabelStudioError(f"Label Studio refuses the review project ({response.status_code}); see its log.")
    tasks = [to_task(item_of(row)) for row in rows if row["reply"]]
    for start_ in range(0, len(tasks), _PAGE):
        part = tasks[start_ : start_ + _PAGE]
        retrying(lambda part=part: connection.client.projects.import_tasks(id=project, request=part))  # type: ignore[misc]
    if tasks:  # Label Studio takes a version only when a prediction has it
        retrying(lambda: connection.client.projects.update(id=project, model_version=VERSION))
    return project


def status(workspace: Workspace, folder: Path) -> Progressed:
    """Count an open round's ratings, without looking at whose replies they are for."""
    rows = list(_ratings(workspace, folder))
    return Progressed(
        len({row["item"] for row in rows}),
        len(rows),
        len({row["annotator"] for row in rows}),
        sum(1 for _ in files.read_jsonl(folder / "items.jsonl")),
    )


def close(workspace: Workspace, folder: Path) -> Round:
    """Fetch the ratings, write `ratings.jsonl` and the summary, and close the round.

    The project stays in Label Studio.  Raises `RecordError` when nobody has rated anything.
    """
    from analysis.review import summarise

    rows = list(_ratings(workspace, folder))
    if not rows:
        raise RecordError("rating", f"{folder.name}: nobody has rated anything yet; `aku review status` shows where.")
    facts = _facts(folder)
    at = now()
    for _, item in files.read_jsonl(folder / "items.jsonl"):
        if not item["reply"]:
            row = {"item": item["item"], "origin": item["origin"], "rating": "だめ", "text": "", "distance": 1.0}
            rows.append({**row, "annotator": None, "at": at, "lead_time": None})
    files.write_jsonl(folder / "ratings.jsonl", rows)
    outcome = summarise(rows)
    files.write_json(folder / "summary.json", outcome.to_dict())
    files.write_json(folder / "round.json", {**facts, "open": False, "closed_at": at})
    return outcome


def _ratings(workspace: Workspace, folder: Path) -> list[dict[str, Any]]:
    """Read all finished annotations of a round's project; people get the pseudonyms of the data set."""
    from exporters import studio as pages
    from exporters.provenance import pseudonym

    connection = connect(workspace)
    salt = workspace.read_secrets().get("PSEUDONYM_SALT", "")
    items = {row["item"]: row for _, row in files.read_jsonl(folder / "items.jsonl")}
    found = []
    for page in pages.iter_tasks(connection.client, int(_facts(folder)["project"]), size=_PAGE):
        for task in page.tasks:
            item = items.get(str((task.get("data") or {}).get("item")))
            for annotation in task.get("annotations") or ():
                if item is None or annotation.get("was_cancelled"):
                    continue
                rating = read_rating(task, annotation, item["reply"])
                found.append(_row(item, rating, annotation, pseudonym(annotation.get("completed_by"), salt)))
    return sorted(found, key=lambda row: (row["at"], row["item"]))


def _row(item: Mapping[str, Any], rating: Rating, annotation: Mapping[str, Any], person: str | None) -> dict[str, Any]:
    corrected = rating.text != item["reply"]
    return {
        "item": item["item"],
        "origin": item["origin"],
        "rating": rating.rating,
        "text": rating.text,
        "distance": round(edit_distance(item["reply"], rating.text), 4) if corrected else None,
        "annotator": person,
        "at": str(annotation.get("created_at")),
        "lead_time": annotation.get("lead_time"),
    }


def _facts(folder: Path) -> dict[str, Any]:
    return dict(files.read_json(folder / "round.json"))
