"""`aku train`, `aku checkpoints` and `aku show-prompt`: from data set version to checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from aku import comparing
from aku.console import console, progress_bar
from dialogue import Checkpoint, FileError, Registry, SettingsError, read_dialogues
from dialogue.settings import Workspace, load_section
from exporters.sft.settings import Order, TrainSettings, load_stages, load_train_settings

if TYPE_CHECKING:
    from exporters import DatasetVersion

T = TypeVar("T")
NOT_EVALUATED = {"open": False, "reason": "not yet evaluated"}
"""Gate record of a checkpoint that nobody has judged: it may not draft."""


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("train")(train_command)
    app.command("show-prompt")(show_prompt)
    checkpoints = typer.Typer(no_args_is_help=True, help="List, switch and remove checkpoints.")
    checkpoints.command("list")(list_checkpoints)
    checkpoints.command("use")(use_checkpoint)
    checkpoints.command("remove")(remove_checkpoint)
    app.add_typer(checkpoints, name="checkpoints")


def train_command(
    context: typer.Context,
    base: Annotated[
        list[Path] | None, typer.Option(help="Base model directory (default: what the checkpoint in use came from).")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set version: id, folder or `latest`.  Without it, exports first.")
    ] = None,
    order: Annotated[Order | None, typer.Option(help="Built-in curriculum.")] = None,
    method: Annotated[Literal["full", "lora"] | None, typer.Option(help="All weights, or an adapter.")] = None,
    prompt_format: Annotated[
        Literal["tags", "tokens", "steerlm", "phrase"] | None, typer.Option("--format", help="Prompt format.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Times each dialogue is seen.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of order, dropout and new weights.")] = None,
    compare_orders: Annotated[
        bool, typer.Option("--compare-orders", help="Train all orders with several seeds and say which one pays.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=2, help="Seeds per order in --compare-orders.")] = 3,
    dpo: Annotated[
        bool, typer.Option("--dpo", help="Go on from the checkpoint in use with pairs of correction and draft.")
    ] = False,
) -> None:
    """Export the data set, fine-tune a base model on it along a curriculum, register the checkpoint.

    Several --base are trained on the same data and budget and shown side by side.
    """
    workspace: Workspace = context.obj
    flags: dict[str, Any] = {"order": order, "method": method, "format": prompt_format, "epochs": epochs, "seed": seed}
    try:
        settings = dataclasses.replace(
            load_train_settings(workspace.settings), **{k: v for k, v in flags.items() if v is not None}
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error
    if compare_orders and dpo:
        raise SettingsError("--compare-orders and --dpo are different runs; choose one.")
    folder = in_turn(lambda: find_data(workspace, data), lambda: find_data(workspace, data or "latest"))
    if dpo:
        make_dpo_checkpoint(workspace, folder, settings)
        return
    bases = base or [default_base(workspace)]
    check_bases(bases)
    if compare_orders:
        comparing.compare_orders(workspace, bases[0], folder, settings, seeds)
        return
    made = [make_checkpoint(workspace, path, folder, settings, use_first=len(bases) == 1) for path in bases]
    if len(made) > 1:
        keep(workspace, comparing.compare_bases(workspace, made, folder))


def check_bases(bases: Sequence[Path]) -> None:
    """Refuse a wrong directory before the first one is trained; raises `CheckpointError`."""
    from exporters.sft.base import check_base

    for path in bases:
        check_base(path)


def in_turn(first: Callable[[], T], others: Callable[[], T]) -> T:
    """Under `accelerate launch`: let the main process do something first, the others after it."""
    from exporters.sft.prepare import is_main_process, world_size

    if world_size() == 1:
        return first()
    from exporters.sft.fit import wait_for_everyone

    if is_main_process():
        result = first()
        wait_for_everyone()
        return result
    wait_for_everyone()
    return others()


def default_base(workspace: Workspace) -> Path:
    """Return the base that the checkpoint in use was trained from; raises `SettingsError` if there is none."""
    current = Registry(workspace.checkpoints).current()
    if current is None:
        raise SettingsError("there is no checkpoint yet, so name the base model: `aku train --base DIR`.")
    return Path(Registry(workspace.checkpoints).get(current.id).card["base"])


def find_data(workspace: Workspace, data: str | None) -> Path:
    """Return a data set version's folder, exporting first if none is named."""
    from exporters import get_version, latest_version

    if data is None:
        from aku.commands.export import make_version, show

        version = make_version(workspace)
        show(version)
        return version.path
    if data == "latest":
        return latest_version(workspace.datasets).path
    folder = Path(data)
    return folder.absolute() if folder.is_dir() else get_version(workspace.datasets, data).path


def make_checkpoint(
    workspace: Workspace,
    base: Path,
    data: DatasetVersion | Path,
    settings: TrainSettings | None = None,
    *,
    use_first: bool = True,
) -> Checkpoint:
    """Train with a progress bar; the first checkpoint of a workspace comes into use, its gate shut."""
    from exporters.sft import train
    from exporters.sft.prepare import is_main_process

    folder = data if isinstance(data, Path) else data.path
    registry = Registry(workspace.checkpoints)
    with progress_bar() as bar:
        row = bar.add_task("load", total=None)
        checkpoint = train(
            base,
            folder,
            registry,
            settings or load_train_settings(workspace.settings),
            work=workspace.home / "runs",
            stages=load_stages(workspace.settings),
            progress=lambda done, total, note: bar.update(
                row, completed=done, total=total, description=f"train  {note}"
            ),
        )
    if is_main_process():
        if use_first and registry.current() is None:
            registry.use(checkpoint.id, NOT_EVALUATED)
        show_checkpoint(checkpoint, registry)
    return checkpoint


def make_dpo_checkpoint(workspace: Workspace, data: Path, settings: TrainSettings) -> Checkpoint:
    """Go on from the checkpoint in use with preference pairs of a data set version, with a progress bar."""
    from exporters import ExportSettings, get_version
    from exporters.formats import write_format
    from exporters.sft.dpo import read_preferences, train_dpo

    registry = Registry(workspace.checkpoints)
    current = registry.current()
    if current is None:
        raise SettingsError("DPO starts from the checkpoint in use, and there is none; run `aku train` first.")
    version = get_version(data.parent, data.name)
    folder = workspace.home / "runs" / f"preferences-{version.id}"
    distance = load_section(workspace.settings, "export", ExportSettings).preference_distance
    write_format(version, "preferences", folder, preference_distance=distance)
    pairs = read_preferences(folder / "train.jsonl")
    with progress_bar() as bar:
        row = bar.add_task("dpo", total=None)
        checkpoint = train_dpo(
            registry.get(current.id),
            pairs,
            data,
            registry,
            settings,
            work=workspace.home / "runs",
            progress=lambda done, total, note: bar.update(row, completed=done, total=total, description=note),
        )
    share = checkpoint.card["metrics"]["preferred"]
    console.print(f"  correction likelier than draft: {share['before']:.0%} → {share['after']:.0%} of held-out pairs")
    show_checkpoint(checkpoint, registry)
    return checkpoint


def keep(workspace: Workspace, checkpoint: Checkpoint) -> None:
    """Say which base is kept, and bring it into use if nothing is in use yet."""
    registry = Registry(workspace.checkpoints)
    console.print(f"Kept: {checkpoint.id} (base {checkpoint.card['base_name']}).", markup=False)
    if registry.current() is None:
        registry.use(checkpoint.id, NOT_EVALUATED)


def show_checkpoint(checkpoint: Checkpoint, registry: Registry) -> None:
    """Print what a run ended in."""
    card, current = checkpoint.card, registry.current()
    losses = card["metrics"]["held_out_loss"]
    console.print(f"checkpoint {checkpoint.id}  {checkpoint.path}", soft_wrap=True, markup=False)
    if losses["after"] is not None:
        console.print(f"  held-out loss {losses['before']:.3f} → {losses['after']:.3f} (nats per token of Aku)")
    for reason, count in card["left_out"].items():
        console.print(f"  {count} dialogue(s): {reason}", style="yellow", markup=False)
    if current is not None and current.id != checkpoint.id:
        console.print(f"  in use is still {current.id}; `aku checkpoints use {checkpoint.id}` switches.")


def list_checkpoints(context: typer.Context) -> None:
    """Show every checkpoint: base, data, losses, which one is in use and whether it may draft."""
    from rich.table import Table

    registry = Registry(context.obj.checkpoints)
    current = registry.current()
    table = Table("id", "made", "base", "data", "format", "order", "held-out loss", "use")
    table.columns[0].no_wrap = True
    for checkpoint in registry:
        card = checkpoint.card
        losses = card.get("metrics", {}).get("held_out_loss") or {}
        in_use = current is not None and current.id == checkpoint.id
        gate = ("in use, gate " + ("open" if current.may_draft else "shut")) if in_use and current is not None else ""
        values = ("base_name", "dataset", "format", "order")
        loss = f"{losses['before']:.3f} → {losses['after']:.3f}" if losses.get("after") is not None else ""
        made = str(card.get("created_at", ""))[:16].replace("T", " ")
        table.add_row(checkpoint.id, made, *(str(card.get(key, "")) for key in values), loss, gate)
    console.print(table if table.row_count else "No checkpoint yet; `aku train --base DIR` makes one.")


def use_checkpoint(context: typer.Context, checkpoint_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Bring a checkpoint into use.  Its gate is shut until it is evaluated."""
    registry = Registry(context.obj.checkpoints)
    current = registry.current()
    if current is not None and current.id == checkpoint_id:
        console.print(f"{checkpoint_id} is in use already.")
        return
    registry.use(checkpoint_id, NOT_EVALUATED)
    console.print(f"{checkpoint_id} is in use now; its gate is shut until it is evaluated.")


def remove_checkpoint(context: typer.Context, checkpoint_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Delete a checkpoint that is not in use."""
    Registry(context.obj.checkpoints).remove(checkpoint_id)
    console.print(f"{checkpoint_id} was removed.")


def show_prompt(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FILE-OR-VERSION", help="Canonical JSONL, version, or `latest`.")],
    record: Annotated[str | None, typer.Option("--id", help="Which dialogue (default: the first).")] = None,
    prompt_format: Annotated[
        Literal["tags", "tokens", "steerlm", "phrase"] | None, typer.Option("--format", help="Prompt format.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="Whose tokenizer (default: the checkpoint in use, else a throw-away one).")
    ] = None,
) -> None:
    """Print a dialogue as the model sees it: trained tokens green, the rest grey."""
    from rich.text import Text

    from dialogue.rendering import default_format, render_dialogue
    from exporters.sft.prompts import format_tokenizer

    workspace: Workspace = context.obj
    path = Path(source) if Path(source).is_file() else find_data(workspace, source) / "train.jsonl"
    dialogues = read_dialogues(path)
    dialogue = next((d for d in dialogues if record in (None, d.id)), None)
    if dialogue is None:
        raise FileError(f"{path}: holds no record {record}; check the id.")
    current = Registry(workspace.checkpoints).current()
    folder = base or (workspace.checkpoints / current.id if current else None)
    tokenizer = format_tokenizer(folder, prompt_format, dialogue)
    name = prompt_format or default_format(tokenizer)
    rendering = render_dialogue(dialogue, tokenizer, name)
    text = Text()
    for segment in rendering.segments:
        text.append(tokenizer.decode(segment.ids), style="bold green" if segment.trained else "grey50")
    console.print(text, soft_wrap=True)
    trained = sum(rendering.mask)
    console.print(f"format {name}: {len(rendering.ids)} tokens, {trained} of them trained", style="dim")
