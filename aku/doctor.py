"""`aku doctor`: looks everything over and says how to mend what is wrong.

Each check is a function that yields findings; what goes wrong inside one becomes a finding of its own, so that a
broken workspace is described rather than met with an error.  Nothing is changed in the workspace.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from rich.table import Table

from aku.console import console
from dialogue.errors import AkuError
from dialogue.settings import Workspace

Level = Literal["OK", "WARN", "FAIL"]
_STYLES: dict[Level, str] = {"OK": "green", "WARN": "yellow", "FAIL": "bold red"}


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: its name, how it is, a sentence, and what mends it (empty if nothing must)."""

    name: str
    level: Level
    message: str
    remedy: str = ""


Check = Callable[[Workspace], Iterable[Finding]]


def ok(name: str, message: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(name, "OK", message)


def warn(name: str, message: str, remedy: str) -> Finding:
    """Return a finding that should be mended some time."""
    return Finding(name, "WARN", message, remedy)


def fail(name: str, message: str, remedy: str) -> Finding:
    """Return a finding that must be mended."""
    return Finding(name, "FAIL", message, remedy)


def examine(workspace: Workspace, checks: Sequence[tuple[str, Check]] | None = None) -> Iterator[Finding]:
    """Run the checks in order and yield what they find; `checks` defaults to all of them."""
    for name, check in all_checks() if checks is None else checks:
        try:
            yield from check(workspace)
        except AkuError as error:
            yield fail(name, str(error), "do as the sentence says, then run `aku doctor` again.")
        except Exception as error:  # a doctor does not faint
            yield fail(name, f"could not be checked ({type(error).__name__}: {error}).", "report this as a bug.")


def all_checks() -> tuple[tuple[str, Check], ...]:
    """Return every check with its name, those that need no server first."""
    from aku import checks_installation, checks_studio, checks_workspace

    return (*checks_installation.CHECKS, *checks_workspace.CHECKS, *checks_studio.CHECKS)


def has_failed(findings: Iterable[Finding]) -> bool:
    """Tell whether anything must be mended."""
    return any(finding.level == "FAIL" for finding in findings)


def show(findings: Sequence[Finding]) -> None:
    """Print the findings as a table, and how many need care."""
    table = Table(show_header=False, box=None, padding=(0, 1))
    for finding in findings:
        table.add_row(f"[{_STYLES[finding.level]}]{finding.level}[/]", finding.name, _plain(finding.message))
        if finding.remedy:
            table.add_row("", "", f"[dim]→ {_plain(finding.remedy)}[/]")
    console.print(table)
    counts = {level: sum(f.level == level for f in findings) for level in _STYLES}
    console.print(f"{counts['OK']} in order, {counts['WARN']} to look at, {counts['FAIL']} to mend")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
