"""Columns on disk: the canonical records as Parquet, one file a split, read in row groups."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from dialogue import files
from exporters.splits import SPLITS
from exporters.versions import DatasetVersion, read_records

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = 2_000


def schema() -> pa.Schema:
    """Return the columns of a canonical record; fixed, so that a column of nulls keeps its type."""
    import pyarrow as pa

    text, whole, number = pa.string(), pa.int64(), pa.float64()
    source = [("kind", text), ("annotator", text), ("annotation", whole), ("opener", text), ("checkpoint", text)]
    source += [("lead_time", number), ("created_at", text), ("project", whole), ("task", whole), ("decision", text)]
    return pa.schema(
        [
            ("id", text),
            ("context", text),
            ("conversation", pa.list_(pa.struct([("speaker", text), ("text", text)]))),
            ("attribute", pa.struct([("closeness", whole), ("mood", whole)])),
            ("genre", pa.list_(text)),
            ("source", pa.struct([*source, ("edits", pa.list_(number))])),
        ]
    )


def write(version: DatasetVersion, folder: Path) -> dict[str, int]:
    """Write `train.parquet`, `validation.parquet` and `test.parquet`; returns rows by split."""
    import pyarrow as pa
    from pyarrow import parquet

    counts = {}
    for split in SPLITS:
        records, count = read_records(version.file(split)), 0
        with (
            files.atomic_open(folder / f"{split}.parquet", "wb") as handle,
            parquet.ParquetWriter(handle, schema(), compression="zstd") as writer,  # type: ignore[no-untyped-call]
        ):
            while rows := list(itertools.islice(records, ROW_GROUP)):
                writer.write_table(pa.Table.from_pylist(rows, schema=schema()))
                count += len(rows)
        counts[split] = count
    return counts
