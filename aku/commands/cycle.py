"""`aku cycle`: the whole loop once, or whenever enough is new."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aku.console import console
from dialogue.settings import Workspace


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("cycle")(cycle_command)


def cycle_command(
    context: typer.Context,
    base: Annotated[Path | None, typer.Option(help="Base model directory, needed for the first training only.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and go round whenever enough is new.")] = False,
) -> None:
    """Export, train if enough is new, evaluate, decide, draft, report, plan; each step only if something changed."""
    from aku import cycle
    from aku.cycle_page import write_page

    workspace: Workspace = context.obj
    if watch:
        console.print("Watching; Ctrl-C ends it, everything done is kept.")
        cycle.watch(workspace, base)
        return
    page = write_page(workspace, cycle.run(workspace, base))
    console.print(str(page), soft_wrap=True, markup=False)
