"""`aku openers`: ask helpers for opening turns, and make cards of their answers."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from aku import openers
from aku.console import console
from dialogue import load_taxonomy
from dialogue.errors import SettingsError
from dialogue.files import atomic_open
from dialogue.settings import Workspace, load_section

group = typer.Typer(no_args_is_help=True, help="Opening turns from helpers.")


def register(app: typer.Typer) -> None:
    """Add `aku openers`."""
    app.add_typer(group, name="openers")


@group.command()
def form(
    context: typer.Context,
    n: Annotated[int, typer.Option(help="Number of prompts, 10 to 15.")] = 12,
    out: Annotated[Path | None, typer.Option(help="Folder to write to (default: openers/ in the workspace).")] = None,
) -> None:
    """Write a script that creates the Google Form, and the same questions to print; thinnest topics first."""
    workspace: Workspace = context.obj
    if not 10 <= n <= 15:
        raise SettingsError(f"--n is {n}; a form helpers finish has 10 to 15 prompts.")
    taxonomy = load_taxonomy(workspace.taxonomy)
    topics = openers.choose_topics(_written(workspace), taxonomy, n)
    folder = out or workspace.home / "openers"
    for name, text in (("form.gs", openers.apps_script(topics)), ("form.html", openers.printable_list(topics))):
        with atomic_open(folder / name) as handle:
            handle.write(text)
        console.print(f"{folder / name}", markup=False)
    console.print("Topics: " + ", ".join(topics), markup=False)


@group.command("import")
def import_answers(
    context: typer.Context,
    answers: Annotated[Path, typer.Argument(help="CSV that Google Forms or Sheets exports.")],
) -> None:
    """Make a card of every answer that is not one already; what holds personal data is set aside and listed."""
    from aku.commands.report import latest_dialogues
    from aku.connection import connect
    from aku.tasks import add_cards, waiting_cards
    from analysis import PlanSettings, plan
    from dialogue.label_studio import blank_turns

    workspace: Workspace = context.obj
    found, aside = openers.read_answers(answers, workspace.read_secrets().get("PSEUDONYM_SALT", ""))
    connection = connect(workspace)
    taxonomy = load_taxonomy(workspace.taxonomy)
    waiting = [w.card for w in waiting_cards(connection)]
    settings = dataclasses.replace(load_section(workspace.settings, "plan", PlanSettings), aku_begins=0.0)
    planned = plan(latest_dialogues(workspace), len(found), waiting=waiting, settings=settings, taxonomy=taxonomy)
    cards = []
    for opener, slot in zip(found, planned, strict=True):
        topic = opener.topic if opener.topic in taxonomy.names else slot.card.genre[0]
        text = slot.card.text.replace(slot.card.genre[0], topic) + "・協力者のひとことから始める"
        turns = blank_turns(len(slot.card.turns), [opener.text])
        name = f"{opener.id}:{opener.author}"
        cards.append(dataclasses.replace(slot.card, text=text, genre=(topic,), turns=turns, context="", opener=name))
    added = add_cards(connection, cards, [f"opener-{opener.id}" for opener in found])
    console.print(f"{added} new cards, {len(found) - added} answers that were cards already.")
    for row in aside:
        console.print(f"set aside: row {row.row} ({row.topic}) {row.reason}", markup=False, style="yellow")


def _written(workspace: Workspace) -> dict[str, int]:
    from aku.commands.report import latest_dialogues

    return dict(collections.Counter(topic for dialogue in latest_dialogues(workspace) for topic in dialogue.genre))
