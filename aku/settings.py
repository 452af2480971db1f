"""The roof's sections of `aku.toml`, and the file's documented first version."""

from __future__ import annotations

import dataclasses

from dialogue.files import atomic_open
from dialogue.settings import Workspace, document_section, load_section, setting


@dataclasses.dataclass(frozen=True, slots=True)
class StudioSettings:
    """Section `[studio]`: where the two servers listen."""

    host: str = setting("127.0.0.1", "Address both servers bind to; 0.0.0.0 publishes Label Studio to your network.")
    port: int = setting(8080, "Label Studio's port.")
    backend_port: int = setting(9090, "The ML backend's port; it always binds to 127.0.0.1 when started by `aku up`.")
    title: str = setting("Aku 会話データ", "Title of the Label Studio project.")
    email: str = setting("aku@studio.local", "Address that the first person signs in with.")


@dataclasses.dataclass(frozen=True, slots=True)
class StageSettings:
    """Section `[stages]`: the memo's numbers."""

    goal: int = setting(3000, "Dialogues the finished data set shall have.")
    by_hand: int = setting(100, "Dialogues written entirely by hand before the model is tried.")
    first_sft: int = setting(500, "Dialogues at which the model is fine-tuned for the first time.")
    cards: int = setting(12, "Cards that `aku up` and `aku demo` keep waiting for annotators.")

    def __post_init__(self) -> None:
        """Refuse numbers out of order."""
        if not 0 < self.by_hand <= self.first_sft <= self.goal:
            raise ValueError("by_hand, first_sft and goal must be positive and in rising order.")


def studio_settings(workspace: Workspace) -> StudioSettings:
    """Read `[studio]`."""
    return load_section(workspace.settings, "studio", StudioSettings)


def stage_settings(workspace: Workspace) -> StageSettings:
    """Read `[stages]`."""
    return load_section(workspace.settings, "stages", StageSettings)


def write_default_settings(workspace: Workspace, *, demo: bool = False) -> None:
    """Write an `aku.toml` in which every key is explained, unless there is one already.

    For the demo the model drafts User's turns too, so that whole conversations wait in the cards.
    """
    if workspace.settings.exists():
        return
    from aku.sections import SECTIONS

    with atomic_open(workspace.settings) as handle:
        handle.write("# Settings of this workspace. Remove the # in front of a key to change it.\n")
        for name, cls, lead in SECTIONS:
            section = document_section(name, cls, lead)
            if demo:
                section = section.replace("# draft_user_turns = false", "draft_user_turns = true")
            handle.write("\n" + section)
