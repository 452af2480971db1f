"""What a report is made of: verdicts, tests, tables, figures, views.  All frozen, all plain data."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from analysis.figures import Figure


class Verdict(enum.StrEnum):
    """What a view comes to.  `UNKNOWN`: too few dialogues to say anything yet."""

    OK = "OK"
    UNKNOWN = "UNKNOWN"
    WATCH = "WATCH"
    FIX = "FIX"

    @property
    def word(self) -> str:
        """The verdict in Japanese."""
        return {"OK": "よい", "UNKNOWN": "まだ言えない", "WATCH": "見守る", "FIX": "直す"}[self.value]

    @property
    def rank(self) -> int:
        """Severity, for taking the worst."""
        return list(Verdict).index(self)


def worst(verdicts: list[Verdict] | tuple[Verdict, ...]) -> Verdict:
    """The most severe verdict; `UNKNOWN` counts only if nothing else was said."""
    spoken = [v for v in verdicts if v is not Verdict.UNKNOWN]
    return max(spoken, key=lambda v: v.rank) if spoken else Verdict.UNKNOWN


@dataclasses.dataclass(frozen=True, slots=True)
class Test:
    """One test of the report.

    `p` is by simulation or permutation; `p_holm` is adjusted for all tests of the report.  A
    significant test is FIX if its effect is `material`, else WATCH, and never more than `limit`.
    """

    key: str
    question: str
    statistic: str
    value: float
    detail: str
    p: float
    material: bool
    advice: str
    limit: Verdict = Verdict.FIX
    p_holm: float = 1.0
    verdict: Verdict = Verdict.OK


@dataclasses.dataclass(frozen=True, slots=True)
class Fact:
    """Something counted rather than tested, with its verdict."""

    text: str
    verdict: Verdict = Verdict.OK
    advice: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table of text cells; `links` gives an address for a cell (row, column) where known."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    links: tuple[tuple[int, int, str], ...] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """One side from which the data set is looked at.

    `is_now`, `planned` and `chance` say in words what is, what was wanted and what chance alone
    would give; `numbers` holds the same for programs.
    """

    key: str
    title: str
    is_now: str
    planned: str = ""
    chance: str = ""
    tests: tuple[Test, ...] = ()
    facts: tuple[Fact, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    memo: bool = False

    @property
    def verdict(self) -> Verdict:
        """The worst of the view's tests and facts."""
        return worst([t.verdict for t in self.tests] + [f.verdict for f in self.facts])


@dataclasses.dataclass(frozen=True, slots=True)
class NextCard:
    """One of the cards the planner would make next, for the first screen."""

    text: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The bias report of one data set version."""

    version: str
    n: int
    goal: int
    views: tuple[View, ...]
    next_cards: tuple[NextCard, ...]
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all views."""
        return worst([view.verdict for view in self.views])

    @property
    def tests(self) -> tuple[Test, ...]:
        """All tests, in the order of the views."""
        return tuple(test for view in self.views for test in view.tests)

    def view(self, key: str) -> View:
        """Return a view by its key; raises `KeyError`."""
        return {view.key: view for view in self.views}[key]

    @property
    def advice(self) -> tuple[tuple[Verdict, str, str], ...]:
        """What to do next: (verdict, view title, sentence), most pressing first."""
        found = [(t.verdict, view.title, t.advice) for view in self.views for t in view.tests]
        found += [(f.verdict, view.title, f.advice) for view in self.views for f in view.facts]
        pressing = [item for item in found if item[0] in (Verdict.FIX, Verdict.WATCH) and item[2]]
        return tuple(sorted(dict.fromkeys(pressing), key=lambda item: -item[0].rank))


def settled(views: list[View], alpha: float) -> tuple[View, ...]:
    """Adjust all tests of all views together (Holm) and give each its verdict."""
    from analysis.statistics import holm

    adjusted = iter(holm([test.p for view in views for test in view.tests]))
    result = []
    for view in views:
        tests = tuple(_judged(test, next(adjusted), alpha) for test in view.tests)
        result.append(dataclasses.replace(view, tests=tests))
    return tuple(result)


def _judged(test: Test, p_holm: float, alpha: float) -> Test:
    verdict = Verdict.OK
    if p_holm <= alpha:
        verdict = test.limit if test.material else Verdict.WATCH
    return dataclasses.replace(test, p_holm=p_holm, verdict=verdict)
