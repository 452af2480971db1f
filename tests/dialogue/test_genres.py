"""The taxonomy covers the three lists, and a broken copy is refused with its place."""

from __future__ import annotations

import pytest

from dialogue import SettingsError, load_taxonomy
from dialogue.genres import DEFAULT_FILE


def test_default_taxonomy_covers_every_entry() -> None:
    taxonomy = load_taxonomy()
    assert len(taxonomy.topics) == 20
    assert [len(published.entries) for published in taxonomy.lists] == [8, 13, 11]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"C8", "G10"', '"C8", "X1"', "X1"),
        ('covers = ["C8", "G10"]', 'covers = ["C8"]', "G10"),
        ('name = "思い出"', 'name = "音楽"', "音楽 occurs twice"),
        ("[[topic]]", "[[topics]]", "not a genre taxonomy"),
    ],
)
def test_broken_taxonomy(tmp_path, old: str, new: str, words: str) -> None:
    source = DEFAULT_FILE.read_text(encoding="utf-8")
    assert old in source
    path = tmp_path / "genres.toml"
    path.write_text(source.replace(old, new), encoding="utf-8")
    with pytest.raises(SettingsError, match=words):
        load_taxonomy(path)
