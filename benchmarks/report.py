"""How long the bias report takes and how much memory, with the map and the page, beside scikit-learn's t-SNE alone.

    python -m benchmarks.report                          # 300 to 100,000 dialogues, a quarter of an hour
    python -m benchmarks.report --sizes 300 3000         # some sizes

Every size is a process of its own, which reads a JSONL file as `aku report` does, measures, and writes page,
pictures, JSON and Markdown; nothing is kept from one to the next.  t-SNE alone runs in a process of its own too, with
scikit-learn's defaults, on the embedding that the report uses, up to `--tsne-until` dialogues.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.synthetic import Bias, dialogues
from dialogue import iter_dialogues, write_dialogues

BLOCK = 5_000
"""Dialogues made at once, so that making them needs little memory."""


def make_file(path: Path, n: int) -> None:
    """Write `n` unbiased synthetic dialogues as canonical JSONL."""
    sets = (dialogues(min(BLOCK, n - start), start, Bias()) for start in range(0, n, BLOCK))
    write_dialogues(path, [dialogue for found in sets for dialogue in found])


def used() -> dict[str, float]:
    """CPU seconds and the largest resident memory (GiB) of this process so far."""
    now = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu": now.ru_utime + now.ru_stime, "gib": now.ru_maxrss / 2**20}


def run_report(path: Path, folder: Path) -> dict[str, float]:
    """Read, measure, write; returns wall seconds of each part, CPU seconds, memory, and the page's size (MB)."""
    began = time.perf_counter()
    from analysis import PlanSettings, report, write_report

    found = list(iter_dialogues(path))
    read = time.perf_counter()
    result = report(found, plan_settings=PlanSettings(stage="all"), version="benchmark")
    measured = time.perf_counter()
    index = write_report(result, folder)
    ended = time.perf_counter()
    return {
        "n": len(found),
        "read": read - began,
        "measure": measured - read,
        "write": ended - measured,
        "total": ended - began,
        "page": index.stat().st_size / 1e6,
        **used(),
    }


def run_tsne(path: Path) -> dict[str, float]:
    """scikit-learn's t-SNE alone, on the report's embedding of the same dialogues, every one of them drawn."""
    from sklearn.manifold import TSNE

    from analysis.embedding import embed
    from analysis.features import text_of
    from analysis.vocabulary import content_words, split

    texts = [text_of(dialogue) for dialogue in iter_dialogues(path)]
    vectors = embed(texts, [content_words(split(text)) for text in texts])
    began, before = time.perf_counter(), used()
    TSNE(random_state=0).fit_transform(vectors.astype("float32"))
    return {"total": time.perf_counter() - began, "cpu": used()["cpu"] - before["cpu"], "gib": used()["gib"]}


def apart(*arguments: str) -> dict[str, float]:
    """Run a part in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.report", *arguments]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {key: float(value) for key, value in json.loads(result.stdout).items()}


def measure(sizes: list[int], tsne_until: int) -> None:
    """Measure every size and print a table, ratios and growth."""
    print("Report with map, page and pictures (goals: 3,000 in ≤ 30 s, 100,000 in ≤ 600 s and ≤ 4 GiB)")
    print(
        "       n    read  measure   write    total     CPU   memory    page   t-SNE alone  report / t-SNE", flush=True
    )
    totals: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in sizes:
            path = Path(folder) / f"{n}.jsonl"
            make_file(path, n)
            found = apart("--report", str(path), str(Path(folder) / f"report-{n}"))
            totals[n] = found["total"]
            line = f"{n:8,} {found['read']:6.1f}s {found['measure']:7.1f}s {found['write']:6.1f}s "
            line += f"{found['total']:7.1f}s {found['cpu']:6.1f}s {found['gib']:5.2f}GiB {found['page']:5.1f}MB"
            if n <= tsne_until:
                alone = apart("--tsne", str(path))
                line += f" {alone['total']:12.1f}s {found['total'] / alone['total']:15.2f}"
            print(line, flush=True)
            path.unlink()
    print("\nGrowth: how many times as long, and how many times as long n log n would be")
    for a, b in itertools.pairwise(sizes):
        print(f"  {a:8,} → {b:8,}: {totals[b] / totals[a]:6.1f}, {b * math.log(b) / (a * math.log(a)):6.1f}")
    if 3000 in totals and sizes[-1] > 3000:
        a, b = 3000, sizes[-1]
        print(f"  {a:8,} → {b:8,}: {totals[b] / totals[a]:6.1f}, {b * math.log(b) / (a * math.log(a)):6.1f} in all")


def main() -> None:
    """Measure, or run one part for the measuring process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 1000, 3000, 10_000, 30_000, 100_000])
    parser.add_argument("--tsne-until", type=int, default=10_000, help="largest size at which t-SNE alone is run")
    parser.add_argument("--report", nargs=2, type=Path, metavar=("FILE", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--tsne", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.report:
        print(json.dumps(run_report(*options.report)))
    elif options.tsne:
        print(json.dumps(run_tsne(options.tsne)))
    else:
        measure(sorted(options.sizes), options.tsne_until)


if __name__ == "__main__":
    sys.exit(main())
