"""`aku report`: where the data set leans, as a page."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Annotated

import typer

from aku.console import console
from dialogue import files
from dialogue.errors import FileError, SettingsError
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
    app.command("watch")(watch_command)


def report_command(
    context: typer.Context,
    data: Annotated[
        str | None, typer.Option(help="Data set version or canonical JSONL file (default: the latest version).")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="What stands in Label Studio now, without an export.")] = False,
    compare: Annotated[
        str | None, typer.Option(help="Show what changed since this data set version (or JSONL file).")
    ] = None,
    new_map: Annotated[
        bool, typer.Option("--new-map", help="Lay the meaning map out anew instead of adding to the last one.")
    ] = False,
) -> None:
    """Check the data set for bias and write a page that says what to do next."""
    workspace: Workspace = context.obj
    if live and data is not None:
        raise SettingsError("--live and --data exclude each other; choose one.")
    dataset = _live_dataset(workspace) if live else load_dataset(workspace, data)
    before = load_dataset(workspace, compare) if compare else None
    taxonomy = load_taxonomy(workspace.taxonomy)
    index = make_report(workspace, dataset, taxonomy, before=before, new_map=new_map)
    console.print(str(index), soft_wrap=True, markup=False)


def watch_command(
    context: typer.Context,
    interval: Annotated[
        float, typer.Option(min=1, help="Seconds after which to look even if no webhook told of a change.")
    ] = 15,
    once: Annotated[bool, typer.Option("--once", help="Show the numbers once and stop.")] = False,
) -> None:
    """Show genre, pairs, turns and length again within seconds of every finished dialogue."""
    from aku import watching
    from aku.connection import connect

    workspace: Workspace = context.obj
    connection = connect(workspace)
    if once:
        watching.show(watching.refresh(workspace, connection))
    else:
        console.print("Watching; stop with Ctrl+C.")
        watching.watch(workspace, connection, interval, lambda: True)


def make_report(
    workspace: Workspace,
    dataset: Dataset,
    taxonomy: Taxonomy,
    *,
    before: Dataset | None = None,
    new_map: bool = False,
) -> Path:
    """Measure, write the folder, note it as the latest, print the verdicts; returns the page's path."""
    import analysis
    from aku.commands.plan import read_contexts

    settings = load_section(workspace.settings, "report", analysis.ReportSettings)
    aims = load_section(workspace.settings, "plan", analysis.PlanSettings)
    scenes = read_contexts(workspace, aims)
    frozen = workspace.reports / "map.json"
    reference = None
    if frozen.exists() and not new_map:
        reference = analysis.ReferenceMap.from_json(files.read_json(frozen), str(frozen))
    with console.status("report") as status:

        def measure(chosen: Dataset, draw_map: bool) -> analysis.Report:
            return analysis.report(
                chosen.dialogues,
                taxonomy=taxonomy,
                settings=settings,
                plan_settings=aims,
                contexts=scenes,
                version=chosen.name,
                studio_url=_studio_url(workspace),
                reference=reference,
                draw_map=draw_map,
                progress=lambda step: status.update(f"report {chosen.name}: {step}"),
            )

        found = measure(dataset, True)
        if before is not None:
            found = analysis.with_comparison(found, measure(before, False))
        status.update("report: page and pictures")
        digest = hashlib.sha256(repr((dataset, before, settings, aims, taxonomy)).encode()).hexdigest()[:8]
        index = analysis.write_report(found, workspace.reports / f"{dataset.name}-{digest}")
    kept = analysis.reference_of(found)
    if kept is not None:
        files.write_json(frozen, kept.to_json())
    files.write_json(workspace.reports / "latest.json", {"path": str(index), "verdict": found.verdict.value})
    for view in found.views:
        style = _STYLE[view.verdict.value]
        console.print(f"  [{style}]{view.verdict.value:8}{view.verdict.word}[/]  {view.title}")
    return index


def _live_dataset(workspace: Workspace) -> Dataset:
    from aku.connection import connect
    from aku.live import live_dialogues

    return Dataset("live", live_dialogues(workspace, connect(workspace)))


def _studio_url(workspace: Workspace) -> str:
    path = workspace.state / "studio.json"
    facts = files.read_json(path) if path.exists() else {}
    return str(facts.get("public_url") or facts.get("url", ""))
