"""An export killed at any moment leaves no half version behind, and the next one completes."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.export_dialogues import dialogues
from dialogue import load_taxonomy, write_dialogues
from exporters import ExportSettings, export_file, get_version, latest_version, verify_version
from exporters.splits import read_ledger

ROOT = Path(__file__).parent.parent.parent
RUNS = """
import os, signal, sys, time
from pathlib import Path
from dialogue import load_taxonomy
from exporters import ExportSettings, export_file

TOUCHING = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.scandir", "os.listdir",
    "sqlite3.connect", "tempfile.mkstemp", "tempfile.mkdtemp", "shutil.rmtree", "fcntl.flock", "os.truncate"}
taxonomy = load_taxonomy()
left = 0

def count(event, arguments):
    # Every opening, renaming and removing of a file raises an audit event: this process is killed at one of them.
    global left
    if event in TOUCHING:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

for line in sys.stdin:  # one run a line, each in a process of its own
    source, datasets, events, seconds = line.split()
    child = os.fork()
    if child == 0:
        left = int(events)
        sys.addaudithook(count)
        export_file(Path(source), Path(datasets), ExportSettings(), taxonomy=taxonomy)
        if not float(seconds):
            print(-left, flush=True)
        os._exit(0)
    if float(seconds):
        time.sleep(float(seconds))
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status or float(seconds):
        print("killed" if status == -signal.SIGKILL else "done", flush=True)
"""


class Runs:
    """A process that runs exports in children of its own and kills them at a given moment."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUNS], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, source: Path, datasets: Path, *, events: int = 0, seconds: float = 0.0) -> str:
        """Kill at the `events`-th touch of a file, or after some seconds; returns what became of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{source} {datasets} {events} {seconds}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def check(datasets: Path, known: set[str]) -> None:
    """What a reader sees is whole: `latest.json`, every version, the ledger."""
    assert latest_version(datasets).id in known
    for path in datasets.iterdir():
        if re.fullmatch("[0-9a-f]{12}", path.name):
            assert path.name in known
            version = get_version(datasets, path.name)
            verify_version(version)
            for name in ("README.md", "checks.json", "rejected.jsonl"):
                assert (version.path / name).is_file()
    read_ledger(datasets / "splits.json")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_killed_at_many_moments(tmp_path: Path) -> None:
    given = list(dialogues(50, share_of_copies=0.1))
    small, large = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    write_dialogues(small, given[:25])
    write_dialogues(large, given)
    before, never_killed = tmp_path / "before", tmp_path / "never"
    known = {export_file(small, before, ExportSettings(), taxonomy=load_taxonomy()).id}
    shutil.copytree(before, never_killed)
    known.add(export_file(large, never_killed, ExportSettings(), taxonomy=load_taxonomy()).id)

    shutil.copytree(before, tmp_path / "counted")
    runs = Runs()
    events = int(runs.run(large, tmp_path / "counted"))
    assert events > 40

    random_ = random.Random(11)
    moments = random_.sample(range(1, events - 1), 24)
    for moment in [*moments, events - 1, events]:
        datasets = tmp_path / f"killed-{moment}"
        shutil.copytree(before, datasets)
        assert runs.run(large, datasets, events=moment) == "killed"
        check(datasets, known)
        version = export_file(large, datasets, ExportSettings(), taxonomy=load_taxonomy())
        assert latest_version(datasets) == version
        assert tree(datasets) == tree(never_killed)

    datasets = tmp_path / "killed"
    shutil.copytree(before, datasets)
    found = [runs.run(large, datasets, seconds=random_.uniform(0.001, 0.3)) for _ in range(12)]  # and in between
    assert "killed" in found
    runs.close()
    check(datasets, known)
    export_file(large, datasets, ExportSettings(), taxonomy=load_taxonomy())
    assert tree(datasets) == tree(never_killed)
