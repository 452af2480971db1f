"""`aku report`: where the data set leans, as a page."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Annotated

import typer

from aku.console import console
from dialogue import files
from dialogue.errors import FileError
from dialogue.genres import Taxonomy, load_taxonomy
from dialogue.records import Dialogue, iter_dialogues
from dialogue.settings import Workspace, load_section

SPLITS = ("train", "validation", "test")
_STYLE = {"OK": "green", "WATCH": "yellow", "FIX": "red", "UNKNOWN": "dim"}


@dataclasses.dataclass(frozen=True, slots=True)
class Dataset:
    """Dialogues and the name of the version or file they come from."""

    name: str
    dialogues: list[Dialogue]


def load_dataset(workspace: Workspace, data: str | None = None) -> Dataset:
    """Read a data set version (default: the latest) or a canonical JSONL file.

    Raises `FileError` if there is none yet, `RecordError` for a broken record.
    """
    if data is not None and Path(data).is_file():
        return Dataset(Path(data).stem, list(iter_dialogues(Path(data))))
    version = data
    if version is None:
        latest = workspace.datasets / "latest.json"
        if not latest.exists():
            raise FileError(
                f"{latest}: there is no data set version yet; run `aku export`, or name a file with --data."
            )
        version = str(files.read_json(latest)["id"])
    folder = workspace.datasets / version
    if not re.fullmatch(r"[0-9A-Za-z._-]+", version) or not folder.is_dir():
        raise FileError(f"{version}: neither a JSONL file nor a data set version in {workspace.datasets}.")
    paths = [folder / f"{split}.jsonl" for split in SPLITS]
    return Dataset(version, [d for path in paths if path.exists() for d in iter_dialogues(path)])


def latest_dialogues(workspace: Workspace) -> list[Dialogue]:
    """All dialogues of the newest data set version; none if nothing was exported yet."""
    return load_dataset(workspace).dialogues if (workspace.datasets / "latest.json").exists() else []


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("report")(report_command)


def report_command(
    context: typer.Context,
    data: Annotated[
        str | None, typer.Option(help="Data set version or canonical JSONL file (default: the latest version).")
    ] = None,
) -> None:
    """Check the data set for bias and write a page that says what to do next."""
    workspace: Workspace = context.obj
    dataset = load_dataset(workspace, data)
    index = make_report(workspace, dataset, load_taxonomy(workspace.taxonomy))
    console.print(str(index), soft_wrap=True, markup=False)


def make_report(workspace: Workspace, dataset: Dataset, taxonomy: Taxonomy) -> Path:
    """Measure, write the folder, note it as the latest, print the verdicts; returns the page's path."""
    import analysis
    from aku.commands.plan import read_contexts

    settings = load_section(workspace.settings, "report", analysis.ReportSettings)
    aims = load_section(workspace.settings, "plan", analysis.PlanSettings)
    with console.status("report") as status:
        found = analysis.report(
            dataset.dialogues,
            taxonomy=taxonomy,
            settings=settings,
            plan_settings=aims,
            contexts=read_contexts(workspace, aims),
            version=dataset.name,
            progress=lambda step: status.update(f"report: {step}"),
        )
        status.update("report: page and pictures")
        facts = [[d.to_dict() for d in dataset.dialogues], repr(settings), repr(aims), repr(taxonomy)]
        digest = hashlib.sha256(json.dumps(facts, ensure_ascii=False).encode()).hexdigest()[:8]
        index = analysis.write_report(found, workspace.reports / f"{dataset.name}-{digest}")
    files.write_json(workspace.reports / "latest.json", {"path": str(index), "verdict": found.verdict.value})
    for view in found.views:
        style = _STYLE[view.verdict.value]
        console.print(f"  [{style}]{view.verdict.value:8}{view.verdict.word}[/]  {view.title}")
    return index
