"""A data set version in other shapes, one small module each.

`memo`: the three keys of the memo's own code.  `messages`: chat messages for TRL.  `steerlm`: plain text.
`preferences`: correction against draft, for `DPOTrainer`.  `parquet`: columns.  `csv`: for a spreadsheet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from dialogue.errors import SettingsError
from exporters.formats import memo, messages, parquet, preferences, spreadsheet, steerlm
from exporters.versions import DatasetVersion

FORMATS = ("memo", "messages", "steerlm", "preferences", "parquet", "csv")


def write_format(
    version: DatasetVersion, name: str, folder: Path, *, preference_distance: float = 0.2
) -> dict[str, int]:
    """Write a version in format `name` into `folder`; returns the number of rows by split.

    Every file is replaced atomically.  Raises `SettingsError` for an unknown format.

    Args:
        version: the data set version.
        name: one of `FORMATS`.
        folder: where to write; made if need be.
        preference_distance: smallest edit distance of a preference pair.
    """
    check_formats([name])
    if name == "preferences":
        return preferences.write(version, folder, preference_distance)
    writers: dict[str, Callable[[DatasetVersion, Path], dict[str, int]]] = {
        "memo": memo.write,
        "messages": messages.write,
        "steerlm": steerlm.write,
        "parquet": parquet.write,
        "csv": spreadsheet.write,
    }
    return writers[name](version, folder)


def check_formats(names: Iterable[str]) -> None:
    """Raise `SettingsError` for a name that is no format."""
    for name in names:
        if name not in FORMATS:
            raise SettingsError(f"there is no format {name!r}; choose one of {', '.join(FORMATS)}.")


__all__ = ["FORMATS", "check_formats", "write_format"]
