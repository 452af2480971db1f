"""The checkpoint card (README.md of a checkpoint), written by the run from what it put into `aku.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_METHOD = {"full": "all weights", "lora": "a LoRA adapter"}


def model_card(card: Mapping[str, Any]) -> str:
    """Render a checkpoint's card as Markdown from the content of its `aku.json`."""
    sections = [_head(card), _facts(card), _results(card), _curriculum(card), _limits(card), _settings(card)]
    return "\n".join(line for section in sections for line in [*section, ""]).rstrip("\n") + "\n"


def _head(card: Mapping[str, Any]) -> list[str]:
    lines = [
        "# Aku checkpoint",
        "",
        "Writes the turns of the character Aku in Japanese small talk, given a scene, the conversation so far and two",
        "attributes, each 0 to 4: `closeness` (who User is to Aku) and `mood` (Aku's mood).",
    ]
    if card["demo"]:
        lines += [
            "",
            "**Demo.** Its base was made on the spot from the starter corpus. It shows the loop, not quality.",
        ]
    return lines


def _facts(card: Mapping[str, Any]) -> list[str]:
    counts = card["dialogues"]
    lines = [
        "## What it is",
        "",
        f"- Base: `{card['base_name']}` ({card['parameters'] / 1e6:.1f}M parameters, hash `{card['base_hash']}`)",
        f"- Data set version: `{card['dataset']}`, {counts['train']} dialogues, {counts['held_out']} held out",
        f"- Trained: {_METHOD[card['method']]}; loss on Aku's text and its end token only",
        f"- Prompt format: `{card['format']}`, kept as the tokenizer's chat template",
        f"- Made {card['created_at']} by commit `{card['commit'] or 'unknown'}`",
    ]
    if card.get("preferences"):
        lines.append(f"- After SFT: DPO on {card['preferences']} preference pairs, from checkpoint `{card['parent']}`")
    return lines + [f"- Left out: {count} dialogue(s), {reason}" for reason, count in card["left_out"].items()]


def _results(card: Mapping[str, Any]) -> list[str]:
    metrics = card["metrics"]
    lines = ["## Results", ""]
    losses = metrics["held_out_loss"]
    if losses["after"] is None:
        lines.append("No dialogue was held out, so nothing is known about new prompts.")
    else:
        lines += [
            "| held-out loss | before | after |",
            "|---|---|---|",
            f"| nats per token of Aku | {losses['before']:.4f} | {losses['after']:.4f} |",
        ]
        if characters := metrics.get("held_out_per_character"):
            lines.append(f"| nats per character | {characters['before']:.4f} | {characters['after']:.4f} |")
    stop = ", stopped early" if metrics["stopped_early"] else ""
    lines += ["", f"{metrics['steps']} of {metrics['planned_steps']} optimiser steps{stop}."]
    return lines


def _curriculum(card: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Curriculum",
        "",
        f"Order `{card['order']}`: plan `{card['plan']}` in `training/plan.json`, checked in every batch.",
        "",
        "| stage | steps | dialogues | repeated from before |",
        "|---|---|---|---|",
    ]
    return lines + [
        f"| {stage['name']} | {stage['start']}-{stage['stop'] - 1} | {stage['dialogues']} | {stage['replayed']} |"
        for stage in card["stages"]
    ]


def _limits(card: Mapping[str, Any]) -> list[str]:
    return [
        "## Limits",
        "",
        "A small model: common sense at best, no specialist knowledge, and it can be wrong or rude, the latter on",
        "purpose when `mood` is low. It may draft for annotators only while its gate is open (`aku gate`).",
        "Weights are safetensors only; loading needs no remote code.",
    ]


def _settings(card: Mapping[str, Any]) -> list[str]:
    chosen = {**card["settings"], **card["resolved"]}
    return ["## Settings", "", "```", *(f"{key} = {value}" for key, value in sorted(chosen.items())), "```"]
