"""`aku provision`, `aku marks`, `aku people`: a studio for a team."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from aku.console import console
from dialogue.settings import Workspace

people_app = typer.Typer(no_args_is_help=True, help="Accounts: list, invite, add, reset, remove.")


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("provision")(provision)
    app.command("marks")(marks)
    app.add_typer(people_app, name="people")


def provision(
    context: typer.Context,
    label_studio: Annotated[str, typer.Option(help="Label Studio's address as this program reaches it.")],
    backend: Annotated[str, typer.Option(help="The ML backend's address as Label Studio reaches it.")],
    public: Annotated[
        str | None, typer.Option(help="Label Studio's address as people open it (default: $LABEL_STUDIO_HOST).")
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the two servers.", min=0)] = 300,
) -> None:
    """Make or update the project in servers that run already (Docker Compose); again is harmless."""
    from aku.deployment import provision_team

    shown = (public or os.environ.get("LABEL_STUDIO_HOST") or label_studio).rstrip("/")
    project = provision_team(context.obj, label_studio.rstrip("/"), backend.rstrip("/"), shown, wait)
    console.print(f"{shown}/projects/{project}/data", markup=False, soft_wrap=True)


def marks(
    context: typer.Context,
    alive: Annotated[Path | None, typer.Option(help="File to touch each second, for a health check.")] = None,
) -> None:
    """Mark the model's turns in every card that is submitted, until stopped (`aku up` does so itself)."""
    from aku.connection import connect
    from aku.studio import keep_marking

    workspace: Workspace = context.obj
    keep_marking(workspace, connect(workspace), lambda: alive.touch() if alive else None)


@people_app.command("list")
def list_people(context: typer.Context) -> None:
    """Show who has an account, and when they were last here."""
    from aku.deployment import people

    for person in people(context.obj):
        seen = person.last_activity[:16].replace("T", " ") or "never"
        console.print(f"{person.id:>4}  {person.email}  {person.name}  {seen}", markup=False, soft_wrap=True)


@people_app.command()
def invite(
    context: typer.Context,
    renew: Annotated[bool, typer.Option("--renew", help="Make a new link; older ones stop working.")] = False,
) -> None:
    """Print the link with which people make their own account."""
    from aku.deployment import invite_link

    console.print(invite_link(context.obj, renew=renew), markup=False, soft_wrap=True)


@people_app.command()
def add(context: typer.Context, email: Annotated[str, typer.Argument(help="What the person signs in with.")]) -> None:
    """Make an account and print its password, once."""
    from aku.deployment import add_person

    console.print(f"{email.lower()}  {add_person(context.obj, email)}", markup=False, soft_wrap=True)


@people_app.command()
def reset(context: typer.Context, email: Annotated[str, typer.Argument(help="Whose password to renew.")]) -> None:
    """Give an account a new password and print it, once; somebody removed is let in again."""
    from aku.deployment import reset_password

    console.print(f"{email.lower()}  {reset_password(context.obj, email)}", markup=False, soft_wrap=True)


@people_app.command()
def remove(context: typer.Context, email: Annotated[str, typer.Argument(help="Who leaves.")]) -> None:
    """Shut somebody out, sessions and tokens included; what the person wrote stays."""
    from aku.deployment import remove_person

    remove_person(context.obj, email)
