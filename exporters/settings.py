"""The `[export]` section of `aku.toml`."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from dialogue.settings import setting


@dataclasses.dataclass(frozen=True, slots=True)
class ExportSettings:
    """What goes into a data set version, and how it is divided."""

    accept: Literal["undecided", "approved"] = setting(
        "undecided",
        '"undecided": annotations a reviewer approved or has not looked at; "approved": approved ones only.',
    )
    validation: float = setting(0.1, "Share of dialogues in validation.jsonl.")
    test: float = setting(0.1, "Share of dialogues in test.jsonl.")
    near_duplicate: float = setting(0.8, "Character 5-gram Jaccard from which two dialogues count as near-duplicates.")
    preference_distance: float = setting(0.2, "Smallest edit distance from draft to correction of a preference pair.")
    page_size: int = setting(250, "Tasks read from Label Studio in one request.")
    title: str = setting("Aku small talk", "Title of the data set card.")
    license: str = setting("other", "Licence of the data set, as the Hugging Face Hub spells it (cc-by-4.0, …).")

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing to train on."""
        if not (0 <= self.validation < 1 and 0 <= self.test < 1 and self.validation + self.test < 1):
            raise ValueError("validation and test are shares from 0 to 1 that together leave something for train.")
        if not 0.5 <= self.near_duplicate <= 1 or not 0 <= self.preference_distance <= 1:
            raise ValueError("near_duplicate lies between 0.5 and 1, preference_distance between 0 and 1.")
        if not re.fullmatch(r"[a-z0-9.-]+", self.license):
            raise ValueError("license is a short name such as cc-by-4.0, as the Hugging Face Hub lists them.")
        if not 1 <= self.page_size <= 1000:
            raise ValueError("page_size lies between 1 and 1000.")
