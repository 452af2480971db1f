"""CSV for a spreadsheet: one row a turn, so that a dialogue reads like a script and no cell grows too long.

Texts come from people, and a spreadsheet runs a cell that begins like a formula.  Such cells get an apostrophe in
front (OWASP, "CSV Injection").
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dialogue import files
from exporters.splits import SPLITS
from exporters.versions import DatasetVersion, read_records

COLUMNS = tuple("id turn speaker text context closeness mood genre kind annotator checkpoint".split())
COLUMNS = (*COLUMNS, "edit", "lead_time", "decision", "created_at")
_TRIGGERS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def safe(cell: object) -> str:
    """Return a cell's text such that no spreadsheet takes it for a formula."""
    text = "" if cell is None else str(cell)
    return "'" + text if text.lstrip(" \u3000").startswith(_TRIGGERS) or text.startswith(_TRIGGERS) else text


def write(version: DatasetVersion, folder: Path) -> dict[str, int]:
    """Write UTF-8 with a byte order mark, which Excel needs to read Japanese; returns rows by split."""
    counts = {}
    for split in SPLITS:
        with files.atomic_open(folder / f"{split}.csv") as handle:
            handle.write("\ufeff")
            writer = csv.writer(handle, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
            writer.writerow(COLUMNS)
            count = 0
            for record in read_records(version.file(split)):
                for row in _rows(record):
                    writer.writerow([safe(cell) for cell in row])
                    count += 1
        counts[split] = count
    return counts


def _rows(record: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    source = record["source"]
    edits = source["edits"] or [None] * len(record["conversation"])
    for number, (turn, edit) in enumerate(zip(record["conversation"], edits, strict=False), 1):
        yield (
            record["id"],
            number,
            turn["speaker"],
            turn["text"],
            record["context"],
            record["attribute"]["closeness"],
            record["attribute"]["mood"],
            "、".join(record["genre"]),
            source["kind"],
            source["annotator"],
            source["checkpoint"],
            edit,
            source["lead_time"],
            source["decision"],
            source["created_at"],
        )
