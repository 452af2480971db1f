"""The ground floor: what a dialogue is, and how it is written down.

`Dialogue`, `Turn` and `Attribute` with their rules, JSONL, the genre taxonomy, prompt rendering,
the way into and out of Label Studio, the checkpoint registry and the workspace.  Imports nothing
else of ours, and torch or transformers only inside functions.
"""

from dialogue.checkpoints import Checkpoint, Current, Registry
from dialogue.errors import (
    AkuError,
    BackendError,
    CheckpointError,
    FileError,
    LabelStudioError,
    RecordError,
    SettingsError,
)
from dialogue.genres import Taxonomy, Topic, load_taxonomy
from dialogue.records import (
    Attribute,
    Dialogue,
    Source,
    Turn,
    iter_dialogues,
    read_dialogues,
    validated,
    write_dialogues,
)
from dialogue.settings import Workspace, load_section

__all__ = [
    "AkuError",
    "Attribute",
    "BackendError",
    "Checkpoint",
    "CheckpointError",
    "Current",
    "Dialogue",
    "FileError",
    "LabelStudioError",
    "RecordError",
    "Registry",
    "SettingsError",
    "Source",
    "Taxonomy",
    "Topic",
    "Turn",
    "Workspace",
    "iter_dialogues",
    "load_section",
    "load_taxonomy",
    "read_dialogues",
    "validated",
    "write_dialogues",
]
