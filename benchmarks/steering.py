"""Does the evaluation find what was planted, and nothing where nothing was?

    python -m benchmarks.steering [--repeats 20]

No model is trained here: replies come from the planted rules themselves, obeyed always, sometimes or
never, so that the truth is known.  Prints, over repeats with new seeds, the measured control of both
attributes with the judge's ceiling; the same after the pairs of the judge's corpus were shuffled; how the
judge from the five starting pairs hears the twenty pairs that it never saw; and how often the gate's
control check passes where there is no effect.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence

import numpy as np

from analysis.gate_checks import Outcome, control_checks
from analysis.gate_evidence import Reply, SteeredReply
from analysis.gate_settings import GateSettings
from analysis.judge import HandWritten, Judge
from analysis.steering import Ceiling, Steering, ceiling, human_turns, only, steering
from benchmarks.planted import ALL_PAIRS, STARTER_PAIRS, perfect_replies, planted, shuffled

UNSEEN = [pair for pair in ALL_PAIRS if pair not in STARTER_PAIRS]
KINDS = {
    "model obeys always": ("planted", 1.0, ALL_PAIRS),
    "model obeys half the time": ("planted", 0.5, ALL_PAIRS),
    "model never obeys": ("planted", 0.0, ALL_PAIRS),
    "shuffled corpus, model never obeys": ("shuffled", 0.0, ALL_PAIRS),
    "shuffled corpus, model obeys": ("shuffled", 1.0, ALL_PAIRS),
    "judge from five pairs, all 25": ("five pairs", 1.0, ALL_PAIRS),
    "judge from five pairs, unseen 20": ("five pairs", 1.0, UNSEEN),
}
"""What is tried: the judge's corpus, how often the model does as asked, the pairs looked at."""


def heard(judge: Judge, scenes: int, seed: int, obeys: float) -> list[SteeredReply]:
    """Replies of the planted rules, heard by the judge."""
    rows = perfect_replies(scenes, seed=seed, obeys=obeys)
    levels = judge.hear_together([texts for *_, texts in rows])
    return [
        SteeredReply(scene, c, m, float(h[0]), float(h[1]), tuple(Reply(text, None, None) for text in texts))
        for (scene, c, m, texts), h in zip(rows, levels, strict=True)
    ]


def line(name: str, found: Sequence[Steering]) -> str:
    """One line of figures: mean over repeats."""

    def mean(attribute: str, measure: str) -> float:
        controls = [f.closeness if attribute == "closeness" else f.mood for f in found]
        return float(
            np.mean(
                [
                    dict(
                        zip(
                            ("exact", "within_one", "spearman", "leak"),
                            (c.exact, c.within_one, c.spearman, c.leak),
                            strict=True,
                        )
                    )[measure].value
                    for c in controls
                ]
            )
        )

    cells = [
        f"{attribute}: rho {mean(attribute, 'spearman'):+.2f}  exact {mean(attribute, 'exact'):.2f}  "
        f"within one {mean(attribute, 'within_one'):.2f}  leak {mean(attribute, 'leak'):+.2f}"
        for attribute in ("closeness", "mood")
    ]
    return f"  {name:34} " + " | ".join(cells)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args(arguments).repeats
    warnings.filterwarnings("ignore")
    settings, begun = GateSettings(), time.monotonic()
    found: dict[str, list[Steering]] = {kind: [] for kind in KINDS}
    passes = dict.fromkeys(KINDS, 0)
    tops: dict[str, list[Ceiling]] = {"planted": [], "shuffled": [], "five pairs": []}
    for repeat in range(repeats):
        corpus = list(planted(200, seed=repeat))
        five = list(planted(100, seed=repeat, pairs=STARTER_PAIRS))
        sets = {"planted": corpus, "shuffled": shuffled(corpus, repeat), "five pairs": five}
        judges = {name: Judge(HandWritten.of(dialogues)) for name, dialogues in sets.items()}
        human = {name: human_turns(HandWritten.of(dialogues)) for name, dialogues in sets.items()}
        for name, units in human.items():
            tops[name].append(ceiling(units, draws=50))
        for number, (kind, (name, obeys, pairs)) in enumerate(KINDS.items()):
            rows = only(heard(judges[name], settings.scenes, 1000 * number + repeat, obeys), pairs)
            found[kind].append(steering(rows, seed=repeat, draws=50))
            checks = control_checks(rows, human[name], settings)
            passes[kind] += all(check.outcome is Outcome.PASS for check in checks)
    print(f"{repeats} repeats; judge from 200 planted dialogues (100 for the five pairs); {settings.scenes} scenes.")
    for name, top in tops.items():
        rho = [
            np.mean([x.spearman.value for x in side]) for side in ([t.closeness for t in top], [t.mood for t in top])
        ]
        print(f"  judge's ceiling on human turns, {name:10}: rho closeness {rho[0]:+.2f}, mood {rho[1]:+.2f}")
    for kind in KINDS:
        print(f"{line(kind, found[kind])} | gate's control checks pass {passes[kind]}/{repeats}")
    print(f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
