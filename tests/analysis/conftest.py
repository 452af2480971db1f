"""Dialogues made on the spot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from dialogue import Attribute, Dialogue, Source, Turn, load_taxonomy

Make = Callable[..., Dialogue]


@pytest.fixture(scope="session")
def make() -> Make:
    """Build one dialogue; every argument has a plain default."""

    def build(
        number: int = 0,
        *,
        pair: tuple[int, int] = (2, 2),
        genre: tuple[str, ...] = ("天気・季節",),
        turns: int = 4,
        text: str = "今日は朝から雨が降っているね。",
        first: str = "User",
        context: str = "帰り道、ふたりで傘をさして歩いている。",
        **source: object,
    ) -> Dialogue:
        speakers = ("User", "Aku") if first == "User" else ("Aku", "User")
        conversation = tuple(Turn(speakers[i % 2], f"{text}{number}の{i}") for i in range(turns))  # type: ignore[arg-type]  # one of two
        return Dialogue(
            f"d{number}",
            context,
            conversation,
            Attribute(*pair),
            genre,
            dataclasses.replace(Source(), **source),  # type: ignore[arg-type]  # fields of Source
        )

    return build


@pytest.fixture(scope="session")
def topics() -> tuple[str, ...]:
    return load_taxonomy().names
