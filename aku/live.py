"""The dialogues as they stand in Label Studio this moment, without making a data set version."""

from __future__ import annotations

from aku.connection import Connection
from dialogue.errors import SettingsError
from dialogue.records import Dialogue
from dialogue.settings import Workspace, load_section


def live_dialogues(workspace: Workspace, connection: Connection) -> list[Dialogue]:
    """Read the accepted dialogues of the project; after the first call only what changed is fetched.

    The cache is a file of its own under `state/`, so that a running export is never in the way.
    Raises `LabelStudioError`, `SettingsError`.
    """
    from exporters import ExportSettings, studio
    from exporters.annotations import Accepted, Reader
    from exporters.cache import TaskCache
    from exporters.provenance import read_journal

    salt = workspace.read_secrets().get("PSEUDONYM_SALT")
    if not salt:
        raise SettingsError(f"{workspace.secrets}: holds no PSEUDONYM_SALT; run `aku up` to complete it.")
    settings = load_section(workspace.settings, "export", ExportSettings)
    name = studio.project_name(connection.client, connection.project)
    cache = TaskCache(workspace.state / f"live-{connection.project}.sqlite", name)
    try:
        cache.refresh(connection.client, connection.project, size=settings.page_size)
        journal = read_journal(workspace.state / "drafts.jsonl", name)
        reader = Reader(settings, connection.url, connection.project, salt, journal)
        found: dict[str, Dialogue] = {}
        for task in cache.tasks():
            for row in reader.read(task):
                if isinstance(row, Accepted):
                    found.setdefault(row.dialogue.id, row.dialogue)
    finally:
        cache.close()
    return list(found.values())
