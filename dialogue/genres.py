"""The genre taxonomy: topics, and which entries of the three published lists each one covers."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from pathlib import Path

from dialogue.errors import SettingsError

DEFAULT_FILE = Path(__file__).parent / "data" / "genres.toml"


@dataclasses.dataclass(frozen=True, slots=True)
class PublishedList:
    """One list of what small talk is about: its key ("C"), title, and entries code → name."""

    key: str
    title: str
    entries: dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the taxonomy and the codes of the list entries it covers."""

    name: str
    covers: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Taxonomy:
    """Topics in their order on the screen, and the lists they merge."""

    topics: tuple[Topic, ...]
    lists: tuple[PublishedList, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Topic names in order."""
        return tuple(topic.name for topic in self.topics)


def load_taxonomy(path: Path | None = None) -> Taxonomy:
    """Read a taxonomy file (default: the one in this package).

    Raises `SettingsError` if the file is broken, a topic occurs twice, covers an unknown entry, or
    an entry of a list is covered by no topic.
    """
    return _load(path if path is not None and path.exists() else DEFAULT_FILE)


@functools.lru_cache(maxsize=8)
def _load(path: Path) -> Taxonomy:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        lists = tuple(PublishedList(k, v["title"], dict(v["entries"])) for k, v in data["lists"].items())
        topics = tuple(Topic(t["name"], tuple(t["covers"])) for t in data["topic"])
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"{path}: not a genre taxonomy ({error!r}); compare it with {DEFAULT_FILE.name}."
        ) from error
    names = [topic.name for topic in topics]
    if doubles := {name for name in names if names.count(name) > 1}:
        raise SettingsError(f"{path}: the topic {sorted(doubles)[0]} occurs twice; topic names must differ.")
    entries = {code for published in lists for code in published.entries}
    covered = {code for topic in topics for code in topic.covers}
    if unknown := covered - entries:
        raise SettingsError(f"{path}: a topic covers {sorted(unknown)[0]}, which is in none of the lists.")
    if missing := entries - covered:
        raise SettingsError(f"{path}: no topic covers {sorted(missing)[0]}; add it to a topic's covers.")
    return Taxonomy(topics, lists)
