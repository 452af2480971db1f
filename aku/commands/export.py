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
    version: Annotated[
        str | None, typer.Option(help="Make nothing new: write formats of this version, or push it.")
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="Also write: memo, messages, steerlm, preferences, parquet, csv. Repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for formats (default: datasets/formats/ in the workspace).")
    ] = None,
    push_to_hub: Annotated[
        str | None, typer.Option(help="Push records and card to this repository (owner/name) of the Hugging Face Hub.")
    ] = None,
    public: Annotated[bool, typer.Option(help="If the repository is made now, make it public.")] = False,
    with_personal_data: Annotated[
        bool, typer.Option(help="Push even though passages look like personal data.")
    ] = False,
    strict: Annotated[bool, typer.Option(help="Exit with 1 if an annotation is broken.")] = False,
) -> None:
    """Make a data set version from the finished annotations: splits, checks, card."""
    from exporters import ExportSettings, get_version
    from exporters.formats import check_formats, write_format

    workspace: Workspace = context.obj
    check_formats(formats or [])
    made = get_version(workspace.datasets, version) if version else make_version(workspace, file)
    show(made)
    settings = load_section(workspace.settings, "export", ExportSettings)
    for name in formats or []:
        folder = (out or workspace.datasets / "formats" / made.id) / name
        rows = write_format(made, name, folder, preference_distance=settings.preference_distance)
        console.print(f"  {name}: {sum(rows.values())} rows  {folder}", soft_wrap=True, markup=False)
    if push_to_hub:
        from exporters.hub import push_to_hub as push

        address = push(made, push_to_hub, private=not public, personal_data=with_personal_data)
        console.print(f"  pushed: {address}", soft_wrap=True, markup=False)
    if strict and made.counts["rejected"]:
        raise typer.Exit(1)


def import_command(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="Canonical JSONL, or the folder of a data set version.")],
    as_cards: Annotated[bool, typer.Option(help="As cards to work on, not as finished annotations.")] = False,
) -> None:
    """Write canonical records into Label Studio; what is there already is skipped."""
    from aku.connection import connect
    from exporters import import_dialogues, read_import

    dialogues, drafts = read_import(path)
    connection = connect(context.obj)
    with progress_bar() as bar:
        row = bar.add_task("import", total=len(dialogues))
        result = import_dialogues(
            connection.client,
            connection.project,
            dialogues,
            as_cards=as_cards,
            drafts=drafts,
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
