"""`aku export` and `aku import`: from Label Studio to a data set version, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aku.console import console, progress_bar
from dialogue.errors import SettingsError
from dialogue.genres import load_taxonomy
from dialogue.settings import Workspace, load_section

if TYPE_CHECKING:
    from exporters import DatasetVersion


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("export")(export_command)
    app.command("import")(import_command)


def export_command(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Option(help="Make the version from a canonical JSONL file instead of Label Studio.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Exit with 1 if an annotation is broken.")] = False,
) -> None:
    """Make a data set version from the finished annotations: splits, checks, card."""
    workspace: Workspace = context.obj
    version = make_version(workspace, file)
    show(version)
    if strict and version.counts["rejected"]:
        raise typer.Exit(1)


def import_command(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Canonical JSONL: train.jsonl of a version, or your own.")],
    as_cards: Annotated[bool, typer.Option(help="As cards to work on, not as finished annotations.")] = False,
) -> None:
    """Write canonical records into Label Studio; what is there already is skipped."""
    from aku.connection import connect
    from dialogue import read_dialogues
    from exporters import import_dialogues

    dialogues = read_dialogues(file)
    connection = connect(context.obj)
    with progress_bar() as bar:
        row = bar.add_task("import", total=len(dialogues))
        result = import_dialogues(
            connection.client,
            connection.project,
            dialogues,
            as_cards=as_cards,
            progress=lambda done, total: bar.update(row, completed=done, total=total),
        )
    console.print(f"{result.imported} imported, {result.skipped} were there already.")


def make_version(workspace: Workspace, file: Path | None = None) -> DatasetVersion:
    """Export the workspace's project, or a file, with a progress bar."""
    from exporters import ExportSettings, export_file, export_project

    settings = load_section(workspace.settings, "export", ExportSettings)
    taxonomy = load_taxonomy(workspace.taxonomy)
    with progress_bar() as bar:
        row = bar.add_task("export", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(row, completed=done, total=total)

        if file is not None:
            return export_file(file, workspace.datasets, settings, taxonomy=taxonomy, progress=progress)
        from aku.connection import connect

        connection = connect(workspace)
        salt = workspace.read_secrets().get("PSEUDONYM_SALT")
        if not salt:
            raise SettingsError(f"{workspace.secrets}: holds no PSEUDONYM_SALT; run `aku up` to complete it.")
        return export_project(
            connection.client,
            connection.project,
            workspace.datasets,
            settings,
            taxonomy=taxonomy,
            url=connection.url,
            pseudonym_salt=salt,
            progress=progress,
        )


def show(version: DatasetVersion) -> None:
    """Print a version's counts and findings."""
    manifest = version.manifest
    counts, findings = version.counts, manifest["findings"]
    console.print(f"version {version.id}  {version.path}", soft_wrap=True, markup=False)
    console.print(f"  train {counts['train']}, validation {counts['validation']}, test {counts['test']}")
    if counts["rejected"]:
        console.print(f"  [red]{counts['rejected']} broken annotations[/]: see rejected.jsonl")
    for kind in ("review", "superseded"):
        if number := sum(manifest["rejected"].get(kind, {}).values()):
            console.print(f"  {number} set aside ({kind})")
    if findings["duplicates"] or findings["personal_data"]:
        console.print(
            f"  [yellow]{findings['duplicates']} near-duplicate pairs, {findings['personal_data']} passages that look "
            "like personal data[/]: see checks.json"
        )
