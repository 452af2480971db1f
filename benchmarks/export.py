"""Exporting: against Label Studio's own JSON export, against itself when nothing changed, and at 100,000 records.

    python benchmarks/export.py                       # both parts; starts a Label Studio of its own
    python benchmarks/export.py --part studio --dialogues 3000
    python benchmarks/export.py --part file --records 10000 30000 100000

Part "studio": the same project of finished dialogues is read by turns with Label Studio's JSON export (the bytes
thrown away), with a first `export_project` into an empty folder, and with a second one that finds nothing
changed.  An export here is everything: reading, records, near-duplicates, splits, checks, card, files.  Ratios are of
medians.  Part "file": records from a file through splits, checks, version and every format, each size in a process of
its own, whose CPU seconds and peak memory are printed; the peer is reading the same file with `json.loads`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.export_dialogues import dialogues
from dialogue import files, load_taxonomy
from exporters import DatasetVersion, ExportSettings, export_file, export_project, import_dialogues
from exporters.formats import FORMATS, write_format


def timed(call: Callable[[], Any], clock: Callable[[], float] = time.monotonic) -> tuple[float, Any]:
    """Return seconds and result."""
    start = clock()
    result = call()
    return clock() - start, result


def peak() -> int:
    """Peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


# --- against Label Studio ---------------------------------------------------------------------------------------


def studio_part(count: int, rounds: int, home: Path, url: str | None, token: str | None) -> None:
    """Print the ratios against Label Studio's own export."""
    from label_studio_sdk import LabelStudio

    from dialogue import LabelStudioError, Workspace, label_studio

    server = None
    if url is None:
        from aku import servers

        workspace = Workspace(home)
        secrets = servers.ensure_secrets(workspace, "benchmark@studio.local")
        token = secrets["LABEL_STUDIO_USER_TOKEN"]
        port = 18090
        server = servers.start_label_studio(workspace, "127.0.0.1", port, secrets)
        url = f"http://127.0.0.1:{port}"
        server.wait(LabelStudioError, 600)
    try:
        client: Any = LabelStudio(base_url=url, api_key=token, timeout=600)
        config = label_studio.labeling_config(load_taxonomy())
        project = int(client.projects.create(title=f"benchmark {count}", label_config=config).id)
        seconds, _ = timed(lambda: import_dialogues(client, project, dialogues(count)))
        print(f"import of {count} finished dialogues            {seconds:8.2f} s")
        _against_studio(client, project, rounds, home, url)
    finally:
        if server is not None:
            server.stop()


def _against_studio(client: Any, project: int, rounds: int, home: Path, url: str) -> None:
    def ours(folder: Path) -> DatasetVersion:
        return export_project(
            client, project, folder, ExportSettings(), taxonomy=load_taxonomy(), url=url, pseudonym_salt="benchmark"
        )

    def peer() -> int:
        # What the SDK's `exports.as_json` asks for, without parsing the answer.
        chunks: Iterator[bytes] = client.projects.exports.download_sync(project, export_type="JSON")
        return sum(len(chunk) for chunk in chunks)

    times: dict[str, list[float]] = {"peer": [], "first": [], "second": []}
    size, version = 0, None
    for number in range(rounds):
        folder = home / f"datasets-{number}"
        seconds, size = timed(peer)
        times["peer"].append(seconds)
        seconds, version = timed(lambda folder=folder: ours(folder))
        times["first"].append(seconds)
        seconds, again = timed(lambda folder=folder: ours(folder))
        times["second"].append(seconds)
        assert version == again
        shutil.rmtree(folder)
    assert version is not None
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, label in (
        ("peer", "Label Studio's JSON export"),
        ("first", "first export"),
        ("second", "unchanged export"),
    ):
        spread = " ".join(f"{value:.2f}" for value in times[name])
        print(f"{label:47}{median[name]:6.2f} s   ({spread})")
    print(f"records {sum(version.counts[s] for s in ('train', 'validation', 'test'))}, JSON {size / 1e6:.1f} MB")
    print(f"first export / Label Studio's          {median['first'] / median['peer']:.2f}   (goal: at most 1.50)")
    print(f"unchanged export / first export        {median['second'] / median['first']:.3f}  (goal: below 0.100)")


# --- from a file ------------------------------------------------------------------------------------------------


def file_part(sizes: list[int], home: Path) -> None:
    """Print times and peak memory at growing sizes, each in a process of its own."""
    rows = []
    for size in sizes:
        path = home / f"{size}.jsonl"
        files.write_jsonl(path, (d.to_dict() for d in dialogues(size, share_of_copies=0.05)))
        command = [sys.executable, __file__, "--child", str(path), str(home / f"out-{size}")]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        shutil.rmtree(home / f"out-{size}")
        path.unlink()
    for size, row in zip(sizes, rows, strict=True):
        steps = "  ".join(f"{name} {seconds:.1f}" for name, seconds in row["seconds"].items())
        print(f"{size:7} records, {row['megabytes']:.0f} MB: peak {row['peak']} MiB; CPU seconds: {steps}")
        found = [f"{name} {row[name]}" for name in ("near-duplicate pairs", "largest component", "leaks")]
        print("        " + ", ".join(found))
        work = sum(row["seconds"].values()) - row["seconds"]["read"]
        print(f"        all of it / reading the file with json.loads   {work / row['seconds']['read']:.1f}")
    if len(rows) > 1:
        print(f"peak memory, {sizes[-1]} records / {sizes[0]} records   {rows[-1]['peak'] / rows[0]['peak']:.2f}")
    print(f"peak memory at {sizes[-1]} records / 1 GiB             {rows[-1]['peak'] / 1024:.2f}   (goal: below 1.00)")


def child(path: Path, out: Path) -> None:
    """Run one size and print a JSON line."""
    seconds: dict[str, float] = {}
    clock = time.process_time  # one process, one thread: what else the machine does must not count
    seconds["read"], _ = timed(lambda: sum(1 for _ in files.read_jsonl(path)), clock)
    taxonomy = load_taxonomy()
    seconds["version"], version = timed(lambda: export_file(path, out, ExportSettings(), taxonomy=taxonomy), clock)
    for name in FORMATS:
        seconds[name], _ = timed(lambda name=name: write_format(version, name, out / "formats" / name), clock)
    manifest = version.manifest
    row = {
        "megabytes": path.stat().st_size / 1e6,
        "peak": peak(),
        "seconds": seconds,
        "near-duplicate pairs": manifest["findings"]["duplicates"],
        "leaks": manifest["findings"]["leaks"],
        "largest component": manifest["components"]["largest"],
    }
    print(json.dumps(row))


def main() -> None:
    """Parse arguments and run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["studio", "file", "both"], default="both")
    parser.add_argument("--dialogues", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--url", help="a running Label Studio; its token is read from the variable LABEL_STUDIO_TOKEN")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    with tempfile.TemporaryDirectory(prefix="aku-export-") as folder:
        if arguments.part in ("studio", "both"):
            token = os.environ.get("LABEL_STUDIO_TOKEN")
            studio_part(arguments.dialogues, arguments.rounds, Path(folder), arguments.url, token)
        if arguments.part in ("file", "both"):
            file_part(arguments.records, Path(folder))


if __name__ == "__main__":
    main()
