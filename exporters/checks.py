"""What to look at before trusting a version: duplicates, leaks across splits, personal data.

Nothing is removed here; findings are listed in `checks.json` and counted in the manifest and on the screen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from dialogue.text import personal_data
from exporters.splits import Component
from exporters.spool import Spool

Pair = tuple[str, str, float]


def duplicate_findings(pairs: Iterable[Pair], split: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return near-duplicate pairs of ids as findings, with the splits they are in."""
    return [
        {"a": a, "b": b, "jaccard": round(similarity, 4), "splits": sorted({split[a], split[b]})}
        for a, b, similarity in sorted((min(x, y), max(x, y), z) for x, y, z in pairs)
    ]


def leak_findings(groups: Iterable[Component], split: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return components that lie in more than one split; there is none unless something is broken."""
    leaks = []
    for group in groups:
        splits = sorted({split[fact.id] for fact in group.members})
        if len(splits) > 1:
            leaks.append({"ids": [fact.id for fact in group.members], "splits": splits})
    return leaks


def personal_findings(spool: Spool) -> list[dict[str, Any]]:
    """Return every e-mail address, URL, telephone number and postal code in a record's texts.

    `turn` counts from 1; 0 is the context.
    """
    found = []
    for split, line in spool.all_lines():
        record = json.loads(line)
        texts = [record["context"], *(turn["text"] for turn in record["conversation"])]
        for number, text in enumerate(texts):
            for kind, match in personal_data(text):
                found.append({"id": record["id"], "split": split, "turn": number, "kind": kind, "text": match})
    return found
