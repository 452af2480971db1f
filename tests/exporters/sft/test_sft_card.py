"""The checkpoint card is text that a person reads: tested as a whole."""

from __future__ import annotations

from exporters.sft.card import model_card

CARD = {
    "base": "/models/baseline",
    "base_name": "baseline",
    "base_hash": "0123456789ab",
    "dataset": "ba9876543210",
    "dialogues": {"train": 450, "held_out": 50},
    "left_out": {"no turn by Aku": 2},
    "format": "tags",
    "method": "full",
    "order": "staged",
    "plan": "00112233445566aa",
    "stages": [
        {"name": "difficulty 1 of 2", "start": 0, "stop": 28, "dialogues": 224, "replayed": 0},
        {"name": "difficulty 2 of 2", "start": 28, "stop": 56, "dialogues": 224, "replayed": 45},
        {"name": "everything", "start": 56, "stop": 168, "dialogues": 448, "replayed": 0},
    ],
    "settings": {"seed": 0, "epochs": 0.0},
    "resolved": {"epochs": 3.0, "learning_rate": 2e-05},
    "metrics": {
        "held_out_loss": {"before": 3.20001, "after": 2.5},
        "held_out_per_character": {"before": 1.6, "after": 1.25},
        "steps": 120,
        "planned_steps": 168,
        "stopped_early": True,
    },
    "demo": False,
    "parameters": 518_500_000,
    "created_at": "2026-01-02T03:04:05+00:00",
    "commit": None,
}
TEXT = """# Aku checkpoint

Writes the turns of the character Aku in Japanese small talk, given a scene, the conversation so far and two
attributes, each 0 to 4: `closeness` (who User is to Aku) and `mood` (Aku's mood).

## What it is

- Base: `baseline` (518.5M parameters, hash `0123456789ab`)
- Data set version: `ba9876543210`, 450 dialogues, 50 held out
- Trained: all weights; loss on Aku's text and its end token only
- Prompt format: `tags`, kept as the tokenizer's chat template
- Made 2026-01-02T03:04:05+00:00 by commit `unknown`
- Left out: 2 dialogue(s), no turn by Aku

## Results

| held-out loss | before | after |
|---|---|---|
| nats per token of Aku | 3.2000 | 2.5000 |
| nats per character | 1.6000 | 1.2500 |

120 of 168 optimiser steps, stopped early.

## Curriculum

Order `staged`: plan `00112233445566aa` in `training/plan.json`, checked in every batch.

| stage | steps | dialogues | repeated from before |
|---|---|---|---|
| difficulty 1 of 2 | 0-27 | 224 | 0 |
| difficulty 2 of 2 | 28-55 | 224 | 45 |
| everything | 56-167 | 448 | 0 |

## Limits

A small model: common sense at best, no specialist knowledge, and it can be wrong or rude, the latter on
purpose when `mood` is low. It may draft for annotators only while its gate is open (`aku gate`).
Weights are safetensors only; loading needs no remote code.

## Settings

```
epochs = 3.0
learning_rate = 2e-05
seed = 0
```
"""


def test_the_whole_text() -> None:
    assert model_card(CARD) == TEXT


def test_a_demo_says_so_and_no_held_out_data_is_admitted() -> None:
    metrics = {**CARD["metrics"], "held_out_loss": {"before": None, "after": None}, "stopped_early": False}
    text = model_card({**CARD, "demo": True, "metrics": metrics, "commit": "abc"})
    assert "**Demo.** Its base was made on the spot" in text
    assert "No dialogue was held out, so nothing is known about new prompts." in text
    assert "120 of 168 optimiser steps.\n" in text
    assert "by commit `abc`" in text
