"""`aku init`, `aku up`, `aku demo`, `aku status`: the studio itself."""

from __future__ import annotations

from typing import Annotated

import typer

from aku.console import console
from dialogue.settings import Workspace

STOP_HINT = "Ctrl-C stops the studio; everything is kept."


def register(app: typer.Typer) -> None:
    """Add the studio's commands."""
    app.command("init")(init)
    app.command("up")(up)
    app.command("demo")(demo)
    app.command("status")(status)


def init(
    context: typer.Context,
    from_environment: Annotated[
        bool, typer.Option("--from-environment", help="Take secrets from environment variables of the same names.")
    ] = False,
) -> None:
    """Make the workspace: documented settings and secrets of its own."""
    import os

    from aku.servers import ensure_secrets
    from aku.settings import studio_settings, write_default_settings

    workspace: Workspace = context.obj
    write_default_settings(workspace)
    ensure_secrets(workspace, studio_settings(workspace).email, os.environ if from_environment else None)
    console.print(f"{workspace.settings}\n{workspace.secrets}", markup=False, soft_wrap=True)


def up(
    context: typer.Context,
    exit_: Annotated[bool, typer.Option("--exit", help="Stop again as soon as everything is up.")] = False,
) -> None:
    """Start Label Studio and the ML backend, bring the project up to date, and stay until Ctrl-C."""
    from aku.studio import running_studio, wait_for_interrupt

    workspace: Workspace = context.obj
    with running_studio(workspace) as studio:
        console.print(f"  Label Studio  {studio.url}/projects/{studio.project}/data", markup=False)
        console.print(
            "  `aku plan --protocol starter --push` makes the first ten cards, `aku status` says what is next."
        )
        if exit_:
            return
        console.print(STOP_HINT)
        wait_for_interrupt(workspace, studio)


def demo(
    context: typer.Context,
    exit_: Annotated[bool, typer.Option("--exit", help="Stop again when the loop has run.")] = False,
) -> None:
    """Run the whole loop on the starter corpus with a demo model, and leave the studio running."""
    from aku import demo as steps
    from aku.studio import running_studio, wait_for_interrupt

    workspace: Workspace = context.obj
    with running_studio(workspace, meanwhile=lambda: (steps.make_base(workspace), None)[1], demo=True) as studio:
        steps.show(steps.run_demo(workspace, studio), studio)
        if exit_:
            return
        console.print(STOP_HINT)
        wait_for_interrupt(workspace, studio)


def status(
    context: typer.Context,
    json_: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Say which stage the project is in, who wrote how much, what the gate and the report say, and what is next."""
    import json

    from aku.status import gather, show

    facts = gather(context.obj)
    if json_:
        console.print(json.dumps(facts.to_dict(), ensure_ascii=False, indent=2), markup=False, soft_wrap=True)
    else:
        show(facts)
