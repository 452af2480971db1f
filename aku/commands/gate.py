"""`aku evaluate`, `aku gate`, `aku review`: is the model good enough to draft?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aku.console import console, progress_bar
from dialogue import files
from dialogue.checkpoints import Checkpoint
from dialogue.errors import FileError, SettingsError
from dialogue.settings import Workspace

if TYPE_CHECKING:
    from aku.gatekeeping import Outcome
    from aku.replies import Progress
    from analysis.review import Round

_STYLE = {"PASS": "green", "HOLDS": "yellow", "FAIL": "red", "MISSING": "red", "WAITING": "dim"}
CheckpointOption = Annotated[str | None, typer.Option("--checkpoint", help="Checkpoint id.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("evaluate")(evaluate_command)
    app.command("gate")(gate_command)
    review = typer.Typer(no_args_is_help=True, help="Let people rate a checkpoint's replies blind.")
    review.command("start")(review_start)
    review.command("status")(review_status)
    review.command("close")(review_close)
    app.add_typer(review, name="review")


def evaluate_command(context: typer.Context, checkpoint: CheckpointOption = None) -> None:
    """Measure a checkpoint (default: the newest): steering, repetition, endings, held-out loss, samples."""
    workspace: Workspace = context.obj
    make_evaluation(workspace, _newest(workspace, checkpoint))


def make_evaluation(workspace: Workspace, checkpoint: Checkpoint) -> Path:
    """Evaluate with a progress bar and print the figures; returns the page's path."""
    from aku import evaluation

    with bar("evaluate") as progress:
        folder = evaluation.evaluate(workspace, checkpoint, progress)
    show_evaluation(files.read_json(folder / "evaluation.json"))
    console.print(str(folder / "index.html"), soft_wrap=True, markup=False)
    return folder / "index.html"


def show_evaluation(found: Mapping[str, Any]) -> None:
    """Print an evaluation's figures with their intervals, beside the judge's ceiling."""
    from rich.table import Table

    steering, top = found["steering"], found["ceiling"] or {}
    table = Table("", "model", "judge's ceiling, people", "chance")
    for key in ("closeness", "mood") if steering else ():
        for measure, name, chance in (
            ("spearman", "Spearman", "0"),
            ("exact", "exact", "0.20"),
            ("within_one", "within one", "0.52"),
            ("monotone", "neighbours in order", "0.50"),
            ("leak", "leak from the other", "0"),
        ):
            table.add_row(
                f"{key}: {name}", _shown(steering[key][measure]), _shown((top.get(key) or {}).get(measure)), chance
            )
    if steering:
        table.add_row("politeness consistent", _shown(steering["politeness"]), _shown(found["human_politeness"]), "")
        table.add_row("repetition", _shown(steering["repetition"]), "", "")
        table.add_row("ends properly", _shown(steering["endings"]), "", "")
    names = ("base", "checkpoint", "difference")
    for name, loss in zip(names, found["losses"], strict=False):
        table.add_row(f"held-out loss, {name}", _shown(loss["measure"]), "", "")
    console.print(table)
    for note in found["notes"]:
        console.print(f"  {note}", style="yellow", markup=False)


def _shown(measure: Mapping[str, Any] | None) -> str:
    if not measure or measure["value"] is None:
        return ""
    if measure["low"] is None:
        return f"{measure['value']:.3f}"
    return f"{measure['value']:.3f} ({measure['low']:.3f} … {measure['high']:.3f})"


def gate_command(
    context: typer.Context,
    checkpoint: CheckpointOption = None,
    force: Annotated[
        Literal["open", "shut", "off"] | None,
        typer.Option(help="Open or shut against the checks, or take such an order back; stays visible."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; needed with --force open or shut.")] = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Decide nothing: compute the record in use again from its files.")
    ] = False,
) -> None:
    """Decide from all evidence whether a checkpoint (default: the one in use) may draft, and say why."""
    from aku import gatekeeping

    workspace: Workspace = context.obj
    if verify:
        _verify(workspace)
        return
    if force in ("open", "shut") and not reason.strip():
        raise SettingsError(f'--force {force} needs a reason that others can read: --reason "…".')
    chosen = gatekeeping.chosen_checkpoint(workspace, checkpoint)
    order = gatekeeping.make_order(force, reason.strip()) if force in ("open", "shut") else None
    judge(workspace, chosen, order=order, lift=force == "off")
    newest = gatekeeping.newest_checkpoint(workspace)
    if checkpoint is None and force is None and newest is not None and newest.id != chosen.id:
        console.print()
        judge(workspace, newest)


def judge(workspace: Workspace, checkpoint: Checkpoint, *, order: Any = None, lift: bool = False) -> Outcome:
    """Decide about one checkpoint, carry it out, print it."""
    from aku import gatekeeping

    record = gatekeeping.decide(workspace, checkpoint, order=order, lift=lift)
    outcome = gatekeeping.apply(workspace, checkpoint, record)
    show_record(record)
    if not outcome.in_use:
        console.print("  Another checkpoint stays in use.", style="dim")
    console.print(f"  {outcome.path}", style="dim", soft_wrap=True, markup=False)
    if record["open"] and outcome.in_use:
        console.print("  `aku draft` puts drafts into the cards that wait already.", style="dim", markup=False)
    return outcome


def show_record(record: Mapping[str, Any]) -> None:
    """Print a gate record: open or shut, by force or not, every check with its bound."""
    from rich.table import Table

    state = "[bold green]open[/]" if record["open"] else "[bold red]shut[/]"
    forced = ""
    if record["forced"]:
        order = record["forced"]
        forced = f"  [bold yellow]ordered {order['to']} by {order['by']}, {order['at']}[/]"
    console.print(f"Gate of {record['checkpoint']}: {state}{forced}")
    table = Table("check", "value", "goal", "bound", "limit", "n", "")
    for check in record["checks"]:
        sign = "≥" if check["at_least"] else "≤"
        style = _STYLE[check["outcome"]]
        table.add_row(
            check["title"],
            _number(check["value"]),
            f"{sign} {check['goal']:g}",
            _number(check["bound"]),
            f"{sign} {check['limit']:g}",
            f"{check['n']}",
            f"[{style}]{check['outcome']}[/]",
        )
    console.print(table)
    for reason in record["reasons"]:
        console.print(f"  {reason}", markup=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _verify(workspace: Workspace) -> None:
    from analysis import gate
    from dialogue.checkpoints import Registry

    current = Registry(workspace.checkpoints).current()
    if current is None:
        raise FileError(f"{workspace.checkpoints}: no checkpoint is in use, so there is no gate record.")
    problems = gate.verify(current.gate, workspace.home)
    for problem in problems:
        console.print(problem, style="red", markup=False, soft_wrap=True)
    if problems:
        raise typer.Exit(1)
    numbers = sum(check["value"] is not None for check in current.gate["checks"])
    console.print(
        f"{numbers} checks of {current.id} were computed again from {len(current.gate['files'])} files: equal."
    )


def review_start(
    context: typer.Context,
    checkpoint: CheckpointOption = None,
    replies: Annotated[int | None, typer.Option(min=1, help="Model replies to rate (default: aku.toml).")] = None,
    human: Annotated[int | None, typer.Option(min=0, help="Human turns hidden among them.")] = None,
) -> None:
    """Make a Label Studio project of a checkpoint's replies (default: the newest), human turns hidden among them."""
    from aku import review

    workspace: Workspace = context.obj
    with bar("review") as progress:
        folder, url = review.start(
            workspace, _newest(workspace, checkpoint), replies=replies, human=human, progress=progress
        )
    items = sum(1 for _ in files.read_jsonl(folder / "items.jsonl"))
    console.print(f"{items} replies to rate: {url}", soft_wrap=True, markup=False)
    console.print("  Any number of people may rate; keys 1, 2, 3.  `aku review close` hands the result to the gate.")


def review_status(context: typer.Context) -> None:
    """Say how far the open round is."""
    from aku import review

    folder = _open_round(context.obj)
    found = review.status(context.obj, folder)
    console.print(f"{folder.name}: {found.rated} of {found.items} replies rated, {found.ratings} ratings by")
    console.print(f"  {found.people} people")


def review_close(context: typer.Context) -> None:
    """Fetch the ratings, report agreement, and hand them to the gate."""
    from aku import review

    folder = _open_round(context.obj)
    outcome = review.close(context.obj, folder)
    show_round(outcome)
    console.print("  `aku gate` decides with them.")


def show_round(outcome: Round) -> None:
    """Print a closed round."""
    import math

    from rich.table import Table

    table = Table("written by", "同じくらい以上", "惜しい", "だめ", "as good, 95 % bounds", "corrected")
    for rated in outcome.rated:
        share = f"{rated.kept.value:.0%} ({rated.kept.lower:.0%} … {rated.kept.upper:.0%})"
        table.add_row(rated.origin, *map(str, rated.counts), share, str(rated.corrected))
    console.print(table)
    agreement = outcome.agreement
    if math.isnan(agreement.alpha):
        console.print(f"  {agreement.people} people; no item was rated by two of them, so agreement is unknown.")
    else:
        console.print(
            f"  agreement (Krippendorff's alpha, ordinal) {agreement.alpha:.2f} "
            f"({agreement.low:.2f} … {agreement.high:.2f}) on {agreement.items} items, {agreement.people} people"
        )


def _open_round(workspace: Workspace) -> Path:
    from aku import review

    folder = review.open_round(workspace)
    if folder is None:
        raise FileError(f"{review.rounds_of(workspace)}: no review round is open; `aku review start` makes one.")
    return folder


def _newest(workspace: Workspace, checkpoint: str | None) -> Checkpoint:
    from aku import gatekeeping

    if checkpoint is None and (newest := gatekeeping.newest_checkpoint(workspace)) is not None:
        return newest
    return gatekeeping.chosen_checkpoint(workspace, checkpoint)


@contextlib.contextmanager
def bar(name: str) -> Iterator[Progress]:
    """Show a progress bar and yield what moves it."""
    with progress_bar() as shown:
        row = shown.add_task(name, total=None)
        yield lambda done, total, note: shown.update(row, completed=done, total=total or None, description=note or name)
