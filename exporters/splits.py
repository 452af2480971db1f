"""Which split a dialogue belongs to: together with its relatives, evenly over strata, and for good.

Relatives (near-duplicates, the same scene, openers by the same helper) form components; a component goes
into one split as a whole, so that nothing in test was nearly seen in training.  What was decided once is
kept in a ledger, `datasets/splits.json`: a dialogue once in test never leaves it.  When the set grows so
that components of different splits merge, test wins over validation, and validation over train.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dialogue import FileError, files
from exporters.duplicates import Groups, packed
from exporters.settings import ExportSettings
from exporters.spool import Facts

SPLITS = ("train", "validation", "test")
_RANK = {"train": 0, "validation": 1, "test": 2}
_TOTAL_WEIGHT = 10.0  # a split's size matters more than the evenness of any single stratum


@dataclasses.dataclass(frozen=True, slots=True)
class Component:
    """Records that must stay together, smallest id first."""

    members: tuple[Facts, ...]

    @property
    def key(self) -> str:
        """A number drawn from the smallest id: the order in which equals are placed, blind to content and date."""
        return hashlib.sha256(self.members[0].id.encode()).hexdigest()


def components(facts: Sequence[Facts], duplicates: Iterable[tuple[int, int]]) -> list[Component]:
    """Group records that are near-duplicates, share a scene or an opener's author."""
    groups = Groups()
    for a, b in duplicates:
        groups.join(a, b)
    first: dict[tuple[str, str], int] = {}
    for fact in facts:
        keys = [("context", packed(fact.context))]
        if author := opener_author(fact.opener):
            keys.append(("opener", author))
        for key in keys:
            groups.join(first.setdefault(key, fact.number), fact.number)
    members: dict[int, list[Facts]] = collections.defaultdict(list)
    for fact in facts:
        members[groups.find(fact.number)].append(fact)
    found = [Component(tuple(sorted(group, key=lambda f: f.id))) for group in members.values()]
    return sorted(found, key=lambda c: c.members[0].id)


def opener_author(opener: str | None) -> str | None:
    """Return who an opener is by: what stands behind the last colon of its name (`answer:author`), else the name."""
    return opener.rpartition(":")[2] if opener else None


def assign(groups: Sequence[Component], ledger: Mapping[str, str], settings: ExportSettings) -> dict[str, str]:
    """Return the split of every record by id.

    Components known to the ledger keep their split; the others are placed, large ones first, where they
    lower most the weighted squared deviation from each split's share of all records, of the 25 attribute
    pairs and of the genres (iterative stratification after Sechidis et al. 2011, with groups).
    """
    shares = {"train": 1 - settings.validation - settings.test, "validation": settings.validation}
    shares["test"] = settings.test
    counts: collections.Counter[Any] = collections.Counter()
    for group in groups:
        counts.update(_strata(group))
    have: dict[str, collections.Counter[Any]] = {split: collections.Counter() for split in SPLITS}
    chosen: dict[int, str] = {}
    for index, group in enumerate(groups):
        known = {ledger[fact.id] for fact in group.members if fact.id in ledger}
        if known:
            chosen[index] = max(known, key=_RANK.__getitem__)
            have[chosen[index]].update(_strata(group))
    fresh = sorted(
        (index for index in range(len(groups)) if index not in chosen),
        key=lambda i: (-len(groups[i].members), groups[i].key),
    )
    for index in fresh:
        strata = _strata(groups[index])
        costs = {s: _cost(strata, have[s], counts, shares[s]) for s in SPLITS if shares[s] > 0}
        chosen[index] = min(costs, key=lambda s: (costs[s], s))
        have[chosen[index]].update(strata)
    _never_empty(groups, chosen, set(fresh), settings)
    return {fact.id: chosen[index] for index, group in enumerate(groups) for fact in group.members}


def _strata(group: Component) -> collections.Counter[Any]:
    strata: collections.Counter[Any] = collections.Counter(total=len(group.members))
    for fact in group.members:
        strata["pair", fact.closeness, fact.mood] += 1
        strata["genre", fact.genre[0] if fact.genre else ""] += 1
    return strata


def _cost(
    strata: collections.Counter[Any], have: collections.Counter[Any], counts: collections.Counter[Any], share: float
) -> float:
    cost = 0.0
    for key, added in strata.items():
        desired = share * counts[key]
        weight = _TOTAL_WEIGHT if key == "total" else 1.0
        cost += weight * (2 * (have[key] - desired) * added + added**2) / desired
    return cost


def _never_empty(
    groups: Sequence[Component], chosen: dict[int, str], fresh: set[int], settings: ExportSettings
) -> None:
    """Give a small set one component of validation (from 5 records on) and of test (from 10 on)."""
    records = sum(len(group.members) for group in groups)
    for split, fewest, share in (("validation", 5, settings.validation), ("test", 10, settings.test)):
        if records < fewest or share == 0 or split in chosen.values():
            continue
        donors = [index for index, found in chosen.items() if found == "train"]
        if len(donors) > 1:
            donor = min(donors, key=lambda i: (i not in fresh, len(groups[i].members), groups[i].key))
            chosen[donor] = split


def read_ledger(path: Path) -> dict[str, str]:
    """Read the ledger; an absent one is empty.  Raises `FileError` if it is broken: it must not be guessed anew."""
    if not path.exists():
        return {}
    value = files.read_json(path)
    splits = value.get("splits") if isinstance(value, dict) else None
    if not isinstance(splits, dict) or not all(split in SPLITS for split in splits.values()):
        raise FileError(f"{path}: is not a split ledger; restore it, or remove it if test dialogues may move to train.")
    return splits


def write_ledger(path: Path, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Add decisions to the ledger, atomically; dialogues that are gone stay in it, in case they come back."""
    merged = dict(sorted({**old, **new}.items()))
    if merged != dict(old):
        files.write_json(path, {"about": "Which split each dialogue belongs to, for good.", "splits": merged})
