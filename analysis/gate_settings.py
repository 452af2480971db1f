"""Settings of the gate: table `[gate]` of `aku.toml`.

Every check has a goal, which the measured value must reach, and a limit, which its one-sided
confidence bound must not cross: the limit is the worst truth that may slip through, and it does so
in at most one of twenty decisions.
"""

from __future__ import annotations

import dataclasses

from dialogue.settings import setting


@dataclasses.dataclass(frozen=True, slots=True)
class GateSettings:
    """When the model may draft.  Raises `ValueError` (shown as a `SettingsError`) for values out of range."""

    confidence: float = setting(0.95, "Confidence of every one-sided bound.")
    window: int = setting(200, "Judged turns that count: the last so many drafted or reviewed ones.")
    least_turns: int = setting(100, "Judged turns without which the checks that need people decide nothing.")
    kept_distance: float = setting(0.1, "Edit distance below which a draft counts as kept.")
    rewritten_distance: float = setting(0.7, "Edit distance above which a draft counts as rewritten.")
    median_edit: float = setting(0.30, "Median edit distance from draft to what was kept: at most.")
    median_edit_limit: float = setting(0.37, "Limit for its upper bound.")
    kept: float = setting(0.40, "Share of turns kept: at least.")
    kept_limit: float = setting(0.33, "Limit for its lower bound.")
    kept_drop: float = setting(0.80, "Share kept lately over that before: surely below this shuts.")
    rewritten: float = setting(0.20, "Share of turns rewritten: at most.")
    rewritten_limit: float = setting(0.27, "Limit for its upper bound.")
    control: float = setting(0.60, "Spearman correlation of wanted and judged level, each attribute: at least.")
    control_limit: float = setting(0.50, "Limit for its lower bound.")
    repetition: float = setting(0.02, "Share of replies with a loop or a copy: at most.")
    repetition_limit: float = setting(0.04, "Limit for its upper bound.")
    endings: float = setting(0.98, "Share of replies that end properly: at least.")
    endings_limit: float = setting(0.96, "Limit for its lower bound.")
    loss: float = setting(0.0, "Held-out loss minus the base's, nats a token: below this, its upper bound too.")
    time: float = setting(0.70, "Working time per turn, drafted against blind by hand: at most this ratio.")
    time_limit: float = setting(1.0, "Limit for its upper bound.")
    least_arm: int = setting(15, "Dialogues in each arm without which working time neither opens nor shuts the gate.")
    longest_work: float = setting(7200.0, "Seconds beyond which a card counts as left open, not worked on.")
    scenes: int = setting(20, "Held-out scenes of `aku evaluate`; each is answered under all 25 attribute pairs.")
    replies: int = setting(3, "Aku turns drafted per scene and pair.")
    candidates: int = setting(3, "Drafts made per reviewed turn, the likeliest of which is shown.")
    review_replies: int = setting(120, "Model replies in a review round.")
    review_human: int = setting(24, "Human turns hidden among them.")
    review_overlap: int = setting(25, "Per cent of the items that two people rate, for the agreement between people.")
    seed: int = setting(0, "Seed of samples and bootstraps.")

    def __post_init__(self) -> None:
        """Check ranges, and that no limit is stricter than its goal."""
        above = [
            ("kept", self.kept, self.kept_limit),
            ("control", self.control, self.control_limit),
            ("endings", self.endings, self.endings_limit),
        ]
        below = [
            ("median_edit", self.median_edit, self.median_edit_limit),
            ("rewritten", self.rewritten, self.rewritten_limit),
            ("repetition", self.repetition, self.repetition_limit),
            ("time", self.time, self.time_limit),
        ]
        for name, goal, limit in above:
            if not limit <= goal <= 1:
                raise ValueError(f"{name}_limit must not be above {name}, and {name} not above 1.")
        for name, goal, limit in below:
            if not 0 <= goal <= limit:
                raise ValueError(f"{name}_limit must not be below {name}, and {name} not below 0.")
        if not 0 <= self.kept_drop <= 1:
            raise ValueError("kept_drop must lie between 0 and 1.")
        if not 0.5 < self.confidence < 1:
            raise ValueError("confidence must lie between 0.5 and 1.")
        if not 0 <= self.kept_distance < self.rewritten_distance <= 1:
            raise ValueError("kept_distance must lie below rewritten_distance, both between 0 and 1.")
        if not 2 <= self.least_turns <= self.window:
            raise ValueError("least_turns must be at least 2 and at most window.")
        if min(self.scenes, self.least_arm) < 2 or min(self.replies, self.candidates, self.review_replies) < 1:
            raise ValueError("scenes and least_arm must be at least 2; replies, candidates, review_replies at least 1.")
        if self.review_human < 0 or not 0 <= self.review_overlap <= 100:
            raise ValueError("review_human must not be negative, and review_overlap is a percentage.")
