"""`aku backup`, `aku restore`, `aku doctor`: keeping a workspace safe and sound."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from aku.console import console, progress_bar
from dialogue.settings import Workspace


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("backup")(backup)
    app.command("restore")(restore)
    app.command("doctor")(doctor)


def backup(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="Archive to write, or a folder for it (default: backups/ in the workspace).")
    ] = None,
    without_secrets: Annotated[
        bool, typer.Option(help="Leave secrets.env out; the database keeps its own password hashes and tokens.")
    ] = False,
) -> None:
    """Write database, data sets, checkpoints, reports and settings into one archive, while people go on working."""
    from aku.backup import default_path, make_backup

    workspace: Workspace = context.obj
    with progress_bar() as bar:
        row = bar.add_task("backup", total=None)
        made = make_backup(
            workspace,
            file or default_path(workspace),
            secrets=not without_secrets,
            progress=lambda done, total: bar.update(row, completed=done, total=total),
        )
    megabytes = made.path.stat().st_size / 1e6
    console.print(f"{made.path}  {megabytes:.1f} MB", soft_wrap=True, markup=False)
    _describe(made.manifest)
    if made.path.is_relative_to(workspace.home):
        console.print("  It lies on the same disk as what it saves: copy it to another one.", style="yellow")


def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Archive that `aku backup` wrote.")],
    home: Annotated[Path | None, typer.Option(help="Empty workspace to fill (default: the --home of `aku`).")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only see whether the archive is whole.")] = False,
) -> None:
    """Fill an empty workspace from an archive; nothing is ever overwritten."""
    from aku.restore import restore as fill
    from aku.restore import verify

    workspace: Workspace = Workspace(home.absolute()) if home else context.obj
    with progress_bar() as bar:
        row = bar.add_task("check" if check else "restore", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(row, completed=done, total=total)

        manifest = verify(file, progress=progress) if check else fill(file, workspace, progress=progress)
    console.print(f"{file} is whole" if check else f"{workspace.home}", soft_wrap=True, markup=False)
    _describe(manifest)
    if not check:
        if not manifest["secrets"]:
            console.print("  Put secrets.env back before `aku up`: it was left out of the backup.", style="yellow")
        console.print("  `aku up` starts the studio, `aku doctor` looks it over.")


def doctor(
    context: typer.Context,
    json_: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look everything over and say how to mend what is wrong; exits with 1 if something must be mended."""
    import dataclasses
    import json

    from aku.doctor import examine, has_failed, show

    with console.status("Looking everything over …"):
        findings = list(examine(context.obj))
    if json_:
        rows = [dataclasses.asdict(finding) for finding in findings]
        console.print(json.dumps(rows, ensure_ascii=False, indent=2), markup=False, soft_wrap=True)
    else:
        show(findings)
    if has_failed(findings):
        raise typer.Exit(1)


def _describe(manifest: dict[str, Any]) -> None:
    facts = manifest["database"]
    counts = ", ".join(f"{facts[name]} {name}" for name in ("tasks", "annotations", "drafts") if name in facts)
    number = len(manifest["files"])
    console.print(
        f"  made {manifest['created_at']} by {manifest['product']}: {number} files; {counts or 'no database'}"
    )
    for base in manifest["outside"]:
        console.print(f"  not in it, since it lies elsewhere: the base model {base}", style="yellow", markup=False)
