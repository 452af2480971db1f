"""The data set card: a README in the Hugging Face format, written from the numbers alone."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from dialogue.records import CLOSENESS_MEANING, MOOD_MEANING
from exporters.duplicates import grams
from exporters.splits import SPLITS
from exporters.spool import Spool

_CELLS = 1 << 25
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

FEATURES = """\
  features:
  - name: id
    dtype: string
  - name: context
    dtype: string
  - name: conversation
    list:
    - name: speaker
      dtype: string
    - name: text
      dtype: string
  - name: attribute
    struct:
    - name: closeness
      dtype: int64
    - name: mood
      dtype: int64
  - name: genre
    list: string
  - name: source
    struct:
    - name: kind
      dtype: string
    - name: annotator
      dtype: string
    - name: annotation
      dtype: int64
    - name: opener
      dtype: string
    - name: checkpoint
      dtype: string
    - name: lead_time
      dtype: float64
    - name: created_at
      dtype: string
    - name: project
      dtype: int64
    - name: task
      dtype: int64
    - name: decision
      dtype: string
    - name: edits
      list: float64
"""


@dataclasses.dataclass(slots=True)
class Statistics:
    """The numbers of the five views, and who wrote: counters over all records of a version.

    `variety` is the share of character 5-grams that no other place in the set repeats: distinct grams divided
    by the sum over dialogues of theirs, 1 when no two dialogues share any.
    """

    genres: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    pairs: collections.Counter[tuple[int, int]] = dataclasses.field(default_factory=collections.Counter)
    turns: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    lengths: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    annotators: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    checkpoints: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    variety: float = 1.0


def statistics(records: Spool) -> Statistics:
    """Count over all records, one at a time."""
    import numpy as np

    found, total = Statistics(), 0
    seen = np.zeros(_CELLS, dtype=bool)
    for _, line in records.all_lines():
        record = json.loads(line)
        own = grams("\n".join(turn["text"] for turn in record["conversation"]))
        seen[own % _CELLS] = True
        total += len(own)
        source = record["source"]
        found.genres.update(record["genre"] or ["—"])
        found.pairs[record["attribute"]["closeness"], record["attribute"]["mood"]] += 1
        found.turns[len(record["conversation"])] += 1
        found.lengths.update(len(turn["text"]) for turn in record["conversation"])
        found.kinds[source["kind"]] += 1
        found.annotators[source["annotator"] or "—"] += 1
        if source["checkpoint"]:
            found.checkpoints[source["checkpoint"]] += 1
    if total:
        # Linear counting (Whang et al. 1990): the share of empty cells tells the number of distinct grams.
        empty = max(1, _CELLS - int(seen.sum()))
        found.variety = min(1.0, -_CELLS * math.log(empty / _CELLS) / total)
    return found


def data_set_card(manifest: Mapping[str, Any], found: Statistics) -> str:
    """Return the text of `README.md`."""
    counts, settings = manifest["counts"], manifest["settings"]
    total = sum(counts[split] for split in SPLITS)
    size = next((name for bound, name in _SIZES if total < bound), "n>1M")
    files = "".join(f"  - split: {split}\n    path: {split}.jsonl\n" for split in SPLITS if counts[split])
    name = json.dumps(settings["title"], ensure_ascii=False)
    header = (
        f"---\nlanguage:\n- ja\nlicense: {settings['license']}\npretty_name: {name}\n"
        f"size_categories:\n- {size}\ntask_categories:\n- text-generation\ntags:\n- dialogue\n- small-talk\n- steerlm\n"
        f"configs:\n- config_name: default\n  data_files:\n{files}dataset_info:\n{FEATURES}---\n"
    )
    return header + "\n".join(
        [
            f"\n# {settings['title']}\n",
            f"{total:,} Japanese small-talk dialogues between User and the character Aku, written and corrected by "
            "people in Label Studio. Each has a scene (`context`), turns (`conversation`) and an attribute pair, "
            f"0–4 each: how close User is to Aku, and Aku's mood. Version `{manifest['id']}`.\n",
            "| split | dialogues |\n|---|---|",
            *(f"| {split} | {counts[split]} |" for split in SPLITS),
            "\nSplits keep together what is alike: near-duplicates (character 5-gram Jaccard ≥ "
            f"{settings['near_duplicate']}), dialogues in the same scene, and openers by the same helper. "
            "A dialogue once in test stays there in later versions.\n",
            _quality(manifest),
            "\n## Attribute pairs\n",
            _pairs(found),
            "\n## Genres\n",
            _table("genre", found.genres),
            "\n## Turns per dialogue\n",
            _summary(found.turns),
            "\n## Characters per turn\n",
            _summary(found.lengths),
            "\n## Meaning\n",
            f"Share of character 5-grams that are not repeated: {found.variety:.3f} (1: no two dialogues share any). "
            f"Near-duplicate pairs: {manifest['findings']['duplicates']}.",
            "\n## How it was made\n",
            _table("made", found.kinds),
            "",
            "`manual`: written by hand. `drafted`: Aku's turns were drafted by a checkpoint and corrected by a person; "
            "`source.edits` holds the normalised edit distance of each turn from its draft. "
            "`starter`: from the starter corpus.\n",
            _table("annotator (pseudonym)", found.annotators),
            *(["", _table("drafting checkpoint", found.checkpoints)] if found.checkpoints else []),
            "",
        ]
    )


def _quality(manifest: Mapping[str, Any]) -> str:
    findings, broken = manifest["findings"], manifest["counts"]["rejected"]
    return (
        f"Checks: {findings['duplicates']} near-duplicate pairs (each inside one split), {findings['leaks']} leaks "
        f"across splits, {findings['personal_data']} passages that look like personal data (`checks.json`); "
        f"{broken} annotations were rejected as broken (`rejected.jsonl`)."
    )


def _pairs(found: Statistics) -> str:
    lines = ["| closeness \\ mood | " + " | ".join(f"{i} {name}" for i, name in enumerate(MOOD_MEANING)) + " |"]
    lines.append("|---|" + "---|" * len(MOOD_MEANING))
    for i, name in enumerate(CLOSENESS_MEANING):
        lines.append(f"| {i} {name} | " + " | ".join(str(found.pairs[i, j]) for j in range(len(MOOD_MEANING))) + " |")
    return "\n".join(lines)


def _table(title: str, counter: Mapping[str, int]) -> str:
    rows = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return "\n".join([f"| {title} | dialogues |", "|---|---|", *(f"| {_cell(name)} | {n} |" for name, n in rows)])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _summary(counter: Mapping[int, int]) -> str:
    """Return minimum, quartiles and maximum of counted values."""
    if not counter:
        return "(none)"
    values, total = sorted(counter), sum(counter.values())

    def quantile(q: float) -> int:
        reached = 0
        for value in values:
            reached += counter[value]
            if reached >= q * total:
                return value
        return values[-1]

    mean = sum(value * n for value, n in counter.items()) / total
    row = " | ".join(str(quantile(q)) for q in (0, 0.25, 0.5, 0.75, 1))
    head = "| minimum | quarter | median | three quarters | maximum | mean |\n|---|---|---|---|---|---|"
    return f"{head}\n| {row} | {mean:.2f} |"
