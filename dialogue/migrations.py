"""Versions of what the software writes, and the way from an older one to today's.

Each form carries a whole number that grows when a reader of the old number would misread the new form; what adds
a key that old readers pass over needs none.  What carries no number is of version 1, the first.  A newer number
than ours is refused in one sentence: a later release wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dialogue import files
from dialogue.errors import AkuError, FileError, SettingsError
from dialogue.settings import Workspace

RECORD_FORMAT = 1
"""Canonical records and the folders of data set versions."""
CONFIG_FORMAT = 1
"""Names and meaning of the boxes and choices on the annotator's screen, and of a task's data."""
WORKSPACE_FORMAT = 1
"""Files and folders of the workspace."""

Migration = Callable[[Workspace], None]
WORKSPACE_MIGRATIONS: tuple[Migration, ...] = ()
"""The step at place n brings a workspace of version n+1 to version n+2; doing a step twice must change nothing."""

_MARK = re.compile(r"\baku-format-(\d+)\b")


def config_class(classes: str) -> str:
    """Return the class list of the screen's outermost view with the configuration's version in it."""
    return f"{classes} aku-format-{CONFIG_FORMAT}".strip()


def config_format(config: str) -> int | None:
    """Return the version that a project's labelling configuration carries; None if it is none of ours.

    Ours, but from before the mark, is version 1.
    """
    if found := _MARK.search(config):
        return int(found[1])
    return 1 if 'name="turn_0"' in config and 'name="closeness"' in config else None


def check_format(value: Mapping[str, Any], known: int, what: str, error: Callable[[str], AkuError]) -> int:
    """Return the version that `value` carries under `format`; raises `error` if it is newer than ours or no number."""
    found = value.get("format", 1)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise error(f"{what}: its format is {found!r}, which is no version number; restore it from a backup.")
    if found > known:
        raise error(f"{what}: was written by a later release (format {found}, this one knows {known}); upgrade first.")
    return found


def upgraded_record(value: Mapping[str, Any], what: str, error: Callable[[str], AkuError]) -> Mapping[str, Any]:
    """Return a record's JSON form in today's version.

    The memo's own sketch of a record, older than version 1, is understood too: an attribute as the pair
    `[closeness, mood]`.
    """
    check_format(value, RECORD_FORMAT, what, error)
    pair = value.get("attribute")
    if isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2:
        value = {**value, "attribute": {"closeness": pair[0], "mood": pair[1]}}
    return value


def workspace_format(workspace: Workspace, known: int = WORKSPACE_FORMAT) -> int | None:
    """Return the version of a workspace; None if nothing was written there yet.

    Raises `FileError` if the file that says so is broken, `SettingsError` if a later release wrote it.
    """
    path = workspace.state / "format.json"
    if not path.exists():
        return 1 if (workspace.state / "studio.json").exists() or workspace.secrets.exists() else None
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise FileError(f"{path}: names no format; restore it from a backup.")
    return check_format(value, known, str(workspace.home), SettingsError)


def upgrade_workspace(
    workspace: Workspace, migrations: Sequence[Migration] = WORKSPACE_MIGRATIONS, current: int = WORKSPACE_FORMAT
) -> int | None:
    """Bring a workspace to today's version, step by step, and note it; returns the version it had.

    The note is written after each step, so that a run that was cut off goes on at the step it was in.
    """
    before = workspace_format(workspace, current)
    path = workspace.state / "format.json"
    for version in range(before or current, current):
        migrations[version - 1](workspace)
        files.write_json(path, {"format": version + 1})
    if not path.exists():
        files.write_json(path, {"format": current})
    return before
