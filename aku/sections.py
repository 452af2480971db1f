"""Every section of `aku.toml`, for the documented file that `aku init` writes."""

from __future__ import annotations

from typing import Any

from aku.cycle_settings import CycleSettings
from aku.settings import StageSettings, StudioSettings
from analysis.gate_settings import GateSettings
from analysis.settings import PlanSettings, ReportSettings
from exporters.settings import ExportSettings
from exporters.sft.settings import TrainSettings
from ml_backend.settings import BackendSettings

SECTIONS: tuple[tuple[str, type[Any], str], ...] = (
    ("studio", StudioSettings, "Where the two servers listen."),
    ("stages", StageSettings, "The numbers of the plan: by hand, first SFT, goal."),
    ("plan", PlanSettings, "What the data set is meant to look like."),
    ("export", ExportSettings, "What goes into a data set version, and how it is divided."),
    (
        "train",
        TrainSettings,
        "How a checkpoint is trained. Curriculum stages are [[stage]] tables, see docs/training.md.",
    ),
    ("backend", BackendSettings, "How drafts are made and served."),
    ("gate", GateSettings, "When the model may draft: goals, limits and sample sizes; see docs/gate.md."),
    ("cycle", CycleSettings, "When `aku cycle` trains, and how often it looks."),
    ("report", ReportSettings, "How the bias report is made."),
)
