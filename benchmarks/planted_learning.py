"""Does training learn to steer?  A demo-size model on the planted corpus, from five pairs only and from all 25.

    python -m benchmarks.planted_learning [--dialogues 500] [--formats tags tokens] [--scenes 6]

A tiny base is pre-trained on planted dialogues whose attributes it never sees, and on scenes with numbers in
them, since any real base has met digits (to one that has not, all five levels look the same); two models are then
fine-tuned with the studio's defaults, one on the five starting pairs, one on all 25.  Each answers
held-out scenes under all 25 pairs; a judge trained on other planted dialogues says which levels it
hears.  Printed: Spearman and within-one on all pairs and on the twenty that the first model never saw,
with 90 % intervals over scenes, beside goals (Spearman 0.8; within one 0.75 on unseen pairs) and the
judge's own ceiling.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch starts its threads

from aku.replies import make_drafter, scene_of, steer
from analysis.gate_evidence import Reply, SteeredReply
from analysis.judge import HandWritten, Judge
from analysis.steering import ceiling, human_turns, only, steering
from benchmarks.planted import ALL_PAIRS, STARTER_PAIRS, planted
from dialogue import Checkpoint, Dialogue, Registry, write_dialogues
from exporters.sft import TrainSettings, train
from exporters.sft.demo_base import make_demo_base
from ml_backend.settings import BackendSettings

SCENES = [
    f"{hour}時{minute}分。{count}人で待っている。" for hour in range(10) for minute in range(10) for count in range(5)
]
UNSEEN = [pair for pair in ALL_PAIRS if pair not in STARTER_PAIRS]


def trained(
    root: Path, base: Path, name: str, pairs: Sequence[tuple[int, int]], settings: TrainSettings, n: int
) -> Checkpoint:
    """Fine-tune on `n` planted dialogues over `pairs`."""
    version = root / f"{name}-{settings.format}"
    write_dialogues(version / "train.jsonl", list(planted(n, seed=1, pairs=pairs)))
    write_dialogues(version / "validation.jsonl", list(planted(25, seed=2, pairs=pairs)))
    return train(base, version, Registry(root / "checkpoints"), settings, work=root / "runs")


def heard(checkpoint: Checkpoint, judge: Judge, scenes: Sequence[Dialogue], replies: int) -> list[SteeredReply]:
    """Answer every scene under every pair, and let the judge hear each answer."""
    settings = BackendSettings(device="cpu")
    drafter = make_drafter(checkpoint, settings)
    said = steer(drafter, [scene_of(d) for d in scenes], replies, most_tokens=settings.max_new_tokens)
    keys = [key for key in said if any(s.text for s in said[key])]
    levels = judge.hear_together([[s.text for s in said[key] if s.text] for key in keys])
    return [
        SteeredReply(*key, float(h[0]), float(h[1]), tuple(Reply(s.text, None, s.ending) for s in said[key]))
        for key, h in zip(keys, levels, strict=True)
    ]


def show(name: str, rows: Sequence[SteeredReply]) -> None:
    """One line a group of pairs."""
    for group, pairs in (("all 25", ALL_PAIRS), ("seen 5", STARTER_PAIRS), ("unseen 20", UNSEEN)):
        found = steering(only(rows, pairs))
        cells = []
        for attribute, c in (("closeness", found.closeness), ("mood", found.mood)):
            cells.append(
                f"{attribute} rho {c.spearman.value:+.2f} [{c.spearman.low:+.2f}, {c.spearman.high:+.2f}]"
                f" within one {c.within_one.value:.2f} exact {c.exact.value:.2f} leak {c.leak.value:+.2f}"
            )
        print(f"  {name:22} {group:9} | " + " | ".join(cells), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=int, default=500)
    parser.add_argument("--formats", nargs="+", default=["tags", "tokens"])
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--epochs", type=float, default=0.0, help="0: the studio's default.")
    parser.add_argument("--tokens", type=int, default=300_000, help="Tokens of pre-training.")
    parser.add_argument("--keep", type=Path, help="Folder to work in; finished parts are taken from it.")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        base = make_demo_base(root / "base", list(planted(300, seed=9)), SCENES, tokens=options.tokens)
        by_hand = HandWritten.of(list(planted(200, seed=5)))
        judge, top = Judge(by_hand), ceiling(human_turns(by_hand))
        print(
            f"judge's ceiling: rho closeness {top.closeness.spearman.value:+.2f}, mood {top.mood.spearman.value:+.2f}"
        )
        scenes = list(planted(options.scenes, seed=7))
        for prompt_format in options.formats:
            settings = TrainSettings(format=prompt_format, epochs=options.epochs)
            for name, pairs in (("five pairs", STARTER_PAIRS), ("all pairs", ALL_PAIRS)):
                checkpoint = trained(root, base, name, pairs, settings, options.dialogues)
                loss = checkpoint.card["metrics"]["held_out_loss"]
                print(f"{prompt_format}, {name}: held-out loss {loss['before']:.2f} -> {loss['after']:.2f}", flush=True)
                show(f"{prompt_format}, {name}", heard(checkpoint, judge, scenes, 3))
    print(f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
