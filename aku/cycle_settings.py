"""Settings of the loop: table `[cycle]` of `aku.toml`."""

from __future__ import annotations

import dataclasses

from dialogue.settings import setting


@dataclasses.dataclass(frozen=True, slots=True)
class CycleSettings:
    """When `aku cycle` trains, and how often `aku cycle --watch` looks.  Raises `ValueError` out of range."""

    every: int = setting(250, "New dialogues after which the model is trained again.")
    gate_every: int = setting(10, "With --watch: new dialogues after which the gate is decided anew.")
    poll: float = setting(30.0, "With --watch: seconds between looks at Label Studio.")

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.every < 1 or self.gate_every < 1 or self.poll <= 0:
            raise ValueError("every and gate_every must be at least 1, poll above 0.")
