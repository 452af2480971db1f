"""SFT: data set version + base model → checkpoint.

`train` is the common path.  A run compiles the curriculum into an explicit order (`plan`), renders
dialogues into ids and loss mask (`rows`), trains with TRL on Aku's turns only (`fit`, `trainer`),
and registers the result with a card (`card`).
"""

from exporters.sft.settings import Stage, TrainSettings, load_stages, load_train_settings
from exporters.sft.training import train

__all__ = ["Stage", "TrainSettings", "load_stages", "load_train_settings", "train"]
