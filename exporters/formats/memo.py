"""The memo's own records: `context`, `conversation`, `attribute`, and nothing else."""

from __future__ import annotations

from pathlib import Path

from dialogue import files
from exporters.splits import SPLITS
from exporters.versions import DatasetVersion, read_records


def write(version: DatasetVersion, folder: Path) -> dict[str, int]:
    """Write `train.jsonl`, `validation.jsonl` and `test.jsonl`; returns rows by split."""
    return {
        split: files.write_jsonl(
            folder / f"{split}.jsonl",
            (
                {key: record[key] for key in ("context", "conversation", "attribute")}
                for record in read_records(version.file(split))
            ),
        )
        for split in SPLITS
    }
