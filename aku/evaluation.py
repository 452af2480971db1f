"""`aku evaluate`: how well a checkpoint steers, ends, repeats, and how it reads beside people and its base.

Writes one folder under `evaluations/`, named after the checkpoint and everything the result depends
on, so that the same evaluation is not done twice:
`replies.jsonl`, `ceiling.jsonl` and `losses.jsonl` are what the gate reads; `evaluation.json` holds the
figures, `index.html` shows them, `control.png` is the heat map.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aku.evaluation_files import Material, blinded, write_evaluation
from aku.replies import Moment, Progress, Scene, make_drafter, moments, opening_scene, scene_of, steer
from analysis.gate_settings import GateSettings
from dialogue import files
from dialogue.checkpoints import Checkpoint, Registry
from dialogue.errors import CheckpointError, FileError
from dialogue.records import Dialogue
from dialogue.settings import Workspace, load_section

if TYPE_CHECKING:
    from ml_backend.drafting import Drafter
    from ml_backend.remote import RemoteDrafter
    from ml_backend.settings import BackendSettings

FORMAT = 1
SAMPLES = 6


def folder_of(workspace: Workspace) -> Path:
    """Where evaluations lie."""
    return workspace.home / "evaluations"


def newest(workspace: Workspace, checkpoint: str) -> Path | None:
    """Return the folder of a checkpoint's latest evaluation, if there is one."""
    found = [p.parent for p in folder_of(workspace).glob(f"{checkpoint}-*/evaluation.json")]
    return max(found, key=lambda p: (str(files.read_json(p / "evaluation.json")["made_at"]), p.name), default=None)


def evaluate(workspace: Workspace, checkpoint: Checkpoint, progress: Progress | None = None) -> Path:
    """Evaluate a checkpoint on the newest data set version; returns the folder, made or found.

    Raises `FileError` without a data set version or a held-out scene, `CheckpointError` for a
    checkpoint that can not be loaded.
    """
    from ml_backend.settings import BackendSettings

    settings = load_section(workspace.settings, "gate", GateSettings)
    backend = load_section(workspace.settings, "backend", BackendSettings)
    material = read_material(workspace, checkpoint)
    previous = previous_checkpoint(Registry(workspace.checkpoints), checkpoint)
    facts = [FORMAT, material.dataset, settings.scenes, settings.replies, settings.seed, backend.fingerprint()]
    facts.append(previous.id if previous else None)
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]
    target = folder_of(workspace) / f"{checkpoint.id}-{key}"
    if (target / "evaluation.json").exists():
        return target
    scenes = choose_scenes(workspace, material, settings)
    drafter = make_drafter(checkpoint, backend)
    said = steer(
        drafter,
        scenes,
        settings.replies,
        most_tokens=backend.max_new_tokens,
        seed=settings.seed,
        progress=progress,
    )
    chosen = moments(material.held_out, SAMPLES, settings.seed)
    texts = {checkpoint.id: write(drafter, chosen, settings.seed)}
    texts |= other_samples(checkpoint, previous, chosen, backend, settings.seed)
    del drafter
    run = {
        "format": FORMAT,
        "checkpoint": checkpoint.id,
        "dataset": material.dataset,
        "made_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": settings.seed,
        "scenes": [scene.id for scene in scenes],
        "generation": {
            "engine": backend.engine,
            "temperature": backend.temperature,
            "top_k": backend.top_k,
            "top_p": backend.top_p,
            "candidates": backend.candidates,
            "retries": backend.retries,
            "max_new_tokens": backend.max_new_tokens,
        },
    }
    with files.atomic_folder(target) as folder:
        write_evaluation(
            folder,
            checkpoint,
            material,
            said,
            samples=blinded(chosen, texts, settings.seed),
            settings=settings,
            device=backend.device,
            facts=run,
            progress=progress,
        )
    return target


def read_material(workspace: Workspace, checkpoint: Checkpoint) -> Material:
    """Read the newest version; held out is what lies in validation or test and was not trained on."""
    from aku.commands.report import load_dataset
    from exporters import latest_version

    version = latest_version(workspace.datasets)
    everything = load_dataset(workspace, version.id).dialogues
    trained = workspace.datasets / str(checkpoint.card.get("dataset", "")) / "train.jsonl"
    source = trained if trained.exists() else version.file("train")
    train = [Dialogue.from_dict(row, f"{source}, line {n}") for n, row in files.read_jsonl(source)]
    seen = {d.id for d in train}
    held_out = [
        d
        for split in ("validation", "test")
        if version.file(split).exists()
        for d in (Dialogue.from_dict(row, split) for _, row in files.read_jsonl(version.file(split)))
        if d.id not in seen and d.source.kind in ("manual", "starter")
    ]
    return Material(version.id, everything, [turn.text for d in train for turn in d.conversation], held_out)


def choose_scenes(workspace: Workspace, material: Material, settings: GateSettings) -> list[Scene]:
    """Draw held-out dialogues; where there are too few, add scenes with an opener that nobody has written yet.

    Raises `FileError` if there is no scene at all.
    """
    chance = random.Random(f"scenes/{settings.seed}")  # noqa: S311 - a sample, not a secret
    own = [scene_of(d) for d in material.held_out]
    chosen = chance.sample(own, min(settings.scenes, len(own)))
    if len(chosen) < settings.scenes:
        offered = unwritten_scenes(workspace, material)
        chosen += chance.sample(offered, min(settings.scenes - len(chosen), len(offered)))
    if not chosen:
        raise FileError(f"{workspace.datasets}: no held-out dialogue and no scene to answer; write more dialogues.")
    return chosen


def unwritten_scenes(workspace: Workspace, material: Material) -> list[Scene]:
    """Return the offered scenes that have an opener and that no dialogue of the data set is set in."""
    from aku.commands.plan import read_contexts
    from analysis.settings import PlanSettings

    known = {"".join(d.context.split()) for d in material.everything}
    offered = read_contexts(workspace, load_section(workspace.settings, "plan", PlanSettings))
    return [
        opening_scene(number, scene.context, scene.opener)
        for number, scene in enumerate(offered)
        if scene.opener and "".join(scene.context.split()) not in known
    ]


def previous_checkpoint(registry: Registry, checkpoint: Checkpoint) -> Checkpoint | None:
    """Return the checkpoint made last before this one, if any."""
    made = str(checkpoint.card.get("created_at", ""))
    earlier = [c for c in registry if c.id != checkpoint.id and str(c.card.get("created_at", "")) < made]
    return earlier[-1] if earlier else None


def write(drafter: Drafter | RemoteDrafter, chosen: Sequence[Moment], seed: int) -> list[str]:
    """Let a model write each moment's turn."""
    return [draft.turns[-1].text for draft in drafter.draft([moment.request(seed) for moment in chosen])]


def other_samples(
    checkpoint: Checkpoint,
    previous: Checkpoint | None,
    chosen: Sequence[Moment],
    backend: BackendSettings,
    seed: int,
) -> dict[str, list[str]]:
    """Let the base and the previous checkpoint write the same moments; one that can not be loaded is left out."""
    base = Checkpoint("base", Path(str(checkpoint.card.get("base", ""))), {"format": checkpoint.format})
    local = dataclasses.replace(backend, engine="local")
    found: dict[str, list[str]] = {}
    for other in (base, previous):
        if other is None or not other.path.is_dir():
            continue
        try:
            found[other.id] = write(make_drafter(other, local), chosen, seed)
        except CheckpointError:  # a base without the format's tokens, an adapter whose base is gone
            continue
    return found
