"""The checkpoint card (README.md), written by the run."""

from __future__ import annotations

from typing import Any


def model_card(card: dict[str, Any]) -> str:
    """Render a checkpoint's card as Markdown from the content of its `aku.json`."""
    return f"# Aku checkpoint\n\nBase: {card['base_name']}\n"
